"""Tables for a terminal show what there is to tell, and never cut a number off."""

import io
import math

import pytest
from rich.console import Console

from hybrid_sweep.cli import render


@pytest.fixture
def front():
    values = dict.fromkeys(render.FRONT_COLUMNS, 1.0) | {"trial_id": "H075_I00_C0.60", "seed": "0"}
    return [values | {"quality_vs_frozen": math.nan}]


def headings(front, width):
    return [column.header for column in render.front_table(front, width).columns]


def test_a_column_without_a_value_is_left_out(front):
    assert "vs\nfrozen" not in headings(front, 200)
    assert "vs\ntrunc." in headings(front, 200)


def test_settings_are_left_to_the_id_where_the_screen_is_narrow_or_the_id_long(front):
    assert "H" in headings(front, 120)
    assert "H" not in headings(front, 80)
    assert "H" not in headings(
        [front[0] | {"trial_id": "H075_I00_C0.60_full_steps=8_stop_fraction=0.03"}], 120
    )


@pytest.mark.parametrize("trial_id", ["H075_I00_C0.60", "T0039_H069_I15_C0.59_D2.53" * 3])
@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_number_and_no_id_is_cut_off_where_the_screen_is_narrow(front, width, trial_id):
    screen_text = io.StringIO()
    rows = [front[0] | {"trial_id": trial_id, "speedup": 12.345, "quality": 0.9876}]
    Console(file=screen_text, width=width).print(render.front_table(rows, width))
    assert "…" not in screen_text.getvalue()
    assert "12.345" in screen_text.getvalue()
    assert "0.9876" in screen_text.getvalue()
    ids = (line[1:].split(" ")[0] for line in screen_text.getvalue().splitlines())
    assert trial_id in "".join(ids)
