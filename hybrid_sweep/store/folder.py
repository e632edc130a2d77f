"""SweepFolder: the one place that knows what the files of a sweep are called; it needs no pandas."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from filelock import FileLock, Timeout
from pydantic import ValidationError

from hybrid_sweep.errors import UserError, sentence, without_commands
from hybrid_sweep.paths import user_path, validate_identifier, validate_path
from hybrid_sweep.store.atomic import replacing, write_text
from hybrid_sweep.store.journal import Journal, plain
from hybrid_sweep.store.manifest_model import Manifest

MANIFEST, JOURNAL, LOCK, STOP = "manifest.json", "journal.jsonl", ".driver.lock", "stop"
FILES = (MANIFEST, JOURNAL, LOCK, STOP, ".origin", "optuna.journal")
"""What is read, appended to or locked in its place; other files are replaced whole."""
FOLDERS = ("checkpoints", "models", "confirm")


class Taken(UserError):
    """A place for results where something is already, or is about to be."""


class SweepFolder:
    """A sweep on disk: its journal and manifest, and who drives it; `ResultsFolder` makes tables of it.

    Make one with `create` or `open`. Files other than the journal are replaced whole, never half written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @contextmanager
    def claimed(cls, path: Path) -> Iterator[None]:
        """Hold a new or empty folder for a sweep that is about to begin; one left empty is removed again.

        Raises:
            Taken: something is there already, or another process holds it.
            UserError: it cannot be made.
        """
        cls.validate_free(path)
        made = [place for place in (path, *path.parents) if not place.exists()]
        lock = FileLock(path / LOCK)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise _taken(path) from None
        except OSError as error:
            raise UserError(f"cannot make the folder {path} ({error.strerror}): choose another") from None
        try:
            if _content(path):  # of one that held it a moment ago
                raise _taken(path)
            yield
        finally:
            if not _content(path):
                (path / LOCK).unlink(missing_ok=True)
                for place in made:
                    with suppress(OSError):  # another sweep's results lie there by now
                        place.rmdir()
            lock.release()

    @classmethod
    def create(cls, path: Path | str, *, claimed: bool = False) -> Self:
        """Return a new, empty results folder; one that was `claimed` is there and ours already.

        Raises:
            UserError: something is there already, or the folder cannot be made.
        """
        folder = user_path(path)
        if not claimed:
            cls.validate_free(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / JOURNAL).touch()
        except OSError as error:
            raise UserError(f"cannot make the folder {folder} ({error.strerror}): choose another") from None
        return cls(folder)

    @classmethod
    def validate_free(cls, folder: Path) -> None:
        """Refuse a place where something is already, or where nothing can be written.

        Raises:
            Taken: it is a file, a folder that is not empty, or one that a sweep is about to write to.
            UserError: it lies where no folder can be made.
        """
        folder = user_path(folder)
        try:
            taken = folder.exists() and (not folder.is_dir() or _content(folder) or cls(folder).is_driven)
            there = next(place for place in [folder, *folder.absolute().parents] if place.exists())
            if taken:
                raise _taken(folder)
            if not there.is_dir():
                raise UserError(f"cannot make the folder {folder} ({there} is a file): choose another")
            TemporaryDirectory(dir=there).cleanup()  # a file system may refuse whom its permissions do not
        except OSError as error:
            raise UserError(f"cannot make the folder {folder} ({error.strerror}): choose another") from None

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Return the results folder at `path`.

        Raises:
            UserError: there is none, it is not one of ours, or its manifest is corrupt.
        """
        folder = cls(user_path(path))
        try:
            there = folder.path.is_dir()
        except OSError:
            there = False
        if not there:
            raise UserError(f"there is no folder {path}: give one that a sweep has written")
        if not any((folder.path / name).is_file() for name in (MANIFEST, JOURNAL)):
            raise UserError(
                f"{path} is not a results folder (no {JOURNAL}): give one that a sweep has written"
            )
        folder.validate_path()
        _ = folder.manifest
        return folder

    def validate_path(self) -> None:
        """Refuse a folder in which links, pipes or devices have names of ours: they lead elsewhere.

        Raises:
            UserError: which one.
        """
        for name in FILES:
            validate_path(self.path / name)
        for name in FOLDERS:
            within = validate_path(self.path / name, folder=True)
            if within.is_dir():
                for entry in within.iterdir():
                    validate_path(entry, folder=entry.is_dir() and not entry.is_symlink())

    @property
    def journal(self) -> Journal:
        """What happened, in order."""
        return Journal(self.path / JOURNAL)

    @property
    def report_path(self) -> Path:
        """The report that `export_all` writes."""
        return self.path / "report.html"

    @property
    def models_path(self) -> Path:
        """Where trained weights are kept, if they are."""
        return validate_path(self.path / "models", folder=True)

    @property
    def confirm_path(self) -> Path:
        """Where `confirm` writes."""
        return validate_path(self.path / "confirm", folder=True)

    def checkpoint_path(self, trial_id: str, seed: int) -> Path:
        """Where the newest checkpoint of an unfinished run is."""
        validate_identifier(trial_id, str(self.path))
        return validate_path(self.path / "checkpoints", folder=True) / f"{trial_id}_seed{seed}.ckpt"

    def write_checkpoint(self, trial_id: str, seed: int, checkpoint: bytes) -> None:
        """Replace the checkpoint of a run."""
        path = self.checkpoint_path(trial_id, seed)
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(checkpoint)

    def forget_checkpoints(self, ended: Iterable[tuple[str, int]]) -> None:
        """Remove what a killed driver has left: checkpoints of runs that have ended, and halves of any."""
        halves = validate_path(self.path / "checkpoints", folder=True).glob(".*.ckpt.*.tmp")
        for left in [*halves, *(self.checkpoint_path(*key) for key in ended)]:
            left.unlink(missing_ok=True)

    @property
    def stop_request(self) -> Path:
        """A file that asks the driver to wind the sweep down."""
        return self.path / STOP

    def request_stop(self) -> None:
        """Ask the process that drives the sweep to wind it down.

        Raises:
            UserError: none does.
        """
        if not self.is_driven:
            raise UserError(f"nothing drives the sweep in {self.path}: there is nothing to stop")
        try:
            self.stop_request.touch()
        except OSError as error:
            raise UserError(
                f"cannot ask it to stop ({error.strerror}): do it as the user who runs it"
            ) from None

    @contextmanager
    def driven(self) -> Iterator[None]:
        """Hold the folder for the one process that drives its sweep; freed when that ends, however it ends.

        Raises:
            UserError: another process drives it.
        """
        lock = FileLock(validate_path(self.path / LOCK, alone=True))
        try:
            lock.acquire(timeout=1)  # a look by `is_driven` takes no longer
        except Timeout:
            raise UserError(
                f"another process drives the sweep in {self.path}: wait for it, "
                f"or end it with: hybrid-sweep stop {self.path}"
            ) from None
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}): change that first") from None
        try:
            self.stop_request.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    @property
    def is_driven(self) -> bool:
        """Whether a process drives the sweep at this moment."""
        try:
            with (self.path / LOCK).open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @property
    def manifest(self) -> dict[str, Any]:
        """The resolved sweep and where it ran; empty where a sweep died before it was written.

        Raises:
            UserError: the file is corrupt, or another program's.
        """
        path = self.path / MANIFEST
        try:
            manifest = without_commands(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(
                f"{path} is corrupt ({error}): restore it from a copy, or delete it, "
                f"for the trials can be read without it"
            ) from None
        if not isinstance(manifest, dict) or "sweep_id" not in manifest:
            raise UserError(
                f"{path} has no sweep_id: this is not a results folder; give one that a sweep wrote"
            )
        try:
            Manifest.model_validate(manifest)
        except ValidationError as error:
            raise UserError(
                f"{path} is corrupt ({sentence(error, Manifest)}): restore it from a copy"
            ) from None
        return manifest

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest; not-a-number becomes null."""
        write_text(self.path / MANIFEST, json.dumps(plain(manifest), indent=1, allow_nan=False) + "\n")


def _content(folder: Path) -> set[str]:
    """Return the names in a folder, but for the lock that a sweep leaves which did not come to begin."""
    return {file.name for file in folder.iterdir()} - {LOCK} if folder.is_dir() else set()


def _taken(folder: Path) -> Taken:
    return Taken(f"{folder} exists already: choose another folder for the results, or remove it first")
