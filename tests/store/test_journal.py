"""The journal survives crashes, refuses nonsense, and never loses a whole line."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_sweep.errors import UserError, without_commands
from hybrid_sweep.store.journal import Journal, plain

RUN = {"trial_id": "a", "seed": 0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_events_come_back_in_order_with_their_time(path: Path) -> None:
    journal = Journal(path, now=lambda: datetime(2026, 2, 7, 12, tzinfo=UTC))
    journal.append({"event": "started", "trial_id": "a", "seed": 0, "config": {}})
    journal.append({"event": "finished", "trial_id": "a", "seed": 0, "state": "done", "result": {}})
    first, second = Journal.read(path)
    assert first == {
        "event": "started",
        "at": "2026-02-07T12:00:00.000+00:00",
        "trial_id": "a",
        "seed": 0,
        "config": {},
    }
    assert second["event"] == "finished"


def test_a_journal_not_started_is_empty(path: Path) -> None:
    assert Journal.read(path) == []


def test_a_journal_that_cannot_be_read_is_named(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(UserError, match=r"journal\.jsonl is a folder, and a sweep makes a file"):
        Journal.read(path)


def test_numbers_that_json_lacks(path: Path) -> None:
    Journal(path).append(
        {**RUN, "event": "reported", "report": {"loss": math.nan, "worst": math.inf, "n": [-math.inf]}}
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
    late = b'{"at": "", "trial_id": "a", "seed": 0, "report": {}, "event": "reported"}\n'
    path.write_bytes(b'{"event": "began"}\n{"event": "reported", broken\n' + late)
    assert [event["event"] for event in Journal.read(path, skip=("reported",))] == ["began"]


@pytest.mark.parametrize("torn", [b'{"event": "fin', b"\x00\x00\x00", b'{"event": "x", "name": "\xc3', b"{"])
def test_a_torn_last_line_is_ignored_and_then_cut(path: Path, torn: bytes) -> None:
    journal = Journal(path)
    journal.append({"event": "began"})
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert [event["event"] for event in Journal.read(path)] == ["began"]
    journal.append({"event": "ended"})
    assert [event["event"] for event in Journal.read(path)] == ["began", "ended"]
    assert path.read_bytes().startswith(whole + b'{"event": "ended"')


def test_a_whole_last_line_without_its_newline_is_kept(path: Path) -> None:
    path.write_bytes(b'{"event": "began"}')
    Journal(path).append({"event": "ended"})
    assert [event["event"] for event in Journal.read(path)] == ["began", "ended"]


@pytest.mark.parametrize("line", [b"not json", b"[1, 2]", b'{"no": "event"}', b'{"event": 3}', b""])
def test_a_corrupt_line_is_named(path: Path, line: bytes) -> None:
    path.write_bytes(b'{"event": "began"}\n' + line + b'\n{"event": "ended"}\n')
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
    lines = [json.dumps({"event": "told", "step": step, "name": "é"}).encode() + b"\n" for step in range(8)]
    content = b"".join(lines)[:cut]
    path.write_bytes(content)
    whole = content.count(b"\n")
    assert [event["step"] for event in Journal.read(path)][:whole] == list(range(whole))
    Journal(path).append({"event": "told", "step": -1})
    steps = [event["step"] for event in Journal.read(path)]
    assert steps[:whole] == list(range(whole))
    assert steps[-1] == -1


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_comes_back_as_it_was_written(text: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        event = {**RUN, "event": "finished", "state": "done", "reason": text, "result": {text: [text]}}
        Journal(path).append(event)
        (read,) = Journal.read(path)
    surrogates = any("\ud800" <= character <= "\udfff" for character in text)
    assert (read["reason"] == text) is (not surrogates and without_commands(text) == text)
    assert {**read, "at": ""} == {**plain(event), "at": ""}


def test_a_name_that_is_no_unicode_is_escaped(path: Path) -> None:
    Journal(path).append(
        {**RUN, "event": "finished", "state": "failed", "reason": "caf\udce9.bin holds no rows"}
    )
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
    event = {**RUN, "event": "finished", "state": "done", "result": {"value": value}, "more": value}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        Journal(path).append(event)
        Journal(path).append({"event": "ended"})
        read, after = Journal.read(path)
        assert after["event"] == "ended"
        assert {**read, "at": ""} == {**plain(event), "at": ""}
        Journal(path).append(read)
        assert Journal.read(path)[-1] == read


texts = st.text(st.characters(exclude_categories=()), max_size=8)
odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
FIELDS = (
    *(
        "trial_id",
        "seed",
        "config",
        "number",
        "params",
        "source",
        "masked",
        "values",
        "from",
        "attempt",
        "arm",
    ),
    *("report", "result", "state", "reason", "steps", "curve", "at"),
)
CURVE = {
    "steps": [1],
    "backward_calls": [1],
    "seconds": [0.5],
    "val_loss": [math.inf],
    "test": {"loss": None},
}
WHOLE = [
    {"event": "asked", **RUN, "config": {}, "number": 0, "params": {}, "source": "grid", "masked": []},
    {"event": "known", "config": {}, "params": None, "values": {"quality": None}, "from": "x"},
    {"event": "started", **RUN, "config": {"a": 1}, "attempt": 1, "arm": "lr"},
    {"event": "reported", **RUN, "report": {"step": 1}},
    {"event": "lost", **RUN, "attempt": 1, "why": "x", "preempted": False},
    {"event": "interrupted", **RUN, "result": {}},
    {"event": "retried", **RUN},
    {"event": "finished", **RUN, "state": "done", "reason": "", "result": {}},
    {"event": "ran", **RUN, "arm": "hybrid", "steps": 1, "curve": CURVE},
]


@given(event=st.sampled_from(WHOLE), changes=st.dictionaries(st.sampled_from(FIELDS), odd, max_size=3))
def test_what_the_writer_takes_the_reader_takes(event: dict[str, object], changes: dict[str, object]) -> None:
    changed = {**event, **changes}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        Journal(path).append({"event": "began"})
        try:
            Journal(path).append(changed)
        except UserError:
            assert [read["event"] for read in Journal.read(path)] == ["began"]
            return
        read = Journal.read(path)[1]
        assert {**read, "at": ""} == {**_as_read(plain(changed)), "at": ""}
        Journal(path).append(read)
        assert Journal.read(path)[2] == read


def _as_read(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event with what the curve of a run has as text, for JSON has no infinity, as a number."""
    if isinstance(curve := event.get("curve"), dict) and event["event"] == "ran":
        event = {**event, "curve": {**curve, "val_loss": [float(loss) for loss in curve["val_loss"]]}}
    return event


