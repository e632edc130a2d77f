import random
import re
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from support.sweeps import CONDITIONAL, SPACE, STEPS, Session, report, result, sweep

from hybrid_sweep.errors import UserError
from hybrid_sweep.search.asked import AskedPoint, PriorPoint
from hybrid_sweep.search.sampler import make_sampler, sampler_arguments
from hybrid_sweep.search.space import complete_hash
from hybrid_sweep.search.study import Study
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.presets import PRESETS

SMALL = {"max_predict_steps": [50, 75], "correction_interval": [0, 10, 15], "gates": ["off", "learned"]}


def study(on_told=None, **settings):
    return Study(sweep(**settings), "id", STEPS, on_told=on_told)


def finish(study, asked, state="done", reason="", seeds=(0,), **changes):
    for seed in seeds:
        study.finish((asked.point.trial_id, seed), state, reason, result(asked.point.config, seed, **changes))


def ask_all(study):
    asked = []
    while (one := study.ask()) is not None:
        asked.append(one)
        finish(study, one)
    return asked


def test_presets_and_points_are_asked_first_in_order_and_the_trainer_section_holds_for_all():
    points = [{"max_predict_steps": 33}, {"max_predict_steps": 44, "confidence_threshold": 0.5}]
    found = ask_all(
        study(
            presets=["balanced", "aggressive"],
            points=points,
            trainer={"full_steps": 15},
            sampler="random",
            trials=6,
        )
    )
    assert [one.source for one in found] == ["preset", "preset", "point", "point", "random", "random"]
    assert [one.number for one in found] == list(range(6))
    assert found[0].point.config == PRESETS["balanced"].model_dump(
        exclude_unset=True
    )  # full_steps 20, its own
    assert found[2].point.config == {"full_steps": 15, "max_predict_steps": 33}
    assert all(one.point.config["full_steps"] == 15 for one in found[2:])


def test_the_parameters_of_a_given_point_are_those_that_lie_in_the_space():
    asked = study(points=[{"max_predict_steps": 1000, "confidence_threshold": 0.5}]).ask()
    assert asked.params == {
        "confidence_threshold": 0.5,
        "correction_interval": 0,
        "divergence_threshold": 3.0,
    }


def test_a_given_point_that_is_no_configuration_is_refused_at_once():
    with pytest.raises(UserError, match=r"confidence_threshold=3"):
        study(points=[{"confidence_threshold": 3}])


def test_a_grid_is_asked_whole_in_its_order_under_the_ids_of_a_grid():
    found = ask_all(study(sampler="grid", space=SMALL))
    assert len(found) == 12
    assert found[1].point.trial_id == "H075_I00_C0.85_gates=off"
    assert {one.source for one in found} == {"grid"}
    configs = [tuple(one.point.config.values()) for one in found]
    assert configs[:3] == [(50, 0, "off"), (75, 0, "off"), (50, 10, "off")]


def test_a_point_of_the_grid_that_was_given_is_not_asked_again():
    given = [
        {"max_predict_steps": 75, "correction_interval": 10, "gates": "off"},
        {"correction_interval": 10},
    ]
    found = ask_all(study(sampler="grid", space=SMALL, points=given))
    assert len(found) == 13
    assert found[0].point.trial_id == "T0000_H075_I10_C0.85_gates=off"
    assert len({complete_hash(one.point.config) for one in found}) == 13


def test_a_default_said_and_one_left_out_are_one_configuration():
    default = HybridConfig()
    given = [
        {},
        {"full_steps": default.full_steps},
        {"warmup_steps": default.warmup_steps, "stop_fraction": 0.05},
    ]
    asked = study(points=given)
    assert asked.ask().source == "point"
    assert asked.ask().source == "tpe"


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_a_finite_space_is_asked_to_its_last_point_and_none_twice(sampler):
    one = study(sampler=sampler, space=SMALL, trials=100)
    assert one.budget == 12
    found = ask_all(one)
    assert len({complete_hash(asked.point.config) for asked in found}) == len(found) == 12
    assert not one.has_more
    assert one.ask(trials=1000) is None


