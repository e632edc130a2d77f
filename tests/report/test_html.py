"""report.html: whole, self-contained, honest, and safe whatever a user calls his things."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from hybrid_sweep.report.front_data import front_picture
from hybrid_sweep.report.html import render_report
from hybrid_sweep.report.plotly_figures import front_figure, setting_values, settings_figure, swept_settings
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.store.columns import TRIAL_COLUMNS

EVIL = "<script>alert(1)</script>&\"'{{x}}"


def own_part(folder: ResultsFolder) -> str:
    """Return the page without the Plotly library."""
    page = folder.report_path.read_text()
    start = page.index("<script>", page.index('id="data"'))
    end = page.index("</script>", page.rindex('"use strict";\n(() =>') - 40)
    return page[:start] + page[end:]


def data_of(folder: ResultsFolder) -> Any:
    text = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', folder.report_path.read_text(), re.S
    )
    return json.loads(text[1], parse_constant=pytest.fail)


def test_no_button_uploads_a_chart(grid60: ResultsFolder) -> None:
    page = grid60.report_path.read_text()
    assert 'showSendToCloud: false, plotlyServerURL: ""' in page
    assert page.count("Plotly.react(") == page.count("style), QUIET);") == 1  # by it alone is a figure drawn


def test_it_asks_no_network(grid60: ResultsFolder) -> None:
    page = own_part(grid60)
    assert not re.search(r"""(src|href)\s*=|@import|url\(|https?://|fetch\(|XMLHttp""", page)
    assert "default-src 'none'" in page
    assert "plotly.js v" in grid60.report_path.read_text()


def test_it_has_the_headline_and_every_part(grid60: ResultsFolder) -> None:
    page = own_part(grid60)
    for line in grid60.analyzer_lines(grid60.trials()):
        label, value = line.split(": ", 1)
        assert f"<small>{label}</small><strong>{value}</strong>" in page
    for state in ("58 done", "1 diverged", "1 failed"):
        assert state in page
    for section in ("summary", "front", "settings", "checklist", "table"):
        assert f'<section id="{section}">' in page
    assert "AMD EPYC 7763" in page
    assert "prefers-color-scheme: dark" in page
    for column in TRIAL_COLUMNS:
        assert f"<dt>{column.name}</dt>" in page


def test_it_has_the_reliability_table_of_the_recommended_point(grid60: ResultsFolder) -> None:
    page = own_part(grid60)
    assert "<tr><td>40</td><td>0.75</td><td>0.70</td></tr>" in page
    assert "Brier score 0.090, against 0.090" in page
    assert "Confidence has skill here: 0.15 [0.05, 0.25]" in page
    assert "The forecast of losses has no skill here that can be told from none: 0.02 [-0.10, 0.14]" in page


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (
            {"curvature": {"steps": [10, 30], "eta_lambda": [0.21, 0.4321], "why_not": ""}},
            "0.21 at step 10, 0.432 at",
        ),
        (
            {"curvature": {"steps": [], "eta_lambda": [], "why_not": "no such derivative"}},
            "not measured: no such",
        ),
        (
            {"spec": {"controls": "full", "tuning_trials": 20}, "budget": 60},
            "chosen from 20 settings, the hybrid from 60: tuning_trials capped them",
        ),
        ({"spec": {"compile": "reduce-overhead"}}, "<dt>torch.compile</dt><dd>reduce-overhead</dd>"),
    ],
)
def test_the_facts_say_what_was_measured_and_what_was_capped(
    sweep: Callable[..., ResultsFolder], manifest: dict[str, Any], said: str
) -> None:
    folder = sweep(manifest=manifest)
    folder.export_all()
    assert said in own_part(folder)


@pytest.mark.parametrize("spec", [{"controls": "full", "tuning_trials": None}, {"controls": "basic"}])
def test_no_cap_is_said_where_there_is_none(
    sweep: Callable[..., ResultsFolder], spec: dict[str, Any]
) -> None:
    folder = sweep(manifest={"spec": spec, "budget": 60})
    folder.export_all()
    assert "capped" not in own_part(folder)


def test_the_figure_shows_front_reference_and_controls(grid60: ResultsFolder) -> None:
    names = [trace.get("name", "") for trace in data_of(grid60)["front"]["data"]]
    for name in (
        "frozen control",
        "truncated control",
        "matched control",
        "configurations (58)",
        "Pareto front",
        "plain training",
    ):
        assert any(found.startswith(name) for found in names), name
    hover = data_of(grid60)["front"]["data"][5]["text"]
    assert any("H075_I15_C0.60" in text and "max predict steps 75" in text for text in hover)


def test_the_table_has_every_trial_and_its_twins(grid60: ResultsFolder) -> None:
    table = data_of(grid60)["table"]
    assert len(table["rows"]) == len(table["front"]) == len(table["twins"]) == 60
    assert sum(table["front"]) == len(grid60.table("front"))
    assert max(table["twins"]) == 1


def test_every_front_point_has_its_checklist(grid60: ResultsFolder) -> None:
    checks = own_part(grid60).split('<table class="checks">')[1].split("</table>")[0]
    front = grid60.table("front")
    assert checks.count("<tr") == len(front) + 1
    assert all(f"<td>{trial_id}</td>" in checks for trial_id in front["trial_id"])
    assert checks.count("n/a, no GPU") == len(front)


