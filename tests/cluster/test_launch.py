"""A whole sweep of a user's file on a real local Ray, with everything that can go wrong in it."""

import json
import shutil
import socket
from pathlib import Path

import pandas as pd
import pytest
import ray
import torch
from support import toy
from support.local_ray import local_ray
from support.patience import until
from support.toy import Toy

from hybrid_sweep.cluster.launch import resume_sweep, run_sweep
from hybrid_sweep.driver.events import (
    Note,
    SweepEnded,
    SweepStarted,
    TrialFinished,
    TrialReported,
    TrialStarted,
)
from hybrid_sweep.driver.sweep import begin, replayed
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.costs import COST_NAMES
from hybrid_sweep.measure.curvature import measure_curvature
from hybrid_sweep.search.mask import with_curvature
from hybrid_sweep.spec.files import load_spec
from hybrid_sweep.spec.sweep import SweepSpec

FILES = ("manifest.json", "journal.jsonl", "trials.csv", "trials.parquet", "steps.parquet", "pareto.csv")
FILES += ("pareto.json", "pareto.png", "report.html")
COUNTED = ["quality", "quality_vs_truncated", "quality_vs_frozen", "quality_vs_lr_matched", "val_loss"]
COUNTED += ["speedup_counted", "behaviour"]
CONTROLS = 32  # 16 with two seeds


@pytest.fixture(scope="module")
def cluster():
    with local_ray(2):
        yield


@pytest.fixture(scope="module")
def workload_file(tmp_path_factory):
    """The user's own file, in a folder of its own."""
    return shutil.copy(toy.__file__, tmp_path_factory.mktemp("user"))


@pytest.fixture(scope="module")
def make_spec(workload_file):
    def make(keywords=None, **fields):
        defaults = {
            "name": "toy",
            "workload": {"name": f"{workload_file}:Toy", **(keywords or {})},
            "trainer": {"warmup_steps": 20, "full_steps": 10, "horizon_rule": "fixed"},
            "space": {"max_predict_steps": [20], "confidence_threshold": [0.001, 0.999]},
            "repeats": 2,
            "sampler": "grid",
            "unit_costs": dict.fromkeys(COST_NAMES, 0.1) | {"plain_step": 1.0},
        }
        return SweepSpec(**defaults | fields)

    return make


@pytest.fixture(scope="module")
def sweep(cluster, make_spec, tmp_path_factory):
    """Two points with two seeds, one trial at a time, and everything that was told."""
    told = []
    out = tmp_path_factory.mktemp("one") / "results"
    outcome = run_sweep(make_spec(concurrency=1), out, keep_models="front", on_event=told.append)
    return outcome, told


