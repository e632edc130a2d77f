from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from support import toy

from hybrid_sweep import confirm as module
from hybrid_sweep.arm import Arm
from hybrid_sweep.confirm import confirm, described, target_loss
from hybrid_sweep.driver.sweep import begin
from hybrid_sweep.errors import UserError
from hybrid_sweep.journal import Journal
from hybrid_sweep.measure.curve import Curve
from hybrid_sweep.spec import SweepSpec
from hybrid_sweep.trainer.config import HybridConfig

TRAINER = {"warmup_steps": 20, "full_steps": 5, "confidence_threshold": 0.01}
POINTS = {"H010": (1.8, 1.1), "H006": (1.5, 1.2), "H003": (1.2, 1.3)}  # speedup and quality


@pytest.fixture
def workload(tmp_path):
    """The path of a workload file."""
    path = tmp_path / "mine.py"
    path.write_text(Path(toy.__file__).read_text())
    return path


@pytest.fixture
def folder(tmp_path, workload):
    """The results of a finished sweep of three points, made up and all on the front."""
    spec = SweepSpec(
        name="x",
        workload=f"{workload}:Toy",
        trainer=TRAINER,
        space={"max_predict_steps": [3, 6, 10]},
        seed=3,
    )
    made = begin(tmp_path / "sweep", spec, 120, {"hardware": {"device": "cpu"}})
    for trial_id, (speedup, quality) in POINTS.items():
        config = HybridConfig(**TRAINER, max_predict_steps=int(trial_id[1:])).model_dump()
        event = {"trial_id": trial_id, "seed": 3, "config": config}
        made.journal.append({"event": "started", **event})
        result = {"speedup": speedup, "quality": quality}
        made.journal.append({"event": "finished", **event, "state": "done", "reason": "", "result": result})
    return made


def ran(folder):
    """Return (trial_id, arm, seed) of each training run."""
    events = Journal.read(folder.confirm_path / "journal.jsonl")
    return [(event["trial_id"], event["arm"], event["seed"]) for event in events]


def test_the_best_points_are_compared_with_every_control_on_fresh_seeds(folder):
    found = confirm(folder.path, seeds=3, points=2)
    assert found.seeds == [4, 5, 6]
    assert found.points == ["H010", "H006"]
    assert found.left_out == ["H003"]
    assert list(found.rows("H006")) == ["reference", "lr_matched", "tuned"]
    row = found.rows("H010")["reference"]
    assert (row["explored_speedup"], row["explored_quality"]) == (1.8, 1.1)
    assert row["seeds"] == 3
    assert row["speedup_whole_run_low"] <= row["speedup_whole_run"] <= row["speedup_whole_run_high"]


def test_what_it_finds_is_in_the_folder(folder):
    found = confirm(folder.path, seeds=3, points=1)
    pd.testing.assert_frame_equal(folder.confirmation().table, found.table, check_dtype=False)
    pairs = pd.read_csv(folder.confirm_path / "pairs.csv")
    assert pairs.groupby("arm").size().to_dict() == {"reference": 3, "lr_matched": 3, "tuned": 3}
    controls = pairs[pairs["arm"] == "lr_matched"]
    assert (controls["backward_calls"] == controls["hybrid_backward_calls"]).all()
    assert (pairs.loc[pairs["arm"] == "reference", "backward_calls"] == 120).all()
    assert folder.verdict().trial_id == "H010"


def test_arms_take_turns_and_each_is_timed_three_times(folder):
    confirm(folder.path, seeds=3, points=1)
    fresh = [
        (arm if arm in ("reference", "hybrid") else "control", seed)
        for _, arm, seed in ran(folder)
        if seed > 3
    ]
    one_round = ["reference", "hybrid", "control", "control"]
    assert [arm for arm, _ in fresh] == one_round * 9
    assert [seed for _, seed in fresh] == [4] * 12 + [5] * 12 + [6] * 12


def test_settings_are_chosen_on_a_seed_of_the_sweep_and_never_on_the_test_split(folder):
    confirm(folder.path, seeds=3, points=1)
    events = Journal.read(folder.confirm_path / "journal.jsonl")
    tuning = [event for event in events if event["seed"] == 3]
    assert len(tuning) == 1 + 3 + 3  # the point, its learning rates, as many tuned settings as points
    assert all(event["curve"]["test"] == {} for event in tuning)
    looked = [event for event in events if event["curve"]["test"]]
    assert len(looked) == len({(e["trial_id"], e["arm"], e["seed"]) for e in events if e["seed"] != 3})


def test_every_control_can_be_asked_for(folder):
    found = confirm(folder.path, seeds=3, points=1, arms="full")
    names = ["reference", "lr_matched", "tuned", "truncated", "lr", "momentum", "average", "schedule_free"]
    assert list(found.rows("H010")) == names


def test_a_control_that_does_not_apply_is_left_out(folder, workload):
    workload.write_text(workload.read_text().replace("lr=0.005)", "lr=0.005, momentum=0.5)"))
    found = confirm(folder.path, seeds=3, points=1, arms="full")
    assert "momentum" not in found.rows("H010")
    assert "schedule_free" in found.rows("H010")


