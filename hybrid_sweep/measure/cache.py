"""Cache: results of earlier runs in files with checksums, shared by all processes and sweeps of a user."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import platformdirs
from pydantic import ByteSize, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from hybrid_sweep.errors import UserError, unknown_name
from hybrid_sweep.paths import user_path

ROOT_VARIABLE = "HYBRID_SWEEP_CACHE"
LIMIT_VARIABLE = "HYBRID_SWEEP_CACHE_BYTES"
DEFAULT_LIMIT_BYTES = 2_000_000_000
FORMAT = 2
"""Of an entry; another one is not read."""
KIND = re.compile(r"[a-z][a-z0-9_]*")
KEY = re.compile(r"[0-9a-f]{64}")
STALE_SECONDS = 3600.0
"""Age at which a file that was never renamed into place belongs to a process that died."""

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the cache holds of one kind.

    Attributes:
        kind: of the entries.
        entries: how many.
        size_bytes: of all of them.
        newest_use: when one was last read or written, in seconds since 1970.
    """

    kind: str
    entries: int
    size_bytes: int
    newest_use: float


class Cache:
    """Content-addressed entries, one file each: `ROOT/KIND/KEY`, a line that says what it is, then the data.

    A fault of the cache costs time and never a run: an entry that is damaged, or not what its place says,
    is named in a warning and counts as missing; a folder that cannot be written is named once, and then
    nothing more is kept. A link or a pipe is no entry, and a link no folder of entries. An entry appears
    whole or not at all, so any number of processes may share a cache. The least recently used entries go
    when it grows past its limit; other files are left alone.

    Args:
        root: its folder; None takes `$HYBRID_SWEEP_CACHE`, else a folder in the user's cache.
        limit_bytes: what all entries may take; None takes `$HYBRID_SWEEP_CACHE_BYTES`, else 2 GB.

    Attributes:
        root: its folder, which need not exist.
        limit_bytes: what all entries may take. Processes that write at the same time may together go past
            it by a sixteenth each.

    Raises:
        UserError: `$HYBRID_SWEEP_CACHE_BYTES` is no size.
    """

    def __init__(self, root: Path | None = None, limit_bytes: int | None = None) -> None:
        self.root = root or _root()
        self.limit_bytes = _limit() if limit_bytes is None else limit_bytes
        self._writable = True
        self._slack = self.limit_bytes // 16
        self._written = self._slack  # since the last look at the whole: the first write looks

    def get(self, kind: str, key: str) -> bytes | None:
        """Return the data of an entry, which counts as used now; None where there is none."""
        path = self._path(kind, key)
        try:
            head, _, data = _content(path).partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("cache entry %s cannot be read (%s): done without it", path, error.strerror)
            return None
        if head != _head(kind, key, data):
            logger.warning("cache entry %s is damaged or of another version: done without it", path)
            return None
        with suppress(OSError):  # a cache that others fill may be read-only
            _touch(path)
        return data

    def put(self, kind: str, key: str, data: bytes) -> None:
        """Keep the data of an entry, where there is room for it, and let others go."""
        path = self._path(kind, key)
        content = _head(kind, key, data) + b"\n" + data
        if not self._writable or len(content) > self.limit_bytes - self._slack:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _validate_no_link(path.parent)
            _write(path, content)
            self._written += len(content)
            if self._written >= self._slack:
                self._evict()
                self._written = 0
        except OSError as error:
            self._writable = False
            logger.warning("cache %s cannot be written (%s): nothing more is kept", self.root, error.strerror)

    def get_json(self, kind: str, key: str, shape: TypeAdapter[T]) -> T | None:
        """Return what `put_json` was given, its numbers to the last bit; None where nothing of `shape` is."""
        data = self.get(kind, key)
        if data is None:
            return None
        try:
            return shape.validate_python(json.loads(data))
        except (ValueError, RecursionError):
            logger.warning(
                "cache entry %s does not hold what an entry of %r holds: done without it",
                self._path(kind, key),
                kind,
            )
            return None

    def put_json(self, kind: str, key: str, value: object) -> None:
        """Keep plain data, or dataclasses of it; numbers may be infinite."""
        self.put(kind, key, json.dumps(to_jsonable_python(value, inf_nan_mode="constants")).encode())

    def usage(self) -> list[Usage]:
        """Return what there is of each kind."""
        return [
            Usage(
                kind=folder.name,
                entries=len(entries),
                size_bytes=sum(entry.st_size for _, entry in entries),
                newest_use=max(entry.st_mtime for _, entry in entries),
            )
            for folder in self._folders()
            if (entries := list(_files(folder)))
        ]

    def clear(self, kind: str | None = None) -> int:
        """Remove every entry, or those of one kind; return how many.

        Raises:
            UserError: there is nothing of that kind, or an entry cannot be removed.
        """
        folders = {folder.name: folder for folder in self._folders() if any(_files(folder))}
        if kind is not None and folders and kind not in folders:
            raise unknown_name("kind of cache entry", kind, sorted(folders))
        removed = 0
        try:
            for folder in folders.values() if kind is None else filter(None, [folders.get(kind)]):
                for path, _ in list(_files(folder)):
                    path.unlink(missing_ok=True)
                    removed += 1
        except OSError as error:
            raise UserError(
                f"cache entry {path} cannot be removed ({error.strerror}): change its permissions, "
                f"or set {ROOT_VARIABLE} to another folder"
            ) from None
        return removed

    def _path(self, kind: str, key: str) -> Path:
        if not (KIND.fullmatch(kind) and KEY.fullmatch(key)):
            raise ValueError(f"no cache entry is called {kind}/{key}: a lower-case word and a SHA-256")
        return self.root / kind / key

    def _folders(self) -> list[Path]:
        """Return the folders that may hold entries."""
        try:
            found = [
                entry
                for entry in self.root.iterdir()
                if KIND.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink()
            ]
        except OSError:
            return []
        return sorted(found)

    def _evict(self) -> None:
        """Remove the least recently used entries until there is room for some more."""
        entries = [entry for folder in self._folders() for entry in _files(folder)]
        total = sum(entry.st_size for _, entry in entries)
        for path, entry in sorted(entries, key=lambda entry: entry[1].st_mtime_ns):
            if total <= self.limit_bytes - self._slack:
                break
            with suppress(OSError):  # gone already, or another user's
                path.unlink()
                total -= entry.st_size
        for folder in self._folders():
            _remove_stale(folder)