@pytest.mark.ray
class TestWholeSweep:
    def test_every_run_is_done_and_scored(self, sweep):
        outcome, _ = sweep
        assert (outcome.counts, outcome.interrupted) == ({"done": 4 + CONTROLS}, False)
        trials = outcome.folder.trials().set_index(["trial_id", "seed"])
        assert len(trials) == 4 + CONTROLS
        controls = trials[trials["arm"] != ""]
        assert len(controls) == CONTROLS
        assert (controls[["speedup_counted", "quality", "val_loss"]] > 0).all(axis=None)
        shut = trials.loc["H020_I00_C0.999"]
        same = ["quality", "quality_vs_truncated", "quality_vs_frozen", "quality_vs_lr_matched"]
        assert (shut[same] == 1.0).all(axis=None)
        jumping = trials.loc["H020_I00_C0.001"]
        assert (jumping["speedup_counted"] > 1).all()
        assert (jumping["predict_phases"] > 0).all()

    def test_the_folder_is_complete(self, sweep):
        folder = sweep[0].folder
        assert [name for name in FILES if not (folder.path / name).stat().st_size] == []
        assert len(list(folder.path.glob("parameter_sweep_*Z.json"))) == 1
        assert len(pd.read_csv(folder.path / "trials.csv")) == 4 + CONTROLS

    def test_the_manifest_says_what_was_run(self, sweep, make_spec):
        manifest = json.loads((sweep[0].folder.path / "manifest.json").read_text())
        assert SweepSpec(**manifest["spec"]) == make_spec(concurrency=1)
        assert manifest["seeds"] == [0, 1]
        assert manifest["unit_costs"]["plain_step"] == 1.0
        assert manifest["quality"] == "loss_ratio"
        assert set(manifest["references"]) == {"0", "1"}
        assert manifest["hardware"]["device"] == "cpu"

    def test_events_tell_it_in_order(self, sweep):
        outcome, told = sweep
        (started,) = (e for e in told if isinstance(e, SweepStarted))
        assert started == SweepStarted(4 + CONTROLS, outcome.folder.path, 1)
        assert told[-1] == SweepEnded({"done": 4 + CONTROLS}, False)
        keys = [(e.trial_id, e.seed) for e in told if isinstance(e, TrialStarted)]
        assert keys == [(e.trial_id, e.seed) for e in told if isinstance(e, TrialFinished)]
        assert len(set(keys)) == 4 + CONTROLS
        points = {e.trial_id for e in told if isinstance(e, TrialFinished) and not e.arm}
        reports = [e for e in told if isinstance(e, TrialReported) and e.seed == 0]
        steps = [e.report["step"] for e in reports if e.trial_id in points]
        assert steps.count(Toy.steps) == 2

    def test_models_of_the_front_are_kept_and_load(self, sweep):
        folder = sweep[0].folder
        front = set(folder.table("front")["trial_id"])
        kept = {file.name for file in folder.models_path.iterdir()}
        assert kept == {f"{trial_id}_seed{seed}.pt" for trial_id in front for seed in (0, 1)}
        workload, trials = Toy(), folder.trials().set_index(["trial_id", "seed"])
        for trial_id in front:
            model = workload.build_model(9)
            model.load_state_dict(torch.load(folder.models_path / f"{trial_id}_seed0.pt"))
            assert workload.evaluate(model, "val")["loss"] == trials.loc[(trial_id, 0), "val_loss"]

    def test_two_at_a_time_that_share_nothing_give_the_same_numbers(self, sweep, make_spec, tmp_path):
        together = run_sweep(make_spec(concurrency=2, share=False), tmp_path / "two")
        one, two = (
            outcome.folder.trials().set_index(["trial_id", "seed"]).sort_index()[COUNTED]
            for outcome in (sweep[0], together)
        )
        pd.testing.assert_frame_equal(one, two, check_exact=True)
        curves = [
            outcome.folder.steps().sort_values(["trial_id", "seed", "step"]).reset_index(drop=True)
            for outcome in (sweep[0], together)
        ]
        columns = ["trial_id", "seed", "step", "loss", "val_loss", "quality", "speedup_counted"]
        pd.testing.assert_frame_equal(curves[0][columns], curves[1][columns], check_exact=True)
        assert not together.folder.models_path.exists()

    def test_a_folder_that_exists_is_refused(self, sweep, make_spec):
        folder = sweep[0].folder
        before = {file: file.stat().st_mtime_ns for file in folder.path.rglob("*")}
        with pytest.raises(UserError, match="exists already"):
            run_sweep(make_spec(), folder.path)
        assert {file: file.stat().st_mtime_ns for file in folder.path.rglob("*")} == before


@pytest.mark.ray
class TestPacked:
    @pytest.mark.parametrize("share", [True, False])
    def test_decisions_are_those_of_trials_alone(self, sweep, make_spec, tmp_path, share):
        told = []
        outcome = run_sweep(make_spec(pack=16, share=share), tmp_path / "out", on_event=told.append)
        assert outcome.counts == {"done": 4 + CONTROLS}
        why = "a worker trains 2 trials at once"  # of four, on two workers
        assert outcome.folder.manifest["pack"] == {"asked": 16, "size": 2, "why": why}
        assert Note(why) in told
        alone, packed = (
            each.folder.trials().set_index(["trial_id", "seed"]).sort_index() for each in (sweep[0], outcome)
        )
        exact = ["speedup_counted", "behaviour", "backward_calls"]
        pd.testing.assert_frame_equal(packed[exact], alone[exact], check_exact=True)
        close = [name for name in COUNTED if name not in exact]
        pd.testing.assert_frame_equal(packed[close], alone[close], check_exact=False, rtol=1e-4)
        hybrid = packed[packed["arm"] == ""]
        assert (hybrid["speedup"] / hybrid["speedup_counted"] - 1).abs().max() < 1e-9
        assert hybrid["speedup_cpu"].isna().all()
        assert why in (outcome.folder.path / "report.html").read_text()

    def test_what_cannot_be_packed_runs_unpacked_and_says_so(self, cluster, make_spec, tmp_path):
        told = []
        spec = make_spec({"dropout": 0.3}, pack=4, controls="none", repeats=2)
        outcome = run_sweep(spec, tmp_path / "out", on_event=told.append)
        assert outcome.counts == {"done": 4}
        (why,) = (e.text for e in told if isinstance(e, Note) and "one at a time" in e.text)
        assert "draws random numbers" in why
        assert outcome.folder.manifest["pack"] == {"asked": 4, "size": 1, "why": why}
        assert outcome.folder.trials()["speedup_cpu"].notna().all()

    def test_an_interrupted_one_goes_on_packed(self, cluster, make_spec, tmp_path):
        def interrupt(event):
            if isinstance(event, TrialReported):
                raise KeyboardInterrupt

        spec = make_spec(pack=2, controls="none", repeats=2)
        assert run_sweep(spec, tmp_path / "out", on_event=interrupt).interrupted
        again = resume_sweep(tmp_path / "out")
        assert again.counts == {"done": 4}
        assert again.folder.manifest["pack"]["size"] == 2


