"""What an error says, whatever the user's code has put into it, in one line that any file can hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_sweep.errors import LONGEST, named, one_line

ANY_TEXT = st.text(st.characters(exclude_categories=()))


class Mute(Exception):
    """Raises when it is asked what it says."""

    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (ValueError(), "ValueError"),
        (ValueError("data/caf\udce9.bin"), r"ValueError: data/caf\udce9.bin"),
        (ValueError("\x1b[1;31mred\x1b[0m \x1b]8;;http://x\x07a\x1b]8;;\x07 \x07"), "ValueError: red a"),
        (Mute(), "Mute: (its text cannot be read: RuntimeError)"),
        (KeyError("rows"), "KeyError: 'rows'"),
        (
            ValueError("Caught it in process 0.\nTraceback (most recent call last):\n  File\nE: row 7\n"),
            "ValueError: E: row 7",
        ),
    ],
)  # fmt: skip
def test_a_reason_is_one_readable_line(error, told):
    assert named(error) == told


def test_a_huge_text_is_cut():
    assert len(named(ValueError("row " * 100_000))) <= LONGEST + len("ValueError: ")


@given(ANY_TEXT)
def test_any_text_can_be_written_and_printed(text):
    told = one_line(ValueError(text))
    assert told.encode().decode() == told
    assert told.isprintable() or not text.isprintable()
    assert not {"\n", "\r", "\x1b"} & set(told)
