"""Whatever a text holds, on a console it is a text: no colour, no link, no title, no movement."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hybrid_sweep.terminal import PlainConsole

TURNS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printed(shown, **options):
    console = PlainConsole(file=io.StringIO(), width=200, **options)
    console.print(shown)
    return console.file.getvalue()


def table(text):
    made = Table("a")
    made.add_row(text)
    made.add_row(Text(text, "bold"))
    return made


@pytest.mark.parametrize("text", ["[red]x[/red]", "[link=https://e]x[/link]", "[/]", ":smiley:", "[bold"])
def test_markup_is_shown_and_not_obeyed(text):
    assert text in printed(text)
    assert printed(table(text)).count(text) == 2


@given(st.text(st.characters(exclude_categories=())))
def test_no_text_commands_a_terminal(text):
    for shown in (text, Text(text), table(text)):
        out = printed(shown)
        out.encode()
        assert not [each for each in out if unicodedata.category(each) == "Cc" and each not in "\n\t"]
        assert not set(TURNS) & set(out)


def test_colours_of_ours_and_what_is_drawn_in_place_stay():
    assert "\x1b[1;31m" in printed(Text("x", "bold red"), force_terminal=True, color_system="standard")
    console = PlainConsole(file=io.StringIO(), force_terminal=True, width=80)
    with Live(Text("evil \x1b]0;title\x07 text"), console=console, transient=True):
        pass
    assert "\x1b[?25l" in console.file.getvalue()
    assert "\x1b]0;" not in console.file.getvalue()
