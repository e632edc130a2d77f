"""Each fault of `ray.tune`'s OptunaSearch with two objectives: shown on it, and absent from ours."""

import json
import pickle

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Repeater, Searcher
from ray.tune.search.optuna import OptunaSearch
from ray.tune.utils import flatten_dict
from support.sweeps import STEPS, result, sweep

from hybrid_sweep.cluster.tune import ParetoScheduler, StudySearcher
from hybrid_sweep.errors import UserError
from hybrid_sweep.search.asked import PriorPoint
from hybrid_sweep.search.replay import validate_same_space
from hybrid_sweep.search.storage import StorageView

OBJECTIVES = ["speedup_counted", "quality"]
SMALL = {"max_predict_steps": [50, 75], "correction_interval": [0, 10]}


def theirs(storage=None, mode="max", **options):
    """An OptunaSearch, and its study by the name that it gives it."""
    storage = storage or optuna.storages.InMemoryStorage()
    space = {"x": FloatDistribution(0, 1)}
    searcher = OptunaSearch(space, metric=OBJECTIVES, mode=[mode, mode], storage=storage, **options)
    return searcher, optuna.load_study(study_name="optuna", storage=storage)


def ended(config, **changes):
    """The last result of a run, as HybridTrainable gives it."""
    finished = {"state": "done", "reason": "", "result": result(config, **changes)}
    return {"report": {"step": STEPS}, "finished": finished, "done": True}


class Ours:
    """A StudySearcher with what its sampler was told."""

    def __init__(self, **settings):
        self.told = []
        self.searcher = StudySearcher(sweep(**settings), "id", STEPS, on_told=self.told.append)

    def run(self, trial_id, **changes):
        """One run from its suggestion to its end."""
        config = self.searcher.suggest(trial_id)["point"]["config"]
        self.searcher.on_trial_complete(trial_id, ended(config, **changes))
        return config


@pytest.mark.parametrize("bad", [{"quality": float("nan")}, {"quality": None}])
def test_1_a_result_that_is_no_number(bad):
    them, study = theirs()
    them.suggest("a")
    them.on_trial_complete("a", {"speedup_counted": 1.0, **bad})
    assert study.trials[0].state is TrialState.RUNNING  # and it is never anything else

    us = Ours()
    us.run("a", **bad)
    assert us.told[0].state is TrialState.FAIL
    assert "quality" in us.told[0].user_attrs["reason"]


def test_2_a_run_that_was_stopped():
    early = {"speedup_counted": 9.0, "quality": 9.0, "step": 50}
    them, study = theirs()
    them.suggest("a")
    them.on_trial_result("a", early)
    them.on_trial_complete("a", early)
    assert study.trials[0].state is TrialState.COMPLETE
    assert study.trials[0].values == [9.0, 9.0]

    us = Ours()
    us.searcher.suggest("a")
    us.searcher.on_trial_complete("a", {"report": early})
    assert us.told[0].state is TrialState.PRUNED
    assert us.told[0].user_attrs["partial"] == {"0": early}
    assert us.searcher.study.hypervolume == 0


def test_3_what_is_known_beforehand():
    for rewards in ([[1.5, 0.9]], [1.5]):
        with pytest.raises((TypeError, ValueError)):
            theirs(points_to_evaluate=[{"x": 0.5}], evaluated_rewards=rewards)

    us = Ours(sampler="grid", space=SMALL)
    point = {"max_predict_steps": 50, "correction_interval": 0}
    values = {"speedup_counted": 1.5, "quality": 0.9}
    us.searcher.study.learn(PriorPoint(config=point, params=point, values=values, source="earlier"))
    assert point not in [us.run(str(n)) for n in range(3)]
    assert us.searcher.suggest("d") == Searcher.FINISHED


