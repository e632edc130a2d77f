"""The journal survives crashes, refuses nonsense, and never loses a whole line."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_sweep.errors import UserError, without_commands
from hybrid_sweep.journal import Journal, plain


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_events_come_back_in_order_with_their_time(path: Path) -> None:
    journal = Journal(path, now=lambda: datetime(2026, 2, 7, 12, tzinfo=UTC))
    journal.append({"event": "started", "trial_id": "a", "seed": 0})
    journal.append({"event": "finished", "trial_id": "a", "seed": 0})
    first, second = Journal.read(path)
    assert first == {"event": "started", "at": "2026-02-07T12:00:00.000+00:00", "trial_id": "a", "seed": 0}
    assert second["event"] == "finished"


def test_a_journal_not_begun_is_empty(path: Path) -> None:
    assert Journal.read(path) == []


def test_a_journal_that_cannot_be_read_is_named(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(UserError, match=r"journal\.jsonl is a folder, and a sweep makes a file"):
        Journal.read(path)


def test_numbers_that_json_lacks(path: Path) -> None:
    Journal(path).append(
        {"event": "reported", "report": {"loss": math.nan, "worst": math.inf, "n": [-math.inf]}}
    )
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert Journal.read(path)[0]["report"] == {"loss": None, "worst": "inf", "n": ["-inf"]}


def test_numpy_numbers_and_paths_become_plain() -> None:
    values = {
        "a": np.float32(0.5),
        "b": np.int64(3),
        "c": np.float64("nan"),
        "d": (np.bool_(True),),
        "e": Path("x"),
    }
    assert plain(values) == {"a": 0.5, "b": 3, "c": None, "d": [True], "e": "x"}


def test_skipped_events_are_not_even_parsed(path: Path) -> None:
    path.write_bytes(b'{"event": "started"}\n{"event": "reported", broken\n{"at": 1, "event": "reported"}\n')
    assert [event["event"] for event in Journal.read(path, skip=("reported",))] == ["started"]


@pytest.mark.parametrize("torn", [b'{"event": "fin', b"\x00\x00\x00", b'{"event": "x", "name": "\xc3', b"{"])
def test_a_torn_last_line_is_ignored_and_then_cut(path: Path, torn: bytes) -> None:
    journal = Journal(path)
    journal.append({"event": "started"})
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert [event["event"] for event in Journal.read(path)] == ["started"]
    journal.append({"event": "finished"})
    assert [event["event"] for event in Journal.read(path)] == ["started", "finished"]
    assert path.read_bytes().startswith(whole + b'{"event": "finished"')


def test_a_whole_last_line_without_its_newline_is_kept(path: Path) -> None:
    path.write_bytes(b'{"event": "started"}')
    Journal(path).append({"event": "finished"})
    assert [event["event"] for event in Journal.read(path)] == ["started", "finished"]


@pytest.mark.parametrize("line", [b"not json", b"[1, 2]", b'{"no": "event"}', b'{"event": 3}', b""])
def test_a_corrupt_line_is_named(path: Path, line: bytes) -> None:
    path.write_bytes(b'{"event": "started"}\n' + line + b'\n{"event": "finished"}\n')
    with pytest.raises(UserError, match=r"journal\.jsonl is corrupt: line 2 .* restore"):
        Journal.read(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=json_values)
def test_plain_is_always_json_and_settles(value: object) -> None:
    text = json.dumps(plain(value), allow_nan=False)
    assert "\n" not in text
    assert plain(json.loads(text)) == plain(value)


@given(cut=st.integers(min_value=0, max_value=400))
def test_cut_anywhere_the_whole_lines_survive(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "journal.jsonl"
    lines = [
        json.dumps({"event": "reported", "step": step, "name": "é"}).encode() + b"\n" for step in range(8)
    ]
    content = b"".join(lines)[:cut]
    path.write_bytes(content)
    whole = content.count(b"\n")
    assert [event["step"] for event in Journal.read(path)][:whole] == list(range(whole))
    Journal(path).append({"event": "reported", "step": -1})
    steps = [event["step"] for event in Journal.read(path)]
    assert steps[:whole] == list(range(whole))
    assert steps[-1] == -1


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_comes_back_as_it_was_written(text: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        event = {"event": "finished", "reason": text, text: [text]}
        Journal(path).append(event)
        (read,) = Journal.read(path)
    surrogates = any("\ud800" <= character <= "\udfff" for character in text)
    assert (read["reason"] == text) is (not surrogates and without_commands(text) == text)
    assert {**read, "at": ""} == {**plain(event), "at": ""}


def test_a_name_that_is_no_unicode_is_escaped(path: Path) -> None:
    Journal(path).append({"event": "finished", "reason": "caf\udce9.bin holds no rows"})
    assert Journal.read(path)[0]["reason"] == r"caf\udce9.bin holds no rows"


@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.integers(min_value=290, max_value=6000).map(lambda digits: -(10**digits))
        | st.floats()
        | st.text(st.characters(exclude_categories=())),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(st.characters(exclude_categories=())), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    levels=st.integers(min_value=0, max_value=500),
    in_list=st.booleans(),
)
def test_whatever_an_event_holds_is_read_as_it_was_written(value: object, levels: int, in_list: bool) -> None:
    for _ in range(levels):
        value = [value] if in_list else {"inner": value}
    event = {"event": "finished", "result": value}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        Journal(path).append(event)
        Journal(path).append({"event": "ended"})
        read, after = Journal.read(path)
        assert after["event"] == "ended"
        assert {**read, "at": ""} == {**plain(event), "at": ""}
        Journal(path).append(read)
        assert Journal.read(path)[-1] == read
