"""A run for which memory runs out is told as that, with what to lower, and the others go on."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from support import toy
from support.local_ray import local_ray

from hybrid_sweep.cluster.launch import run_sweep
from hybrid_sweep.driver.events import TrialLost
from hybrid_sweep.measure.costs import COST_NAMES
from hybrid_sweep.spec.sweep import SweepSpec

GREEDY = """
import os
from pathlib import Path

import torch
from toy import Toy


class Greedy(Toy):
    def __init__(self, troubles, group):
        super().__init__(troubles)
        self.group = group

    def loss(self, model, batch):
        if self.trouble == "eat":
            Path(self.group, "cgroup.procs").write_text(str(os.getpid()))
            bytearray(b"1" * 2_000_000_000)
        if self.trouble == "ask":
            torch.empty(10**15)
        return super().loss(model, batch)
"""
LIMIT_BYTES = 500_000_000
PLACES = {"memory.max": Path("/sys/fs/cgroup"), "memory.limit_in_bytes": Path("/sys/fs/cgroup/memory")}


@pytest.fixture
def group():
    """A control group of Linux with a limit of memory, of either version."""
    for limit, place in PLACES.items():
        made = place / f"hybrid-sweep-{uuid4().hex[:8]}"
        if not (place / "cgroup.procs").exists():  # no control groups of this version
            continue
        with suppress(OSError):
            made.mkdir()
            try:
                (made / limit).write_text(str(LIMIT_BYTES))
                with suppress(OSError):  # else it swaps
                    (made / "memory.swap.max").write_text("0")
                yield made
                return
            finally:
                made.rmdir()
    pytest.skip("this user may not make a control group with a limit of memory")


@pytest.mark.ray
def test_it_is_told_with_what_to_lower_and_the_others_go_on(group, tmp_path):
    shutil.copy(toy.__file__, tmp_path)
    (tmp_path / "greedy.py").write_text(GREEDY)
    spec = SweepSpec(
        name="memory",
        workload={
            "name": f"{tmp_path}/greedy.py:Greedy",
            "troubles": {20: "eat", 30: "ask"},
            "group": str(group),
        },
        trainer={
            "warmup_steps": 20,
            "full_steps": 10,
            "horizon_rule": "fixed",
            "confidence_threshold": 0.001,
        },
        space={"max_predict_steps": [10, 20, 30]},
        sampler="grid",
        controls="none",
        share=False,
        max_retries=1,
        unit_costs=dict.fromkeys(COST_NAMES, 0.1) | {"plain_step": 1.0},
    )
    told = []
    with local_ray(2):
        outcome = run_sweep(spec, tmp_path / "out", on_event=told.append)
    trials = outcome.folder.trials().set_index("max_predict_steps")
    assert trials["state"].to_dict() == {10: "done", 20: "failed", 30: "failed"}
    lost = [event.why for event in told if isinstance(event, TrialLost)]
    assert len(lost) == 1, "it is tried again as often as the sweep says"
    for said in (lost[0], trials.loc[20, "reason"]):
        assert "the worker's process died (killed, out of memory" in said
        assert "lower concurrency (trials at once) or pack, or the workload's batch" in said
    assert trials.loc[30, "reason"].startswith("out of memory: RuntimeError")
    assert "lower concurrency" in trials.loc[30, "reason"]
    assert os.getpid() not in map(int, (group / "cgroup.procs").read_text().split())