def test_a_finite_space_with_conditions_too():
    space = {
        "gates": ["off", "learned", "original"],
        "predictor_hidden_size": {"values": [8, 16], "when": {"gates": ["learned"]}},
        "minimum_cosine": {"low": -0.5, "high": 0.5, "step": 0.5, "when": {"gates": ["learned", "original"]}},
    }
    found = ask_all(study(space=space, trials=100, presets=["balanced"]))
    assert len({complete_hash(asked.point.config) for asked in found}) == len(found) == 1 + 1 + 2 * 3 + 3


def test_a_space_without_axes_has_one_point():
    assert len(ask_all(study(space={}, sampler="random"))) == 1


def test_the_budget_is_in_points_and_may_be_raised():
    one = study(sampler="random", trials=3)
    assert len(ask_all(one)) == 3
    assert not one.has_more
    assert one.ask(trials=4).number == 3
    assert study().budget == 50
    assert study(points=[{"full_steps": n} for n in range(1, 61)]).budget == 60
    assert study(sampler="grid", space=SMALL, presets=["balanced"]).budget == 13
    assert study(sampler="grid", space=SMALL, trials=5).budget == 5
    assert study(space=SMALL, points=[{"max_predict_steps": 50}, {"full_steps": 5}]).budget == 12 + 1


def test_axes_are_chosen_only_where_they_exist_and_listed_values_stay_themselves():
    for asked in ask_all(study(space=CONDITIONAL, trials=40)):
        params, learned = asked.params, asked.params["gates"] == "learned"
        assert ("predictor_hidden_size" in params) == learned
        assert ("minimum_cosine" in params) == (params["gates"] != "off")
        assert params.get("minimum_cosine", 0.0) in (-0.9, -0.6, -0.3, 0.0, 0.3, 0.6, 0.9)
        assert asked.point.config == params


def test_ids_are_unique_fit_for_a_file_and_short():
    space = SPACE | {"stop_fraction": {"low": 0.0, "high": 0.3}, "minimum_cosine": {"low": -0.9, "high": 0.5}}
    space |= {"velocity_decay": {"low": 0.5, "high": 0.99}, "guard_tolerance": {"low": 1.1, "high": 3.0}}
    found = ask_all(study(space=space, sampler="random", trials=60))
    ids = [asked.point.trial_id for asked in found]
    assert len(set(ids)) == 60
    for name in ids:
        assert re.fullmatch(r"T\d{4}_H\d{3,4}_I\d\d_C0\.\d\d_D\d\.\d\d_[a-z_]+=[\w.=+-]+", name)
        assert len(name) <= 80


def test_a_point_is_told_once_all_its_seeds_have_ended_with_their_means():
    told = []
    one = study(told.append, repeats=3, seed=5, constraints={"min_quality": 0.9})
    asked = one.ask()
    key = asked.point.trial_id
    for seed, quality in zip((6, 5, 7), (0.9, 0.8, 1.0), strict=True):
        assert not told
        one.finish((key, seed), "done", "", {"speedup_counted": float(seed), "quality": quality})
    (trial,) = told
    assert trial.state is TrialState.COMPLETE
    assert trial.values == pytest.approx([6.0, 0.9])
    assert trial.params == asked.params
    assert trial.constraints == pytest.approx({"diverged": 0, "min_quality": 0})
    assert trial.user_attrs["trial_id"] == key
    assert (trial.user_attrs["number"], trial.user_attrs["source"]) == (0, "tpe")


@pytest.mark.parametrize(
    ("state", "changes", "expected"),
    [
        ("done", {"quality": float("nan")}, TrialState.FAIL),
        ("done", {"speedup_counted": float("inf")}, TrialState.FAIL),
        ("done", {"quality": None}, TrialState.FAIL),
        ("failed", {}, TrialState.FAIL),
        ("diverged", {}, TrialState.COMPLETE),
        ("diverged", {"speedup_counted": None}, TrialState.FAIL),
        ("pruned", {}, TrialState.PRUNED),
    ],
)
def test_nothing_but_a_good_run_reaches_the_front_and_nothing_stays_open(state, changes, expected):
    told = []
    one = study(told.append)
    finish(one, one.ask(), state, "it is so", **changes)
    assert told[0].state is expected
    assert one.hypervolume == 0
    if expected is not TrialState.COMPLETE:
        assert told[0].user_attrs["reason"]
        assert told[0].values is None


