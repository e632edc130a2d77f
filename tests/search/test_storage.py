"""The mirror for other tools holds each trial once, never stops a sweep, and never tells a password."""

import gc
import logging
import socket
import sys
import tempfile
import tracemalloc
from itertools import count
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from hybrid_sweep.credentials import masked
from hybrid_sweep.errors import UserError
from hybrid_sweep.search import storage
from hybrid_sweep.search.storage import DIRECTIONS, StorageView, without_password

NAME = "quick-0123abc"


def trial(number: int, state: TrialState = TrialState.COMPLETE, /, **attributes) -> FrozenTrial:
    return create_trial(
        state=state,
        params={"horizon": 50 + number, "threshold": 0.5},
        distributions={"horizon": IntDistribution(50, 150), "threshold": FloatDistribution(0.1, 0.9)},
        values=[2.0 + number, 0.95] if state == TrialState.COMPLETE else None,
        user_attrs={"trial_id": f"t{number}", "number": number} | attributes,
        constraints={"min_quality": 0.02},
    )


def read(folder: Path) -> list[FrozenTrial]:
    """Read a journal file as another tool would."""
    other = JournalStorage(JournalFileBackend(str(folder / storage.FILE)))
    return optuna.load_study(study_name=NAME, storage=other).trials


def ids(trials: list[FrozenTrial]) -> list[str]:
    return [t.user_attrs["trial_id"] for t in trials]


