"""Code that a sweep names: where it lies, whether it may be imported at all, and its import."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import textwrap
import traceback
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
)
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from itertools import takewhile
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Literal, NoReturn

from hybrid_sweep.credentials import resolved
from hybrid_sweep.errors import UserError, named, unknown_name
from hybrid_sweep.paths import user_path

Kind = Literal["standard", "installed", "own"]
INSTALLED = ("site-packages", "dist-packages")
STANDARD = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
HERE = Path(__file__).resolve().parent


def in_the_way(file: Path) -> list[str]:
    """Return the modules beside a file or its package that take the name of one that is installed."""
    top = package_of(file)
    folders = [file.parent, top.parent] if top else [file.parent]
    sites = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    installed = {path.name.partition(".")[0] for site in sites for path in Path(site).glob("*")}
    beside = [path for folder in folders for path in folder.iterdir()]
    modules = [path for path in beside if path.suffix in (".py", ".so") or (path / "__init__.py").is_file()]
    names = {path.name.partition(".")[0] for path in modules} - {file.stem}
    return sorted(names & (installed | sys.stdlib_module_names))


def is_standard(file: Path) -> bool:
    """Return whether a file belongs to Python itself."""
    return any(file.is_relative_to(folder) for folder in STANDARD) and not set(INSTALLED) & set(file.parts)


def kind_of(file: Path) -> Kind:
    """Return whose a file is: Python's, an installed package's (this one's too), or the user's own."""
    file = file.resolve()
    if is_standard(file):
        return "standard"
    return "installed" if set(INSTALLED) & set(file.parts) or file.is_relative_to(HERE) else "own"


def code_file(source: str) -> Path | None:
    """Return the file that a module name or the path of a file leads to, without importing anything."""
    if source.endswith(".py"):
        return user_path(source).resolve()
    spec = next(iter(deque(_specs(source), maxlen=1)), None)
    return Path(spec.origin).resolve() if spec and spec.has_location and spec.origin else None


def _specs(dotted: str) -> Iterator[ModuleSpec]:
    """Yield what Python would import for a module, its packages first, without importing one of them.

    Raises:
        UserError: one of them is nowhere.
    """
    places = None
    for number, _ in enumerate(parts := dotted.split("."), 1):
        name = ".".join(parts[:number])
        loaded = getattr(sys.modules.get(name), "__spec__", None)
        finders = (finder.find_spec(name, places) for finder in sys.meta_path)
        spec = loaded or next(filter(None, finders), None)
        if spec is None or (number < len(parts) and spec.submodule_search_locations is None):
            missing = name if spec is None else dotted
            raise UserError(
                f"no module {missing!r} for workload {dotted}: install it here, "
                "or give the file's path (path/to/file.py:Class)"
            )
        places = spec.submodule_search_locations
        yield spec


def _validate_source(source: str, attribute: str, methods: Collection[str]) -> None:
    """Refuse what can be told to hold no workload before its code runs.

    Python's own modules hold none. An installed module is imported only where its text defines or imports
    the name, and not as a function or as a class that cannot have the methods.

    Raises:
        UserError: for such a module or file, or one that is nowhere.
    """
    if not source.endswith(".py"):
        if not all(part.isidentifier() for part in source.split(".")):
            raise UserError(f"{source!r} is no name of a module: write package.module:Class")
        first = next(_specs(source))
        if first.origin in ("built-in", "frozen") or (first.origin and is_standard(Path(first.origin))):
            raise _standard(source, attribute)
    file = code_file(source)
    if file is None or (kind := kind_of(file)) == "own":
        return
    if kind == "standard":
        raise _standard(source, attribute)
    if file.suffix != ".py":
        raise UserError(
            f"{source} is no Python code: give a class of Python code with the workload's methods"
        )
    try:
        bound = list(_bound(ast.parse(file.read_bytes()).body))
    except (OSError, SyntaxError, ValueError):
        return  # the import tells what is wrong with it
    found = [node for name, node in bound if name == attribute]
    loose = any(name in ("*", "__getattr__") for name, _ in bound)
    if not found and not loose:
        classes = [name for name, node in bound if isinstance(node, ast.ClassDef) and name[0] != "_"]
        raise no_such_class(source, attribute, classes)
    if found and all(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in found):
        raise UserError(
            f"workload {source}:{attribute} is a function of an installed package, and of those only a class "
            "is called: write a function of your own file that calls it"
        )
    for node in found:
        if isinstance(node, ast.ClassDef) and not (node.bases or node.keywords or node.decorator_list):
            has = {name for name, _ in _bound(node.body)}
            if missing := [method for method in methods if method not in has]:
                raise UserError(
                    f"workload {source}:{attribute} has no method {missing[0]}: give another class"
                )


def _standard(source: str, attribute: str) -> UserError:
    return UserError(
        f"workload {source}:{attribute} is of Python's standard library, which holds none, and is not "
        "imported: write package.module:Class or path/to/file.py:Class"
    )


def no_such_class(source: str, attribute: str, classes: Iterable[str]) -> UserError:
    """Return the error for a module without the class, with those that it has."""
    if not (known := sorted(set(classes))):
        return UserError(f"{source} defines no class; add one called {attribute} with the workload's methods")
    return unknown_name(f"class in {source}", attribute, known)


def _bound(body: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Yield each name that statements bind where they stand, with the statement; `*` of an import."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((each.asname or each.name.partition(".")[0], node) for each in node.names)
            continue
        for inner in ast.walk(node) if isinstance(node, ast.Assign | ast.AnnAssign) else ():
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                yield inner.id, node
        for block in ("body", "orelse", "finalbody"):
            yield from _bound(getattr(node, block, ()))
        for handler in getattr(node, "handlers", ()):
            yield from _bound(handler.body)


def validate_callable(found: object, name: str) -> None:
    """Refuse what may not be called for a workload: all but a function of the user that returns one.

    It is looked at and not called: its file is the user's, and its text hands a value back. What that is
    shows when it is called.

    Args:
        found: what the name leads to, and no class.
        name: import string.

    Raises:
        UserError: for a function of Python or of a package, a lambda, an instance, a generator, ...
    """
    what = None
    if not isinstance(found, FunctionType):
        what = f"a {type(found).__name__}"
    elif found.__name__ == "<lambda>":
        what = "a lambda"
    elif kind_of(Path(found.__code__.co_filename)) != "own":
        what = "a function that is not of your own file"
    elif found.__code__.co_flags & (CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR):
        what = "a generator or coroutine"
    elif not _hands_back(found):
        what = "a function that returns nothing"
    if what:
        raise UserError(
            f"workload {name} is {what}, which is not called: give a class with the workload's methods, "
            "or a function (`def`) of your own file that returns one"
        )


def _hands_back(function: FunctionType) -> bool:
    """Return whether the text of a function has a `return` with a value that is not None."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return False
    values = (node.value for node in ast.walk(tree) if isinstance(node, ast.Return))
    return any(value and not (isinstance(value, ast.Constant) and value.value is None) for value in values)


def package_of(path: Path) -> Path | None:
    """Return the folder of the outermost package that a file belongs to; None where it belongs to none."""
    folders = takewhile(lambda folder: (folder / "__init__.py").is_file(), path.parents)
    return deque(folders, maxlen=1).pop() if (path.parent / "__init__.py").is_file() else None


class _SweepWithin(BaseException):
    """Stops an import at a sweep that a script runs: what stands above it is what a worker needs."""


_importing: list[str] = []


def stop_within_import() -> None:
    """End the import of a workload here, where one is going on: no sweep runs within another."""
    if _importing:
        raise _SweepWithin


def imported(source: str, attribute: str, methods: Collection[str]) -> ModuleType:
    """Return the module that is to hold `attribute`, imported where it may.

    Args:
        source: `package.module` or `path/to/file.py`.
        attribute: name of the class or function.
        methods: of a workload.

    Raises:
        UserError: it is not imported, because it can hold no workload, or cannot be.
    """
    if source == "__main__":
        raise UserError(
            "a class of __main__ is known to this process alone, and workers need a file: "
            "write it to one, and give path/to/file.py:Class"
        )
    _validate_source(source, attribute, methods)
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
        raise UserError(f"workload module {dotted} cannot be imported: {last_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"workload module {dotted} cannot be imported: {last_line(error)}") from error


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
    top = package_of(path)
    first = top / "__init__.py" if top else path
    stem = "".join(c if c.isalnum() else "_" for c in (top.name if top else path.stem))
    head = f"workload_{stem}_{sha256(bytes(path) + content).hexdigest()[:8]}"
    inside = path.relative_to(top).with_suffix("").parts if top else ()
    name = ".".join([head, *(part for part in inside if part != "__init__")])
    if name in sys.modules:
        return sys.modules[name]
    for folder in dict.fromkeys([path.parent, top.parent if top else path.parent]):
        _read_sources_of(folder)
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    _forget(first)
    try:
        _execute(head, first)
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        _forget(first)
        raise UserError(f"workload file {path} cannot be imported: {last_line(error, path)}") from error


class _FromSource(SourceFileLoader):
    """Compiles the text each time: a `__pycache__` that came with it may hold other code."""

    def path_stats(self, path: str) -> NoReturn:
        """Have no time of the file, without which Python neither reads nor writes compiled code."""
        raise OSError


_folders: list[Path] = []


def _read_sources_of(folder: Path) -> None:
    """Have modules in a folder and below imported from their text."""
    if folder in _folders:
        return
    if not _folders:
        sys.path_hooks.insert(0, _finder)
    _folders.append(folder)
    for known in [known for known in sys.path_importer_cache if Path(known).is_relative_to(folder)]:
        del sys.path_importer_cache[known]


def _finder(place: str) -> FileFinder:
    path = Path(place)
    if set(INSTALLED) & set(path.parts) or not any(path.is_relative_to(folder) for folder in _folders):
        raise ImportError  # asks Python's own
    return FileFinder(place, (ExtensionFileLoader, EXTENSION_SUFFIXES), (_FromSource, SOURCE_SUFFIXES))


def _execute(name: str, path: Path) -> None:
    """Import a file as the package called `name`: its own relative imports then look in its folder.

    A script is imported as far as the sweep that it runs.
    """
    spec = importlib.util.spec_from_file_location(
        name, path, loader=_FromSource(name, str(path)), submodule_search_locations=[str(path.parent)]
    )
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


def last_line(error: BaseException, file: Path | None = None) -> str:
    """Return `ValueError: ... (file.py, line 3)`: the deepest line, in `file` where it is among them."""
    if isinstance(error, SyntaxError):
        where = f"{Path(error.filename or '?').name}, line {error.lineno}"
        return f"{type(error).__name__}: {error.msg} ({where})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if file and Path(frame.filename) == file] or frames
    return f"{named(error)} ({Path(own[-1].filename).name}, line {own[-1].lineno})"


def whole_keywords(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return a workload's keywords with the environment's value for each `${VARIABLE}`.

    Raises:
        UserError: a variable is not set.
    """
    try:
        return resolved(keywords)
    except KeyError as missing:
        name = missing.args[0]
        raise UserError(
            f"a keyword of the workload is ${{{name}}}, and there is no environment variable {name}: set it "
            "(a results folder keeps no secret)"
        ) from None
