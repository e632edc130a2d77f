"""pareto.png is a PNG of the promised size, for any sweep."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from matplotlib.image import imread

from hybrid_sweep.report.front_data import front_picture
from hybrid_sweep.report.pareto_png import QUALITY_LABELS, write_front
from hybrid_sweep.report.plotly_figures import front_figure
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.workload import Quality


def test_its_size(grid60: ResultsFolder) -> None:
    assert imread(grid60.path / "pareto.png").shape[:2] == (1000, 1600)


@pytest.mark.parametrize("rows", [0, 1, 2, 9, 60])
def test_any_number_of_trials_and_any_title(grid60: ResultsFolder, tmp_path: Path, rows: int) -> None:
    trials = grid60.trials().head(rows)
    write_front(front_picture(trials, grid60.manifest), tmp_path / "front.png", title=r"$ \frac{ <b> $x_1")
    picture = imread(tmp_path / "front.png")
    assert picture.shape[:2] == (1000, 1600)
    assert picture[..., :3].min() < 0.5


@pytest.mark.parametrize("kind", get_args(Quality))
def test_any_kind_of_quality(grid60: ResultsFolder, tmp_path: Path, kind: str) -> None:
    picture = front_picture(grid60.trials(), {**grid60.manifest, "quality": kind})
    write_front(picture, tmp_path / "front.png", "")
    assert front_figure(picture)["layout"]["yaxis"]["title"]["text"] == QUALITY_LABELS[kind]


def test_controls_that_no_one_ran_are_not_in_the_legend(grid60: ResultsFolder, tmp_path: Path) -> None:
    trials = grid60.trials()
    without = trials.assign(quality_vs_frozen=float("nan"), quality_vs_lr_matched=float("nan"))
    shown = {len(front_figure(front_picture(rows, grid60.manifest))["data"]) for rows in (trials, without)}
    assert len(shown) == 2
    for name, rows in {"with": trials, "without": without}.items():
        write_front(front_picture(rows, grid60.manifest), tmp_path / f"{name}.png", "")
    assert (imread(tmp_path / "with.png")[900:] != imread(tmp_path / "without.png")[900:]).any()


def test_bands_change_the_picture_of_the_same_means(
    sweep: Callable[..., ResultsFolder], tmp_path: Path
) -> None:
    folder = sweep(seeds=(0, 1, 2))
    picture = front_picture(folder.trials(), folder.manifest)
    write_front(picture, tmp_path / "bands.png", "")
    bare = replace(picture, front=picture.front.drop(columns="seeds"))
    write_front(bare, tmp_path / "bare.png", "")
    assert (imread(tmp_path / "bands.png") != imread(tmp_path / "bare.png")).any()
