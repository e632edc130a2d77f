"""What a sweep shows and what it does not, in sentences that a sceptic would sign."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from hybrid_sweep.analysis.intervals import LEAST_SEEDS, shown, student_t, too_few
from hybrid_sweep.report.front_data import FrontPicture, ladder
from hybrid_sweep.store.runs import INTERRUPTED

_CONTROLS = {
    "quality_vs_truncated": "stopping plain training early, at as many backward passes",
    "quality_vs_lr_matched": "the same real steps at a learning rate that makes up for the steps left out",
    "quality_vs_frozen": "the same schedule with the weights held still while predicting",
}


_ROUNDING = 1e-5
"""Losses that are nearer are equal: sums of packed trials come in another order."""


class Note(NamedTuple):
    """One sentence; `tone` is how the reader should take it."""

    tone: Literal["good", "plain", "warning"]
    text: str


def caveats(trials: pd.DataFrame, picture: FrontPicture) -> list[Note]:
    """Return the notes of a sweep, the weightiest first."""
    front = picture.front
    notes = [
        *([_control(picture, column, name) for column, name in _CONTROLS.items()] if len(front) else []),
        _against_ladder(picture),
        _reaches_too_low(picture),
        _too_few_seeds(picture),
        never_predicted(trials),
        _not_told_apart(trials, picture),
        _unfinished(trials),
        _stopped(trials),
        _started_again(trials),
        _above_bound(picture),
        _winner(trials, front),
        _behaviours(trials),
    ]
    return [note for note in notes if note is not None]


def same_behaviour(trials: pd.DataFrame) -> pd.Series[Any]:
    """Return for each row how many other trials of its seed behaved identically; 0 where not recorded."""
    others = trials.groupby(["seed", "behaviour"])["trial_id"].transform("size") - 1
    return others.where(trials["behaviour"] != "", 0)


def _control(picture: FrontPicture, column: str, name: str) -> Note:
    front = picture.front.set_index("trial_id")
    gains = 100 * (front[column].astype("float64").dropna() - 1)
    if gains.empty:
        return Note("warning", f"Not compared with {name}: nothing here shows that predicting beats it.")
    better, least, most = int((gains > 0).sum()), gains.min(), gains.max()
    point, rest = "front point", ""
    if missing := len(front) - len(gains):
        point, rest = "compared front point", f" ({missing} of {len(front)} were not compared)"
    if most < 0:
        text = f"On every {point} prediction lost to {name}, by {_span(-most, -least)} in quality{rest}."
        return Note("warning", text)
    if better == 0:
        return Note("warning", f"No {point} beats {name}: {_span(least, most)} in quality{rest}.")
    if better == len(gains):
        span = _span(least, most)
        by = (
            f"whose held-out loss is {span} higher"
            if picture.quality == "loss_ratio"
            else f"by {span} in quality"
        )
        return Note("good", f"Every {point} beats {name}, {by}{rest}.")
    text = f"{better} of {len(gains)} {point}s beat {name}: from {least:+.2f} to {most:+.2f} % in quality"
    if picture.best is not None and picture.best in gains:
        text += f", the recommended one {gains[picture.best]:+.2f} %"
    return Note("plain", f"{text}{rest}.")


def _against_ladder(picture: FrontPicture) -> Note | None:
    """Say whether the front lies above the curve of plain training at a scaled learning rate."""
    curve = ladder(picture)
    front = picture.front[picture.front["x"] <= curve["x"].max()]
    if len(curve) == 1 or front.empty:
        return None
    gains = 100 * (front["y"] / np.interp(front["x"], curve["x"], curve["y"]) - 1)
    name = f"the curve of fewer plain steps at a higher learning rate (up to {curve['x'].max():.1f}×)"
    span, better = f"{gains.min():+.2f} to {gains.max():+.2f} % in quality", int((gains > 0).sum())
    beyond, of = len(picture.front) - len(front), len(picture.front)
    rest = f"; {beyond} of {of} are faster than it goes" if beyond else ""
    if better == of:
        return Note("good", f"The whole front lies above {name}: {span}.")
    if better == 0:
        text = f"No front point lies above {name}: {span}; raise the learning rate instead{rest}."
        return Note("warning", text)
    return Note("plain", f"{better} of {of} front points lie above {name}: {span}{rest}.")


def _span(least: float, most: float) -> str:
    low, high = f"{least:.2f}", f"{most:.2f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def _reaches_too_low(picture: FrontPicture) -> Note | None:
    """Return the warning that the recommended point may be worse than it seems."""
    if picture.seeds == 1:
        return None
    best = picture.front[picture.front["trial_id"] == picture.best].iloc[0]
    bars = {"quality": picture.min_quality, picture.speedup: 1.0}
    low = [
        f"{name.replace('_', ' ')} is {shown(best, name, 3)}, which reaches below {bar:g}"
        for name, bar in bars.items()
        if best[f"{name}_low"] < bar <= best[name]
    ]
    if not low:
        return None
    return Note("warning", f"By its 95 % interval the recommended point's {', and its '.join(low)}.")


def never_predicted(trials: pd.DataFrame) -> Note | None:
    """Return the warning that some done configurations are plain training: their gate never opened."""
    done = trials[(trials["state"] == "done") & (trials["arm"] == "")]
    shut = done[done["predict_phases"] == 0]
    if shut.empty:
        return None
    names, of = shut["trial_id"].unique(), done["trial_id"].nunique()
    reached = shut["max_confidence"].astype("float64").max()
    text = f"{_count(len(names), 'configuration')} of {of} never predicted ({names[0]}"
    text += ", for one)" if len(names) > 1 else ")"
    return Note(
        "warning", f"{text}: their confidence reached {reached:.2f} at most; lower confidence_threshold."
    )


def _too_few_seeds(picture: FrontPicture) -> Note | None:
    few = too_few(picture.seeds)
    return Note("warning", f"{few}.") if few else None


def _not_told_apart(trials: pd.DataFrame, picture: FrontPicture) -> Note | None:
    """Return which front points differ by nothing that the seeds agree on: paired, as they share them."""
    if picture.seeds < LEAST_SEEDS or len(picture.front) < 2:
        return None
    front = picture.best_first
    runs = trials[trials["trial_id"].isin(front["trial_id"])]
    equal = np.ones((len(front), len(front)), dtype=bool)
    for column in (picture.speedup, "quality"):
        seeds = runs.pivot(index="trial_id", columns="seed", values=column).loc[front["trial_id"]]
        values = seeds.to_numpy(dtype="float64")
        differences = values[:, None] - values
        count = values.shape[1]
        half = student_t(count - 1) * differences.std(axis=2, ddof=1) / np.sqrt(count)
        equal &= np.abs(differences.mean(axis=2)) <= half
    pairs = np.argwhere(np.triu(equal, k=1))
    if not len(pairs):
        return None
    one, other = (front["trial_id"].iloc[place] for place in pairs[0])
    of = len(front) * (len(front) - 1) // 2
    which = f"{one} and {other}"
    if len(pairs) > 1:
        which = f"{len(pairs)} of {of} pairs of front points ({which}, for one)"
    text = f"By the 95 % intervals of their differences on each seed, {which} are not told apart"
    return Note("plain", f"{text}, in speed or in quality.")


def _unfinished(trials: pd.DataFrame) -> Note | None:
    open_runs = (trials["state"] == "running") | (trials["reason"] == INTERRUPTED)
    if not open_runs.any():
        return None
    return Note("warning", f"{_count(int(open_runs.sum()), 'trial')} had not finished when this was written.")


def _stopped(trials: pd.DataFrame) -> Note | None:
    stopped = int(((trials["state"] == "pruned") & (trials["reason"] != INTERRUPTED)).sum())
    if not stopped:
        return None
    text = f"{_count(stopped, 'trial')} stopped early, measured at the step then reached (column steps)"
    return Note("plain", f"{text}: never on the front.")


def _started_again(trials: pd.DataFrame) -> Note | None:
    again = int((trials["attempts"] > 1).sum())
    if not again:
        return None
    return Note("plain", f"{_count(again, 'trial')} started more than once: a worker or the sweep was lost.")


def _above_bound(picture: FrontPicture) -> Note | None:
    beyond = int((picture.points["speedup"] > picture.points["speedup_bound"]).sum())
    if not beyond:
        return None
    text = (
        f"{_count(beyond, 'configuration')} timed above speedup_bound, faster than the passes they ran allow"
    )
    return Note("warning", f"{text}: that is noise, measure again on an idle machine.")


def _winner(trials: pd.DataFrame, front: pd.DataFrame) -> Note | None:
    count = trials["trial_id"].nunique()
    if front.empty or count < 2:
        return None
    if trials["seed"].nunique() > 1:
        return Note("plain", "The front is chosen and shown on the same seeds: confirm its best on others.")
    return Note("plain", f"One seed: chance flatters the best of {count}. Confirm it on seeds not used here.")


def _behaviours(trials: pd.DataFrame) -> Note | None:
    known = trials[trials["behaviour"] != ""]
    distinct = known.groupby("seed")["behaviour"].nunique().sum()
    if distinct == len(known):
        return None
    ends = known.groupby(["seed", "behaviour"])["val_loss"].agg(["min", "max"])
    if np.isclose(ends["min"], ends["max"], rtol=_ROUNDING, atol=0, equal_nan=True).all():
        what = "identical ones differ in time alone"
    else:
        what = "equal phases and corrections, but not equal results"
    return Note("plain", f"{_count(len(known), 'trial')} show only {_count(distinct, 'behaviour')}: {what}.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
