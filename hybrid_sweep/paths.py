"""Paths as their users mean them."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from hybrid_sweep import limits
from hybrid_sweep.errors import UserError


def user_path(path: Path | str) -> Path:
    """Return a path with the home folder in place of a leading `~`.

    Raises:
        UserError: this user has no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(
            f"{path} begins with ~, and no such home folder is known: write the whole path"
        ) from None


IDENTIFIER = r"[A-Za-z0-9][A-Za-z0-9_.+=-]{0,199}"
_IDENTIFIER = re.compile(IDENTIFIER)


def validate_identifier(value: Any, where: str) -> None:
    """Refuse an identifier that could lead a path made of it out of its folder, or that no path can hold.

    Args:
        value: of a trial, as a file says.
        where: which file, and where in it.

    Raises:
        UserError: it is no text of 1 to 200 letters, digits and `_.+=-`, a letter or digit first.
    """
    if not (isinstance(value, str) and _IDENTIFIER.fullmatch(value)):
        shown = repr(value)[:60]
        raise UserError(
            f"{where}: {shown} is no trial_id (200 letters, digits and _.+=- at most, and none of the marks "
            "first): restore the file from a copy, or leave this folder alone"
        )


def validate_path(path: Path, *, folder: bool = False, alone: bool = False) -> Path:
    """Return a path of ours, which is to be what we make of it: no link, pipe or device; or not there yet.

    Args:
        path: of a file, or with `folder` of a folder.
        folder: what it is to be.
        alone: refuse a file of several names, too: what is written into it stands under all of them.

    Raises:
        UserError: it is something else, so that what is done to it could be done to another place.
    """
    try:
        about = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)!r} cannot be looked at ({error})") from None
    mode = about.st_mode
    if alone and about.st_nlink > 1:
        raise UserError(
            f"{path} has {about.st_nlink} names (hard links), and what a sweep writes into it would "
            "stand under each: copy it, and put the copy in its place"
        )
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(mode):
        kind = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "no ordinary file"
        if folder and stat.S_ISREG(mode):
            kind = "a file"
        raise UserError(
            f"{path} is {kind}, and a sweep makes a {'folder' if folder else 'file'} of that name: nothing "
            "outside of a results folder is read or written; restore it from a copy"
        )
    return path


def text_of(path: Path) -> str:
    """Return what a user's file holds, also behind a link: no pipe or device, which may never end.

    Raises:
        OSError: it is none, is not there, or cannot be read.
        ValueError: it is no UTF-8, or longer than any that is of use.
    """
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise OSError("it is no ordinary file: write it to one")
    if about.st_size > 4 * limits.CHARACTERS:
        raise ValueError(f"it has {about.st_size:,} bytes, and at most {4 * limits.CHARACTERS:,} are allowed")
    return path.read_text(encoding="utf-8")


FolderName = Annotated[str, AfterValidator(lambda path: str(user_path(path)))]
"""A field of settings that names a folder."""
