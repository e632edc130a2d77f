import json
from math import inf
from pathlib import Path

import pandas as pd
import pytest
import torch
from support import toy

from hybrid_sweep.confirm.plan import FIRST_MULTIPLIERS, MULTIPLIERS
from hybrid_sweep.confirm.sweep import confirm_sweep
from hybrid_sweep.driver.sweep import begin
from hybrid_sweep.errors import UserError
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.store.journal import Journal
from hybrid_sweep.trainer.config import HybridConfig

TRAINER = {"warmup_steps": 20, "full_steps": 5, "confidence_threshold": 0.01}
POINTS = {"H010": (1.8, 1.1), "H006": (1.5, 1.2), "H003": (1.2, 1.3)}  # speedup and quality


def make_sweep(path):
    """Write a finished sweep of three points, made up and all on the front, and its workload file."""
    workload = path / "mine.py"
    workload.write_text(Path(toy.__file__).read_text())
    spec = SweepSpec(
        name="x",
        workload=f"{workload}:Toy",
        trainer=TRAINER,
        space={"max_predict_steps": [3, 6, 10]},
        seed=3,
    )
    made = ResultsFolder(begin(path / "sweep", spec, 60, {"hardware": {"device": "cpu"}}).path)
    for trial_id, (speedup, quality) in POINTS.items():
        config = HybridConfig(**TRAINER, max_predict_steps=int(trial_id[1:])).model_dump()
        event = {"trial_id": trial_id, "seed": 3, "config": config}
        made.journal.append({"event": "started", **event})
        result = {"speedup": speedup, "quality": quality}
        made.journal.append({"event": "finished", **event, "state": "done", "reason": "", "result": result})
    return made


@pytest.fixture
def folder(tmp_path):
    """The results of a finished sweep."""
    return make_sweep(tmp_path)


@pytest.fixture
def workload(folder):
    """The path of its workload file."""
    return folder.path.with_name("mine.py")


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory):
    """A sweep of which two points are confirmed on three seeds, and what was found; do not change it."""
    made = make_sweep(tmp_path_factory.mktemp("confirmed"))
    return made, confirm_sweep(made.path, seeds=3, points=2)


def contents(folder):
    """Return every file of a folder with what is in it."""
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def ran(folder):
    """Return (trial_id, arm, seed) of each training run."""
    events = Journal.read(folder.confirm_path / "journal.jsonl")
    return [(event["trial_id"], event["arm"], event["seed"]) for event in events]


def test_the_loss_is_compiled_where_the_sweeps_was(folder, monkeypatch):
    folder.write_manifest({**folder.manifest, "spec": {**folder.manifest["spec"], "compile": "default"}})

    def refuse(function, **settings):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(UserError, match=r"loss of Toy cannot be compiled .*no compiler here"):
        confirm_sweep(folder.path, seeds=3)
    assert not folder.confirm_path.exists()


def test_the_best_points_are_compared_with_every_control_on_fresh_seeds(confirmed):
    _, found = confirmed
    assert found.seeds == [4, 5, 6]
    assert found.points == ["H010", "H006"]
    assert found.left_out == ["H003"]
    assert list(found.rows("H006")) == ["reference", "lr_matched", "tuned"]
    row = found.rows("H010")["reference"]
    assert (row["explored_speedup"], row["explored_quality"]) == (1.8, 1.1)
    assert row["seeds"] == 3
    assert row["speedup_whole_run_low"] <= row["speedup_whole_run"] <= row["speedup_whole_run_high"]


def test_what_it_finds_is_in_the_folder(confirmed):
    folder, found = confirmed
    pd.testing.assert_frame_equal(folder.confirmation().table, found.table, check_dtype=False)
    pairs = pd.read_csv(folder.confirm_path / "pairs.csv")
    assert pairs.groupby("arm").size().to_dict() == {"reference": 6, "lr_matched": 6, "tuned": 6}
    events = Journal.read(folder.confirm_path / "journal.jsonl")
    as_long = [json.loads(e["arm"]) for e in events if "real_steps" in e["arm"]]
    assert sorted(pairs["equal_time_steps"]) == sorted(arm["real_steps"] for arm in as_long)
    assert {arm["name"] for arm in as_long} == {"truncated", "lr_matched", "tuned"}
    controls = pairs[pairs["arm"] == "lr_matched"]
    assert (controls["backward_calls"] == controls["hybrid_backward_calls"]).all()
    assert (pairs.loc[pairs["arm"] == "reference", "backward_calls"] == 60).all()
    assert folder.verdict().trial_id == "H010"


