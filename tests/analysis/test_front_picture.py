"""What the pictures show: controls on the same axes, an honest staircase, a frame that hides nothing new."""

import pandas as pd
import pytest

from hybrid_sweep.analysis import ResultsFolder
from hybrid_sweep.analysis.front_picture import FrontPicture, front_picture, staircase


@pytest.fixture
def picture(grid60: ResultsFolder) -> FrontPicture:
    return front_picture(grid60.trials(), grid60.manifest)


def test_controls_are_the_trials_quality_over_its_gain(picture: FrontPicture) -> None:
    row = picture.points.iloc[7]
    assert row["truncated"] == pytest.approx(row["quality"] / row["quality_vs_truncated"])
    assert row["frozen"] == pytest.approx(row["quality"] / row["quality_vs_frozen"])
    assert (row["x"], row["y"]) == (row["speedup"], row["quality"])


def test_the_staircase_never_bridges_a_gap() -> None:
    front = pd.DataFrame({"x": [4.0, 2.0, 1.0], "y": [0.90, 0.95, 1.0]})
    assert staircase(front) == ([1.0, 1.0, 2.0, 2.0, 4.0], [1.0, 0.95, 0.95, 0.90, 0.90])
    assert staircase(front.iloc[:1]) == ([4.0], [0.90])
    assert staircase(front.iloc[:0]) == ([], [])


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
