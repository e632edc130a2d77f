"""Content: what the results of a workload's runs depend on, so that equal runs are known by one key."""

from __future__ import annotations

import inspect
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from hybrid_sweep.measure.recipe_key import Recipe, recipe_of
from hybrid_sweep.user_code import INSTALLED, is_standard
from hybrid_sweep.workload import Workload

HERE = Path(__file__).parents[1]
OURS = ("trainer/**/*.py", "measure/**/*.py", "arm.py")
"""What of this package a run's results depend on."""


class Fingerprint:
    """Code, keywords and data of a workload, and what runs it here; looked at once, when it is made.

    Make it when the workload has been used, so that whatever it imports late is loaded.

    Args:
        workload: what is trained.
        keywords: what it was built with, the device among them.
        build: what was called with them, where that is not the workload's class.
        recipe: as it is built, where that is known; a batch without content is another one each time.
    """

    def __init__(
        self,
        workload: Workload,
        keywords: Mapping[str, Any],
        build: Callable[..., Any] | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        built = recipe or recipe_of(workload)
        own = getattr(workload, "data_checksum", None)
        self._common = {
            "workload": [type(workload).__qualname__, dict(keywords)],
            "code": code_of(type(workload), build),
            "ours": _own_code(),
            "recipe": built.key(),
            "data": own and str(own()),
            "unknown": uuid4().hex if built.unknown else "",
            "platform": platform_of(on_gpu=not built.exact),
        }

    def key(self, **parts: Any) -> str:
        """Return the key of one run: everything that `parts` say apart is another run."""
        text = json.dumps({"common": self._common, "parts": parts}, sort_keys=True, default=str)
        return sha256(text.encode()).hexdigest()


def platform_of(*, on_gpu: bool) -> dict[str, Any]:
    """Return what the last bit of a result may depend on, beside code, data and recipe."""
    return {
        "packages": {name: version(name) for name in ("hybrid-sweep", "torch", "numpy", "schedulefree")},
        "python": sys.version,
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name() if on_gpu else torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def code_of(workload: type, build: Callable[..., Any] | None) -> dict[str, str]:
    """Return the digest of each file that the workload is made of, by its path from the top of its package.

    They are the file of its class, with every loaded module of the same package or beside it, and likewise
    of each base class that is not an installed package's; of such a one, its own file.
    """
    found: dict[str, str] = {}
    owners: list[Any] = list(dict.fromkeys([*workload.__mro__, *([build] if build else [])]))
    for number, owner in enumerate(owners):
        if owner.__module__ == "builtins":
            continue
        try:
            file = _resolved(Path(inspect.getfile(owner)))
        except (TypeError, OSError):  # defined in no file: never the same again
            return {"unknown": uuid4().hex}
        if is_standard(file):
            continue
        top = _top(file, owner.__module__)
        files = [(owner.__module__, file)]
        if owner in (workload, build) or not set(INSTALLED) & set(file.parts):
            # its own file under another name is an older version of it
            files += [(name, loaded) for name, loaded in _loaded_below(top) if loaded != file]
        found |= {f"{number} {loaded.relative_to(top)}": _file_digest(name, loaded) for name, loaded in files}
    return found


def _top(file: Path, module: str) -> Path:
    """Return the folder of the package that a module belongs to, else that of its file."""
    package = sys.modules.get(module.partition(".")[0])
    init = getattr(package, "__file__", None)
    folder = Path(init).resolve().parent if init and hasattr(package, "__path__") else file.parent
    return folder if file.is_relative_to(folder) else file.parent


def _loaded_below(top: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and file of every loaded module in a folder or below, but for what is installed there."""
    if top.name in INSTALLED:
        return
    ours, inside = HERE.resolve(), f"{top}{os.sep}"
    for name, module in sorted(sys.modules.items()):
        if not (given := getattr(module, "__file__", None)):
            continue
        file = _resolved(Path(given))
        if not str(file).startswith(inside) or set(INSTALLED) & set(file.relative_to(top).parts):
            continue
        if not (file.is_relative_to(ours) or is_standard(file)):
            yield name, file


def _resolved(file: Path) -> Path:
    """Return the path of a module's file without symbolic links of folders."""
    return _resolved_folder(file.parent) / file.name


@cache
def _resolved_folder(folder: Path) -> Path:
    """Return it, asking the file system once for the many modules of a folder."""
    return folder.resolve()


@cache
def _own_code() -> str:
    """Return the digest of our own code, as it was when it was first asked for."""
    files = [file for part in OURS for file in sorted(HERE.glob(part))]
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@cache
def _file_digest(module: str, file: Path) -> str:
    """Return the digest of a module's file as it was at the first look: an edit later is not what runs."""
    try:
        return sha256(file.read_bytes()).hexdigest()
    except OSError:
        return "gone"
