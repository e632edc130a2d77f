"""A workload class as an import string: that of its file, or of a file that holds the class by value."""

from __future__ import annotations

import base64
import inspect
import io
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import platformdirs

from hybrid_sweep.errors import UserError, one_line
from hybrid_sweep.store.atomic import write_text
from hybrid_sweep.user_code import kind_of
from hybrid_sweep.workload import SEPARATOR

_TEXT = '''"""{name}, a class that was defined in a notebook or within a function: pickled, by value."""

import base64

import cloudpickle

{name} = cloudpickle.loads(base64.b85decode({data!r}))
for _each in {name}.__mro__:
    if _each.__module__ == "__main__":
        _each.__module__ = __name__
'''


def import_string(workload: type | str) -> str:
    """Return the import string under which every worker finds a workload.

    A class of a file is found in that file. A class of a notebook, or one that is defined within a function,
    is in no file that a worker could import: cloudpickle writes it, with what it uses of the notebook, into a
    file of the user's data folder, and workers import that file. It is code like any other: `resume` in
    another process finds it, its digest is in the manifest, and a folder from elsewhere needs `trust`.

    Args:
        workload: a class, or its import string.

    Raises:
        UserError: it is neither, or it holds what cannot be pickled.
    """
    if isinstance(workload, str):
        return workload
    if not inspect.isclass(workload):
        raise UserError(
            f"workload {one_line(repr(workload))[:80]} is not allowed: give a class with the five methods of "
            "a workload, or an import string such as package.module:Class"
        )
    module = sys.modules.get(workload.__module__)
    file = getattr(module, "__file__", None)
    if (
        file is None
        or "." in workload.__qualname__
        or getattr(module, workload.__name__, None) is not workload
    ):
        return f"{_file_of(workload)}{SEPARATOR}{workload.__name__}"
    if workload.__module__ == "__main__" or kind_of(Path(file)) == "own":
        return f"{Path(file).resolve()}{SEPARATOR}{workload.__name__}"
    return f"{workload.__module__}{SEPARATOR}{workload.__name__}"


def _pickled(workload: type) -> bytes:
    """Return a class by value.

    cloudpickle gives each class an id. The process that has pickled a class finds it again by the id, and
    replaces what is in it. Without an id, reading makes a new class, and the same class is the same bytes.
    """
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            reduced = super().reducer_override(obj)
            if not (isinstance(obj, type) and isinstance(reduced, tuple) and len(reduced[1]) > 4):
                return reduced
            make, arguments, *state = reduced
            return make, (*arguments[:4], None, *arguments[5:]), *state

    buffer = io.BytesIO()
    Pickler(buffer).dump(workload)
    return buffer.getvalue()


def _file_of(workload: type) -> Path:
    """Write a class into a file of its own, whose folder depends on what it holds."""
    try:
        data = _pickled(workload)
    except Exception as error:
        raise UserError(
            f"class {workload.__qualname__} cannot be sent to workers ({one_line(error)}): "
            "write it into a file, and import it from there"
        ) from None
    text = _TEXT.format(name=workload.__name__, data=base64.b85encode(data))
    digest = sha256(text.encode()).hexdigest()[:12]
    place = platformdirs.user_data_path("hybrid-sweep", appauthor=False) / "classes" / digest
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_text(file := place / f"{workload.__name__}.py", text)
    except OSError as error:
        raise UserError(
            f"class {workload.__qualname__} cannot be written to {place} ({error.strerror}): make room "
            "there, or write the class into a file of yours"
        ) from None
    return file
