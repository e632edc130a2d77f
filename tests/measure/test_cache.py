"""The cache: entries whole or not at all, faults that cost a warning, the least recently used out first."""

import errno
import os
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure import cache as module
from hybrid_sweep.measure.cache import Cache
from hybrid_sweep.measure.curve import Curve


def key(name):
    return sha256(str(name).encode()).hexdigest()


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def warnings(caplog):
    """What was logged so far."""
    return lambda: [record.getMessage() for record in caplog.records]


@given(data=st.binary(max_size=200))
def test_what_was_put_is_what_is_got(tmp_path_factory, data):
    cache = Cache(tmp_path_factory.mktemp("cache"))
    cache.put("arms", key("a"), data)
    assert cache.get("arms", key("a")) == data
    assert cache.get("arms", key("b")) is cache.get("twins", key("a")) is None


@given(value=st.recursive(st.floats(allow_nan=False) | st.integers() | st.text(), st.lists))
def test_json_keeps_every_bit_and_infinity(tmp_path_factory, value):
    cache = Cache(tmp_path_factory.mktemp("cache"))
    cache.put_json("arms", key("a"), {"value": value})
    assert repr(cache.get_json("arms", key("a"), TypeAdapter(dict))) == repr({"value": value})


def test_an_entry_that_is_written_again_has_the_new_data(cache):
    cache.put("arms", key("a"), b"old")
    cache.put("arms", key("a"), b"new")
    assert cache.get("arms", key("a")) == b"new"
    assert cache.usage()[0].entries == 1


@pytest.mark.parametrize("name", ["../x", "", "A B"])
def test_a_name_that_leads_elsewhere_is_refused(cache, name):
    with pytest.raises(ValueError, match="no cache entry"):
        cache.put(name, key("a"), b"")
    with pytest.raises(ValueError, match="no cache entry"):
        cache.get("arms", name)