def _root() -> Path:
    if given := os.environ.get(ROOT_VARIABLE):
        return user_path(given).absolute()
    try:
        usual = platformdirs.user_cache_path("hybrid-sweep", appauthor=False)
    except RuntimeError:  # neither HOME nor the list of users says where the home is
        usual = Path()
    if not usual.is_absolute():  # as earlier versions of platformdirs have it then
        usual = _private(Path(tempfile.gettempdir()) / f"hybrid-sweep-{os.getuid()}")
    return usual / "runs"


def _private(folder: Path) -> Path:
    """Return a folder among those of all users that only this user can write: made, or found to be so.

    Raises:
        UserError: another user has made it, so that they say what is in the cache.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise UserError(
            f"{folder} is not a folder that only you can write: set {ROOT_VARIABLE} to one that is yours"
        )
    return folder


def _limit() -> int:
    given = os.environ.get(LIMIT_VARIABLE)
    if not given:
        return DEFAULT_LIMIT_BYTES
    try:
        return int(TypeAdapter(ByteSize).validate_python(given))
    except ValidationError:
        raise UserError(
            f"{LIMIT_VARIABLE}={given!r} is no size: write bytes, or a number with a unit such as 500MB"
        ) from None


def _head(kind: str, key: str, data: bytes) -> bytes:
    """Return the line that stands above the data: any other one is not of this place, version or data."""
    about = {"format": FORMAT, "version": version("hybrid-sweep"), "kind": kind, "key": key}
    return json.dumps({**about, "bytes": len(data), "sha256": sha256(data).hexdigest()}).encode()


def _validate_no_link(folder: Path) -> None:
    if folder.is_symlink():
        raise OSError(errno.ELOOP, "it is a link", str(folder))


def _content(path: Path) -> bytes:
    """Return what an ordinary file holds; a pipe is not waited for."""
    _validate_no_link(path.parent)
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
        return file.read()


def _write(path: Path, content: bytes) -> None:
    """Write a file beside its place, then rename it into it."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        _touch(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _touch(path: Path) -> None:
    """Mark a file as used now; the file system's own clock is too coarse to tell which came last."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the entries of a folder."""
    for path in folder.iterdir():
        if KEY.fullmatch(path.name):
            with suppress(FileNotFoundError):  # another process has removed it
                yield path, path.lstat()


def _remove_stale(folder: Path) -> None:
    """Remove what processes left that were killed while they wrote."""
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()
