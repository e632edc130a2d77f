"""What Ray and torch want of the machine around them: a short folder for sockets, and the user's name."""

from __future__ import annotations

import getpass
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hybrid_sweep.errors import UserError

RAY_FOLDER = "RAY_TMPDIR"
LONGEST_SOCKET = len("/ray/session_2026-01-31_12-00-00_123456_4194304/sockets/plasma_store.1")
LONGEST_FOLDER = 103 - LONGEST_SOCKET
"""Bytes of the folder in which Ray makes its own: the path of a socket has 103 on a Mac, 107 on Linux."""
SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def name_user() -> None:
    """Give a user without a name (a container's `--user 12345`) one, which torch's compiler asks for."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())


@contextmanager
def folder_for_ray() -> Iterator[None]:
    """Have a Ray that starts within find a folder: the usual one, or one of its own in a short place.

    Raises:
        UserError: `RAY_TMPDIR` is too long or cannot be written, or there is no short place.
    """
    asked = os.environ.get(RAY_FOLDER)
    why_not = _unfit(Path(asked or os.environ.get("TMPDIR") or SHORT[0]))
    if why_not is None:
        yield
        return
    fit = next((place for place in SHORT if _unfit(Path(place)) is None), None)
    if asked or fit is None:
        raise UserError(
            f"Ray's sockets find no place, for {why_not}: "
            f"set {RAY_FOLDER} to one that can be written, of at most {LONGEST_FOLDER} bytes, such as /tmp"
        )
    own = tempfile.mkdtemp(prefix="hs-", dir=fit)
    os.environ[RAY_FOLDER] = own
    try:
        yield
    finally:
        del os.environ[RAY_FOLDER]
        shutil.rmtree(own, ignore_errors=True)


def _unfit(place: Path) -> str | None:
    """Return why Ray cannot make its folder in `place`, or None where it can."""
    size = len(os.fsencode(place))
    if not place.is_absolute():
        return f"{place} is relative"
    if size > LONGEST_FOLDER:
        return f"{place} has {size} bytes"
    try:
        there = next(folder for folder in [place / "ray", place, *place.parents] if folder.exists())
        tempfile.TemporaryDirectory(dir=there).cleanup()
    except OSError as error:
        return f"{place} cannot be written ({error.strerror})"
    return None
