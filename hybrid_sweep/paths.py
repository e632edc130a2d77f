"""Paths as their users mean them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

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


FolderName = Annotated[str, AfterValidator(lambda path: str(user_path(path)))]
"""A field of settings that names a folder."""
