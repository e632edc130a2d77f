"""The status of a sweep is read off its journal, also after everything that can end a sweep."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hybrid_sweep.analysis.status import STATES, SweepStatus, status_lines, sweep_status
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.store.journal import Journal

START = datetime(2026, 2, 14, tzinfo=UTC)


class Session:
    """Writes a journal, ten seconds from event to event."""

    def __init__(self, folder: ResultsFolder, **spec: Any) -> None:
        self.folder = folder
        self.now = START
        self.journal = Journal(folder.journal.path, now=lambda: self.now)
        self.folder.write_manifest({"sweep_id": "x1", "spec": {"name": "mine", "sampler": "tpe", **spec}})

    def write(self, kind: str, trial_id: str, seed: int = 0, **fields: Any) -> None:
        self.journal.append({"event": kind, "trial_id": trial_id, "seed": seed, **fields})
        self.now += timedelta(seconds=10)

    def start(self, trial_id: str, seed: int = 0, attempt: int = 1) -> None:
        self.write("started", trial_id, seed, config={}, attempt=attempt)

    def finish(self, trial_id: str, seed: int = 0, state: str = "done", **result: float) -> None:
        self.write("finished", trial_id, seed, state=state, reason="", result=result)

    def run(self, trial_id: str, seed: int = 0, state: str = "done", **result: float) -> None:
        self.start(trial_id, seed)
        self.finish(trial_id, seed, state, **result)

    def status(self, alive: bool = False) -> SweepStatus:
        return sweep_status(self.folder, alive=alive, now=self.now)


@pytest.fixture
def session(empty: ResultsFolder) -> Callable[..., Session]:
    return lambda **spec: Session(empty, **spec)


def test_a_finished_sweep_says_so_with_its_front(grid60: ResultsFolder) -> None:
    status = sweep_status(grid60, alive=False)
    assert (status.name, status.state, status.planned, status.ended) == ("grid60", "finished", 60, 60)
    assert status.runs == {**dict.fromkeys(STATES, 0), "done": 58, "diverged": 1, "failed": 1}
    front = grid60.table("front")
    good = front[front["quality"] >= 0.98]
    assert status.front == len(front)
    assert status.fastest is not None
    assert status.fastest.trial_id == good["trial_id"].iloc[0]
    assert status.best is not None
    assert status.best.trial_id == front["trial_id"].iloc[-1]
    assert status.seconds_left is None


def test_what_runs_and_what_is_left(session: Callable[..., Session]) -> None:
    sweep = session(trials=10)
    sweep.run("a", speedup=2.0, quality=0.99)
    sweep.run("b", speedup=1.5, quality=1.01)
    sweep.start("c")
    status = sweep.status(alive=True)
    assert (status.state, status.runs["running"], status.runs["done"]) == ("running", 1, 2)
    assert status.seconds_a_trial == 10
    assert status.seconds_left == pytest.approx(0 + 7 * 10)  # c is due, seven have not started
    assert status.last_event_seconds == 10


def test_without_a_driver_an_open_run_is_unfinished(session: Callable[..., Session]) -> None:
    sweep = session(trials=2)
    sweep.run("a", speedup=2.0, quality=0.99)
    sweep.start("b")
    status = sweep.status()
    assert (status.state, status.runs["running"], status.runs["unfinished"]) == ("interrupted", 0, 1)


def test_an_interrupted_run_is_no_end(session: Callable[..., Session]) -> None:
    sweep = session(trials=2)
    sweep.run("a", speedup=2.0, quality=0.99)
    sweep.start("b")
    sweep.write("interrupted", "b", result={"speedup": 9.0, "quality": 1.0})
    status = sweep.status()
    assert (status.state, status.ended, status.runs["unfinished"], status.runs["pruned"]) == (
        "interrupted",
        1,
        1,
        0,
    )
    assert status.front == 1
    sweep.start("b", attempt=2)
    sweep.finish("b", speedup=3.0, quality=0.9)
    assert sweep.status().state == "finished"


def test_losses_and_retries_are_counted(session: Callable[..., Session]) -> None:
    sweep = session(trials=1)
    sweep.start("a")
    sweep.write("lost", "a", attempt=1, why="node died", preempted=False)
    sweep.start("a", attempt=2)
    sweep.finish("a", state="failed")
    assert sweep.status().state == "finished"
    sweep.write("retried", "a")
    status = sweep.status()
    assert (status.state, status.lost, status.retried) == ("interrupted", 1, 1)


def test_an_asked_point_that_never_began_is_not_forgotten(session: Callable[..., Session]) -> None:
    sweep = session()  # no budget on record
    sweep.write("asked", "a", number=0, config={}, params={}, source="tpe")
    sweep.run("a", speedup=2.0, quality=0.99)
    assert (sweep.status().planned, sweep.status().state) == (1, "finished")
    sweep.write("asked", "b", number=1, config={}, params={}, source="tpe")
    assert (sweep.status().planned, sweep.status().state) == (2, "interrupted")


def test_a_sweep_that_stopped_because_it_was_flat_is_finished(session: Callable[..., Session]) -> None:
    sweep = session(trials=50, stop_when_flat=3)
    for number, trial in enumerate("abc"):  # what the study looks at is the counted speedup
        sweep.run(trial, speedup=2.0 + number, speedup_counted=2.0, quality=0.99)
    sweep.run("failed", state="failed")
    assert sweep.status().state == "interrupted"
    sweep.run("d", speedup=9.0, speedup_counted=2.0, quality=0.99)
    assert sweep.status().state == "finished"


def test_points_are_means_over_seeds_and_a_pruned_seed_ends_its_point(
    session: Callable[..., Session],
) -> None:
    sweep = session(trials=2, repeats=2)
    sweep.run("a", 0, speedup=2.0, quality=1.0)
    assert (sweep.status().front, sweep.status().planned) == (0, 4)
    sweep.run("a", 1, speedup=4.0, quality=1.0)
    status = sweep.status()
    assert status.best is not None
    assert (status.front, status.best.speedup, status.state) == (1, 3.0, "interrupted")
    sweep.run("b", 0, state="pruned", speedup=9.0, quality=1.0)
    status = sweep.status()
    assert (status.state, status.front, status.points) == ("finished", 1, 2)
    assert sweep.status(alive=True).seconds_left == 0  # b's other seed is never started


def test_the_budget_on_record_is_what_is_planned(session: Callable[..., Session]) -> None:
    sweep = session(trials=50, repeats=3)
    sweep.folder.write_manifest({**sweep.folder.manifest, "budget": 12})
    assert sweep.status().planned == 36


@pytest.mark.parametrize("tail", [b'{"event": "repor', b'{"event": "reported"}\n', b""])
def test_the_last_event_is_the_last_whole_line(session: Callable[..., Session], tail: bytes) -> None:
    sweep = session(trials=3)
    sweep.start("a")
    sweep.write("reported", "a", report={"step": 5})
    with sweep.journal.path.open("ab") as file:
        file.write(tail)
    assert sweep.status().last_event_seconds == 10


def test_nothing_has_happened_yet(empty: ResultsFolder) -> None:
    status = sweep_status(empty, alive=False)
    assert (status.state, status.ended, status.planned, status.front) == ("interrupted", 0, None, 0)
    assert (status.slope, status.last_event_seconds, status.best) == (None, None, None)
    lines = status_lines(status)
    assert "interrupted: it has no manifest, so run it again" in lines[0]
    assert "none yet" in "\n".join(lines)


def test_the_lines_and_the_json_say_the_same(session: Callable[..., Session]) -> None:
    sweep = session(trials=3)
    sweep.run("a", speedup=2.0, quality=0.99)
    sweep.start("b")
    sweep.write("lost", "b", attempt=1, why="node died", preempted=False)
    status = sweep.status()
    lines = status_lines(status)
    assert lines[0] == "mine: interrupted: resume it (sweep x1)"
    text = "\n".join(lines)
    for part in (
        "1 of 3 ended: 1 done, 1 unfinished",
        "1 of 1 points, hypervolume 0.0900, +0.0900 a point of late",
        "a 2.00× quality 0.990",
        "10.0 s a trial",
        "workers lost under a run: 1",
        "0:10 ago",
    ):
        assert part in text
    values = json.loads(json.dumps(status.to_dict()))
    assert values["fastest"] == {"trial_id": "a", "speedup": 2.0, "quality": 0.99}
    assert (values["state"], values["runs"]["unfinished"], values["hypervolume"]) == (
        "interrupted",
        1,
        pytest.approx(0.09),
    )
    assert "left" in "\n".join(status_lines(sweep.status(alive=True)))