def test_a_stopped_point_keeps_its_last_values_at_its_own_fidelity():
    told = []
    one = study(told.append, repeats=2)
    asked = one.ask()
    key = (asked.point.trial_id, 1)
    one.report(key, {"step": 120, "speedup_counted": 1.1, "quality": 0.8})
    one.finish(key, "pruned", "early", {})
    one.finish(
        (key[0], 0), "pruned", "early", {"steps": 250, "speedup_counted": 1.2, "quality": float("nan")}
    )
    assert told[0].state is TrialState.PRUNED
    assert told[0].user_attrs["partial"] == {
        "0": {"step": 250, "speedup_counted": 1.2, "quality": None},
        "1": {"step": 120, "speedup_counted": 1.1, "quality": 0.8},
    }


def stop_one(told, repeats):
    """Three points, of which the last is stopped at its first rung with its first seed."""
    one = study(told.append, early_stopping={}, sampler="random", repeats=repeats)
    points = [one.ask().point.trial_id for _ in range(3)]
    for point, speedup in zip(points, (2.0, 1.8, 1.0), strict=True):
        for step in (150, 200, 320):
            values = {"step": step, "speedup_counted": speedup, "quality": speedup / 3, "backward_calls": 90}
            stopped = one.report((point, 0), values)
    assert stopped
    return one, points


def test_a_point_that_was_stopped_needs_no_other_seeds():
    told = []
    one, points = stop_one(told, repeats=2)
    assert [one.wants(point) for point in points] == [True, True, False]
    assert one.report((points[2], 1), {"step": 20, "speedup_counted": 9.0, "quality": 1.0})
    one.finish((points[2], 0), "pruned", "early", {})
    one.finish((points[2], 1), "pruned", "early", {})
    assert [trial.user_attrs["trial_id"] for trial in told] == [points[2]]
    assert told[0].state is TrialState.PRUNED


def test_a_stopped_point_whose_run_came_to_its_end_before_that_is_told_all_the_same():
    told = []
    one, points = stop_one(told, repeats=2)
    one.finish((points[2], 0), "done", "", {"speedup_counted": 2.0, "quality": 1.0})
    assert [trial.state for trial in told] == [TrialState.PRUNED]
    one, points = stop_one(told, repeats=1)
    one.finish((points[2], 0), "done", "", {"speedup_counted": 2.0, "quality": 1.0})
    assert told[1].state is TrialState.COMPLETE


def test_without_early_stopping_nothing_is_stopped():
    one = study()
    for _ in range(10):
        asked = one.ask()
        assert not any(
            one.report((asked.point.trial_id, 0), report(asked.point.config, step))
            for step in range(90, STEPS, 90)
        )


def test_a_failed_run_can_be_opened_again():
    told = []
    one = study(told.append, repeats=2)
    asked = one.ask()
    finish(one, asked, "failed", "lost", seeds=(0,))
    finish(one, asked, seeds=(1,))
    one.retry((asked.point.trial_id, 0))
    finish(one, asked, seeds=(0,))
    assert [trial.state for trial in told] == [TrialState.FAIL, TrialState.COMPLETE]
    assert one.hypervolume > 0
    before_all_have_ended = one.ask()
    finish(one, before_all_have_ended, "failed", "lost", seeds=(1,))
    one.retry((before_all_have_ended.point.trial_id, 1))
    finish(one, before_all_have_ended, seeds=(0, 1))
    assert told[-1].state is TrialState.COMPLETE
    one.retry(("never asked", 0))


def test_points_that_behave_alike_are_marked():
    told = []
    one = study(told.append, repeats=2)
    first, second, third, fourth, unknown = (one.ask() for _ in range(5))
    finish(one, first, seeds=(0, 1), behaviour="aa")
    finish(one, second, seeds=(1, 0), behaviour="aa")
    finish(one, third, "diverged", seeds=(0, 1), behaviour="aa")
    finish(one, fourth, seeds=(0,), behaviour="aa")
    finish(one, fourth, seeds=(1,), behaviour="bb")
    finish(one, unknown, seeds=(0, 1), behaviour="")
    twins = [trial.user_attrs.get("same_behaviour_as") for trial in told]
    assert twins == [None, first.point.trial_id, None, None, None]


