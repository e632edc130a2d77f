import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sweeps import CONDITIONAL, SPACE, STEPS, Session, sweep

from hybrid_sweep.errors import UserError
from hybrid_sweep.search.replay import replay, validate_same_space

SMALL = {"max_predict_steps": [50, 75], "correction_interval": [0, 10, 15], "gates": ["off", "learned"]}


@given(
    st.sampled_from(["tpe", "random", "nsga2"]),
    st.sampled_from([SPACE, CONDITIONAL, SMALL]),
    st.sampled_from([None, {}]),
    st.sampled_from([1, 3]),
    st.integers(0, 2**32),
)
@settings(max_examples=15, deadline=None)
def test_a_sweep_replays_from_its_journal(sampler, space, early_stopping, repeats, seed):
    settings = {"sampler": sampler, "space": space, "early_stopping": early_stopping, "repeats": repeats}
    spec = sweep(trials=20, presets=["balanced", "early"], **settings)
    events = Session(spec, random.Random(seed)).run()
    asked = replay(spec, "another id", STEPS, events)
    assert [one.point.trial_id for one in asked] == [e["trial_id"] for e in events if e["event"] == "asked"]


def test_the_first_ask_that_comes_out_otherwise_is_named():
    spec = sweep(trials=15)
    events = Session(spec, random.Random(1), slots=1, troubles=0).run()
    first, last = (index for index, event in enumerate(events) if event.get("number") in (12, 13))
    for event in events[:first]:
        if event["event"] == "finished":
            event["result"]["quality"] = 2 - event["result"]["quality"]
    with pytest.raises(UserError, match=r"ask 1\d does not replay: it was T001\d_.* and now it is T001\d_"):
        replay(spec, "id", STEPS, events)
    with pytest.raises(UserError, match=r"ask 0 does not replay"):
        replay(spec.model_copy(update={"seed": 1}), "id", STEPS, events)
    assert last > first


def test_a_journal_with_more_points_than_the_space_does_not_replay():
    spec = sweep(sampler="grid", space=SMALL)
    events = Session(spec, random.Random(1)).run()
    extra = {**events[0], "number": 12}
    with pytest.raises(UserError, match=r"ask 12 does not replay: .* now nothing is left to ask"):
        replay(spec, "id", STEPS, [*events, extra])


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"sampler": "random"}, ["sampler was tpe and is random"]),
        ({"steps": 7}, ["steps was None and is 7"]),
        ({"seed": 1}, ["seed was 0 and is 1"]),
        ({"workload": {"name": "a.b:C", "lr": 0.1}}, ["workload.lr was absent and is 0.1"]),
        (
            {"space": SPACE | {"correction_interval": [1]}},
            ["space.correction_interval was [0, 5, 10, 15, 20] and"],
        ),
        ({"space": SMALL}, ["space.gates was absent", "space.confidence_threshold was {'", "is absent"]),
        (
            {"trainer": {"full_steps": 3}, "repeats": 2},
            ["repeats was 1 and is 2", "trainer.full_steps was absent"],
        ),
        (
            {"space": SPACE | {"max_predict_steps": {"low": 20, "high": 301}}},
            ["space.max_predict_steps.high was 300"],
        ),
    ],
)
def test_a_sweep_does_not_go_on_as_another_one(changes, parts):
    with pytest.raises(UserError) as caught:
        validate_same_space(sweep(**changes), sweep())
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "warm_start" in message
    assert "\n" not in message


def test_what_chooses_no_point_may_change():
    more = {"trials": 90, "concurrency": 3, "storage": "sqlite:///x", "stop_when_flat": 5, "max_retries": 0}
    validate_same_space(sweep(**more, checkpoint_seconds=5, about="more of it"), sweep())
    validate_same_space(sweep(), sweep())
