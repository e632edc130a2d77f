"""What the pictures show: controls on the same axes, an honest staircase, a frame that hides nothing new."""

import math
from collections.abc import Callable

import pandas as pd
import pytest

from hybrid_sweep.report.front_data import FrontPicture, error_bars, front_picture, ladder, staircase
from hybrid_sweep.results import ResultsFolder


@pytest.fixture
def picture(grid60: ResultsFolder) -> FrontPicture:
    return front_picture(grid60.trials(), grid60.manifest)


def test_controls_are_the_trials_quality_over_its_gain(picture: FrontPicture) -> None:
    row = picture.points.iloc[7]
    assert row["truncated"] == pytest.approx(row["quality"] / row["quality_vs_truncated"])
    assert row["frozen"] == pytest.approx(row["quality"] / row["quality_vs_frozen"])
    assert (row["x"], row["y"]) == (row["speedup"], row["quality"])


def test_controls_of_a_gap_lie_below_by_as_much_as_they_lost(grid60: ResultsFolder) -> None:
    against = {"quality_vs_frozen": 1.6, "quality_vs_lr_matched": math.inf}
    trials = grid60.trials().assign(quality=0.9, **against)
    row = front_picture(trials, {**grid60.manifest, "quality": "loss_gap"}).points.iloc[7]
    assert row["frozen"] == pytest.approx(1 + 0.9 - 1.6)
    assert row["lr_matched"] == 0.0


def test_the_staircase_never_bridges_a_gap() -> None:
    front = pd.DataFrame({"x": [4.0, 2.0, 1.0], "y": [0.90, 0.95, 1.0]})
    assert staircase(front) == ([1.0, 1.0, 2.0, 2.0, 4.0], [1.0, 0.95, 0.95, 0.90, 0.90])
    assert staircase(front.iloc[:1]) == ([4.0], [0.90])
    assert staircase(front.iloc[:0]) == ([], [])


def test_error_bars_reach_from_the_mean_to_the_ends_of_its_interval() -> None:
    rows = pd.DataFrame({"y": [1.0, 2.0], "y_low": [0.5, 1.75], "y_high": [1.25, 4.0]})
    below, above = error_bars(rows, "y")
    assert (below.tolist(), above.tolist()) == ([0.5, 0.25], [0.25, 2.0])


def test_the_frame_holds_the_front_and_plain_training(picture: FrontPicture) -> None:
    bottom, top = picture.frame
    assert bottom < picture.front["y"].min() < top
    assert bottom < 1.0 < top


def test_a_far_outlier_is_counted_not_drawn(grid60: ResultsFolder) -> None:
    trials = grid60.trials()
    trials.loc[3, ["speedup", "quality"]] = [1.1, 0.05]
    picture = front_picture(trials, grid60.manifest)
    assert picture.frame[0] > 0.5
    assert picture.outside == 1


def test_a_long_front_names_only_its_best(picture: FrontPicture) -> None:
    assert picture.labelled["trial_id"].tolist() == [picture.best]


def test_names_do_not_cover_each_other(grid60: ResultsFolder) -> None:
    trials = grid60.trials().head(3).assign(speedup=[2.0, 2.01, 3.0], quality=[1.0, 0.999, 0.985])
    picture = front_picture(trials, grid60.manifest)
    assert picture.labelled["x"].tolist() == [3.0, 2.01]
    assert picture.labelled["trial_id"].tolist()[0] == picture.best


def test_counted_sweeps_are_drawn_by_counts(grid60: ResultsFolder) -> None:
    picture = front_picture(grid60.trials(), {"spec": {"timing": "counted"}})
    assert (picture.points["x"] == picture.points["speedup_counted"]).all()


def test_a_repeated_sweep_has_bands_that_fit_the_frame(sweep: Callable[..., ResultsFolder]) -> None:
    folder = sweep(seeds=(0, 1, 2))
    picture = front_picture(folder.trials(), folder.manifest)
    front = picture.front
    assert picture.seeds == 3
    assert (front["x_low"] < front["x"]).all()
    assert (front["y"] < front["y_high"]).all()
    assert picture.frame[0] <= front["y_low"].min()
    assert picture.frame[1] >= front["y_high"].max()
    assert picture.width[0] <= front["x_low"].min()
    assert picture.width[1] >= front["x_high"].max()


def test_a_hopelessly_wide_band_does_not_set_the_frame(grid60: ResultsFolder) -> None:
    far = {"speedup": [1.0, 5.0, 9.0], "quality": [0.5, 1.0, 1.5]}
    one = grid60.trials().head(3).assign(trial_id="a", seed=[0, 1, 2], **far)
    rest = pd.concat([grid60.trials().tail(50).assign(seed=seed) for seed in (0, 1, 2)])
    picture = front_picture(pd.concat([one, rest]), grid60.manifest)
    assert "a" in picture.front["trial_id"].tolist()
    assert picture.front["y_low"].min() < picture.frame[0]
    assert picture.width[0] > 1 - 0.6 * 4.5


def test_single_runs_have_no_bands(picture: FrontPicture) -> None:
    assert picture.seeds == 1
    assert "x_low" not in picture.front


def test_controls_stand_beside_the_front_and_change_nothing_of_it(
    grid60: ResultsFolder, picture: FrontPicture, controlled: Callable[..., pd.DataFrame]
) -> None:
    beside = front_picture(controlled([0.99, 0.97]), grid60.manifest)
    assert beside.controls[["arm", "x", "y"]].values.tolist() == [["lr", 2.0, 0.99], ["lr", 3.0, 0.97]]
    assert ladder(beside).values.tolist() == [[1.0, 1.0], [2.0, 0.99], [3.0, 0.97]]
    assert beside.hypervolume == picture.hypervolume
    assert beside.points.equals(picture.points)
    assert picture.controls.empty


def test_of_equal_budgets_the_best_control_stands_for_its_arm(
    grid60: ResultsFolder, controlled: Callable[..., pd.DataFrame]
) -> None:
    trials = controlled([0.9, 0.95, 0.85], "tuned")
    trials.loc[trials["arm"] == "tuned", "backward_calls"] = [300, 300, 200]
    beside = front_picture(trials, grid60.manifest)
    assert beside.controls["y"].tolist() == [0.95, 0.85]
