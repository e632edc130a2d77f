"""What a workload implements, and how one is reached by its import string."""

from __future__ import annotations

import ast
import importlib
import importlib.resources
import importlib.util
import inspect
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from hybrid_sweep.errors import UserError, one_line, unknown_name
from hybrid_sweep.paths import user_path
from hybrid_sweep.user_code import (
    code_file,
    imported,
    last_line,
    no_such_class,
    package_of,
    validate_callable,
)

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

Quality = Literal["loss_ratio", "accuracy_ratio", "loss_gap"]
Mode = Literal["min", "max"]
SEPARATOR = ":"
PACKAGED = "trainables"  # reached by name, as content: never imported as code
METHODS = {  # name -> arguments it is called with
    "build_model": ("seed",),
    "build_optimizer": ("model",),
    "batch": ("seed", "step"),
    "loss": ("model", "batch"),
    "evaluate": ("model", "split"),
}


class Workload(Protocol):
    """What is trained: a model, its optimizer, its data and its loss. Any class with these methods is one.

    One instance serves the trials of a process one after the other or (`pack`) in turns, from one thread,
    so it must not remember anything of a trial. It may also have
    `build_scheduler(optimizer)`, or `build_scheduler(optimizer, steps)`, which returns a learning-rate
    scheduler, stepped after each logical step; `max_grad_norm`, to which gradients are clipped; and
    `data_checksum()`, which returns a text that changes with the data. It is part of the key under which
    results are kept for later sweeps, beside the recipe as it is built (`measure.recipe_key`): batches of
    eight places, held-out results and the first two steps. Without it, a change elsewhere in the data
    escapes, and a batch whose content cannot be seen has nothing kept.

    Attributes:
        steps: logical steps of a run; where the sweep names another number, it is set here.
        quality: how held-out results are compared with the reference run. "loss_ratio" needs losses
            above zero; "accuracy_ratio" needs `evaluate` to return "accuracy".
        metric: what `evaluate` returns beside the loss that is compared instead ("auc", "perplexity");
            with "loss_gap" by its gap, else by its ratio, which needs values above zero. A sweep file may
            name it, too. None compares the loss, or with "accuracy_ratio" the accuracy.
        mode: whether a larger ("max", the default) or a smaller metric is better.
    """

    steps: int
    quality: Quality = "loss_ratio"
    metric: str | None = None
    mode: Mode = "max"

    def build_model(self, seed: int) -> nn.Module:
        """Return a new model; the same `seed` gives the same weights."""
        ...

    def build_optimizer(self, model: nn.Module) -> Optimizer:
        """Return a new optimizer of `model`'s parameters, or a list of several that share the loss."""
        ...

    def batch(self, seed: int, step: int) -> Any:
        """Return the batch of logical step `step`; it depends on nothing but the two arguments."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the training loss of `batch`, a scalar with a gradient."""
        ...

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Return held-out results on "val" or "test"; "loss" is among them."""
        ...


def load_workload(name: str, **keywords: Any) -> Workload:
    """Build the workload that `name` leads to.

    Args:
        name: `package.module:Class` or `path/to/file.py:Name`.
        keywords: what the class is called with.

    Raises:
        UserError: where it cannot be found, imported or built, or is no workload; it says what to fix.
    """
    build = find_workload(name, **keywords)
    try:
        workload: Workload = build(**keywords)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"workload {name} cannot be built: {last_line(error)}") from error
    _check(workload, name)
    return workload


def find_workload(name: str, **keywords: Any) -> Any:
    """Return the class that `name` leads to, without calling it: nothing is loaded, nothing downloaded.

    Raises:
        UserError: as `load_workload`, for all that shows before the class is called.
    """
    source, attribute = _split(located(name, Path()))
    module = imported(source, attribute, METHODS)
    found = getattr(module, attribute, None)
    if inspect.isclass(found):
        _check_methods(found, name)
    elif callable(found):
        validate_callable(found, name)
    else:
        own = [each for each in vars(module).values() if inspect.isclass(each)]
        names = [each.__name__ for each in own if each.__module__ == module.__name__]
        raise no_such_class(source, attribute, [each for each in names if not each.startswith("_")])
    _check_keywords(found, name, keywords)
    return found


def quality_of(workload: Workload) -> str:
    """Return how the workload's held-out results are compared: "loss_ratio" where it does not say.

    Of a metric of its own it is "max_ratio", "min_ratio", "max_gap" or "min_gap".
    """
    quality = str(getattr(workload, "quality", "loss_ratio"))
    if getattr(workload, "metric", None) is None:
        return quality
    return f"{getattr(workload, 'mode', 'max')}_{'gap' if quality == 'loss_gap' else 'ratio'}"


def metric_of(workload: Workload) -> str:
    """Return what is kept of held-out results beside the loss: the workload's metric, else "accuracy"."""
    return str(getattr(workload, "metric", None) or "accuracy")


