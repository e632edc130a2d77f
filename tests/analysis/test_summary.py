"""The original's four lines, for the right point of the front."""

import pandas as pd
import pytest

from hybrid_sweep.analysis.pareto import best_point, recommended
from hybrid_sweep.analysis.summary import analyze
from hybrid_sweep.results import ResultsFolder


def front(*points: tuple[float, float]) -> pd.DataFrame:
    return pd.DataFrame(points, columns=["speedup", "quality"])


def test_best_is_the_fastest_above_the_floor_else_the_best() -> None:
    points = front((5.0, 0.92), (3.0, 0.98), (2.0, 1.01))
    assert best_point(points)["speedup"] == 3.0
    assert best_point(points, 0.9)["speedup"] == 5.0
    assert best_point(points, 1.5)["speedup"] == 2.0
    assert best_point(front()) is None


def test_the_four_lines(grid60: ResultsFolder) -> None:
    lines = grid60.analyzer_lines(grid60.trials())
    best = recommended(grid60.trials())
    horizon, interval, threshold = best["trial_id"].split("_")
    assert lines == [
        f"Optimal Config: H={int(horizon[1:])}, I={int(interval[1:])}, σ={threshold[1:]}",
        f"Speedup: {best['speedup']:.2f}×",
        f"Quality: {100 * best['quality']:.2f}%",
        "Recommendation: CONFIRM FIRST; checklist on this sweep alone: REJECT: speedup",
    ]


def test_what_is_recommended_is_the_verdict_whatever_the_checklist_says(grid60: ResultsFolder) -> None:
    for recommendation in ("ADOPT", "REJECT: lr_matched"):
        line = analyze(grid60.trials(), verdict=recommendation)[3]
        assert line.startswith(f"Recommendation: {recommendation}; checklist on this sweep alone: ")
    assert grid60.analyzer_lines(grid60.trials())[3].startswith(
        f"Recommendation: {grid60.verdict().recommendation}; "
    )


def test_their_exact_form(grid60: ResultsFolder) -> None:
    trials = grid60.trials()
    row = trials[trials["trial_id"] == "H075_I15_C0.60"].assign(speedup=4.5, quality=0.9957)
    assert analyze(row)[:3] == ["Optimal Config: H=75, I=15, σ=0.60", "Speedup: 4.50×", "Quality: 99.57%"]
    other = row.assign(trial_id="H075_I15_C0.60_full_steps=10")
    assert analyze(other)[0] == "Optimal Config: H=75, I=15, σ=0.60 (H075_I15_C0.60_full_steps=10)"
    assert analyze(row.assign(max_predict_steps=pd.NA))[0] == "Optimal Config: H075_I15_C0.60"
    assert analyze(row.assign(speedup_counted=4.0), "speedup_counted")[1] == "Speedup: 4.00× (counted)"


@pytest.mark.parametrize("state", ["failed", "running", "diverged"])
def test_nothing_done_is_said(grid60: ResultsFolder, state: str) -> None:
    lines = analyze(grid60.trials().assign(state=state))
    assert [line.split(":")[0] for line in lines] == [
        "Optimal Config",
        "Speedup",
        "Quality",
        "Recommendation",
    ]
    assert "CONFIRM FIRST" in lines[3]


@pytest.mark.parametrize(("threshold", "shown"), [(0.6, "σ=0.60"), (0.001, "σ=0.001"), (0.999, "σ=0.999")])
def test_a_threshold_is_shown_as_it_is(grid60: ResultsFolder, threshold: float, shown: str) -> None:
    trials = grid60.trials().assign(confidence_threshold=threshold)
    assert shown in analyze(trials)[0]