class TestFaults:
    @given(data=st.data())
    def test_no_damage_goes_unnoticed(self, tmp_path_factory, data):
        cache = Cache(tmp_path_factory.mktemp("cache"))
        cache.put("arms", key("a"), b"data of some length")
        (path,) = (cache.root / "arms").iterdir()
        whole = path.read_bytes()
        if data.draw(st.booleans()):
            path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        else:
            at = data.draw(st.integers(0, len(whole) - 1))
            path.write_bytes(
                whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :]
            )
        assert cache.get("arms", key("a")) is None

    def test_a_damaged_entry_is_named_and_then_replaced(self, cache, warnings):
        cache.put("arms", key("a"), b"data")
        path = cache.root / "arms" / key("a")
        path.write_bytes(path.read_bytes()[:-1])
        assert cache.get("arms", key("a")) is None
        assert [str(path) in text and "damaged" in text for text in warnings()] == [True]
        cache.put("arms", key("a"), b"data")
        assert cache.get("arms", key("a")) == b"data"

    def test_an_entry_of_another_version_place_or_format_is_never_used(self, cache, warnings, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(module, "version", lambda name: "0.0.0")
            cache.put("arms", key("version"), b"data")
        with monkeypatch.context() as patch:
            patch.setattr(module, "FORMAT", 0)
            cache.put("arms", key("format"), b"data")
        cache.put("twins", key("place"), b"data")
        (cache.root / "twins" / key("place")).rename(cache.root / "arms" / key("place"))
        for name in ("version", "format", "place"):
            assert cache.get("arms", key(name)) is None
        assert len(warnings()) == 3

    def test_a_folder_that_cannot_be_made_is_said_once_and_the_run_goes_on(self, tmp_path, warnings):
        (tmp_path / "file").write_text("in the way")
        cache = Cache(tmp_path / "file")
        for name in range(3):
            cache.put("arms", key(name), b"data")
            assert cache.get("arms", key(name)) is None
        assert sum("cannot be written" in text for text in warnings()) == 1

    def test_a_full_disk_is_said_once_leaves_no_litter_and_what_is_there_is_read(
        self, cache, warnings, monkeypatch
    ):
        cache.put("arms", key("before"), b"data")

        def full(*where, **keywords):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(module, "_touch", full)
        cache.put("arms", key("a"), b"data")
        cache.put("arms", key("b"), b"data")
        assert [path.name for path in (cache.root / "arms").iterdir()] == [key("before")]
        assert cache.get("arms", key("before")) == b"data"
        (said,) = warnings()
        assert "No space left" in said and str(cache.root) in said

    def test_an_entry_that_cannot_be_read_is_named(self, cache, warnings):
        (cache.root / "arms" / key("a")).mkdir(parents=True)
        assert cache.get("arms", key("a")) is None
        assert "cannot be read" in warnings()[0]

    def test_an_entry_that_does_not_hold_what_its_kind_holds_is_named_and_missing(self, cache, warnings):
        shape = TypeAdapter(Curve)
        for number, value in enumerate(({"steps": "many"}, [], None, 3)):
            cache.put_json("twins", key(number), value)
            assert cache.get_json("twins", key(number), shape) is None
            assert "does not hold what an entry of 'twins' holds" in warnings()[number]
        cache.put("twins", key("text"), b"no JSON")
        cache.put("twins", key("deep"), b"[" * 100_000)
        assert (
            cache.get_json("twins", key("text"), shape) is cache.get_json("twins", key("deep"), shape) is None
        )

    def test_a_link_is_no_entry_and_no_folder_of_entries(self, cache, warnings, tmp_path):
        cache.put("arms", key("a"), b"data")
        (cache.root / "arms" / key("b")).symlink_to(cache.root / "arms" / key("a"))
        assert cache.get("arms", key("b")) is None
        (elsewhere := tmp_path / "elsewhere").mkdir()
        (elsewhere / key("a")).write_bytes((cache.root / "arms" / key("a")).read_bytes())
        (cache.root / "twins").symlink_to(elsewhere)
        assert cache.get("twins", key("a")) is None
        cache.clear()
        Cache(cache.root).put("twins", key("c"), b"data")
        assert [path.name for path in elsewhere.iterdir()] == [key("a")]
        assert any("it is a link" in text for text in warnings())

    def test_a_pipe_is_not_waited_for(self, cache, warnings):
        (cache.root / "arms").mkdir(parents=True)
        os.mkfifo(cache.root / "arms" / key("a"))
        assert cache.get("arms", key("a")) is None
        assert "no ordinary file" in warnings()[0]

    def test_processes_that_write_the_same_entry_never_show_half_of_it(self, cache):
        write = (
            "import sys; from pathlib import Path; from hybrid_sweep.measure.cache import Cache\n"
            "cache = Cache(Path(sys.argv[1]))\n"
            "for i in range(60): cache.put('arms', sys.argv[2], bytes([i]) * 300_000)"
        )
        command = [sys.executable, "-c", write, str(cache.root), key("a")]
        writers = [subprocess.Popen(command) for _ in range(2)]
        seen = set()
        while any(writer.poll() is None for writer in writers):
            if (data := cache.get("arms", key("a"))) is not None:
                assert data == data[:1] * 300_000
                seen.add(data[0])
        assert [writer.returncode for writer in writers] == [0, 0]
        assert cache.get("arms", key("a")) == bytes([59]) * 300_000
        assert seen

    def test_what_a_killed_process_left_goes_after_an_hour(self, cache):
        cache.put("arms", key("a"), b"data")
        old, new = (cache.root / "arms" / f".{key('b')}.{age}.tmp" for age in ("old", "new"))
        for path in (old, new):
            path.write_bytes(b"half")
        os.utime(old, (0, 0))
        Cache(cache.root).put("arms", key("c"), b"data")
        assert (old.exists(), new.exists()) == (False, True)


class TestEviction:
    def names(self, cache, count):
        return [name for name in range(count) if (cache.root / "arms" / key(name)).exists()]

    def test_the_least_recently_used_go_first(self, tmp_path):
        cache = Cache(tmp_path, limit_bytes=6000)
        for name in range(4):
            cache.put("arms", key(name), bytes(1000))
        assert self.names(cache, 4) == [0, 1, 2, 3]
        cache.get("arms", key(0))
        cache.put("arms", key(4), bytes(1000))
        assert self.names(cache, 5) == [0, 2, 3, 4]

    @given(sizes=st.lists(st.integers(0, 1200), max_size=30))
    def test_one_process_never_leaves_more_than_the_limit(self, tmp_path_factory, sizes):
        cache = Cache(tmp_path_factory.mktemp("cache"), limit_bytes=4000)
        for name, size in enumerate(sizes):
            cache.put("arms", key(name), bytes(size))
            assert sum(usage.size_bytes for usage in cache.usage()) <= 4000

    def test_an_entry_beyond_the_limit_is_not_kept_and_costs_no_other(self, tmp_path):
        cache = Cache(tmp_path, limit_bytes=4000)
        cache.put("arms", key(0), bytes(1000))
        cache.put("arms", key(1), bytes(5000))
        assert self.names(cache, 2) == [0]

    def test_other_files_are_left_alone(self, tmp_path):
        (tmp_path / "arms").mkdir()
        (tmp_path / "arms" / "thesis.tex").write_bytes(bytes(9000))
        (tmp_path / "mnist").mkdir()
        cache = Cache(tmp_path, limit_bytes=2000)
        for name in range(5):
            cache.put("arms", key(name), bytes(500))
        cache.clear()
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["arms", "mnist", "thesis.tex"]


class TestUsage:
    def test_kinds_sizes_and_newest_use(self, cache):
        assert cache.usage() == []
        for kind, name in (("arms", 1), ("arms", 2), ("references", 1)):
            cache.put(kind, key(name), bytes(100))
        arms, references = cache.usage()
        assert (arms.kind, arms.entries, references.kind, references.entries) == ("arms", 2, "references", 1)
        assert arms.size_bytes > references.size_bytes > 100
        cache.get("arms", key(1))
        assert cache.usage()[0].newest_use > references.newest_use >= arms.newest_use

    def test_one_kind_or_all_are_cleared(self, cache):
        assert cache.clear() == cache.clear("arms") == 0
        for kind, name in (("arms", 1), ("arms", 2), ("references", 1)):
            cache.put(kind, key(name), b"")
        with pytest.raises(UserError, match=r"unknown kind.*'arm'.*known: arms, references"):
            cache.clear("arm")
        assert (cache.clear("arms"), cache.clear()) == (2, 1)
        assert cache.usage() == []


class TestSettings:
    def test_the_folder_is_the_users_own_choice(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HYBRID_SWEEP_CACHE", "here")
        assert Cache().root == tmp_path / "here"
        monkeypatch.delenv("HYBRID_SWEEP_CACHE")
        monkeypatch.setattr(platformdirs, "user_cache_path", lambda name, appauthor: Path("/user") / name)
        assert Cache().root == Path("/user/hybrid-sweep/runs")

    def test_the_limit_may_have_a_unit(self, monkeypatch):
        monkeypatch.delenv("HYBRID_SWEEP_CACHE_BYTES", raising=False)
        assert Cache().limit_bytes == 2_000_000_000
        monkeypatch.setenv("HYBRID_SWEEP_CACHE_BYTES", "500MB")
        assert Cache().limit_bytes == 500_000_000
        monkeypatch.setenv("HYBRID_SWEEP_CACHE_BYTES", "lots")
        with pytest.raises(UserError, match=r"HYBRID_SWEEP_CACHE_BYTES='lots' is no size"):
            Cache()


@pytest.mark.parametrize("where", [RuntimeError("no home"), Path("~/.cache/hybrid-sweep")])
def test_a_user_without_a_home_has_one_among_temporary_files(monkeypatch, tmp_path, where):
    def usual(name, appauthor):
        if isinstance(where, Exception):
            raise where
        return where

    monkeypatch.delenv("HYBRID_SWEEP_CACHE")
    monkeypatch.setattr(platformdirs, "user_cache_path", usual)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root = Cache().root
    assert root.is_relative_to(tempfile.gettempdir())
    assert str(os.getuid()) in str(root)
    assert root.parent.stat().st_mode & 0o777 == 0o700
    root.parent.chmod(0o777)  # as another user may have made it, for this one to read what they wrote
    with pytest.raises(UserError, match="only you can write: set HYBRID_SWEEP_CACHE"):
        Cache()
