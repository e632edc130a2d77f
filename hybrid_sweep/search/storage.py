"""StorageView: a mirror of a study in an Optuna storage, for other tools; losing it loses nothing."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna import logging
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from hybrid_sweep.credentials import is_secret, masked
from hybrid_sweep.errors import UserError, one_line
from hybrid_sweep.paths import user_path

FILE = "optuna.journal"
ALLOWED = "sqlite:///FILE, postgresql://USER@HOST/DATABASE, or none for a journal file in the results folder"
DIRECTIONS = [StudyDirection.MAXIMIZE, StudyDirection.MAXIMIZE]  # speedup, quality
CONNECT_SECONDS = 5
RETRY_SECONDS = 60.0
LOCK_GRACE_SECONDS = 3  # how long another process may hold the lock of a journal file
LOCK_ATTEMPTS, LOCK_RETRY_SECONDS = 10, 0.02
CONTENTS_OF_A_TRIAL = ("params", "distributions", "user_attrs", "system_attrs", "intermediate_values")
POSTGRESQL: dict[str, Any] = {  # a connection that has gone silent fails within ten seconds
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}

_Known = tuple[str | None, int | None, str]


class StorageView:
    """Adds ended trials to an Optuna study, each once; make one with `open`.

    A trial that cannot be added stops no run: it waits, and is tried again a minute later with those that
    came after it. Trials are known by the user attributes `trial_id` and `number` and by their state, so
    that a failed trial that was run again stands there twice, as it happened.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        *,
        on_error: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._study = storage.get_study_id_from_name(name)
        self._known = {_known(trial) for trial in storage.get_all_trials(self._study, deepcopy=False)}
        self._waiting: deque[FrozenTrial] = deque()
        self._on_error = on_error or (lambda text: None)
        self._told = False
        self._clock = clock
        self._try_at = clock()

    @classmethod
    def open(
        cls,
        url: str | None,
        folder: Path,
        name: str,
        *,
        new: bool,
        on_error: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> StorageView:
        """Open the study called `name`, or make it.

        Args:
            url: `sqlite:///FILE` or `postgresql://USER@HOST/DATABASE`; None is a journal file in `folder`,
                which is made again where it is damaged.
            folder: of the results.
            name: of the study.
            new: the study must not be there yet.
            on_error: told in one sentence of the first trial that cannot be added.
            clock: seconds, for the time between attempts.

        Raises:
            UserError: the storage does not answer, or holds another study of that name.
            OSError: the journal file cannot be written.
        """
        shown = str(folder / FILE) if url is None else masked(url)
        with _answers(shown, url):
            storage = _journal(folder / FILE) if url is None else _database(url)
            _check(storage, name, shown, new)
            return cls(storage, name, on_error=on_error, clock=clock)

    @staticmethod
    def validate_reachable(url: str) -> None:
        """Refuse a storage before anything is trained for it.

        Raises:
            UserError: it does not answer.
        """
        with _answers(masked(url), url):
            _database(url).remove_session()

    def add(self, trial: FrozenTrial) -> None:
        """Add a trial that has ended, unless it is there already."""
        if _known(trial) in self._known:
            return
        self._known.add(_known(trial))
        self._waiting.append(trial)
        if self._clock() >= self._try_at:
            self._write()

    def close(self) -> None:
        """Try once more what could not be added, and let go of the storage."""
        self._write()
        self._storage.remove_session()

    def _write(self) -> None:
        try:
            while self._waiting:
                self._storage.create_new_trial(self._study, template_trial=self._waiting[0])
                self._waiting.popleft()
        except Exception as error:  # whatever it is: the sweep goes on without its mirror
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._try_at = self._clock() + RETRY_SECONDS
        if not self._told:
            self._told = True
            self._on_error(f"the sweep goes on, but Optuna's storage cannot be written ({_why(error)})")


class _LeanFile(JournalFileBackend):
    """A journal file that reads what is there in full, and of what comes then only that it is there.

    Optuna keeps in memory whatever it reads, its own trials too; no one asks this process for them.
    """

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the logs from a number on, those after the first reading without what a trial holds."""
        logs = super().read_logs(log_number_from)
        if not log_number_from:
            yield from logs
        for log in logs:
            yield {name: value for name, value in log.items() if name not in CONTENTS_OF_A_TRIAL}


@contextmanager
def _answers(shown: str, url: str | None) -> Iterator[None]:
    """Turn whatever a storage says instead of answering into a sentence."""
    try:
        yield
    except UserError:
        raise
    except ImportError:
        raise UserError(f"storage={shown!r} needs psycopg: pip install 'hybrid-sweep[postgres]'") from None
    except Exception as error:
        if url is None and isinstance(error, OSError):
            raise
        raise UserError(
            f"storage={shown!r} does not answer within {CONNECT_SECONDS} s ({_why(error, url)}): "
            "start or fix it, or leave storage out for a journal file in the results folder; "
            "where a password is missing, which no results folder keeps, give --storage again, or PGPASSWORD"
        ) from None


def without_password(url: str) -> str:
    """Return a storage URL as a manifest may hold it; libpq finds the password in PGPASSWORD or ~/.pgpass."""
    full = make_url(url)
    query = {name: value for name, value in full.query.items() if not is_secret(name)}
    bare = URL.create(full.drivername, full.username, None, full.host, full.port, full.database, query)
    return bare.render_as_string()


def _journal(path: Path) -> JournalStorage:
    """Open a journal file; one that was torn by a crash, or cannot be read, is started again.

    The lock that a killed process has left is removed: a living process holds it for milliseconds.
    """
    lock = JournalFileSymlinkLock(str(path), grace_period=LOCK_GRACE_SECONDS)
    for _ in range(LOCK_ATTEMPTS):
        if not path.with_name(f"{FILE}.lock").is_symlink():
            break
        time.sleep(LOCK_RETRY_SECONDS)
    else:
        with suppress(RuntimeError):  # it is gone
            lock.release()
    try:
        if path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            raise ValueError("torn")
        return JournalStorage(_LeanFile(str(path), lock_obj=lock))
    except (ValueError, KeyError, TypeError, AssertionError):  # Optuna refuses damage in many ways
        path.unlink()
        return JournalStorage(_LeanFile(str(path), lock_obj=lock))


def _database(url: str) -> RDBStorage:
    parsed = _parse(url)
    options: dict[str, Any] = {"pool_pre_ping": True}
    if parsed.get_backend_name() == "postgresql":
        options["connect_args"] = {"connect_timeout": CONNECT_SECONDS, **POSTGRESQL}
    return RDBStorage(parsed.render_as_string(hide_password=False), engine_kwargs=options)


def _parse(url: str) -> URL:
    """Return the URL for SQLAlchemy, with the driver that this package asks for."""
    if url.partition("?")[0].count("@") > 1:
        raise UserError(f"storage={masked(url)!r} holds more than one @: write the one in a password as %40")
    try:
        parsed = make_url(re.sub(r"^postgres(ql)?(\+psycopg)?://", "postgresql+psycopg://", url))
    except (ArgumentError, ValueError):  # whose text may hold a piece of the password
        raise UserError(f"storage={masked(url)!r} is no URL: write {ALLOWED}") from None
    file = parsed.drivername == "sqlite" and parsed.database not in (None, "", ":memory:")
    if file and parsed.database:
        parsed = parsed.set(database=str(user_path(parsed.database)))
    if not file and parsed.drivername != "postgresql+psycopg":
        raise UserError(f"storage={masked(url)!r} is not allowed: write {ALLOWED}")
    return parsed


def _check(storage: BaseStorage, name: str, shown: str, new: bool) -> None:
    """Make the study where there is none, and refuse one that is another's.

    Raises:
        UserError: with what differs.
    """
    try:
        found = storage.get_study_directions(storage.get_study_id_from_name(name))
    except KeyError:
        _create(storage, name)
        return
    if found != DIRECTIONS:
        raise UserError(
            f"the study {name!r} in {shown!r} is another one: its directions are {_words(found)}, "
            f"this sweep's are {_words(DIRECTIONS)}; give another storage, or delete that study"
        )
    if new:
        raise UserError(f"there is a study {name!r} in {shown!r} already: give another storage, or delete it")


def _create(storage: BaseStorage, name: str) -> None:
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)  # what is told of a sweep is ours
    try:
        storage.create_new_study(DIRECTIONS, name)
    finally:
        logging.set_verbosity(verbosity)


def _known(trial: FrozenTrial) -> _Known:
    attributes = trial.user_attrs
    return attributes.get("trial_id"), attributes.get("number"), trial.state.name


def _words(directions: list[StudyDirection]) -> str:
    return ", ".join(direction.name.lower() for direction in directions)


def _why(error: BaseException, url: str | None = None) -> str:
    """Return the innermost reason in one line, without the password."""
    while inner := getattr(error, "orig", None) or error.__cause__:
        error = inner
    text = one_line(error) or type(error).__name__
    parsed = _parse(url) if url else None
    given = [parsed.password, *(v for k, v in parsed.query.items() if is_secret(k))] if parsed else []
    for secret in filter(None, given):
        text = text.replace(str(secret), "***")
    return text
