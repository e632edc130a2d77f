"""What says which run it is stays what it is: no seed is rounded, no id becomes a number."""

import io
import json
import random
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support.toy import Toy

from hybrid_sweep.analysis.front_rows import front_rows
from hybrid_sweep.analysis.table import steps_table, trials_table
from hybrid_sweep.cluster.models import keep_front
from hybrid_sweep.cluster.worker_context import model_file
from hybrid_sweep.confirm.sweep import _fresh
from hybrid_sweep.errors import UserError
from hybrid_sweep.report.plotly_figures import setting_values
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.simulation.recorded import RecordedRuns
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.random_state import seed_random_state

SEED = 1763900000123456789  # a float has ...768 for it
SEEDS = (SEED, SEED + 1, 2**63 - 1)
ODD = ("1e5", "007", "nan", "None", "inf", "T0001_H050", "True")


def fill(folder: ResultsFolder, trial_ids=("H050", "H075"), seeds=SEEDS[:2], config=None) -> ResultsFolder:
    folder.write_manifest({"sweep_id": "x", "seeds": list(seeds), "spec": {"name": "x"}})
    for number, trial_id in enumerate(trial_ids):
        for place, seed in enumerate(seeds):
            key = {"trial_id": trial_id, "seed": seed}
            settings = {"max_predict_steps": 50 + number, **(config or {})}
            whole = HybridConfig(**settings).to_json()
            values = {"speedup": 1 + number + place / 9, "quality": 1 - number / 9, "config": whole}
            folder.journal.append({"event": "started", **key, "config": settings})
            for step in (10, 20):
                folder.journal.append({"event": "reported", **key, "report": {"step": step, "phase": "full"}})
            folder.journal.append(
                {"event": "finished", **key, "state": "done", "result": values | {"behaviour": trial_id}}
            )
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> ResultsFolder:
    return ResultsFolder.create(tmp_path / "sweep")


def test_a_large_seed_is_itself_in_every_table_and_file(folder: ResultsFolder, tmp_path: Path) -> None:
    fill(folder, seeds=SEEDS).export_all()
    expected = [*SEEDS] * 2
    assert folder.trials()["seed"].tolist() == expected
    assert folder.steps().drop_duplicates(["trial_id", "seed"])["seed"].tolist() == expected
    for table in ("trials", "steps"):
        for format, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
            folder.export(table, format, tmp_path / "table")
            assert set(read(tmp_path / "table")["seed"]) == set(SEEDS)
        folder.export(table, "json", tmp_path / "table")
        assert {row["seed"] for row in json.loads((tmp_path / "table").read_text())} == set(SEEDS)
    all_of_them = ",".join(map(str, SEEDS))
    assert set(folder.table("front")["seed"]) == {all_of_them}
    assert {row["seed"] for row in front_rows(folder)} == {all_of_them}
    (records,) = folder.path.glob("parameter_sweep_*.json")
    assert {record["seed"] for record in json.loads(records.read_text())} == set(SEEDS)
    assert folder.checkpoint_path("H050", SEED).name == f"H050_seed{SEED}.ckpt"


def test_two_seeds_that_are_one_as_floats_are_two_rows_and_two_runs(folder: ResultsFolder) -> None:
    fill(folder, trial_ids=["H050"])
    front = folder.table("front")
    assert front["seeds"].tolist() == [2]
    assert front["speedup"].tolist() == [pytest.approx(1 + 1 / 18)]
    assert folder.steps()["step"].tolist() == [10, 20, 10, 20]  # neither replaces the other's
    assert len(RecordedRuns.from_folder(folder.path)) == 2


