"""kill -9 of the driver at any moment: nothing lost, nothing twice, nothing left running, the same front."""

import multiprocessing
import random
import signal
import time
from collections import Counter
from itertools import count
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from support.killable import CONTROLS, POINTS, REPORTS, SPEC, new_sweep, run_whole, sit

from hybrid_sweep.analysis.pareto import pareto_front
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.store.journal import Journal

KILLS = 50  # of each kind
MOST_SITTINGS = 40
FRONT = ["trial_id", "seed", "speedup_counted", "quality"]

processes = multiprocessing.get_context("forkserver")  # imports once, then a session begins in milliseconds
processes.set_forkserver_preload(["pytest", "hybrid_sweep.driver.sweep", "hybrid_sweep.simulation.backend"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ResultsFolder:
    """The sweep unbroken."""
    folder = run_whole(tmp_path_factory.mktemp("whole") / "sweep")
    assert len(folder.trials()) == POINTS + CONTROLS
    return folder


def process(path: Path, dies: int | None = None):
    session = processes.Process(target=sit, args=(path, dies))
    session.start()
    return session


def check(folder: ResultsFolder, whole: ResultsFolder) -> None:
    events = Journal.read(folder.journal.path)
    keys = {
        kind: [(e["trial_id"], e.get("seed")) for e in events if e["event"] == kind]
        for kind in ("asked", "finished")
    }
    expected = [(e["trial_id"], None) for e in Journal.read(whole.journal.path) if e["event"] == "asked"]
    assert keys["asked"] == expected  # each once, in the same order
    trials = folder.trials()
    controls = trials.loc[trials["arm"] != "", "trial_id"]
    assert len(controls) == CONTROLS
    each = [(trial_id, 0) for trial_id in [*(trial_id for trial_id, _ in expected), *controls]]
    assert Counter(keys["finished"]) == dict.fromkeys(each, 1)
    assert dict(trials["state"].value_counts()) == {"done": POINTS - 1 + CONTROLS, "diverged": 1}
    fronts = [pareto_front(f.trials(), SPEC.speedup_column)[FRONT] for f in (folder, whole)]
    assert fronts[0].equals(fronts[1])
    steps = folder.steps()
    reached = steps.groupby("trial_id")["step"].agg(list)
    for trial_id in trials.loc[trials["state"] == "done", "trial_id"]:
        assert reached[trial_id] == [10 * i for i in range(1, REPORTS + 1)]  # no report is lost either
    assert not list((folder.path / "checkpoints").iterdir())
    view = JournalStorage(JournalFileBackend(str(folder.path / "optuna.journal")))
    (study,) = optuna.get_all_study_names(view)
    mirrored = [t.user_attrs["trial_id"] for t in optuna.load_study(study_name=study, storage=view).trials]
    assert sorted(mirrored) == sorted(trial_id for trial_id, _ in expected)


def sessions(folder: ResultsFolder, begin_session) -> int:
    """Sit until the sweep is done; return how often it was killed."""
    for kills in range(MOST_SITTINGS):
        session = begin_session()
        session.join()
        if session.exitcode == 0:
            return kills
        assert session.exitcode == -signal.SIGKILL
    session = process(folder.path)
    session.join()
    assert session.exitcode == 0
    return MOST_SITTINGS


def test_killed_in_the_middle_of_a_write(whole: ResultsFolder, tmp_path: Path) -> None:
    chance, sweeps, kills = random.Random(0), count(), 0
    while kills < KILLS:
        folder = new_sweep(tmp_path / f"{next(sweeps)}")
        kills += sessions(folder, lambda: process(folder.path, chance.randrange(10**6)))  # noqa: B023
        check(folder, whole)


def test_killed_from_outside_at_any_moment(whole: ResultsFolder, tmp_path: Path) -> None:
    chance, sweeps, kills = random.Random(1), count(), 0
    began = time.monotonic()
    unbroken = process(new_sweep(tmp_path / "timed").path)
    unbroken.join()
    longest = 0.6 * (time.monotonic() - began)
    while kills < KILLS:
        folder = new_sweep(tmp_path / f"{next(sweeps)}")

        def killed():
            session = process(folder.path)  # noqa: B023
            session.join(chance.uniform(0, longest))
            session.kill()
            return session

        kills += sessions(folder, killed)
        check(folder, whole)
