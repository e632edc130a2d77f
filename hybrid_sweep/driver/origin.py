"""Whose a results folder is: code of one from elsewhere runs only where it is trusted."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Literal

import platformdirs

from hybrid_sweep.credentials import masked
from hybrid_sweep.errors import UserError, one_line
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.store.atomic import write_text
from hybrid_sweep.store.folder import SweepFolder
from hybrid_sweep.user_code import code_file, in_the_way
from hybrid_sweep.workload import SEPARATOR, validate_unchanged, workload_file

MARK = ".origin"
"""File of a results folder: what only this user can have written on this machine, for this code."""
SECRET_BYTES = 32
MACHINE = Path("/etc/machine-id")


def validate_trust(
    folder: SweepFolder, spec: SweepSpec, *, trust: bool, command: Literal["resume", "confirm"] = "resume"
) -> None:
    """Refuse to run the code of a folder that was changed, or that came from elsewhere; nothing is imported.

    Code that is trusted once is marked as this user's own; a storage that the folder names is not.

    Args:
        folder: of the sweep.
        spec: its sweep, with the workload where it is now.
        trust: whether the user has said that the code may run.
        command: that wants to run it.

    Raises:
        UserError: the code is not what the sweep ran, or neither is it known here nor trusted.
    """
    validate_unchanged(spec.workload.name, folder.manifest.get("code"))
    if trust:
        mark(folder, spec, storage=_storage_is_ours(folder))
    elif question := untrusted(folder, spec):
        raise UserError(
            f"{question}: read that code, and where you trust it use `hybrid-sweep {command} "
            f"{one_line(folder.path)} --trust` (in Python trust=True)"
        )


def untrusted(folder: SweepFolder, spec: SweepSpec) -> str | None:
    """Return what is to be asked before the code of a folder runs; None where this user started it here."""
    if _is_ours(folder, spec):
        return None
    file, digest = _file(spec.workload.name)
    where = f"{one_line(file)}, sha256 {digest[:16]}" if file and digest else "no file of this machine"
    return (
        f"{one_line(folder.path)} was not started by this user on this machine with this code, and to go "
        f"on runs {one_line(spec.workload.name)} ({where})"
    )


def mark(folder: SweepFolder, spec: SweepSpec, *, storage: bool = True) -> None:
    """Mark the sweep of a folder, with its code as it is, as this user's; without a home folder, do not.

    Args:
        folder: of the sweep.
        spec: its sweep.
        storage: whether this user has named the storage that the manifest names, too.
    """
    if (key := _secret()) is not None:
        marks = [
            _signed(key, folder.manifest, spec),
            *([_of_storage(key, folder.manifest)] if storage else []),
        ]
        write_text(folder.path / MARK, "".join(f"{line}\n" for line in marks))


def validate_storage_origin(folder: SweepFolder, storage: str | None) -> None:
    """Refuse to contact a storage that only a folder from elsewhere names.

    Args:
        folder: of the sweep.
        storage: as its manifest names it, and no one else has in this call.

    Raises:
        UserError: this user has never named it.
    """
    if storage and not _storage_is_ours(folder):
        raise UserError(
            f"{folder.path} names the storage {masked(storage)}, and this user has not named it here: "
            "a database is contacted only where you name it yourself, with --storage URL"
        )


def _is_ours(folder: SweepFolder, spec: SweepSpec) -> bool:
    key, marks = _secret(), _marks(folder)
    return key is not None and _alike(marks[:1], _signed(key, folder.manifest, spec))


def _storage_is_ours(folder: SweepFolder) -> bool:
    key, marks = _secret(), _marks(folder)
    return key is not None and _alike(marks[1:], _of_storage(key, folder.manifest))


def _alike(found: list[str], wanted: str) -> bool:
    return len(found) == 1 and hmac.compare_digest(found[0], wanted)


def _marks(folder: SweepFolder) -> list[str]:
    """Return the lines of a folder's mark; none where there is no such file."""
    path = folder.path / MARK
    with suppress(OSError, ValueError):
        if path.is_file() and path.stat().st_size < 200:
            return path.read_text(encoding="ascii").split()
    return []


def _of_storage(key: bytes, manifest: Mapping[str, Any]) -> str:
    """Return the mark of the storage that a manifest names."""
    what = ["storage", manifest.get("sweep_id"), (manifest.get("spec") or {}).get("storage")]
    return hmac.new(key, json.dumps(what).encode(), sha256).hexdigest()


def _signed(key: bytes, manifest: Mapping[str, Any], spec: SweepSpec) -> str:
    """Return the mark of a sweep: what its code is called and built with, digests and machine.

    Where the file lies is no part of it, since projects are moved.
    """
    name = spec.workload.name
    source, _, attribute = name.rpartition(SEPARATOR)
    try:
        machine = MACHINE.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        machine = ""
    recorded = (manifest.get("spec") or {}).get("workload")
    keywords = {k: v for k, v in recorded.items() if k != "name"} if isinstance(recorded, dict) else {}
    what = [
        manifest.get("sweep_id"),
        attribute if source.endswith(".py") else name,
        _file(name)[1],
        _in_the_way(name),
        keywords,
        manifest.get("code"),
        machine,
    ]
    return hmac.new(key, json.dumps(what, sort_keys=True).encode(), sha256).hexdigest()


def _in_the_way(name: str) -> list[str]:
    """Return what beside a workload's file would be imported in the place of a package, as `in_the_way`."""
    with suppress(UserError, OSError):
        if file := workload_file(name):
            return in_the_way(file)
    return []


def _file(name: str) -> tuple[Path | None, str | None]:
    """Return the file that a workload's name leads to, and its digest; None for what is not found here."""
    with suppress(UserError, OSError):
        if (file := code_file(name.rpartition(SEPARATOR)[0])) and file.is_file():
            return file, sha256(file.read_bytes()).hexdigest()
    return None, None


def _secret() -> bytes | None:
    """Return this user's key, made when it is first asked for; None where it cannot be kept."""
    try:
        folder = platformdirs.user_state_path("hybrid-sweep", appauthor=False)
        if not folder.is_absolute():  # no home folder
            return None
        path = folder / "secret"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with NamedTemporaryFile(dir=folder) as made:
                made.write(secrets.token_bytes(SECRET_BYTES))
                made.flush()
                with suppress(FileExistsError):  # of another process of this user, made at the same moment
                    path.hardlink_to(made.name)
        about = path.lstat()
        alone = stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o077
        key = path.read_bytes() if alone else b""
        return key if len(key) == SECRET_BYTES else None
    except (OSError, RuntimeError):
        return None