def test_user_text_is_escaped(sweep: Callable[..., ResultsFolder]) -> None:
    def evil(event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "reason": EVIL}  # an id cannot hold it

    spec = {"name": EVIL, "workload": {"name": EVIL}, "space": {"max_predict_steps": [], EVIL: [1, 2]}}
    folder = sweep(change=evil, manifest={"spec": spec, "hardware": {EVIL: EVIL}})
    folder.export_all()
    page = own_part(folder)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    hover = data_of(folder)["front"]["data"][5]["text"]
    assert all("<script>" not in text for text in hover)


def fail(event: dict[str, Any]) -> dict[str, Any]:
    return {**event, "state": "failed", "reason": "boom", "result": {}}


def nothing_measured(event: dict[str, Any]) -> dict[str, Any]:
    return {**event, "result": dict.fromkeys(event["result"], None)}


def all_infinite(event: dict[str, Any]) -> dict[str, Any]:
    return {**event, "result": dict.fromkeys(event["result"], math.inf)}


def no_controls(event: dict[str, Any]) -> dict[str, Any]:
    return {**event, "result": {**event["result"], "quality_vs_truncated": None, "quality_vs_frozen": None}}


@pytest.mark.parametrize(
    ("change", "seeds"),
    [(fail, (0,)), (nothing_measured, (0, 1, 2)), (all_infinite, (0,)), (no_controls, (0, 1, 2))],
)
def test_poor_sweeps_render(sweep: Callable[..., ResultsFolder], change: Any, seeds: tuple[int, ...]) -> None:
    folder = sweep(seeds=seeds, change=change)
    folder.export_all()
    assert len(data_of(folder)["table"]["rows"]) == 60 * len(seeds)
    if change is not no_controls:
        assert "The front is empty" in own_part(folder)


@pytest.mark.parametrize("lines", [0, 1, 6])
def test_a_sweep_killed_early_renders(grid60: ResultsFolder, empty: ResultsFolder, lines: int) -> None:
    content = grid60.journal.path.read_bytes().splitlines(keepends=True)
    empty.journal.path.write_bytes(b"".join(content[:lines]))
    empty.export_all()
    assert len(data_of(empty)["table"]["rows"]) == (lines + 4) // 5


def test_only_settings_that_vary_get_a_panel(grid60: ResultsFolder) -> None:
    trials = grid60.trials()
    swept = swept_settings(trials, grid60.manifest)
    assert swept == ["max_predict_steps", "correction_interval", "confidence_threshold"]
    assert swept_settings(trials, {}) == swept
    figure = settings_figure(front_picture(trials, grid60.manifest), swept)
    assert len(figure["data"]) == 6
    assert figure["layout"]["xaxis"]["categoryarray"] == ["50", "75", "100", "150"]


def test_a_setting_outside_the_columns_is_found_in_the_config(grid60: ResultsFolder) -> None:
    trials = grid60.trials()
    assert setting_values(trials, "warmup_steps").unique().tolist() == [100]
    trials["config"] = ['{"layers": [1, 2]}', "", *['{"layers": [3]}'] * 58]
    assert setting_values(trials, "layers").nunique() == 2


def test_many_values_make_a_scatter(grid60: ResultsFolder) -> None:
    trials = grid60.trials()
    trials["confidence_threshold"] = [0.4 + 0.005 * row for row in range(len(trials))]
    figure = settings_figure(front_picture(trials, {}), ["confidence_threshold"])
    assert figure["data"][0]["type"] == "scatter"


def test_the_empty_figure_says_so(empty: ResultsFolder) -> None:
    figure = front_figure(front_picture(empty.trials(), {}))
    assert figure["layout"]["annotations"][0]["text"] == "no configuration is done"


def test_a_repeated_sweep_shows_its_intervals_and_says_what_they_are(
    sweep: Callable[..., ResultsFolder], grid60: ResultsFolder
) -> None:
    folder = sweep(seeds=(0, 1, 2))
    folder.export_all()
    front = next(trace for trace in data_of(folder)["front"]["data"] if "Pareto" in trace.get("name", ""))
    assert front["error_x"]["array"] == pytest.approx(front["error_x"]["arrayminus"])
    assert len(front["error_y"]["array"]) == len(front["x"])
    assert all("95 % of speedup" in text for text in front["text"])
    page = own_part(folder)
    assert "mean over 3 seeds" in page
    assert "Student's t over the seeds" in page
    best = folder.table("front").iloc[0]
    half = (best["speedup_high"] - best["speedup_low"]) / 2
    assert f"<td>{best['speedup']:.3f} ± {half:.3f}</td>" in page
    assert "Student's t" not in own_part(grid60)
    assert "error_x" not in json.dumps(data_of(grid60)["front"])


def test_bands_are_only_columns_of_a_repeated_front(
    sweep: Callable[..., ResultsFolder], grid60: ResultsFolder
) -> None:
    folder = sweep(seeds=(0, 1))
    folder.export_all()
    columns = [column.name for column in TRIAL_COLUMNS]
    bands = ["seeds", "speedup_low", "speedup_high", "quality_low", "quality_high"]
    header = (folder.path / "pareto.csv").read_text().splitlines()[0].split(",")
    assert header == [*columns, *bands]
    assert list(json.loads((folder.path / "pareto.json").read_text())[0]) == header
    assert (grid60.path / "pareto.csv").read_text().splitlines()[0].split(",") == columns


def test_controls_of_their_own_are_curves_and_rows(
    grid60: ResultsFolder, controlled: Callable[..., pd.DataFrame]
) -> None:
    trials = controlled([0.99, 0.97])
    picture = front_picture(trials, grid60.manifest)
    page = render_report(trials, picture, grid60.manifest, "x")
    assert "fewer steps, higher learning rate" in page
    assert "lr_x2" in page
    assert re.search(r"really pay\? 60\s+configurations", page)