COUNTING = """
from pathlib import Path
from toy import Toy

class Counting(Toy):
    def __init__(self, log):
        super().__init__()
        self.log = log

    def batch(self, seed, step):
        with Path(self.log).open("a") as file:
            file.write(".")
        return super().batch(seed, step)

    def data_checksum(self):
        return "always the same"
"""


@pytest.mark.ray
def test_a_second_sweep_trains_no_reference_no_control_and_no_twin(cluster, make_spec, tmp_path):
    (tmp_path / "counting.py").write_text(COUNTING)
    shutil.copy(toy.__file__, tmp_path)
    log = tmp_path / "log"
    workload = {"name": f"{tmp_path / 'counting.py'}:Counting", "log": str(log)}

    def run(name, **fields):
        log.write_text("")
        told = []
        spec = make_spec(workload=workload, concurrency=1, **fields)
        outcome = run_sweep(spec, tmp_path / name, on_event=told.append)
        notes = [event.text for event in told if isinstance(event, Note) and "from the cache" in event.text]
        return outcome.folder, len(log.read_text()), notes

    alone, batches_of_trials_alone, notes = run("alone", controls="none", share=False)
    first, _, notes_of_first = run("first")
    second, batches, notes_of_second = run("second")
    _, batches_of_points, _ = run("points", controls="none")
    assert batches == batches_of_points <= batches_of_trials_alone - 2 * Toy.steps
    assert (notes, notes_of_first) == ([], [])
    assert notes_of_second == ["2 references and 24 controls from the cache"]
    assert second.manifest["references"] == first.manifest["references"] == alone.manifest["references"]
    table, again = (f.trials().set_index(["trial_id", "seed"]).sort_index() for f in (first, second))
    pd.testing.assert_frame_equal(table[COUNTED], again[COUNTED], check_exact=True)
    trained = (table["arm"] == "lr").to_numpy()
    columns = ["speedup", "train_seconds"]
    pd.testing.assert_frame_equal(table.loc[trained, columns], again.loc[trained, columns], check_exact=True)


@pytest.mark.ray
def test_trials_that_go_wrong_leave_the_others_alone(cluster, make_spec, tmp_path):
    """One point is fine, one raises, one turns to NaN, one kills its worker."""
    spec = make_spec(
        {"troubles": {20: "raise", 30: "nan", 40: "die"}},
        space={"max_predict_steps": [40, 30, 20, 10]},
        trainer={
            "warmup_steps": 20,
            "full_steps": 10,
            "horizon_rule": "fixed",
            "confidence_threshold": 0.001,
        },
        repeats=1,
        max_retries=1,
        controls="none",
    )
    outcome = run_sweep(spec, tmp_path / "out", keep_models="front")
    assert outcome.counts == {"done": 1, "failed": 2, "diverged": 1}
    assert not outcome.interrupted
    trials = outcome.folder.trials().set_index("max_predict_steps").sort_index()
    assert list(trials["state"]) == ["done", "failed", "diverged", "failed"]
    assert trials.loc[20, "reason"] == "RuntimeError: the toy is broken"
    assert "nan" in trials.loc[30, "reason"]
    assert trials.loc[40, "reason"].startswith("lost 2 times: the worker's process ")
    assert trials.loc[30, "quality"] == 0.0
    assert trials.loc[[20, 40], ["speedup", "quality"]].isna().all(axis=None)
    assert set(outcome.folder.table("front")["max_predict_steps"]) == {10}
    # while a failed run may be tried again, no weights are thrown away
    assert len(list(outcome.folder.models_path.iterdir())) == 2


@pytest.mark.ray
def test_a_sampler_is_masked_by_what_was_measured_and_a_grid_is_not(sweep, make_spec, tmp_path):
    assert "curvature" not in sweep[0].folder.manifest
    space = {"max_predict_steps": {"low": 10, "high": 40}}
    spec = make_spec(sampler="random", space=space, trials=2, repeats=1, controls="none")
    told = []
    folder = run_sweep(spec, tmp_path / "out", on_event=told.append).folder
    measured = measure_curvature(Toy(), 0, 120)
    assert folder.manifest["curvature"] == measured.to_dict()
    assert folder.manifest["spec"]["mask"]["eta_lambda"] == round(max(measured.eta_lambda), 4)
    assert Note(with_curvature(spec, measured.eta_lambda)[1]) in told
    assert replayed(folder) == 2