def test_a_sweep_is_flat_when_points_no_longer_add_to_the_hypervolume():
    one = study(stop_when_flat=3, sampler="random")
    for values in ((1.5, 0.95), (2.0, 0.98)):
        finish(one, one.ask(), speedup_counted=values[0], quality=values[1])
    assert one.hypervolume == pytest.approx(0.08)
    finish(one, one.ask(), speedup_counted=1.9, quality=0.97)
    finish(one, one.ask(), "failed")
    finish(one, one.ask(), "pruned")
    assert not one.flat
    finish(one, one.ask(), "diverged")
    assert one.flat
    assert not one.has_more
    assert not study(sampler="random").flat


def known(config, params=None, **values):
    columns = {"speedup_counted": 1.5, "quality": 0.95, "warning_rate": 0.0, "peak_memory_ratio": None}
    return PriorPoint(config=config, params=params, values={**columns, **values}, source="earlier: T0001")


def test_what_is_known_is_learned_from_and_never_asked():
    one, told = study(sampler="grid", space=SMALL), []
    params = {"max_predict_steps": 50, "correction_interval": 0, "gates": "off"}
    one.learn(known(HybridConfig(**params).model_dump(), params))
    one.learn(known({"max_predict_steps": 1000}))
    assert one.budget == 11
    assert params not in [asked.params for asked in ask_all(one)]
    assert not told
    assert one.hypervolume > 0


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_what_is_known_changes_what_is_asked(sampler):
    def asked_after(speedup_of):
        one = study(sampler=sampler, space=SPACE, trials=30)
        rng = random.Random(0)
        for _ in range(60):
            params = {"max_predict_steps": rng.randrange(20, 301), "correction_interval": 5}
            params |= {"confidence_threshold": rng.uniform(0.3, 0.95), "divergence_threshold": 3.0}
            one.learn(
                known(params, params, speedup_counted=speedup_of(params["max_predict_steps"]), quality=1.0)
            )
        return [one.ask().params["max_predict_steps"] for _ in range(15)]

    long, short = asked_after(lambda horizon: horizon / 100), asked_after(lambda horizon: 3 - horizon / 100)
    assert sum(long) > 1.3 * sum(short)


def test_a_constraint_keeps_the_sampler_away():
    def asked_with(constraints):
        one = study(trials=60, constraints=constraints)
        found = ask_all(one)
        return [result(asked.point.config)["quality"] for asked in found[30:]]

    free, bound = asked_with({}), asked_with({"min_quality": 0.97})
    assert sum(quality < 0.97 for quality in bound) < sum(quality < 0.97 for quality in free)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "random", "grid"])