def test_the_page_holds_no_number_that_a_browser_would_round(folder: ResultsFolder) -> None:
    fill(folder, config={"predictor_seed": SEED}).export_all()
    page = folder.report_path.read_text()
    data = re.search(r'id="data"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert data
    numbers: list[int] = []
    json.loads(data[1], parse_int=lambda text: numbers.append(int(text)) or int(text))
    assert max(map(abs, numbers)) <= 2**53
    assert f'"{SEED}"' in data[1]


def test_settings_that_are_large_are_apart_on_an_axis(folder: ResultsFolder) -> None:
    configs = [json.dumps({"predictor_seed": SEED + number}) for number in range(2)]
    values = setting_values(pd.DataFrame({"config": [*configs, "{}"]}), "predictor_seed")
    assert values.nunique() == 2
    assert str(SEED + 1) in set(values)


@pytest.mark.parametrize("trial_id", ODD)
def test_an_id_that_reads_like_something_else_stays_text(folder: ResultsFolder, trial_id: str) -> None:
    fill(folder, trial_ids=[trial_id]).export_all()
    assert set(folder.trials()["trial_id"]) == {trial_id} == set(folder.table("front")["trial_id"])
    assert set(folder.steps()["trial_id"]) == {trial_id}
    assert set(pd.read_parquet(folder.path / "trials.parquet")["trial_id"]) == {trial_id}
    assert folder.trial_config(trial_id)["max_predict_steps"] == 50
    assert set(folder.trials()["behaviour"]) == {trial_id}


@pytest.mark.parametrize("text", ["1e5", "007", "nan", "12345678"])
def test_a_word_of_a_report_stays_a_word(text: str) -> None:
    key = {"event": "reported", "trial_id": "a", "seed": 0}
    table = steps_table(
        [{**key, "report": {"step": step, "phase": "full", "behaviour": text}} for step in (1, 2)]
    )
    assert table["behaviour"].tolist() == [text, text]


def test_a_seed_is_exact_beside_events_that_hold_less() -> None:
    key = {"trial_id": "a", "seed": SEED}
    table = trials_table([{"event": "started", **key, "config": {}, "arm": "lr"}])
    assert table["seed"].tolist() == [SEED]
    assert str(table["seed"].dtype) == "Int64"


def test_models_of_the_front_stay_whatever_the_seed_and_what_is_not_ours_too(folder: ResultsFolder) -> None:
    fill(folder, trial_ids=["H050", "H075"])
    worse = {"trial_id": "worse", "seed": SEED}
    folder.journal.append({"event": "started", **worse, "config": {}})
    folder.journal.append({"event": "finished", **worse, "state": "diverged", "result": {}})
    models = folder.models_path
    models.mkdir()
    on_front = {model_file(trial_id, seed) for trial_id in ("H050", "H075") for seed in SEEDS[:2]}
    others = {"notes.txt", "H050_seed7.pt", "worse_seed7.pt"}
    gone = {model_file("worse", SEED), f".H050_seed{SEED}.pt.0a1b.tmp"}
    for name in on_front | others | gone:
        (models / name).touch()
    keep_front(folder, models)
    assert {file.name for file in models.iterdir()} == on_front | others


@pytest.mark.parametrize("forged", [{"trial_id": "../../victim"}, {"seed": "/../../../victim"}])
def test_a_result_cannot_say_which_run_it_is_of(folder: ResultsFolder, tmp_path, forged) -> None:
    fill(folder)
    run = {"trial_id": "worse", "seed": 0}
    folder.journal.append({"event": "started", **run, "config": {}})
    folder.journal.append({"event": "finished", **run, "state": "done", "result": {"speedup": 0.1, **forged}})
    assert {"worse"} == set(folder.trials()["trial_id"]) - {"H050", "H075"}
    victim = folder.path.parent / "victim_seed0.pt"
    victim.touch()
    folder.models_path.mkdir()
    keep_front(folder, folder.models_path)
    assert victim.exists()
    with pytest.raises((UserError, ValueError)):
        model_file(forged.get("trial_id", "a"), forged.get("seed", 0))


def test_the_last_seed_of_all_is_taken_and_none_beyond_it() -> None:
    fields = {"name": "x", "workload": "a.b:C", "space": {"max_predict_steps": [50]}}
    assert SweepSpec(**fields, seed=2**63 - 2, repeats=2).seeds == [2**63 - 2, 2**63 - 1]
    with pytest.raises(UserError, match=f"too large for repeats=2: at most {2**63 - 2}"):
        SweepSpec(**fields, seed=2**63 - 1, repeats=2)
    with pytest.raises(UserError, match=r"seed=1\.7639"):  # as a float it is another one already
        SweepSpec(**fields, seed=float(SEED))


def test_every_generator_takes_the_last_seed_and_tells_it_from_its_neighbour() -> None:
    def drawn(seed: int) -> tuple[float, ...]:
        seed_random_state(seed)
        return torch.rand(1).item(), random.random(), np.random.rand()

    last, before = drawn(2**63 - 1), drawn(2**63 - 2)
    assert drawn(2**63 - 1) == last
    assert all(one != other for one, other in zip(last, before, strict=True))
    workload = Toy()
    weights = [next(workload.build_model(seed).parameters()) for seed in (2**63 - 1, 2**63 - 2)]
    assert not torch.equal(*weights)


def test_fresh_seeds_to_confirm_on_are_never_the_sweeps_own_nor_beyond_the_last() -> None:
    fields = {"name": "x", "workload": "a.b:C", "space": {"max_predict_steps": [50]}}
    assert _fresh(SweepSpec(**fields, seed=3, repeats=2), 3) == [5, 6, 7]
    assert _fresh(SweepSpec(**fields, seed=2**63 - 2, repeats=2), 3) == [2**63 - 5 + n for n in range(3)]


def test_a_cell_is_in_one_line_of_csv(folder: ResultsFolder, tmp_path: Path) -> None:
    fill(folder, config={"full_steps": 7})
    bad = {"trial_id": "bad", "seed": 0}
    reason = "ValueError: row 7\nis\r\nempty\x0b, it says \u2028so"
    folder.journal.append({"event": "started", **bad, "config": {"max_predict_steps": 9}})
    folder.journal.append({"event": "finished", **bad, "state": "failed", "reason": reason, "result": {}})
    folder.export_all()
    report = {"step": 1, "phase": "full", "note": "two\nlines"}
    folder.journal.append({"event": "reported", **bad, "report": report})
    for table in ("trials", "front", "steps"):
        folder.export(table, "csv", tmp_path / "table.csv")
        text = (tmp_path / "table.csv").read_bytes()
        assert text.count(b"\n") == len(folder.table(table)) + 1
        assert len(text.decode().splitlines()) == len(folder.table(table)) + 1
    lines = (folder.path / "trials.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [*["H050"] * 2, *["H075"] * 2, "bad"]
    config = pd.read_csv(folder.path / "trials.csv")["config"]
    assert json.loads(config.iloc[0])["full_steps"] == 7
    whole = io.StringIO((folder.path / "pareto.csv").read_text())
    assert len(pd.read_csv(whole)) == len(whole.getvalue().splitlines()) - 1
