"""parameter_sweep_<time>.json: the original's file, one checked record a trial."""

import json
import re

import pytest

from hybrid_sweep.analysis.seed_file import SweepRecord, seed_file_name, seed_records
from hybrid_sweep.errors import UserError
from hybrid_sweep.results import ResultsFolder


def test_sixty_records_that_fit_the_schema(grid60: ResultsFolder) -> None:
    (path,) = grid60.path.glob("parameter_sweep_*.json")
    assert re.fullmatch(r"parameter_sweep_\d{8}T\d{6}Z\.json", path.name)
    records = [SweepRecord(**record) for record in json.loads(path.read_text())]
    assert len(records) == len({record.trial_id for record in records}) == 60
    assert {record.source for record in records} == {"measured"}
    assert [record.state for record in records].count("done") == 58


def test_numbers_arrive_unchanged(grid60: ResultsFolder) -> None:
    trials = grid60.trials()
    records = seed_records(trials)
    assert records[0]["speedup_factor"] == pytest.approx(trials["speedup"][0], rel=1e-11)
    assert records[0]["quality_score"] == pytest.approx(trials["quality"][0], rel=1e-11)
    failed = next(record for record in records if record["state"] == "failed")
    assert failed["speedup_factor"] is None
    assert failed["max_predict_steps"] == 100


def test_the_name_is_the_sweeps_time_in_utc() -> None:
    assert seed_file_name("2026-02-14T11:15:00+01:00") == "parameter_sweep_20260214T101500Z.json"
    assert re.fullmatch(r"parameter_sweep_\d{8}T\d{6}Z\.json", seed_file_name(None))


def test_a_record_refuses_what_it_does_not_know(grid60: ResultsFolder) -> None:
    record = seed_records(grid60.trials())[0]
    with pytest.raises(UserError, match="source"):
        SweepRecord(**{**record, "source": "seed (claimed)"})
    with pytest.raises(UserError, match="unknown key"):
        SweepRecord(**record, backward_pct=22)