def test_4_another_sweep_in_the_same_storage(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    them, _ = theirs(optuna.storages.RDBStorage(url))
    them.suggest("a")
    them.on_trial_complete("a", {"speedup_counted": 1.0, "quality": 1.0})
    second, study = theirs(optuna.storages.RDBStorage(url), mode="min")
    second.suggest("a")
    assert len(study.trials) == 2  # with that of the first sweep
    assert [direction.name for direction in study.directions] == ["MAXIMIZE"] * 2

    for sweep_id in ("one", "two"):
        view = StorageView.open(url, tmp_path, f"x-{sweep_id}", new=True)
        searcher = StudySearcher(sweep(), sweep_id, STEPS, on_told=view.add)
        config = searcher.suggest("a")["point"]["config"]
        searcher.on_trial_complete("a", ended(config))
        assert len(optuna.load_study(study_name=f"x-{sweep_id}", storage=url).trials) == 1
    with pytest.raises(UserError, match="x-one"):
        StorageView.open(url, tmp_path, "x-one", new=True)
    with pytest.raises(UserError, match="max_predict_steps"):
        validate_same_space(sweep(space=SMALL), sweep())


def test_5_a_crash_after_the_last_save(tmp_path):
    url, saved = f"sqlite:///{tmp_path / 'theirs.db'}", str(tmp_path / "theirs.pkl")
    them, _ = theirs(optuna.storages.RDBStorage(url))
    them.suggest("a")
    them.save(saved)
    them.suggest("b")
    them.on_trial_complete("a", {"speedup_counted": 1.0, "quality": 1.0})
    again, study = theirs(optuna.storages.RDBStorage(url))
    again.restore(saved)
    with pytest.raises(KeyError):
        again.on_trial_complete("b", {"speedup_counted": 1.0, "quality": 1.0})
    again.suggest("c")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "RUNNING", "RUNNING"]

    us, saved = Ours(), str(tmp_path / "ours.jsonl")
    first = us.searcher.suggest("a")["point"]
    us.searcher.save(saved)
    lost = us.searcher.suggest("b")["point"]
    us.searcher.on_trial_complete("a", ended(first["config"]))
    back = Ours()
    back.searcher.restore(saved)
    back.searcher.on_trial_complete("b", ended(lost["config"]))
    assert back.searcher.suggest("c")["point"] == lost
    back.searcher.on_trial_complete("c", ended(lost["config"]))
    back.searcher.on_trial_complete("a", ended(first["config"]))
    back.searcher.on_trial_complete("a", ended(first["config"]))
    assert [trial.state for trial in back.told] == [TrialState.COMPLETE] * 2


def test_6_constraints_on_results():
    given = []

    def constraints(trial):
        given.append(dict(trial.user_attrs))
        return [1.0]

    with pytest.warns(FutureWarning, match="constraints_func"):
        sampler = optuna.samplers.TPESampler(constraints_func=constraints)
    them, _ = theirs(sampler=sampler)
    them.suggest("a")
    them.on_trial_complete("a", {"speedup_counted": 1.0, "quality": 0.5, "warning_rate": 0.9})
    assert given == [{}]  # nothing of the result, so nothing to constrain by

    us = Ours(constraints={"min_quality": 0.9, "max_divergence_rate": 0.1})
    us.run("a", quality=0.5, warning_rate=0.9)
    assert us.told[0].constraints == pytest.approx(
        {"diverged": 0, "min_quality": 0.4, "max_divergence_rate": 0.8}
    )


def test_7_a_grid():
    them, _ = theirs(sampler=optuna.samplers.GridSampler({"x": [0.0, 1.0]}))
    values = []
    for number in range(6):
        values.append(them.suggest(str(number))["x"])
        them.on_trial_complete(str(number), {"speedup_counted": 1.0, "quality": 1.0})
    assert len(values) > len(set(values))
    with pytest.raises(ValueError, match="Grid search"):
        OptunaSearch.convert_search_space({"x": tune.grid_search([0, 1])})

    us = Ours(sampler="grid", space=SMALL)
    configs = [tuple(us.run(str(number)).values()) for number in range(4)]
    assert len(set(configs)) == 4
    assert us.searcher.suggest("more") == Searcher.FINISHED


