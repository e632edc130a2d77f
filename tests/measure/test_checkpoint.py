"""A run as bytes: what comes back, and what is refused."""

import pickle

import numpy as np
import pytest
import torch
from support.states import difference
from support.toy import Toy

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.checkpoint import from_bytes, to_bytes
from hybrid_sweep.measure.costs import COST_NAMES, UnitCosts
from hybrid_sweep.measure.hybrid_run import HybridRun
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.trainer import HybridConfig

COSTS = UnitCosts(**dict.fromkeys(COST_NAMES, 1.0))
CONFIG = HybridConfig(
    warmup_steps=20, full_steps=10, max_predict_steps=20, confidence_threshold=0.001, horizon_rule="fixed"
)
CLOCKED = {
    *("speedup", "speedup_cpu", "speedup_bound", "loading_share"),
    *("overhead_pct", "train_seconds", "eval_seconds"),
}


def trial_of(workload, config=CONFIG, seed=0, steps=120):
    return HybridRun(workload, config, reference_run(workload, seed, steps, 10), COSTS, {})


def saved(trial):
    return to_bytes(trial.state_dict())


def finish(trial):
    reports = []
    while not trial.done:
        reports.append(trial.report())
    return reports


def unclocked(values):
    return {name: value for name, value in values.items() if name not in CLOCKED and name != "seconds"}


class TestBytes:
    def test_plain_data_comes_back(self):
        state = {"a": torch.arange(3), "b": [1, 2.5, None, "x", (True, float("nan"))], "c": {3: 2**40}}
        assert difference(from_bytes(to_bytes(state)), state) is None

    @pytest.mark.parametrize("foreign", [np.zeros(2), Toy, lambda: 0, open], ids=str)
    def test_what_is_not_data_is_refused(self, foreign):
        with pytest.raises(UserError, match="cannot be saved"):
            to_bytes({"state": {"own": foreign}})

    def test_reading_runs_no_code(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "made"), "w"))

        torch.save({"a": Evil()}, tmp_path / "evil.pt")
        for data in ((tmp_path / "evil.pt").read_bytes(), pickle.dumps(Evil())):
            with pytest.raises(UserError, match="cannot be read"):
                from_bytes(data)
        assert not (tmp_path / "made").exists()

    @pytest.mark.parametrize("data", [b"", b"nothing", to_bytes({"a": 1})[:60], to_bytes(torch.ones(2))])
    def test_damaged_bytes_are_refused(self, data):
        with pytest.raises(UserError, match="start the run again"):
            from_bytes(data)


class TestTrial:
    @pytest.mark.parametrize("options", [{}, {"dropout": 0.4, "norm": True}], ids=str)
    @pytest.mark.parametrize("changes", [{}, {"correction_interval": 6}], ids=str)
    def test_cut_at_every_report_it_reports_and_ends_the_same(self, options, changes):
        config = CONFIG.replace(**changes)
        unbroken = trial_of(Toy(**options), config)
        expected = finish(unbroken)
        trial, reports = trial_of(Toy(**options), config), []
        while not trial.done:
            reports.append(trial.report())
            if not trial.done:
                data = saved(trial)
                torch.manual_seed(999)
                trial = trial_of(Toy(**options), config)
                trial.load_state_dict(from_bytes(data))
        assert [unclocked(report) for report in reports] == [unclocked(report) for report in expected]
        assert str(unclocked(trial.result())) == str(unclocked(unbroken.result()))
        assert trial.result()["quality_vs_frozen"] is not None
        seconds = [report["seconds"] for report in reports]
        assert seconds == sorted(seconds)

    def test_seconds_of_evaluation_add_up(self):
        trial = trial_of(Toy())
        trial.report()
        other = trial_of(Toy())
        other.load_state_dict(from_bytes(saved(trial)))
        assert other.result()["eval_seconds"] == trial.result()["eval_seconds"] > 0

    def test_a_run_that_goes_on_has_a_result_of_its_own_fidelity(self):
        trial = trial_of(Toy())
        report = trial.report()
        trained = saved(trial)
        result = trial.result()
        assert 0 < result["steps"] == report["step"] < 120
        assert result["quality"] == report["quality"]
        assert result["speedup_counted"] == report["speedup_counted"]
        assert result["quality_vs_frozen"] is None
        assert trial.state == "running"
        assert difference(from_bytes(saved(trial)), from_bytes(trained)) is None
        finish(trial)
        assert trial.result()["quality_vs_frozen"] is not None

    @pytest.mark.parametrize(
        ("other", "word"),
        [
            (lambda: trial_of(Toy(), seed=1), "seed=0, this run 1"),
            (lambda: trial_of(Toy(), steps=130), "steps=120, this run 130"),
            (lambda: trial_of(Toy(), CONFIG.replace(full_steps=11)), "full_steps=10, this one 11"),
            (lambda: trial_of(Toy(norm=True)), "another workload"),
        ],
        ids=["seed", "steps", "config", "model"],
    )
    def test_another_run_is_refused(self, other, word):
        trial = trial_of(Toy())
        trial.report()
        with pytest.raises(UserError, match=word):
            other().load_state_dict(from_bytes(saved(trial)))

    @pytest.mark.parametrize("name", ["format", "version"])
    def test_the_state_of_other_code_is_refused(self, name):
        trial = trial_of(Toy())
        with pytest.raises(UserError, match=f"{name}='0'"):
            trial.load_state_dict({**trial.state_dict(), name: "0"})