def test_started_again_it_goes_on_where_it_was_killed(folder):
    class Killed(Exception):
        pass

    def kill(progress):
        if progress.done == 20:
            raise Killed

    with pytest.raises(Killed):
        confirm(folder.path, seeds=3, points=1, tell=kill)
    journal = folder.confirm_path / "journal.jsonl"
    with journal.open("a") as file:
        file.write('{"event": "ran", "trial_')
    assert folder.confirmation() is None
    before = ran(folder)
    told = []
    assert confirm(folder.path, seeds=3, points=1, tell=told.append) is not None
    assert told[0].done == 20
    assert ran(folder)[:20] == before
    assert len(ran(folder)) == told[-1].total


def test_started_again_with_more_seeds_it_runs_only_those(folder):
    confirm(folder.path, seeds=3, points=1)
    before = len(ran(folder))
    confirm(folder.path, seeds=4, points=1)
    assert {seed for _, _, seed in ran(folder)[before:]} == {7}


def test_another_bar_needs_no_new_run(folder):
    first = confirm(folder.path, seeds=3, points=1)
    before = ran(folder)
    second = confirm(folder.path, seeds=3, points=1, min_quality=0.5)
    assert ran(folder) == before
    assert second.min_quality == 0.5
    assert not first.table.equals(second.table)


@pytest.mark.parametrize("how", ["request", "interrupt"])
def test_it_can_be_stopped(folder, how):
    def stop(progress):
        if progress.done == 3:
            if how == "interrupt":
                raise KeyboardInterrupt
            folder.request_stop()

    assert confirm(folder.path, seeds=3, points=1, tell=stop) is None
    assert len(ran(folder)) == 3
    assert folder.confirmation() is None


def test_a_point_that_diverges_counts_against_it(folder, workload):
    text = workload.read_text()
    workload.write_text(
        text.replace("self.troubles = troubles or {}", "self.troubles = troubles or {9: 'nan'}")
    )
    found = confirm(folder.path, seeds=3, points=1)
    row = found.rows("H010")["reference"]
    assert row["hybrid_reached"] == 0
    assert row["speedup_to_target"] == 0
    assert folder.verdict().recommendation == "REJECT: quality"


def test_too_few_seeds(folder):
    with pytest.raises(UserError, match="seeds=2 is too few for an interval: use at least 3"):
        confirm(folder.path, seeds=2)
    assert not folder.confirm_path.exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"points": 0}, "points=0 leaves nothing to confirm"),
        ({"min_quality": 0.0}, "min_quality=0 is no bar"),
        ({"arms": "tunde"}, "unknown arms 'tunde'; known: basic, full"),
    ],
)
def test_options_out_of_range(folder, option, said):
    with pytest.raises(UserError, match=said):
        confirm(folder.path, **option)
    assert not folder.confirm_path.exists()


def test_a_folder_without_a_front(folder):
    folder.journal.path.write_text("")
    with pytest.raises(UserError, match="has no front, no configuration is done: run or resume the sweep"):
        confirm(folder.path)
    assert not folder.confirm_path.exists()


def test_a_sweep_that_still_runs(folder):
    with folder.driven(), pytest.raises(UserError, match="another process drives the sweep"):
        confirm(folder.path)


def test_a_workload_that_is_gone(folder, workload):
    workload.unlink()
    with pytest.raises(UserError, match=r"mine\.py"):
        confirm(folder.path)
    assert not folder.confirm_path.exists()


def test_a_device_that_is_not_here(folder, monkeypatch):
    folder.write_manifest({**folder.manifest, "hardware": {"device": "cuda"}})
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="the sweep ran on cuda, and torch sees none here"):
        confirm(folder.path)


def test_a_disk_that_is_full(folder, monkeypatch):
    def full(self, event):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "append", full)
    with pytest.raises(UserError, match=r"No space left.*go on with: hybrid-sweep confirm"):
        confirm(folder.path)


CURVE = Curve(steps=[0, 9], backward_calls=[0, 9], seconds=[0.0, 1.0], val_loss=[2.3, 0.3])


def test_the_target_is_what_the_reference_ends_with_at_the_bar():
    assert target_loss("loss_ratio", CURVE, 0.98) == pytest.approx(0.3 / 0.98)
    negative = replace(CURVE, val_loss=[1.0, -1.0])
    assert target_loss("loss_gap", negative, 0.98) == pytest.approx(-0.96)


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        (
            Arm(name="lr_matched", multiplier=4.5),
            "the same recipe at learning rate 0.045 where the jumps were",
        ),
        (Arm(name="lr", multiplier=4.5), "the same recipe at learning rate 0.045"),
        (Arm(name="momentum", multiplier=4.0), "the same recipe with momentum 0.75"),
        (
            Arm(name="tuned", lr=0.2),
            "SGD at learning rate 0.2, Nesterov momentum 0.90, weight decay 0, linear decay to 0",
        ),
        (
            Arm(name="schedule_free", optimizer="adamw", lr=0.002),
            "Schedule-Free AdamW at learning rate 0.002, beta1 0.90, weight decay 0",
        ),
    ],
)
def test_a_control_in_words(arm, said):
    assert described(arm, 0.01) == said