def test_8_repeats_a_storage_by_its_url_and_what_is_saved(tmp_path):
    repeated = Repeater(theirs()[0], repeat=2)
    repeated.suggest("a")
    with pytest.raises(TypeError, match="unhashable"):
        repeated.on_trial_complete("a", {"speedup_counted": 1.0, "quality": 1.0})
    with pytest.raises(AssertionError, match="storage"):
        theirs("sqlite:///x.db")

    us = Ours(repeats=2, storage="sqlite:///x.db")
    runs = [us.searcher.suggest(name)["point"] for name in ("a", "b")]
    assert runs[0]["config"] == runs[1]["config"]
    assert [run["seed"] for run in runs] == [0, 1]
    for name, quality in (("b", 1.0), ("a", 0.8)):
        assert not us.told
        last = ended(runs[0]["config"], speedup_counted=2.0, quality=quality)
        us.searcher.on_trial_complete(name, last)
    assert us.told[0].values == pytest.approx([2.0, 0.9])
    us.searcher.save(str(tmp_path / "saved"))
    lines = (tmp_path / "saved").read_text().splitlines()
    kinds = [json.loads(line)["event"] for line in lines]
    assert kinds == ["asked", "started", "started", "finished", "finished"]


def test_a_result_of_the_trainable_is_read_as_it_is_and_as_tune_flattens_it():
    us = Ours()
    for name in "abcd":
        us.searcher.suggest(name)
    values = {"speedup_counted": 2.0, "quality": 0.95}
    finished = {"state": "diverged", "reason": "loss is nan", "result": values}
    nested = {"report": {"step": 90}, "finished": finished, "done": True}
    us.searcher.on_trial_complete("a", nested)
    us.searcher.on_trial_complete("b", flatten_dict(nested))
    us.searcher.on_trial_complete("c", error=True)
    us.searcher.on_trial_complete("d")
    assert [trial.state.name for trial in us.told] == ["COMPLETE", "COMPLETE", "FAIL", "PRUNED"]
    assert [trial.values for trial in us.told[:2]] == [[2.0, 0.0]] * 2
    assert us.told[0].constraints["diverged"] == us.told[1].constraints["diverged"] == 1


def test_the_scheduler_stops_what_the_study_gives_up(tmp_path):
    class HybridRun:
        def __init__(self, trial_id):
            self.trial_id = trial_id

    us = Ours(early_stopping={}, repeats=2, sampler="random", trials=3)
    scheduler = ParetoScheduler(us.searcher)
    names = [str(n) for n in range(5)]
    points = [us.searcher.suggest(name)["point"]["trial_id"] for name in names]
    decisions = []
    for name, speedup in (("0", 2.0), ("2", 1.8), ("4", 1.0)):
        for step in (150, 200, 320):
            values = {"step": step, "speedup_counted": speedup, "quality": speedup / 3, "backward_calls": 90}
            decisions.append(
                scheduler.on_trial_result(None, HybridRun(name), flatten_dict({"report": values, "x": {}}))
            )
    assert decisions == [TrialScheduler.CONTINUE] * 8 + [TrialScheduler.STOP]
    assert us.searcher.suggest("5") == Searcher.FINISHED  # the other seed of a stopped point is not run
    us.searcher.on_trial_complete("4", {"report": values})
    assert us.told[0].state is TrialState.PRUNED
    us.searcher.save(str(tmp_path / "saved"))
    back = Ours(early_stopping={}, repeats=2, sampler="random", trials=3)
    back.searcher.restore(str(tmp_path / "saved"))
    assert not back.searcher.study.wants(points[4])
    assert back.searcher.suggest("6") == Searcher.FINISHED


def test_tune_can_pickle_both_together():
    searcher = StudySearcher(sweep(), "id", STEPS)
    searcher.suggest("a")
    copy, scheduler = pickle.loads(pickle.dumps((searcher, ParetoScheduler(searcher))))
    assert scheduler.searcher is copy
    assert copy.suggest("b") == searcher.suggest("b")


def test_a_space_of_tune_is_refused_for_the_study_has_its_own():
    searcher = StudySearcher(sweep(), "id", STEPS)
    assert searcher.set_search_properties(None, None, {})
    assert not searcher.set_search_properties(None, None, {"x": tune.uniform(0, 1)})