def test_arms_take_turns_and_each_is_timed_three_times(confirmed):
    fresh = [
        (arm if arm in ("reference", "hybrid") else "control", seed) for _, arm, seed in ran(confirmed[0])
    ]
    one_round = ["reference", *["hybrid", "control", "control"] * 2]
    timed = [(arm, seed) for seed in (4, 5, 6) for arm in one_round * 3]
    as_long = [("control", seed) for seed in (4, 5, 6) for _ in range(6)]  # as the hybrid, not timed
    assert [run for run in fresh if run[1] > 3] == timed + as_long


def test_at_equal_wall_clock_a_control_takes_the_steps_that_the_hybrids_time_pays_for(confirmed):
    pairs = pd.read_csv(confirmed[0].confirm_path / "pairs.csv")
    steps = (pairs["backward_calls"] * pairs["hybrid_seconds"] / pairs["seconds"]).round().clip(1)
    steps = steps.where(pairs["arm"] != "lr_matched", steps.clip(upper=60))  # it has no more logical steps
    assert (pairs["equal_time_steps"] - steps).abs().max() <= 1
    curves = {}
    for event in Journal.read(confirmed[0].confirm_path / "journal.jsonl"):
        arm = json.loads(event["arm"]) if event["arm"].startswith("{") else {}
        if "real_steps" in arm:
            curves[event["trial_id"], arm["name"], event["seed"]] = arm["real_steps"], event["curve"]
    assert len(curves) == len(pairs)
    for row in pairs.itertuples():
        name = "truncated" if row.arm == "reference" else row.arm
        given, curve = curves[row.trial_id, name, row.seed]
        loss = float(curve["test"]["loss"])  # infinite where the control diverged, which ends its run
        assert given == row.equal_time_steps
        assert curve["backward_calls"][-1] == given or loss == inf
        assert row.equal_time_quality == pytest.approx(loss / row.hybrid_test_loss)


def test_settings_are_chosen_on_a_seed_of_the_sweep_and_never_on_the_test_split(confirmed):
    events = Journal.read(confirmed[0].confirm_path / "journal.jsonl")
    tuning = [event for event in events if event["seed"] == 3]
    # the recipe, the points and their learning rates, as many tuned settings as points
    rungs = sum('"lr_matched"' in event["arm"] for event in tuning)
    assert 2 * len(FIRST_MULTIPLIERS) <= rungs <= 2 * len(MULTIPLIERS)
    assert len(tuning) == 1 + 2 + rungs + 3
    assert all(event["curve"]["test"] == {} for event in tuning)
    looked = [event for event in events if event["curve"]["test"]]
    assert len(looked) == len({(e["trial_id"], e["arm"], e["seed"]) for e in events if e["seed"] != 3})


def test_a_tuned_control_has_as_many_tries_as_the_sweep_had_points_good_or_bad(folder):
    ends = [
        ("diverged", "nan"),
        ("pruned", "early stopping"),
        ("pruned", "interrupted"),
        ("failed", "raised"),
    ]
    for number, (state, reason) in enumerate(ends):
        event = {"trial_id": f"X{number}", "seed": 3, "config": {}}
        folder.journal.append({"event": "started", **event})
        folder.journal.append({"event": "finished", **event, "state": state, "reason": reason, "result": {}})
    found = confirm_sweep(folder.path, seeds=3, points=1)
    assert (found.tried, found.configurations) == (5, 5)
    tuned = {arm for _, arm, seed in ran(folder) if '"tuned"' in arm and seed == 3}
    assert len(tuned) == 5


def test_the_report_shows_it(confirmed):
    page = confirmed[0].report_path.read_text()
    assert "confirmed on fresh seeds (2)" in page
    assert f"Verdict: {confirmed[0].verdict().recommendation}" in page


def test_every_control_can_be_asked_for(folder):
    found = confirm_sweep(folder.path, seeds=3, points=1, arms="full")
    names = ["reference", "lr_matched", "tuned", "truncated", "lr", "momentum", "average", "schedule_free"]
    assert list(found.rows("H010")) == names


def test_a_control_that_does_not_apply_is_left_out(folder, workload):
    workload.write_text(workload.read_text().replace("lr=0.005)", "lr=0.005, momentum=0.5)"))
    found = confirm_sweep(folder.path, seeds=3, points=1, arms="full", trust=True)
    assert "momentum" not in found.rows("H010")
    assert "schedule_free" in found.rows("H010")


def test_started_again_it_goes_on_where_it_was_killed(folder):
    class Killed(Exception):
        pass

    def kill(progress):
        if progress.done == 20:
            raise Killed

    with pytest.raises(Killed):
        confirm_sweep(folder.path, seeds=3, points=1, on_progress=kill)
    journal = folder.confirm_path / "journal.jsonl"
    with journal.open("a") as file:
        file.write('{"event": "ran", "trial_')
    assert folder.confirmation() is None
    before = ran(folder)
    told = []
    assert confirm_sweep(folder.path, seeds=3, points=1, on_progress=told.append) is not None
    assert told[0].done == 20
    assert ran(folder)[: len(before)] == before
    assert told[-1].done == told[-1].total - 1


