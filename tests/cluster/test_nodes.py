"""A sweep over three real Ray nodes, and what is left of it when one of them is killed."""

import shutil
from collections import Counter

import pytest
from support import toy
from support.nodes import nodes

from hybrid_sweep.cluster.connection import QUIET
from hybrid_sweep.cluster.launch import run_sweep
from hybrid_sweep.driver.events import TrialFinished, TrialReported
from hybrid_sweep.journal import Journal
from hybrid_sweep.measure.costs import COST_NAMES
from hybrid_sweep.spec import SweepSpec

pytestmark = [pytest.mark.ray, pytest.mark.slow]
COUNTED = ["quality", "quality_vs_truncated", "val_loss", "speedup_counted", "behaviour"]


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET, "RAY_AUTH_MODE": "disabled"}.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """A user's own file, four points, checkpoints as often as can be."""
    file = shutil.copy(toy.__file__, tmp_path_factory.mktemp("user"))
    return SweepSpec(
        name="toy",
        workload={"name": f"{file}:Toy", "dropout": 0.1},
        steps=1000,
        trainer={
            "warmup_steps": 20,
            "full_steps": 10,
            "horizon_rule": "fixed",
            "confidence_threshold": 0.001,
        },
        space={"max_predict_steps": [5, 10], "correction_interval": [0, 5]},
        sampler="grid",
        controls="none",
        checkpoint_seconds=0.001,
        unit_costs=dict.fromkeys(COST_NAMES, 0.1) | {"plain_step": 1.0},
    )


@pytest.fixture(scope="module")
def at_home(spec, tmp_path_factory):
    """The same sweep on a Ray of its own."""
    outcome = run_sweep(spec, tmp_path_factory.mktemp("home") / "results")
    assert outcome.counts == {"done": 4}
    return outcome.folder.trials().set_index("trial_id")[COUNTED]


@pytest.fixture(scope="module")
def cluster(at_home):
    """A head without CPUs and two workers with one; the last test kills one of them."""
    with nodes(2) as cluster:
        yield cluster


def test_three_nodes_give_what_one_machine_gives(spec, cluster, at_home, tmp_path):
    outcome = run_sweep(spec, tmp_path / "results", address=cluster.address)
    assert outcome.counts == {"done": 4}
    away = outcome.folder.trials().set_index("trial_id")[COUNTED]
    assert away.loc[at_home.index].equals(at_home)


def test_a_node_that_dies_costs_a_checkpoint_interval_and_no_run(spec, cluster, at_home, tmp_path):
    reports, alive = Counter(), [True]

    def kill_once(event):
        """Kill a node when both work."""
        if isinstance(event, TrialReported):
            reports[event.trial_id] += 1
        elif isinstance(event, TrialFinished):
            del reports[event.trial_id]
        if alive and sum(count >= 2 for count in reports.values()) == 2:
            alive.clear()
            cluster.kill_worker(0)

    outcome = run_sweep(spec, tmp_path / "results", address=cluster.address, on_event=kill_once)
    assert outcome.counts == {"done": 4}
    trials = outcome.folder.trials().set_index("trial_id")[COUNTED]
    assert trials.loc[at_home.index].equals(at_home)

    events = Journal.read(outcome.folder.journal.path)
    lost = [event for event in events if event["event"] == "lost"]
    assert lost
    for each in lost:
        own = [
            e for e in events if e.get("trial_id") == each["trial_id"] and e["event"] in ("reported", "lost")
        ]
        at = own.index(each)
        before, after = own[at - 1]["report"]["step"], own[at + 1]["report"]["step"]
        assert after > before, "every report had its checkpoint, so none of them was trained again"
