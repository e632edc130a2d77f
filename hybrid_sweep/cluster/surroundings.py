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
LONGEST_FOLDER = 103 - LONGEST_SOCKET - len("/hs-xxxxxxxx")
"""Bytes of the folder in which ours is made: the path of a socket has 103 on a Mac, 107 on Linux."""
SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def name_user() -> None:
    """Give a user without a name (a container's `--user 12345`) one, which torch's compiler asks for."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())


@contextmanager
def folder_for_ray() -> Iterator[None]:
    """Have a Ray that starts within find a folder that no other user can read, and which goes afterwards.

    It lies in `RAY_TMPDIR`, else in the usual place for temporary files, else in a short one.

    Raises:
        UserError: `RAY_TMPDIR` is too long or cannot be written, or there is no short place.
    """
    asked = os.environ.get(RAY_FOLDER)
    usual = asked or os.environ.get("TMPDIR") or SHORT[0]
    why_not = _unfit(Path(usual))
    fit = usual if why_not is None else next((place for place in SHORT if _unfit(Path(place)) is None), None)
    if fit is None or (asked and why_not):
        raise UserError(
            f"Ray's sockets find no place, for {why_not}: "
            f"set {RAY_FOLDER} to one that can be written, of at most {LONGEST_FOLDER} bytes, such as /tmp"
        )
    own = tempfile.mkdtemp(prefix="hs-", dir=fit)
    os.environ[RAY_FOLDER] = own
    try:
        yield
    finally:
        os.environ.pop(RAY_FOLDER, None)
        if asked:
            os.environ[RAY_FOLDER] = asked
        shutil.rmtree(own, ignore_errors=True)


def _unfit(place: Path) -> str | None:
    """Return why Ray cannot make its folder in `place`, or None where it can."""
    size = len(os.fsencode(place))
    if not place.is_absolute():
        return f"{place} is relative"
    if size > LONGEST_FOLDER:
        return f"{place} has {size} bytes"
    try:
        place.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(dir=place).cleanup()
    except OSError as error:
        return f"{place} cannot be written ({error.strerror})"
    return None