def test_started_again_it_runs_only_what_is_new(folder):
    first = confirm_sweep(folder.path, seeds=3, points=1)
    before = len(ran(folder))
    second = confirm_sweep(folder.path, seeds=4, points=1)
    assert {seed for _, _, seed in ran(folder)[before:]} == {7}
    assert not first.table.equals(second.table)


@pytest.mark.parametrize("how", ["request", "interrupt"])
def test_it_can_be_stopped(folder, how):
    def stop(progress):
        if progress.done == 3:
            if how == "interrupt":
                raise KeyboardInterrupt
            folder.request_stop()

    assert confirm_sweep(folder.path, seeds=3, points=1, on_progress=stop) is None
    assert len(ran(folder)) == 3
    assert folder.confirmation() is None


def test_a_point_that_diverges_counts_against_it(folder, workload):
    text = workload.read_text()
    workload.write_text(
        text.replace("self.troubles = troubles or {}", "self.troubles = troubles or {9: 'nan'}")
    )
    found = confirm_sweep(folder.path, seeds=3, points=1)
    row = found.rows("H010")["reference"]
    assert row["hybrid_reached"] == 0
    assert row["speedup_to_target"] == 0
    assert folder.verdict().recommendation == "REJECT: quality"


def test_a_target_that_nothing_has_to_be_trained_for_is_refused(folder):
    said = r"min_quality=0.001 sets a target loss of [\d.e+]+, below which training begins \([\d.]+\)"
    with pytest.raises(UserError, match=said):
        confirm_sweep(folder.path, seeds=3, min_quality=0.001)
    assert ran(folder) == [("", "reference", 3)]
    assert confirm_sweep(folder.path, seeds=3, points=1) is not None


def test_too_few_seeds(folder):
    with pytest.raises(UserError, match="seeds=2 is too few for an interval: use at least 3"):
        confirm_sweep(folder.path, seeds=2)
    assert not folder.confirm_path.exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"points": 0}, "points=0 leaves nothing to confirm"),
        ({"min_quality": 0.0}, "min_quality=0 is no bar"),
        ({"min_quality": float("inf")}, "min_quality=inf is no bar"),
        ({"arms": "tunde"}, "unknown arms 'tunde'; known: basic, full"),
    ],
)
def test_options_out_of_range(folder, option, said):
    with pytest.raises(UserError, match=said):
        confirm_sweep(folder.path, **option)
    assert not folder.confirm_path.exists()


@pytest.mark.parametrize("state", ["failed", "diverged", "pruned", "unended", "unbegun"])
def test_a_folder_without_a_front_is_refused_and_left_as_it_was(folder, state):
    events = Journal.read(folder.journal.path)
    for event in events:
        if event["event"] == "finished":
            event["state"] = state
    if state == "unended":
        events = [event for event in events if event["event"] != "finished"]
    if state == "unbegun":
        events = []
    folder.journal.path.write_text("".join(json.dumps(event) + "\n" for event in events))
    before = contents(folder.path)
    with pytest.raises(UserError, match="has no front, no configuration is done: run or resume") as refusal:
        confirm_sweep(folder.path)
    assert "\n" not in str(refusal.value)
    assert contents(folder.path) == before


def test_a_sweep_that_still_runs(folder):
    events = folder.journal.path.read_text()
    folder.journal.path.write_text("")  # also before it has a front
    with folder.driven(), pytest.raises(UserError, match="another process drives the sweep"):
        confirm_sweep(folder.path)
    folder.journal.path.write_text(events)
    with folder.driven(), pytest.raises(UserError, match="another process drives the sweep"):
        confirm_sweep(folder.path)


def test_a_workload_that_was_changed_since_the_sweep_is_refused(folder, workload):
    folder.write_manifest({**folder.manifest, "code": {"0 mine.py": "another"}})
    with pytest.raises(UserError, match=r"^mine\.py changed since the sweep began"):
        confirm_sweep(folder.path, seeds=3)
    assert not folder.confirm_path.exists()


def test_a_workload_that_is_gone(folder, workload):
    workload.unlink()
    with pytest.raises(UserError, match=r"mine\.py"):
        confirm_sweep(folder.path)
    assert not folder.confirm_path.exists()


def test_a_device_that_is_not_here(folder, monkeypatch):
    folder.write_manifest({**folder.manifest, "hardware": {"device": "cuda"}})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="the sweep ran on cuda, and torch sees none here"):
        confirm_sweep(folder.path)


def test_a_disk_that_is_full(folder, monkeypatch):
    def full(self, event):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "append", full)
    with pytest.raises(UserError, match=r"No space left.*go on with: hybrid-sweep confirm"):
        confirm_sweep(folder.path)