@pytest.mark.parametrize("event", WHOLE, ids=lambda event: event["event"])
def test_each_kind_of_event_is_written_and_read(path: Path, event: dict[str, object]) -> None:
    Journal(path).append(event)
    (read,) = Journal.read(path)
    assert read.keys() == {"at", *event}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"event": "finished", **RUN, "state": "won", "result": {}}, r"state='won'"),
        ({"event": "finished", **RUN, "seed": 2**63, "state": "done", "result": {}}, r"seed=9223"),
        ({"event": "started", **RUN, "config": [1]}, r"config=\[1\]"),
        ({"event": "started", "seed": 0, "config": {}}, r"trial_id: Field required"),
        (
            {"event": "ran", **RUN, "arm": "x", "steps": 1, "curve": {**CURVE, "seconds": ["x"]}},
            r"curve.seconds.0='x'",
        ),
        ({"event": "asked", "trial_id": "a", "masked": 3}, r"masked=3"),
    ],
)
def test_an_event_that_does_not_fit_is_named_with_its_line(
    path: Path, line: dict[str, object], told: str
) -> None:
    path.write_text('{"event": "began"}\n' + json.dumps(line) + "\n")
    with pytest.raises(UserError, match=rf"journal\.jsonl is corrupt: line 2 is not an event \(.*{told}"):
        Journal.read(path)
    with pytest.raises(UserError, match="cannot hold this event"):
        Journal(path).append(line)


def test_a_second_name_of_an_event_does_not_change_its_model(path: Path) -> None:
    path.write_text('{"event": "retried", "trial_id": "a", "seed": 0, "event": "finished"}\n')
    with pytest.raises(UserError, match=r"line 1 is not an event .*state: Field required"):
        Journal.read(path)