def test_every_argument_of_a_sampler_but_the_deprecated_ones_is_said(sampler):
    import inspect

    spec = sweep(sampler=sampler, space=SMALL)
    made = make_sampler(spec, 1)
    takes = {
        name
        for name, parameter in inspect.signature(type(made).__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    deprecated = {"consider_prior", "prior_weight", "consider_magic_clip", "consider_endpoints", "gamma"}
    deprecated |= {"weights", "warn_independent_sampling"} if sampler == "tpe" else set()
    assert sampler_arguments(spec).keys() - {"sampler"} == takes - {"seed"} - deprecated
    assert sampler_arguments(spec)["sampler"] == sampler


def test_a_space_with_conditions_is_modelled_by_groups():
    assert sampler_arguments(sweep(space=CONDITIONAL))["group"]
    assert not sampler_arguments(sweep())["group"]


@pytest.mark.filterwarnings("error")
def test_a_study_makes_no_noise(caplog):
    with caplog.at_level("INFO"):
        ask_all(study(space=CONDITIONAL, trials=12))
    assert not caplog.records


def continues_alike(spec, seed, cuts, **options):
    """Play a session; wherever it is cut, a restored study asks what the unbroken one asked."""
    events = Session(spec, random.Random(seed), **options).run()
    asks = [index for index, event in enumerate(events) if event["event"] == "asked"]
    for cut in {asks[round(share * (len(asks) - 1))] for share in cuts}:
        restored = Study(spec, "id", STEPS)
        restored.restore(events[:cut])
        assert restored.ask() == AskedPoint.from_event(events[cut])
    return events


SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=4)
SETTINGS = st.fixed_dictionaries(
    {
        "space": st.sampled_from([SPACE, CONDITIONAL, SMALL]),
        "presets": st.sampled_from([[], ["balanced", "conservative"]]),
        "early_stopping": st.sampled_from([None, {}]),
        "repeats": st.sampled_from([1, 2]),
        "constraints": st.sampled_from([{}, {"min_quality": 0.9, "max_divergence_rate": 0.05}]),
    }
)


@given(SETTINGS, st.sampled_from(["tpe", "random", "grid"]), st.integers(0, 2**32), SHARES)
@settings(max_examples=20, deadline=None)
def test_a_restored_study_asks_what_the_unbroken_one_would_have(options, sampler, seed, cuts):
    if sampler == "grid":
        options["space"] = SMALL
    continues_alike(sweep(sampler=sampler, trials=25, **options), seed, cuts)


@given(SETTINGS, st.integers(0, 2**32), SHARES)
@settings(max_examples=5, deadline=None)
def test_a_restored_study_stands_in_the_same_generation(options, seed, cuts):
    spec = sweep(sampler="nsga2", trials=130, **options)
    continues_alike(spec, seed, [0.5, 0.8, 1.0, *cuts], troubles=0.05)


@pytest.mark.slow
def test_a_restored_study_has_the_same_gaussian_process():
    spec = sweep(sampler="gp", trials=12, space={"max_predict_steps": {"low": 20, "high": 300}})
    events = continues_alike(spec, 0, [1.0], slots=2, troubles=0)
    done = [event for event in events if event["event"] == "finished"]
    assert len(done) == 12


def test_a_restored_study_stands_where_the_unbroken_one_did():
    told, again = [], []
    spec = sweep(trials=25, early_stopping={}, repeats=2, presets=["balanced"])
    session = Session(spec, random.Random(3), on_told=told.append)
    events = session.run()
    restored = Study(spec, "id", STEPS, on_told=again.append)
    restored.restore(events)
    assert restored.asked == session.study.asked == 25
    assert restored.hypervolume == session.study.hypervolume > 0
    points = [event["trial_id"] for event in events if event["event"] == "asked"]
    assert [restored.wants(point) for point in points] == [session.study.wants(point) for point in points]
    for one, other in zip(told, again, strict=True):
        assert (one.state, one.values, one.params, one.user_attrs) == (
            other.state,
            other.values,
            other.params,
            other.user_attrs,
        )
    assert Counter(trial.state for trial in told).keys() >= {TrialState.COMPLETE, TrialState.PRUNED}


def test_an_event_that_lacks_something_is_named():
    with pytest.raises(UserError, match=r"journal is corrupt: a 'asked' event has params=None"):
        study().restore([{"event": "asked", "trial_id": "T0000", "config": {}, "number": 0, "source": "tpe"}])


ASKED = [event for event in Session(sweep(trials=3), random.Random(0)).run() if event["event"] == "asked"]


@pytest.mark.parametrize(
    ("events", "what"),
    [
        ([ASKED[0], ASKED[0]], "point 0 is asked where point 1 must be"),
        ([ASKED[0], ASKED[2]], "point 2 is asked where point 1 must be"),
        ([ASKED[0] | {"params": {**ASKED[0]["params"], "correction_interval": 6}}], "point 0 is asked as"),
        ([ASKED[0] | {"config": [1]}], r"a 'asked' event has config=\[1\]"),
    ],
    ids=["doubled", "lost", "changed", "mistaken"],
)
def test_a_line_that_is_lost_doubled_or_changed_is_named(events, what):
    with pytest.raises(UserError, match=f"journal is corrupt: {what}"):
        Study(sweep(trials=3), "id", STEPS).restore(events)


def test_a_study_needs_neither_torch_nor_ray_nor_pandas():
    code = (
        "import sys; from hybrid_sweep.search.study import Study;"
        "from hybrid_sweep.spec.sweep import SweepSpec;"
        "s = Study(SweepSpec(name='x', workload='a.b:C', space={'max_predict_steps': [1, 2]}), 'id', 9);"
        "a = s.ask(); s.finish((a.point.trial_id, 0), 'done', '', {'speedup_counted': 1, 'quality': 1});"
        "print({'torch', 'ray', 'pandas'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "set()"
