"""The Python face: what a script and a notebook do with a sweep."""

import sys

import numpy as np
import pytest
from support.toy import Toy

import hybrid_sweep as hs
from hybrid_sweep.api import Results
from hybrid_sweep.driver.events import Note, SweepEnded
from hybrid_sweep.driver.sweep import SweepOutcome
from hybrid_sweep.user_code import _SweepWithin


class Listener(hs.Callback):
    """Notes its calls in order."""

    def __init__(self, calls, fails=False):
        self.calls, self.fails = calls, fails

    def setup(self, spec):
        self.calls.append(("setup", spec.name))
        if self.fails:
            raise RuntimeError("no room")

    def on_sweep_end(self, event):
        self.calls.append(("end", event.interrupted))

    def teardown(self):
        self.calls.append("teardown")


@pytest.fixture
def launched(monkeypatch, grid60):
    """Stands in for Ray: returns what `run_sweep` and `resume_sweep` were called with."""
    calls = []

    def run(*arguments, on_event, **options):
        calls.append((arguments, options))
        on_event(Note("starting"))
        on_event(SweepEnded({"done": 1}, False))
        return SweepOutcome(folder=grid60, counts={"done": 1}, interrupted=False)

    monkeypatch.setattr("hybrid_sweep.cluster.launch.run_sweep", run)
    monkeypatch.setattr("hybrid_sweep.cluster.launch.resume_sweep", run)
    return calls


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    """Where classes are written that are in no file."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


class TestSweep:
    def test_it_is_the_sweep_of_the_issue(self):
        space = {"max_predict_steps": [20, 40, 80], "confidence_threshold": hs.Range(0.3, 0.9)}
        spec = hs.Sweep(Toy, space=space, trials=40, seeds=3).spec
        assert (spec.name, spec.trials, spec.seeds) == ("Toy", 40, [0, 1, 2])
        assert spec.space["max_predict_steps"] == [20, 40, 80]
        assert spec.space["confidence_threshold"] == hs.Range(low=0.3, high=0.9)
        assert spec.workload.name == f"{sys.modules[Toy.__module__].__file__}:Toy"

    @pytest.mark.parametrize(
        "values", [(5, 9), range(5, 10, 4), np.array([5, 9])], ids=["tuple", "range", "array"]
    )
    def test_values_may_be_any_sequence(self, values):
        assert hs.Sweep(Toy, {"max_predict_steps": values}).spec.space == {"max_predict_steps": [5, 9]}

    def test_keywords_and_settings_are_handed_on(self):
        spec = hs.Sweep(Toy, keywords={"dropout": 0.5}, steps=9, sampler="random", name="mine").spec
        assert (spec.workload.keywords, spec.steps, spec.sampler) == ({"dropout": 0.5}, 9, "random")
        assert spec.name == "mine"

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"space": {"horizon": [5]}}, "unknown trainer setting 'horizon'"),
            ({"trails": 5}, "unknown key 'trails'.*trials"),
            ({"seeds": 0}, "repeats=0"),
            ({"workload": Toy()}, "give a class with the five methods"),
        ],
    )
    def test_a_mistake_is_told_in_a_sentence(self, fields, said):
        with pytest.raises(hs.UserError, match=said):
            hs.Sweep(**{"workload": Toy, **fields})

    @pytest.mark.parametrize(("called", "name"), [("_Net", "Net"), ("Modèle", "Modle"), ("_é", "sweep")])
    def test_a_name_that_no_folder_may_have_is_made_one(self, called, name):
        assert hs.Sweep(type(called, (Toy,), {})).spec.name == name

    def test_none_runs_while_a_worker_imports_the_script(self, launched, monkeypatch, grid60):
        calls = []
        monkeypatch.setattr("hybrid_sweep.user_code._importing", ["script.py"])
        with pytest.raises(_SweepWithin):
            hs.Sweep(Toy).run(callbacks=[Listener(calls)])
        with pytest.raises(_SweepWithin):
            hs.resume("nowhere", callbacks=[Listener(calls)])
        assert calls == launched == []

    def test_a_packaged_one_with_changes(self):
        assert hs.Sweep.from_file("grid60", steps=7).spec == hs.load_spec("grid60", {"steps": 7})

    def test_it_runs_with_callbacks_and_returns_results(self, launched, grid60, tmp_path):
        calls = []
        sweep = hs.Sweep(Toy, {"max_predict_steps": [5]})
        results = sweep.run(str(tmp_path / "out"), keep_models="front", callbacks=[Listener(calls)])
        assert calls == [("setup", "Toy"), ("end", False), "teardown"]
        assert launched == [((sweep.spec, tmp_path / "out"), {"address": None, "keep_models": "front"})]
        assert results.path == grid60.path

    def test_callbacks_that_are_set_up_are_torn_down_whatever_the_next_one_does(self, launched):
        calls = []
        with pytest.raises(RuntimeError, match="no room"):
            hs.Sweep(Toy).run(callbacks=[Listener(calls), Listener(calls, fails=True)])
        assert calls == [("setup", "Toy"), ("setup", "Toy"), "teardown"]
        assert not launched


class TestResults:
    def test_the_tables_are_the_folders(self, grid60):
        results = hs.load_results(str(grid60.path))
        assert results.trials.equals(grid60.trials())
        assert results.steps.equals(grid60.steps())
        assert results.pareto.equals(grid60.table("front"))
        assert results.manifest["sweep_id"] == grid60.manifest["sweep_id"]

    def test_the_best_point_is_the_verdicts(self, grid60):
        results = Results(grid60)
        assert results.best.trial_id == results.verdict.trial_id
        row = results.pareto.set_index("trial_id").loc[results.best.trial_id]
        assert (results.best.speedup, results.best.quality) == (row["speedup"], row["quality"])
        assert isinstance(results.best.config, hs.HybridConfig)
        assert results.best.config.max_predict_steps == row["max_predict_steps"]

    def test_a_sweep_without_a_result_has_none(self, empty):
        results = Results(empty)
        assert results.best is None
        assert "no run yet; 0 on the front" in repr(results)

    def test_a_notebook_shows_the_verdict_and_the_front(self, grid60):
        results = Results(grid60)
        shown = results._repr_html_()
        assert results.verdict.recommendation in shown
        assert all(point in shown for point in results.pareto["trial_id"][:3])

    def test_the_front_is_a_figure_in_true_colours(self, grid60):
        figure = Results(grid60).plot_front()
        assert "--" not in str(figure.to_dict()["data"])
        names = [trace.name for trace in figure.data]
        assert any(name and name.startswith("Pareto front") for name in names)

    def test_confirm_is_that_of_the_command(self, grid60, monkeypatch):
        asked = []

        def confirm(path, **options):
            asked.append((path, options))
            return "found"

        monkeypatch.setattr("hybrid_sweep.confirm.sweep.confirm_sweep", confirm)
        assert Results(grid60).confirm(seeds=7) == "found"
        assert asked == [(grid60.path, {"seeds": 7, "points": 2, "arms": "basic", "trust": False})]


def test_resume_takes_a_path_and_changes(launched, monkeypatch, grid60):
    monkeypatch.setattr("hybrid_sweep.driver.sweep.recorded_spec", lambda folder, changes: hs.Sweep(Toy).spec)
    calls = []
    hs.resume(str(grid60.path), trials=90, retry_failed=True, callbacks=[Listener(calls)])
    (((path,), options),) = launched
    assert path == grid60.path
    assert options == {"changes": {"trials": 90}, "retry_failed": True, "address": None, "trust": False}
    assert calls[0] == ("setup", "Toy")


def test_the_progress_bar_prints_what_happens(launched, capsys):
    hs.Sweep(Toy).run(callbacks=[hs.ProgressBar()])
    assert "starting" in capsys.readouterr().out
