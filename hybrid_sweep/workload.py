"""What a workload implements, and how one is reached by its import string."""

from __future__ import annotations

import ast
import importlib
import importlib.resources
import importlib.util
import inspect
import sys
import traceback
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from hybrid_sweep.errors import UserError, named, unknown_name
from hybrid_sweep.paths import user_path

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
        UserError: where it cannot be found, imported or built, or is no workload; it says what to mend.
    """
    build = find_workload(name, **keywords)
    try:
        workload: Workload = build(**keywords)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"workload {name} cannot be built: {_last_line(error)}") from error
    _check(workload, name)
    return workload


def find_workload(name: str, **keywords: Any) -> Any:
    """Return the class that `name` leads to, without calling it: nothing is loaded, nothing downloaded.

    Raises:
        UserError: as `load_workload`, for all that shows before the class is called.
    """
    source, attribute = _split(located(name, Path()))
    module = _imported(source)
    found = getattr(module, attribute, None)
    if not callable(found):
        classes = [
            key
            for key, value in vars(module).items()
            if inspect.isclass(value) and value.__module__ == module.__name__ and not key.startswith("_")
        ]
        if not classes:
            raise UserError(
                f"{source} defines no class; add one called {attribute} with the workload's methods"
            )
        raise unknown_name(f"class in {source}", attribute, sorted(classes))
    if inspect.isclass(found):
        _check_methods(found, name)
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
    elif source and source.partition(".")[0] != PACKAGED:
        module = Path(*source.split("."))
        candidates = [module.with_name(f"{module.name}.py"), module / "__init__.py"]
    else:
        candidates = []
    found = (folder / path for path in candidates if (folder / path).is_file())
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


def travelling(name: str) -> tuple[Path, str] | None:
    """Return the folder that must travel to other machines with a workload file, and its name over there.

    A worker whose current folder is a copy of that folder loads the workload by the returned name. The
    folder is that of the file, or that in which its package lies.
    None for a module, which every machine has installed.
    """
    if (path := workload_file(name)) is None:
        return None
    top = _package(path)
    folder = top.parent if top else path.parent
    return folder, f"{path.relative_to(folder).as_posix()}{SEPARATOR}{_split(name)[1]}"


def _package(path: Path) -> Path | None:
    """Return the folder of the outermost package that a file belongs to; None where it belongs to none."""
    folders = takewhile(lambda folder: (folder / "__init__.py").is_file(), path.parents)
    return deque(folders, maxlen=1).pop() if (path.parent / "__init__.py").is_file() else None


def _split(name: str) -> tuple[str, str]:
    source, separator, attribute = name.rpartition(SEPARATOR)
    if not (separator and source and attribute.isidentifier()):
        raise UserError(
            f"workload {name!r} is not an import string: "
            "write package.module:Class or path/to/file.py:Class (`hybrid-sweep list workloads`)"
        )
    return source, attribute


class _SweepWithin(BaseException):
    """Stops an import at a sweep that a script runs: what stands above it is what a worker needs."""


_importing: list[str] = []


def stop_within_import() -> None:
    """End the import of a workload here, where one is going on: no sweep runs within another."""
    if _importing:
        raise _SweepWithin


def _imported(source: str) -> ModuleType:
    if source == "__main__":
        raise UserError(
            "a class of __main__ is known to this process alone, and workers need a file: "
            "write it to one, and give path/to/file.py:Class"
        )
    _importing.append(source)
    try:
        return _import_file(user_path(source)) if source.endswith(".py") else _import_module(source)
    except _SweepWithin:
        raise UserError(
            f"{source} runs a sweep when it is imported, as workers do: "
            'put that below `if __name__ == "__main__":`'
        ) from None
    finally:
        _importing.pop()


def _import_module(dotted: str) -> ModuleType:
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError as error:
        if error.name and f"{dotted}.".startswith(f"{error.name}."):
            raise UserError(
                f"no module {error.name!r} for workload {dotted}: install it here, "
                "or give the file's path (path/to/file.py:Class)"
            ) from None
        raise UserError(f"workload module {dotted} cannot be imported: {_last_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"workload module {dotted} cannot be imported: {_last_line(error)}") from error


def _import_file(path: Path) -> ModuleType:
    """Import a file under a name of its own, with its folder on the path so that it finds its neighbours.

    A file of a package is imported with that package, which lies in a folder on the path too. A file
    beside others finds them by relative imports as well. The name depends on what the file holds: a
    notebook that edits it gets what it wrote.
    """
    path = path.resolve()
    try:
        content = path.read_bytes() if path.is_file() else None
    except OSError:
        content = None
    if content is None:
        raise UserError(f"no workload file {path}: check the path (it is read from the current folder)")
    top = _package(path)
    first = top / "__init__.py" if top else path
    stem = "".join(c if c.isalnum() else "_" for c in (top.name if top else path.stem))
    head = f"workload_{stem}_{sha256(bytes(path) + content).hexdigest()[:8]}"
    inside = path.relative_to(top).with_suffix("").parts if top else ()
    name = ".".join([head, *(part for part in inside if part != "__init__")])
    if name in sys.modules:
        return sys.modules[name]
    for folder in dict.fromkeys([path.parent, top.parent if top else path.parent]):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    _forget(first)
    try:
        _execute(head, first)
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        _forget(first)
        raise UserError(f"workload file {path} cannot be imported: {_last_line(error, path)}") from error


def _execute(name: str, path: Path) -> None:
    """Import a file as the package called `name`: its own relative imports then look in its folder.

    A script is imported as far as the sweep that it runs.
    """
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[str(path.parent)])
    if spec is None or spec.loader is None:
        raise ImportError("a workload is a .py file")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    with suppress(_SweepWithin):
        spec.loader.exec_module(module)


def _forget(path: Path) -> None:
    """Forget what was imported as the package of this file before it was edited, or as a part of that."""
    heads = [n for n, m in sys.modules.items() if "." not in n and getattr(m, "__file__", None) == str(path)]
    old = [head for head in heads if head.startswith("workload_")]
    for name in [name for name in sys.modules if name.partition(".")[0] in old]:
        del sys.modules[name]


def _last_line(error: BaseException, file: Path | None = None) -> str:
    """Return `ValueError: ... (file.py, line 3)`: the deepest line, in `file` where it is among them."""
    if isinstance(error, SyntaxError):
        where = f"{Path(error.filename or '?').name}, line {error.lineno}"
        return f"{type(error).__name__}: {error.msg} ({where})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if file and Path(frame.filename) == file] or frames
    return f"{named(error)} ({Path(own[-1].filename).name}, line {own[-1].lineno})"


def _check_methods(owner: Any, name: str) -> None:
    """Refuse a class that lacks a method, or whose method does not take the protocol's arguments."""
    for method, arguments in METHODS.items():
        found = getattr(owner, method, None)
        call = f"{method}(self, {', '.join(arguments)})"
        if not callable(found):
            raise UserError(f"workload {name} has no method {method}: add `def {call}`")
        own = [] if isinstance(inspect.getattr_static(owner, method), staticmethod | classmethod) else [owner]
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