def packaged_workloads() -> dict[str, str]:
    """Return import string and first line of the docstring of each workload that comes with the package.

    The files are read, not run, so that listing them needs no torch.
    """
    found = {}
    for file in importlib.resources.files(PACKAGED).iterdir():
        if not file.name.endswith(".py"):
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            defined = {
                inner.name for inner in getattr(node, "body", []) if isinstance(inner, ast.FunctionDef)
            }
            if isinstance(node, ast.ClassDef) and defined.issuperset(METHODS):
                about = (ast.get_docstring(node) or "").partition("\n")[0]
                found[f"{PACKAGED}.{file.name.removesuffix('.py')}{SEPARATOR}{node.name}"] = about
    return dict(sorted(found.items()))


def located(name: str, folder: Path) -> str:
    """Return the name with the whole path of its file, where `folder` holds that: it then holds anywhere.

    `pkg.mod:Class` is such a file too, as for `python -m`, unless it is content of this package.
    """
    source, separator, attribute = name.rpartition(SEPARATOR)
    if source.endswith(".py"):
        candidates = [user_path(source)]
    elif all(map(str.isidentifier, parts := source.split("."))) and parts[0] != PACKAGED:
        module = Path(*parts)
        candidates = [module.with_name(f"{module.name}.py"), module / "__init__.py"]
    else:
        candidates = []
    try:
        found = [folder / path for path in candidates if (folder / path).is_file()]
    except (OSError, ValueError):  # a name that no file can have
        found = []
    return next((f"{path.resolve()}{separator}{attribute}" for path in found), name)


def locate_workload(values: dict[str, Any], folder: Path) -> None:
    """Name the workload of a sweep file's values by its whole path, in place, as `located` does."""
    workload = values.get("workload")
    name = workload.get("name") if isinstance(workload, dict) else workload
    if isinstance(name, str):
        found = located(name, folder)
        values["workload"] = {**workload, "name": found} if isinstance(workload, dict) else found


def workload_file(name: str) -> Path | None:
    """Return the file of a workload that is given as one, whole; None for a module."""
    source, _ = _split(name)
    return user_path(source).resolve() if source.endswith(".py") else None


def is_known(code: Mapping[str, str] | None, file: Path) -> bool:
    """Return whether a file is one of those that a sweep trained, by the digests in its manifest."""
    return sha256(file.read_bytes()).hexdigest() in (code or {}).values()


def changed_code(name: str, code: Mapping[str, str] | None) -> list[str]:
    """Return which files of a workload differ from their digests in a manifest, without importing anything.

    Those are compared that belong to the file that the name leads to; all others are once it is imported.
    """
    try:
        if (file := code_file(_split(name)[0])) is None:
            return []
        top = package_of(file) or file.parent
        parts = [(key.partition(" ")[::2], digest) for key, digest in (code or {}).items()]
        own = {number for (number, part), _ in parts if part == file.relative_to(top).as_posix()}
        here = [(part, top / part, digest) for (number, part), digest in parts if number in own]
        found = [(part, path.read_bytes(), digest) for part, path, digest in here if path.is_file()]
        return sorted(part for part, content, digest in found if sha256(content).hexdigest() != digest)
    except (UserError, OSError):  # of what is not here the import, or another machine, tells
        return []


