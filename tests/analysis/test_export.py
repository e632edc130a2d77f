"""Export of one table to a file or to standard output."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from hybrid_sweep.analysis.export import encode
from hybrid_sweep.errors import UserError
from hybrid_sweep.results import ResultsFolder


@pytest.mark.parametrize("what", ["trials", "front", "steps"])
def test_every_table_in_every_format(grid60: ResultsFolder, tmp_path: Path, what: str) -> None:
    table = grid60.table(what)
    for format in ("csv", "json", "parquet"):
        grid60.export(what, format, tmp_path / f"table.{format}")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), table)
    assert pd.read_csv(tmp_path / "table.csv").columns.tolist() == table.columns.tolist()
    records = json.loads((tmp_path / "table.json").read_text(), parse_constant=pytest.fail)
    assert [record["trial_id"] for record in records] == table["trial_id"].tolist()


def test_to_standard_output(grid60: ResultsFolder, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    grid60.export()
    assert capsysbinary.readouterr().out == (grid60.path / "trials.csv").read_bytes()
    grid60.export("front", "parquet")
    assert pd.read_parquet(io.BytesIO(capsysbinary.readouterr().out))["trial_id"].notna().all()


def test_means_over_seeds_export(sweep: Callable[..., ResultsFolder], tmp_path: Path) -> None:
    folder = sweep(seeds=(0, 1))
    folder.export("front", "parquet", tmp_path / "front.parquet")
    assert set(pd.read_parquet(tmp_path / "front.parquet")["seed"]) == {"0,1"}


def test_unknown_names_are_answered_with_the_good_ones(grid60: ResultsFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown format 'xlsx'; known: csv, json, parquet"):
        grid60.export("trials", "xlsx")
    with pytest.raises(UserError, match=r"unknown table 'trial'.*trials, front, steps"):
        grid60.export("trial")
    with pytest.raises(UserError, match="cannot write"):
        grid60.export(to=tmp_path / "no" / "such" / "folder.csv")


def test_parquet_is_not_for_a_terminal(grid60: ResultsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(UserError, match="not for a terminal"):
        grid60.export("trials", "parquet")


@pytest.mark.parametrize(
    "text", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1+1", "\r=1+1", " =1", "＝1+1", "-1e", "@"]
)
def test_a_text_is_no_formula_to_a_spreadsheet(text: str) -> None:
    table = pd.DataFrame({"reason": [text, "-0.5", "-inf", "plain"], "number": [-0.5, -1.0, 2.0, 3.0]})
    back = pd.read_csv(io.BytesIO(encode(table, "csv")), dtype={"reason": "str"})
    assert back["reason"].tolist() == [f"'{text.strip()}", "-0.5", "-inf", "plain"]
    assert back["number"].tolist() == table["number"].tolist()
