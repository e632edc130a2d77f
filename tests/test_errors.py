"""What an error says, whatever the user's code has put into it, in one line that any file can hold."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_sweep.errors import LONGEST, UserError, brief, named, one_line, safe
from hybrid_sweep.store.journal import Journal

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


COMMANDS = [
    "\x1b]0;title\x07",
    "\x1b[2J",
    "\x1b]8;;http://x\x1b\\",
    "\x9b31m",
    "\x07",
    "\u202e",
    "\x00",
    "\x7f",
    "\b",
    "\r",
    "\f",
    "\x0b",
    "\x1f",
    "\x85",
    "\u061c",
    "\u2028",
    "\x1bP0;1|x\x1b\\",
    "\x9d0;title\x9c",
]


@pytest.mark.parametrize("command", COMMANDS, ids=repr)
def test_commands_to_a_terminal_leave_what_was_read_and_what_is_told(tmp_path, command):
    assert one_line(f"a{command}b")[0] == "a"
    assert not any(character in one_line(f"a{command}b") for character in "\x1b\x9b\x07\u202e\x00\x7f")
    evil = {"event": "x", f"k{command}": [{"reason": f"a{command}b"}]}
    for text in (json.dumps(evil), json.dumps(evil, ensure_ascii=False)):
        (tmp_path / "journal.jsonl").write_text(f"{text}\n", encoding="utf-8")
        try:
            shown = repr(Journal.read(tmp_path / "journal.jsonl"))
        except UserError:  # a control character that no JSON may hold as it is
            continue
        assert repr(command)[1:-1] not in shown
        assert "'reason'" in shown


def test_a_text_is_cut_where_it_is_very_long():
    assert len(brief("x" * 10**6)) == LONGEST
    assert brief("short\nand more") == "short and more"


def test_a_text_that_is_cut_says_how_long_it_was():
    assert brief("x" * 1_234_567).endswith("… (1,234,567 characters)")


@given(ANY_TEXT)
def test_what_was_read_is_safe_and_safe_as_it_is(text):
    shown = safe(text)
    shown.encode()
    assert all(each.isprintable() or each in "\n\t" or each.isspace() for each in shown if ord(each) < 0xA0)
    assert safe(shown) == shown
