"""What a study has asked for, from a journal and back."""

import pytest

from hybrid_sweep.errors import UserError
from hybrid_sweep.search.asked import AskedPoint
from hybrid_sweep.search.space import Point, complete_hash

ASKED = AskedPoint(
    number=3,
    point=Point(trial_id="T0003_H050", config={"max_predict_steps": 50}),
    params={"max_predict_steps": 50},
    source="tpe",
    masked=("0" * 16,),
)


def test_it_comes_back_as_it_was_written():
    assert AskedPoint.from_event(ASKED.event()) == ASKED


@pytest.mark.parametrize("name", ["number", "config", "params", "source"])
@pytest.mark.parametrize("value", ["missing", None, [1]])
def test_what_a_study_cannot_go_on_without_is_named(name, value):
    event = ASKED.event() | {name: value}
    if value == "missing":
        del event[name]
    with pytest.raises(UserError, match=rf"journal is corrupt: a 'asked' event has {name}="):
        AskedPoint.from_event(event)


def test_a_journal_of_earlier_names_is_read_in_those_of_today():
    event = ASKED.event() | {"config": {"gates": "seed"}, "params": {"cycle_mode": "rust"}}
    read = AskedPoint.from_event(event)
    assert (read.point.config, read.params) == ({"gates": "original"}, {"cycle_mode": "chained"})
    assert complete_hash({"gates": "seed"}) == complete_hash({"gates": "original"})