def validate_unchanged(name: str, code: Mapping[str, str] | None) -> None:
    """Refuse a workload whose files are not those of a manifest, before one is imported.

    Raises:
        UserError: with the files that `changed_code` tells.
    """
    if changed := changed_code(name, code):
        raise UserError(
            f"{', '.join(map(one_line, changed))} changed since the sweep began, whose reference runs hold "
            "for what was there before: put that back, or begin a new sweep"
        )


def travelling(name: str) -> tuple[Path, str] | None:
    """Return the folder that must travel to other machines with a workload file, and its name over there.

    A worker whose current folder is a copy of that folder loads the workload by the returned name. The
    folder is that of the file, or that in which its package lies.
    None for a module, which every machine has installed.
    """
    if (path := workload_file(name)) is None:
        return None
    top = package_of(path)
    folder = top.parent if top else path.parent
    return folder, f"{path.relative_to(folder).as_posix()}{SEPARATOR}{_split(name)[1]}"


def _split(name: str) -> tuple[str, str]:
    source, separator, attribute = name.rpartition(SEPARATOR)
    if not (separator and source and attribute.isidentifier()):
        raise UserError(
            f"workload {name!r} is not an import string: "
            "write package.module:Class or path/to/file.py:Class (`hybrid-sweep list workloads`)"
        )
    return source, attribute


def _check_methods(owner: Any, name: str) -> None:
    """Refuse a class that lacks a method, or whose method does not take the protocol's arguments."""
    for method, arguments in METHODS.items():
        there = inspect.getattr_static(owner, method, None)
        found = getattr(owner, method, None) if there is not None else None  # none that a metaclass makes up
        call = f"{method}(self, {', '.join(arguments)})"
        if not callable(found):
            raise UserError(f"workload {name} has no method {method}: add `def {call}`")
        own = [] if isinstance(there, staticmethod | classmethod) else [owner]
        try:
            inspect.signature(found).bind(*own, *arguments)
        except (TypeError, ValueError) as error:
            raise UserError(f"workload {name}: {method} must be `def {call}` ({error})") from None


def _check_keywords(build: Any, name: str, keywords: dict[str, Any]) -> None:
    """Refuse a keyword that the class does not take, and the lack of one that it needs."""
    try:
        parameters = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):
        raise UserError(
            f"workload {name} is no class of Python code: give one with the workload's methods"
        ) from None
    takes = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for keyword in keywords:
        if keyword not in takes and not takes_any:
            known = f"it takes {', '.join(takes)}" if takes else "it takes none"
            raise UserError(
                f"workload {name} takes no keyword {keyword!r} ({known}): take it out of the workload "
                f"section of the sweep, or replace the section with --set workload={name}"
            )
    for parameter in parameters:
        needed = parameter.name in takes and parameter.default is parameter.empty
        if needed and parameter.name not in keywords:
            raise UserError(
                f"workload {name} needs {parameter.name!r}: add --set workload.{parameter.name}=VALUE"
            )


def _check(workload: Any, name: str) -> None:
    """Refuse an instance that is no workload."""
    _check_methods(type(workload), name)
    steps = getattr(workload, "steps", None)
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise UserError(f"workload {name}: steps={steps!r} is not allowed: a whole number of at least 1")
    told = {"quality": ("loss_ratio", Quality), "mode": ("max", Mode)}
    for attribute, (usual, allowed) in told.items():
        value = str(getattr(workload, attribute, usual))
        if value not in get_args(allowed):
            raise unknown_name(f"{attribute} of workload {name}", value, list(get_args(allowed)))
