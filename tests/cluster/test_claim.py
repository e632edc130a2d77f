"""Which results folder a sweep has, before anything is trained for it; no Ray is started here."""

from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest

from hybrid_sweep.cluster import launch
from hybrid_sweep.errors import UserError
from hybrid_sweep.spec.files import load_spec


class Stopped(datetime):
    """A clock that always says the same second."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 2, 14, 10, 15, tzinfo=tz)


def test_sweeps_of_one_second_have_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "datetime", Stopped)
    spec = load_spec("quick")
    with ExitStack() as claims:
        names = [launch._claimed(claims, spec, None).name for _ in range(3)]
        first = "quick-20260214T101500Z"
        assert names == [first, f"{first}-2", f"{first}-3"]
    assert not list(tmp_path.iterdir())  # none of them came to begin


def test_the_second_sweep_into_one_folder_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = load_spec("quick")
    with ExitStack() as claims:
        assert launch._claimed(claims, spec, Path("~/out")) == tmp_path / "out"
        with pytest.raises(UserError, match="out exists already: choose another folder"):
            launch.run_sweep(spec, tmp_path / "out")