@pytest.mark.ray
def test_a_space_that_is_masked_whole_by_what_was_measured_is_refused(cluster, make_spec, tmp_path):
    space = {"max_predict_steps": {"low": 40_000, "high": 50_000}}
    spec = make_spec(sampler="random", space=space, trials=2, repeats=1)
    with pytest.raises(UserError, match="every point of the space is masked as unstable"):
        run_sweep(spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.ray
def test_ctrl_c_writes_what_is_there(cluster, make_spec, tmp_path):
    def interrupt(event):
        if isinstance(event, TrialFinished) and event.state == "done":
            raise KeyboardInterrupt

    outcome = run_sweep(make_spec(concurrency=1), tmp_path / "out", on_event=interrupt)
    assert outcome.interrupted
    assert outcome.counts["done"] == 1
    assert sum(outcome.counts.values()) < 4
    assert "failed" not in outcome.counts
    assert (outcome.folder.path / "report.html").exists()


@pytest.mark.ray
def test_a_sweep_goes_on_with_the_workload_that_it_began_with(cluster, make_spec, tmp_path):
    def interrupt(event):
        if isinstance(event, TrialReported):
            raise KeyboardInterrupt

    file = tmp_path / "mine.py"
    as_it_was = Path(toy.__file__).read_text()
    file.write_text(as_it_was)
    spec = make_spec(workload=f"{file}:Toy", controls="none")
    assert run_sweep(spec, tmp_path / "out", on_event=interrupt).interrupted
    journal = (tmp_path / "out" / "journal.jsonl").read_text()
    file.write_text(as_it_was.replace("lr=0.005", "lr=0.05"))
    with pytest.raises(UserError, match=r"^mine\.py changed since the sweep began"):
        resume_sweep(tmp_path / "out")
    assert (tmp_path / "out" / "journal.jsonl").read_text() == journal
    file.write_text(as_it_was)
    assert resume_sweep(tmp_path / "out").counts == {"done": 4}


@pytest.mark.ray
class TestRefusedBeforeAnythingIsWritten:
    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"troubles": {0: "raise"}}, r"plain training .*: RuntimeError: the toy is broken; fix"),
            ({"troubles": {0: "nan"}}, r"held-out loss of nan at step \d+: lower the learning rate"),
            ({"troubles": {0: "die"}}, r"plain training of .*:Toy fails: the worker's process [^:]*; fix"),
            ({"colour": "red"}, r"takes no keyword 'colour'"),
            (
                {"troubles": {0: "exit"}},
                r"^plain training of \S+:Toy fails: SystemExit: 3; fix the workload first$",
            ),
            (
                {"troubles": {0: "own"}},
                r"^plain training of \S+:Toy fails: BadShard: shard caf\\udce9, row 7; fix the workload",
            ),
        ],
        ids=["raises", "nan", "dies", "keyword", "exits", "raises its own"],
    )
    def test_plain_training_that_fails(self, cluster, make_spec, tmp_path, keywords, message):
        self.refused(make_spec(keywords), tmp_path / "out", message)

    def test_data_that_is_missing(self, cluster, make_spec, tmp_path):
        workload = {"name": "trainables.mnist_mlp:MnistMlp", "data": "no-such-data"}
        self.refused(make_spec(workload=workload), tmp_path / "out", "no-such-data.*HYBRID_SWEEP_DATA")

    def test_a_device_that_is_not_there(self, cluster, make_spec, tmp_path):
        self.refused(make_spec(device="cuda"), tmp_path / "out", "Ray sees no GPU; use --device cpu")

    def refused(self, spec, out, message):
        with pytest.raises(UserError, match=message) as refusal:
            run_sweep(spec, out)
        assert "\n" not in str(refusal.value)
        assert not out.exists()
        # The workers are ended, also where a caller holds the error.
        until(lambda: ray.available_resources().get("CPU") == 2)


def test_reports_too_rare_for_early_stopping_are_refused_before_ray_is_started(make_spec, tmp_path):
    spec, told = make_spec(steps=120, early_stopping={}, report_every=99), []
    with pytest.raises(UserError, match="report_every=99"):
        run_sweep(spec, tmp_path / "out", on_event=told.append)
    assert not told
    assert not (tmp_path / "out").exists()


def test_a_storage_that_does_not_answer_is_refused_before_ray_is_started_again(make_spec, tmp_path):
    begin(tmp_path / "out", make_spec(), 120, {})
    told, nowhere = [], f"sqlite:///{tmp_path}/none/study.db"
    with pytest.raises(UserError, match="does not answer"):
        resume_sweep(tmp_path / "out", changes={"storage": nowhere}, on_event=told.append)
    assert not told


def test_an_address_where_no_one_answers_is_refused_at_once(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UserError, match=f"no Ray answers at {address}"):
        run_sweep(load_spec("quick"), tmp_path / "out", address=address)
    assert not (tmp_path / "out").exists()
