"""The results folder: what it holds, what it refuses, and that no file is ever half there."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from hybrid_sweep.api import load_results
from hybrid_sweep.errors import UserError
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.store.atomic import replacing
from hybrid_sweep.store.folder import LOCK, Taken


def test_every_file_is_there(grid60: ResultsFolder) -> None:
    assert {path.name for path in grid60.path.iterdir()} == {
        "journal.jsonl", "manifest.json", "trials.csv", "trials.parquet", "steps.parquet", "pareto.csv",
        "pareto.json", "pareto.png", "report.html", "parameter_sweep_20260214T101500Z.json",
    }  # fmt: skip


def test_files_agree_with_the_journal(grid60: ResultsFolder) -> None:
    trials = grid60.trials()
    assert len(trials) == 60
    pd.testing.assert_frame_equal(pd.read_parquet(grid60.path / "trials.parquet"), trials)
    csv = pd.read_csv(grid60.path / "trials.csv")
    assert csv.columns.tolist() == trials.columns.tolist()
    pd.testing.assert_series_equal(csv["speedup"], trials["speedup"])
    front = grid60.table("front")
    assert pd.read_csv(grid60.path / "pareto.csv").columns.tolist() == trials.columns.tolist()
    assert [row["trial_id"] for row in json.loads((grid60.path / "pareto.json").read_text())] == front[
        "trial_id"
    ].tolist()
    assert len(pd.read_parquet(grid60.path / "steps.parquet")) == len(grid60.steps()) == 180


def test_exporting_again_changes_no_table(sweep: Callable[..., ResultsFolder]) -> None:
    folder = sweep()
    written = folder.export_all()
    before = {path.name: path.read_bytes() for path in written if path.suffix in (".csv", ".json")}
    folder.export_all()
    assert before == {name: (folder.path / name).read_bytes() for name in before}
    assert not list(folder.path.glob(".*"))


def test_load_results(grid60: ResultsFolder) -> None:
    results = load_results(grid60.path)
    assert results.manifest["sweep_id"] == grid60.manifest["sweep_id"]
    assert (len(results.trials), len(results.steps)) == (60, 180)
    assert 0 < len(results.pareto) < 60


def test_reading_needs_neither_torch_nor_ray_nor_optuna() -> None:
    code = "import sys, hybrid_sweep.analysis; print(sorted({'torch', 'ray', 'optuna'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_create_refuses_what_is_taken(tmp_path: Path) -> None:
    folder = ResultsFolder.create(tmp_path / "a" / "b")
    with pytest.raises(UserError, match="exists already"):
        ResultsFolder.create(folder.path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="exists already"):
        ResultsFolder.create(file)
    with pytest.raises(UserError, match="is a file"):
        ResultsFolder.create(file / "below")
    with pytest.raises(UserError, match="cannot make the folder"):
        ResultsFolder.create(tmp_path / ("x" * 300))


def test_a_folder_is_held_for_one_sweep_before_it_begins(tmp_path: Path) -> None:
    place = tmp_path / "results" / "sweep"
    with ResultsFolder.claimed(place):
        with pytest.raises(Taken, match="exists already"), ResultsFolder.claimed(place):
            pass
        with pytest.raises(Taken, match="exists already"):
            ResultsFolder.create(place)
        ResultsFolder.create(place, claimed=True)
    with pytest.raises(Taken, match="exists already"), ResultsFolder.claimed(place):
        pass
    with ResultsFolder.open(place).driven():
        pass


def test_a_sweep_that_does_not_begin_leaves_nothing_and_its_place_is_free(tmp_path: Path) -> None:
    place = tmp_path / "results" / "sweep"
    with pytest.raises(KeyboardInterrupt), ResultsFolder.claimed(place):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    place.mkdir(parents=True)
    (place / LOCK).touch()  # as one that was killed has left it
    ResultsFolder.validate_free(place)
    with ResultsFolder.claimed(place):
        assert ResultsFolder(place).is_driven
    assert not list(place.iterdir())


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_made_of_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot make the folder"):
        ResultsFolder.validate_free(Path("/proc/results"))  # where not even root may
    ResultsFolder.validate_free(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_open_refuses_what_is_not_ours(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        ResultsFolder.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not a results folder"):
        ResultsFolder.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(UserError, match=r"manifest\.json has no sweep_id"):
        ResultsFolder.open(tmp_path)


@pytest.mark.parametrize("content", ["{", "", "[1]", "\x00", "[" * 100_000], ids=len)
def test_a_corrupt_manifest_is_named(empty: ResultsFolder, content: str) -> None:
    (empty.path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        ResultsFolder.open(empty.path)


def test_a_corrupt_journal_is_named(empty: ResultsFolder) -> None:
    empty.journal.path.write_text("rubbish\n")
    with pytest.raises(UserError, match=r"journal\.jsonl is corrupt: line 1"):
        ResultsFolder.open(empty.path).trials()


def test_the_manifest_comes_back_plain(empty: ResultsFolder) -> None:
    assert empty.manifest == {}
    empty.write_manifest({"sweep_id": "s", "unit_costs": {"jump": float("nan")}, "out": Path("x")})
    assert ResultsFolder.open(empty.path).manifest == {
        "sweep_id": "s",
        "unit_costs": {"jump": None},
        "out": "x",
    }


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_tables_that_have_no_room_are_told_of_in_a_sentence(
    sweep: Callable[..., ResultsFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = sweep()
    before = sorted(folder.path.iterdir())
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"\(No space left on device\).* hybrid-sweep report"):
        folder.export_all()
    assert sorted(folder.path.iterdir()) == before


def test_a_trials_config(grid60: ResultsFolder) -> None:
    config = grid60.trial_config("H075_I15_C0.60")
    assert (config["max_predict_steps"], config["warmup_steps"]) == (75, 100)


def test_an_unknown_trial_is_answered_with_close_ones(grid60: ResultsFolder, empty: ResultsFolder) -> None:
    with pytest.raises(UserError, match=r"unknown trial 'H75_I15_C0.6': close ones are .*H075_I15_C0\.60"):
        grid60.trial_config("H75_I15_C0.6")
    with pytest.raises(UserError, match="has started none"):
        empty.trial_config("a")


@pytest.mark.parametrize("name", ["manifest.json", "journal.jsonl", "confirm/confirmed.json"])
def test_a_pipe_in_place_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "journal.jsonl").touch()
    (tmp_path / "manifest.json").write_text('{"sweep_id": "x"}')
    (tmp_path / "confirm").mkdir()
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=r"is no ordinary file"):
        ResultsFolder.open(tmp_path).verdict()


@pytest.mark.parametrize("values", ["[]", '"text"', "3", "null", "[" * 5000, '{"comparisons": 3}', "{}"])
def test_a_confirmation_of_another_form_is_refused(tmp_path: Path, values: str) -> None:
    (tmp_path / "journal.jsonl").touch()
    (tmp_path / "confirm").mkdir()
    (tmp_path / "confirm" / "confirmed.json").write_text(values)
    with pytest.raises(UserError, match=r"confirmed\.json is corrupt .* run confirm again"):
        ResultsFolder.open(tmp_path).confirmation()