def test_other_tools_read_what_was_added(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    view = StorageView.open(None, tmp_path, NAME, new=True)
    assert capfd.readouterr() == ("", "")  # Optuna would have told
    view.add(trial(0, behaviour="abc"))
    view.add(trial(4, TrialState.PRUNED))
    first, second = read(tmp_path)
    assert (first.values, first.params) == ([2.0, 0.95], {"horizon": 50, "threshold": 0.5})
    assert first.user_attrs == {"trial_id": "t0", "number": 0, "behaviour": "abc"}
    assert first.constraints == {"min_quality": 0.02}
    assert (second.state, second.user_attrs["number"]) == (TrialState.PRUNED, 4)


@pytest.mark.parametrize("database", [False, True])
def test_a_trial_is_there_once_however_often_it_is_told(tmp_path: Path, database: bool) -> None:
    url = f"sqlite:///{tmp_path}/study.db" if database else None
    for new in (True, False, False):
        view = StorageView.open(url, tmp_path, NAME, new=new)
        for number in (2, 0, 2, 1):
            view.add(trial(number))
        view.close()
    trials = optuna.load_study(study_name=NAME, storage=url).trials if url else read(tmp_path)
    assert ids(trials) == ["t2", "t0", "t1"]


def test_a_failed_trial_that_was_run_again_stands_there_as_it_happened(tmp_path: Path) -> None:
    view = StorageView.open(None, tmp_path, NAME, new=True)
    view.add(trial(0, TrialState.FAIL))
    view.add(trial(0, TrialState.COMPLETE))
    assert [t.state for t in read(tmp_path)] == [TrialState.FAIL, TrialState.COMPLETE]


def test_what_was_added_is_on_disk_and_not_in_memory(tmp_path: Path) -> None:
    def grown_by(trials: int) -> int:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(trials):
            number = next(numbers)
            view.add(trial(number % 100, long="x" * 4000, number=number))
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    view, numbers = StorageView.open(None, tmp_path, NAME, new=True), count()
    tracemalloc.start()
    try:
        grown_by(20)
        assert grown_by(100) < 100 * 4000
    finally:
        tracemalloc.stop()
    found = read(tmp_path)
    assert [t.user_attrs["number"] for t in found] == list(range(120))
    assert found[7].params == {"horizon": 57, "threshold": 0.5}


def test_a_lost_view_is_made_again(tmp_path: Path) -> None:
    StorageView.open(None, tmp_path, NAME, new=False).add(trial(0))
    assert ids(read(tmp_path)) == ["t0"]


@pytest.mark.parametrize(
    "damage",
    [b'{"op_code": 4, "study', b"\x00\xff\n{}\n", b'{"op_code": 99}\n', b"[]\n", b'{"op_code": 4}\n'],
)
def test_a_damaged_journal_file_is_started_again(tmp_path: Path, damage: bytes) -> None:
    StorageView.open(None, tmp_path, NAME, new=True).add(trial(0))
    with (tmp_path / storage.FILE).open("ab") as file:
        file.write(damage)
    view = StorageView.open(None, tmp_path, NAME, new=False)
    for number in (0, 1):
        view.add(trial(number))
    assert ids(read(tmp_path)) == ["t0", "t1"]


def test_the_lock_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    StorageView.open(None, tmp_path, NAME, new=True).add(trial(0))
    lock = tmp_path / f"{storage.FILE}.lock"
    lock.symlink_to(tmp_path / storage.FILE)
    view = StorageView.open(None, tmp_path, NAME, new=False)
    assert not lock.is_symlink()
    view.add(trial(1))
    assert ids(read(tmp_path)) == ["t0", "t1"]


@pytest.mark.parametrize("new", [True, False])
def test_a_study_with_other_directions_is_refused_with_the_difference(tmp_path: Path, new: bool) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(study_name=NAME, storage=url, directions=["minimize", "maximize"])
    with pytest.raises(
        UserError, match=r"minimize, maximize, this sweep's are maximize, maximize; give anoth"
    ):
        StorageView.open(url, tmp_path, NAME, new=new)


def test_a_new_sweep_never_appends_to_a_study_that_is_there(tmp_path: Path) -> None:
    StorageView.open(None, tmp_path, NAME, new=True).add(trial(0))
    with pytest.raises(UserError, match=r"there is a study 'quick-0123abc' in .* already"):
        StorageView.open(None, tmp_path, NAME, new=True)
    assert ids(read(tmp_path)) == ["t0"]


class Unsteady(InMemoryStorage):
    """Refuses trials while it is down."""

    down = False
    asked = 0

    def create_new_trial(self, study_id, template_trial=None):
        self.asked += 1
        if self.down:
            raise OSError("no space left\non the other device")
        return super().create_new_trial(study_id, template_trial)


def test_what_cannot_be_added_waits_and_is_told_once() -> None:
    memory, notes, now = Unsteady(), [], [0.0]
    study = memory.create_new_study(DIRECTIONS, NAME)
    view = StorageView(memory, NAME, on_error=notes.append, clock=lambda: now[0])
    view.add(trial(0))
    memory.down = True
    for number in (1, 2, 3):
        view.add(trial(number))
    assert memory.asked == 2  # not once a trial: each attempt may take its whole timeout
    now[0] = 60.0
    view.add(trial(4))
    assert memory.asked == 3
    assert notes == [
        "the sweep goes on, but Optuna's storage cannot be written (no space left on the other device)"
    ]
    memory.down = False
    view.add(trial(5))
    now[0] = 120.0
    view.add(trial(6))
    assert ids(memory.get_all_trials(study)) == ["t0", "t1", "t2", "t3", "t4", "t5", "t6"]
    memory.down = True
    view.add(trial(7))
    memory.down = False
    view.close()
    assert ids(memory.get_all_trials(study))[-1] == "t7"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("study.db", r"'study\.db' is no URL: write sqlite:///FILE"),
        ("redis://localhost", "'redis://localhost' is not allowed: write sqlite"),
        ("mysql+pymysql://me:hush@host/db", r"'mysql\+pymysql://me:\*\*\*@host/db' is not allowed"),
        ("sqlite://", "'sqlite://' is not allowed: write sqlite:///FILE"),
        ("sqlite:///:memory:", "is not allowed"),
        ("sqlite:////nowhere/at/all/study.db", r"unable to open database file.*start or fix it"),
        ("postgresql://me:hush@h:port/db", r"'postgresql://me:\*\*\*@h:port/db' is no URL"),
        ("postgresql://me:hu@sh@host/db", r"'postgresql://me:\*\*\*@host/db' holds more than one @.*%40"),
        (
            "postgresql://me:hush@127.0.0.1:1/db?sslpassword=hush",
            r"sslpassword=\*\*\*' does not answer .*refused",
        ),
    ],
)
def test_a_url_that_leads_nowhere_is_refused_without_its_password(
    tmp_path: Path, url: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        StorageView.open(url, tmp_path, NAME, new=True)
    assert "hush" not in str(refusal.value)
    assert "hu@sh" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_server_that_takes_the_call_and_says_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed")
    monkeypatch.setattr(storage, "CONNECT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://me:hush@127.0.0.1:{server.getsockname()[1]}/db"
        with pytest.raises(UserError, match=r"does not answer within 2 s \(.*timeout") as refusal:
            StorageView.open(url, tmp_path, NAME, new=True)
    assert "hush" not in str(refusal.value)


def test_a_missing_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"needs psycopg: pip install 'hybrid-sweep\[postgres\]'"):
        StorageView.open("postgresql://me@localhost/db", tmp_path, NAME, new=True)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:p%40ss@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://me@host/db?password=hush&x=1", "postgresql://me@host/db?password=***&x=1"),
        ("postgresql://me:a/b?c@host/db", "postgresql://me:***@host/db"),
        ("postgresql://:hush@host/db", "postgresql://:***@host/db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("sqlite:///a/b.db", "sqlite:///a/b.db"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.fixture(scope="module")
def postgres():
    """Start a real PostgreSQL; yields its URL and functions that stop and start it."""
    pgserver = pytest.importorskip("pgserver", reason="no PostgreSQL here: pgserver is not installed")
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed")
    logging.getLogger("pgserver").setLevel(logging.CRITICAL)
    folder = tempfile.mkdtemp(prefix="pg")  # the path of its socket must be short
    try:
        server = pgserver.get_server(folder, cleanup_mode="stop")
    except Exception as error:
        pytest.skip(f"PostgreSQL does not start here: {error}")
    try:
        yield server.get_uri(), server.cleanup, lambda: pgserver.get_server(folder, cleanup_mode="stop")
    finally:
        pgserver.get_server(folder, cleanup_mode="delete").cleanup()


def test_postgresql_holds_the_study_and_its_outage_stops_no_one(postgres, tmp_path: Path) -> None:
    url, stop, start = postgres
    notes, now = [], [0.0]
    view = StorageView.open(url, tmp_path, NAME, new=True, on_error=notes.append, clock=lambda: now[0])
    view.add(trial(0))
    stop()
    view.add(trial(1))
    assert len(notes) == 1
    assert "\n" not in notes[0]
    start()
    now[0] = 60.0
    view.add(trial(2))
    view.close()
    again = StorageView.open(url, tmp_path, NAME, new=False)
    for number in range(4):
        again.add(trial(number))
    again.close()
    reader = RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))
    trials = optuna.load_study(study_name=NAME, storage=reader).trials
    assert ids(trials) == ["t0", "t1", "t2", "t3"]
    assert trials[0].constraints == {"min_quality": 0.02}
    reader.engine.dispose()


def test_a_database_that_is_not_there_is_named(postgres, tmp_path: Path) -> None:
    url = postgres[0].replace("/postgres?", "/nothing_here?")
    with pytest.raises(UserError, match='database "nothing_here" does not exist'):
        StorageView.open(url, tmp_path, NAME, new=True)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("postgresql://me:s3cret@host/db", "postgresql://me@host/db"),
        (
            "postgresql://me@host/db?password=s3cret&sslmode=require",
            "postgresql://me@host/db?sslmode=require",
        ),
        (
            "postgresql://me@host/db?sslpassword=s3cret&token=s3cret&sslkey=key.pem",
            "postgresql://me@host/db?sslkey=key.pem",
        ),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
    ],
)
def test_a_manifest_holds_no_password(url, kept):
    assert "s3cret" not in without_password(url)
    assert without_password(url) == kept
