"""The notes say what was shown, against which control, and by how much; never more."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from hybrid_sweep.report.front_data import front_picture
from hybrid_sweep.report.notes import Note, caveats, same_behaviour
from hybrid_sweep.results import ResultsFolder


def notes_of(folder: ResultsFolder, **columns: Any) -> list[Note]:
    trials = folder.trials().assign(**columns)
    return caveats(trials, front_picture(trials, folder.manifest))


def test_losing_to_stopping_early_is_said_first(grid60: ResultsFolder) -> None:
    note = notes_of(grid60, quality_vs_truncated=0.97)[0]
    assert note.tone == "warning"
    assert "prediction lost to stopping plain training early" in note.text
    assert "3.00 %" in note.text


def test_winning_says_by_how_much(grid60: ResultsFolder) -> None:
    note = notes_of(grid60, quality_vs_truncated=1.025)[0]
    assert note.tone == "good"
    assert "2.50 % higher" in note.text


@pytest.mark.parametrize("kind", ["accuracy_ratio", "loss_gap"])
def test_what_is_no_ratio_of_losses_is_not_told_as_one(grid60: ResultsFolder, kind: str) -> None:
    trials = grid60.trials().assign(quality_vs_truncated=1.025)
    note = caveats(trials, front_picture(trials, {**grid60.manifest, "quality": kind}))[0]
    assert (note.tone, "loss" in note.text) == ("good", False)
    assert "by 2.50 % in quality" in note.text


def test_a_mixed_front_is_not_called_a_win(grid60: ResultsFolder) -> None:
    note = notes_of(grid60)[0]
    assert note.tone == "plain"
    assert "front points beat stopping plain training early" in note.text
    assert "the recommended one" in note.text


@pytest.mark.parametrize(("value", "words"), [(1.0, "No front point beats"), (None, "Not compared with")])
def test_a_tie_or_no_control_is_no_win(grid60: ResultsFolder, value: float | None, words: str) -> None:
    note = notes_of(grid60, quality_vs_truncated=value)[0]
    assert note.tone == "warning"
    assert words in note.text


@pytest.mark.parametrize("value", [0.97, 1.0, 1.025])
def test_points_that_were_not_compared_are_not_spoken_for(grid60: ResultsFolder, value: float) -> None:
    trials = grid60.trials().assign(quality_vs_truncated=value)
    front = front_picture(trials, grid60.manifest).front["trial_id"]
    trials.loc[trials["trial_id"] == front.iloc[0], "quality_vs_truncated"] = None
    note = caveats(trials, front_picture(trials, grid60.manifest))[0]
    assert note.text.endswith(f"(1 of {len(front)} were not compared).")


def test_speed_beyond_the_bound_is_flagged(grid60: ResultsFolder) -> None:
    texts = [note.text for note in notes_of(grid60, speedup_bound=1.5)]
    assert any("58 configurations timed above speedup_bound" in text for text in texts)


def test_counted_work_is_not_timed_and_so_not_above_the_bound(grid60: ResultsFolder) -> None:
    trials = grid60.trials().assign(speedup=1.4, speedup_counted=1.6, speedup_bound=1.5)
    picture = front_picture(trials, {**grid60.manifest, "spec": {"timing": "counted"}})
    assert not any("timed above" in note.text for note in caveats(trials, picture))


def test_one_seed_many_twins_and_running_trials_are_said(grid60: ResultsFolder) -> None:
    trials = grid60.trials()
    trials.loc[0, "state"] = "running"
    texts = " ".join(note.text for note in caveats(trials, front_picture(trials, grid60.manifest)))
    assert "1 trial had not finished" in texts
    assert "One seed: chance flatters the best of 60" in texts
    assert "59 trials show only 40 behaviours" in texts


def repeats(*points: tuple[float, float], spread: float, alike: bool = False) -> pd.DataFrame:
    """Return configurations a, b, … with three seeds around each, by turns up and down or all `alike`."""
    return pd.DataFrame(
        {
            "trial_id": "abcdef"[number],
            "seed": seed,
            "state": "done",
            "reason": "",
            "arm": "",
            "behaviour": f"{number}",
            "attempts": 1,
            "speedup": speedup + spread * (seed - 1) * (1 if alike else (-1) ** number),
            "speedup_bound": 99.0,
            "quality": quality + 0.01 * spread * (seed - 1) * (1 if alike else (-1) ** number),
            "quality_vs_truncated": 1.0,
            "quality_vs_frozen": 1.0,
            "quality_vs_lr_matched": 1.0,
            "predict_phases": 5,
            "max_confidence": 0.9,
        }
        for number, (speedup, quality) in enumerate(points)
        for seed in range(3)
    )


def texts_of(trials: pd.DataFrame) -> str:
    return " ".join(note.text for note in caveats(trials, front_picture(trials, {})))


def test_front_points_that_differ_on_no_seed_alike_are_not_told_apart() -> None:
    near, far = (3.0, 0.985), (1.5, 1.2)
    text = "differences on each seed, a and b are not told apart, in speed or in quality."
    assert text in texts_of(repeats(near, (2.9, 0.986), far, spread=0.1))
    three = texts_of(repeats(near, (2.9, 0.986), (2.8, 0.987), far, spread=0.03))
    assert "2 of 6 pairs of front points (a and b, for one) are not told apart" in three
    assert "told apart" not in texts_of(repeats(near, far, spread=0.1))


def test_front_points_that_differ_alike_on_every_seed_are_told_apart_however_far_these_scatter() -> None:
    assert "told apart" not in texts_of(repeats((3.0, 0.985), (2.9, 0.986), spread=0.1, alike=True))


def test_an_interval_that_reaches_below_what_is_asked_for_is_a_warning() -> None:
    trials = repeats((3.0, 0.981), spread=0.1)
    notes = caveats(trials, front_picture(trials, {}))
    text = "recommended point's quality is 0.981 ± 0.002, which reaches below 0.98."
    assert any(note.tone == "warning" and text in note.text for note in notes)
    assert "speedup is 1.100 ± 0.248, which reaches below 1" in texts_of(repeats((1.1, 0.99), spread=0.1))
    assert "reaches below" not in texts_of(repeats((3.0, 0.99), spread=0.1))


def test_stopped_interrupted_and_repeated_trials_are_said(grid60: ResultsFolder) -> None:
    trials = grid60.trials()
    trials.loc[[0, 1], ["state", "reason"]] = ["pruned", "early stopping"]
    trials.loc[2, ["state", "reason"]] = ["pruned", "interrupted"]
    trials.loc[[3, 4, 5], "attempts"] = 2
    texts = texts_of(trials)
    assert "2 trials stopped early" in texts
    assert "1 trial had not finished" in texts
    assert "3 trials started more than once" in texts


def test_same_behaviour_counts_others_of_the_same_seed() -> None:
    trials = pd.DataFrame(
        {"trial_id": list("abcab"), "seed": [0, 0, 0, 1, 1], "behaviour": ["x", "x", "", "x", "y"]}
    )
    assert same_behaviour(trials).tolist() == [1, 1, 0, 0, 0]


def test_equal_phases_with_other_results_do_not_differ_in_time_alone(grid60: ResultsFolder) -> None:
    trials = grid60.trials()
    assert "identical ones differ in time alone" in texts_of(trials)
    twin = trials.index[same_behaviour(trials) > 0][0]
    trials.loc[twin, "val_loss"] *= 1.1
    assert "differ in time alone" not in texts_of(trials)
    assert "show only 40 behaviours: equal phases and corrections, but not equal results" in texts_of(trials)


def test_an_empty_sweep_has_no_notes(empty: ResultsFolder) -> None:
    assert notes_of(empty) == []


Controlled = Callable[..., pd.DataFrame]


@pytest.mark.parametrize(
    ("qualities", "tone", "words"),
    [
        ([0.5, 0.4, 0.3, 0.2], "good", "The whole front lies above the curve of fewer plain steps"),
        ([1.5, 1.4, 1.3, 1.2], "warning", "No front point lies above the curve of fewer plain steps"),
        ([0.995, 0.98, 0.96, 0.955], "plain", "front points lie above the curve of fewer plain steps"),
    ],
)
def test_the_front_is_held_against_the_ladder(
    grid60: ResultsFolder, controlled: Controlled, qualities: list[float], tone: str, words: str
) -> None:
    trials = controlled(qualities)
    picture = front_picture(trials, grid60.manifest)
    assert picture.front["trial_id"].str.startswith("H").all()
    notes = caveats(trials[trials["arm"] == ""], picture)
    assert any(note.tone == tone and words in note.text for note in notes), [note.text for note in notes]


def test_points_beyond_the_ladder_are_not_spoken_for(grid60: ResultsFolder, controlled: Controlled) -> None:
    trials = controlled([0.5, 0.4])
    picture = front_picture(trials, grid60.manifest)
    beyond, of = int((picture.front["x"] > 3).sum()), len(picture.front)
    assert 0 < beyond < of
    (note,) = (n for n in caveats(trials, picture) if "curve of fewer plain steps" in n.text)
    assert note.text.startswith(f"{of - beyond} of {of} front points lie above")
    assert f"{beyond} of {of} are faster than it goes" in note.text


def test_beyond_the_ladder_nothing_is_said_of_it(controlled: Controlled) -> None:
    trials = controlled([0.5])
    trials.loc[trials["arm"] == "lr", "speedup"] = 1.0
    assert "lies above" not in texts_of(trials)


def test_two_seeds_are_said_to_be_too_few(sweep: Callable[..., ResultsFolder]) -> None:
    folder = sweep(seeds=(0, 1))
    folder.export_all()  # a front without intervals is drawn, too
    picture = front_picture(folder.trials(), folder.manifest)
    texts = [note.text for note in caveats(folder.trials(), picture)]
    assert "2 seeds are too few for an interval: run with --repeats 3 or more." in texts
    assert not any("not told apart" in text for text in texts)


def test_configurations_that_never_predicted_are_told_of(grid60: ResultsFolder) -> None:
    shut = grid60.trials()["trial_id"].str.endswith("C0.85")
    phases = grid60.trials()["predict_phases"].where(~shut, 0)
    texts = [n.text for n in notes_of(grid60, predict_phases=phases, max_confidence=0.84)]
    assert any(
        text.startswith("19 configurations of 58 never predicted (H050_I00_C0.85, for one): their confidence")
        and text.endswith("reached 0.84 at most; lower confidence_threshold.")
        for text in texts
    )
    assert not any("never predicted" in n.text for n in notes_of(grid60))
