"""The verdict on a sweep: one paragraph in plain words, and the settings to copy."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from shlex import quote
from typing import Any, Literal

import pandas as pd
import tomli_w

from hybrid_sweep.analysis.advice import advice
from hybrid_sweep.analysis.comparison import Confirmation, ratio
from hybrid_sweep.analysis.objectives import MIN_QUALITY
from hybrid_sweep.analysis.pareto import Rival, best_point
from hybrid_sweep.store.journal import plain
from hybrid_sweep.trainer.config import HybridConfig

UNCONFIRMED = "CONFIRM FIRST"
"""What is recommended before any control was run on fresh seeds."""
EQUAL_WITHIN = 1.25
"""A gain that may be none, and is smaller than this by its interval, is not worth a predictor."""
REFERENCE = "reference"
_NEEDED = (REFERENCE, "lr_matched", "tuned")
_SHORT = {
    REFERENCE: "your recipe",
    "lr_matched": "the learning rate matched to it",
    "tuned": "the tuned baseline",
    "truncated": "your recipe cut short",
    "lr": "the larger learning rate",
    "average": "averaged weights",
    "schedule_free": "Schedule-Free",
}


_KNOWN = {"a larger learning rate": {"lr", "lr_matched"}, "a tuned baseline": {"tuned"}}
"""Controls that a verdict before `confirm` says it knows, or does not know, of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do with a sweep's best point.

    Attributes:
        recommendation: "ADOPT", "REJECT: <why>" or "CONFIRM FIRST: <what is missing>".
        text: one paragraph that says it, with every interval.
        trial_id: the point it speaks of; None where there is none.
        settings: what to copy: TOML of the trainer's settings that are not the default, or in words the
            control that does as well; "" where the sweep recommends neither.
        comparisons: the point's row of `comparisons` for each control; {} where none is confirmed.
        advice: what to change in the next sweep, by what was measured of the point (`analysis.advice`).
    """

    recommendation: str
    text: str
    trial_id: str | None = None
    settings: str = ""
    comparisons: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    advice: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain data that JSON can hold."""
        values: dict[str, Any] = plain(asdict(self))
        return values

    def lines(self) -> list[str]:
        """Return the verdict for a terminal."""
        lines = [self.recommendation, "", self.text]
        if self.settings:
            lines += ["", "Settings:", *(f"  {line}" for line in self.settings.splitlines())]
        if self.advice:
            lines += ["", "Advice:", *(f"  {line}" for line in self.advice)]
        return lines


def verdict(
    front: pd.DataFrame,
    confirmation: Confirmation | None,
    *,
    folder: str,
    speedup: str = "speedup",
    min_quality: float = MIN_QUALITY,
    beaten: Mapping[str, Rival] | None = None,
    compared: Collection[str] = (),
) -> Verdict:
    """Judge a sweep by what was confirmed of its best point.

    Prediction is adopted only where it needs less time to the target than the recipe, the schedule-matched
    learning rate and the tuned baseline, each by its whole 95 % interval, at a quality on the test split that
    is above the bar by its whole interval. A control that it cannot be told from, or loses to, is recommended
    in its place, for it is simpler: the best of them.

    The sweep's own controls count too. Where one of them beats every good point on both axes, the point is
    rejected without a confirmation: the seeds that chose it flatter it, and it loses on them all the same.
    One that beats a confirmed point, and is not among what that was confirmed against, is to be run first.

    Args:
        front: of the sweep.
        confirmation: of its best point; None where there is none yet.
        folder: the results folder, as the commands to type next name it.
        speedup: the sweep's speed.
        min_quality: the bar, where nothing is confirmed; else it is the confirmation's.
        beaten: front points that a control of the sweep beats, as `rivals` returns them.
        compared: arms that the sweep has run (`compared_arms`).
    """
    path = quote(folder)
    beaten = beaten or {}
    best = best_point(front, min_quality if confirmation is None else confirmation.min_quality, beaten)
    if best is None:
        text = f"No configuration is done, so there is nothing to judge: hybrid-sweep status {path}"
        return Verdict(recommendation="CONFIRM FIRST: no result", text=text)
    trial_id, changes = str(best["trial_id"]), advice(best)
    rows = confirmation.rows(trial_id) if confirmation else {}
    if confirmation is None or not rows:
        known = f", and what is confirmed is {', '.join(confirmation.points)}" if confirmation else ""
        looks = (
            f"{trial_id} looks {best[speedup]:.2f}× as fast as your recipe at quality {best['quality']:.3f}, "
            f"on the seeds that chose it, which flatters{known}."
        )
        rival = beaten.get(trial_id)
        outcome, why = _unconfirmed(rival, compared)
        if rival is not None:
            changes = [f"{_capital(_do(rival.arm))}: {rival.name} needs no prediction", *changes]
        text = f"{looks} {why} Run: hybrid-sweep confirm {path}"
        return Verdict(recommendation=outcome, text=text, trial_id=trial_id, advice=changes)
    outcome, why, instead = _judge(rows, confirmation.min_quality, confirmation.not_applicable)
    rival = beaten.get(trial_id)
    if outcome == "ADOPT" and rival is not None and rival.arm not in rows:
        outcome = f"CONFIRM FIRST: {rival.arm}"
        why = f"{_beats(rival)}, and it was not confirmed. Run: hybrid-sweep confirm {path} --arms full"
    text = " ".join(
        filter(
            None,
            [
                _comparisons(rows),
                _quality(rows[REFERENCE]),
                _equal_time(rows),
                _luck(rows[REFERENCE]),
                *_flattering(confirmation, rows),
                *_inapplicable(confirmation.not_applicable),
                why,
            ],
        )
    )
    settings = instead
    if outcome == "ADOPT":
        text += f" All of it: hybrid-sweep export {path} --trial {quote(trial_id)} --format toml"
        settings = _settings(str(best["config"]))
    if outcome == "CONFIRM FIRST: more seeds":
        text += f" Run: hybrid-sweep confirm {path} --seeds {2 * len(confirmation.seeds)}"
    return Verdict(
        recommendation=outcome,
        text=f"{trial_id}, on {len(confirmation.seeds)} fresh seeds: {text}",
        trial_id=trial_id,
        settings=settings,
        comparisons=rows,
        advice=changes,
    )


def _unconfirmed(rival: Rival | None, compared: Collection[str]) -> tuple[str, str]:
    """Return the recommendation before anything is confirmed, and why, from the sweep's own controls."""
    if rival is not None:
        return f"REJECT: {rival.arm}", f"{_beats(rival)}: {_do(rival.arm)}."
    known = [name for name, arms in _KNOWN.items() if arms & set(compared)]
    unknown = [name for name in _KNOWN if name not in known]
    parts = []
    if known:
        no_one = f"neither {' nor '.join(known)} beats" if len(known) > 1 else f"{known[0]} does not beat"
        parts.append(f"On the same seeds {no_one} it on both axes.")
    if unknown:
        parts.append(f"Nothing is known yet of {' or '.join(unknown)}.")
    return UNCONFIRMED, " ".join(parts)


def _beats(rival: Rival) -> str:
    """Return what a control of the sweep has reached."""
    run = f" ({rival.name})" if rival.name != rival.arm else ""
    name = _SHORT.get(rival.arm, rival.arm.replace("_", " "))
    return (
        f"On the same seeds {name}{run} beats it on both axes without prediction, "
        f"{rival.speedup:.2f}× at quality {rival.quality:.3f}"
    )


def judged(row: Mapping[str, Any]) -> Literal["wins", "unclear", "equal", "loses"]:
    """Return how the hybrid stands against a control by the time to the target, as far as the seeds tell.

    Where the control reaches the target on no seed, quality at equal wall clock decides what its time leaves
    open. One that reaches it on fewer seeds than the hybrid neither equals nor beats it.
    """
    found, quality = ratio(row, "speedup_to_target"), ratio(row, "equal_time_quality")
    if found.low > 1 or (found.at_least and row["reached"] == 0 and quality.low > 1):
        return "wins"
    if row["reached"] < row["hybrid_reached"]:
        return "unclear"
    if found.high < 1:
        return "loses"
    return "equal" if found.high <= EQUAL_WITHIN else "unclear"


def _judge(
    rows: Mapping[str, Mapping[str, Any]], min_quality: float, not_applicable: Mapping[str, str]
) -> tuple[str, str, str]:
    """Return the recommendation, why, and the control to take instead."""
    stand = {arm: judged(row) for arm, row in rows.items()}
    quality, recipe = ratio(rows[REFERENCE], "quality"), rows[REFERENCE]
    if quality.high < min_quality or recipe["hybrid_reached"] == 0:
        why = f"Its quality is below the bar of {min_quality:g}: keep your recipe, or sweep shorter horizons."
        return "REJECT: quality", why, ""
    if stand[REFERENCE] in ("loses", "equal"):
        return "REJECT: speedup", "Prediction does not pay here: keep your recipe.", ""
    controls = [arm for arm in rows if arm != REFERENCE and stand[arm] in ("loses", "equal")]
    if controls:
        best = min(controls, key=lambda arm: ratio(rows[arm], "speedup_to_target").value)
        name, steps = str(rows[best]["what"]), f"{rows[best]['backward_calls']:.0f} steps"
        how = "does better" if stand[best] == "loses" else "does as well"
        why = f"{_capital(name)} {how} in {steps} without prediction: {_do(best)}."
        return f"REJECT: {best}", why, f"{name}, {steps}"
    unclear = [str(rows[arm]["what"]) for arm in rows if stand[arm] == "unclear"]
    if quality.low < min_quality:
        unclear.append(f"quality against the bar of {min_quality:g}")
    if unclear:
        why = f"The intervals are too wide to say: {'; '.join(unclear)}."
        return "CONFIRM FIRST: more seeds", why, ""
    if missing := [arm for arm in _NEEDED if arm not in rows]:
        why = "Not every control was run."
        if not_applicable.keys() >= set(missing):
            why = "Prediction pays here, against every control that applies; try a tuned recipe of your own."
        return f"CONFIRM FIRST: {', '.join(missing)}", why, ""
    return "ADOPT", "Prediction pays here, against every control.", ""


def _comparisons(rows: Mapping[str, Mapping[str, Any]]) -> str:
    parts = [f"{_shown(row)}{_missed(row)}" for row in rows.values()]
    return f"{'; '.join(parts)}: training time to the target loss."


def _shown(row: Mapping[str, Any]) -> str:
    found = ratio(row, "speedup_to_target")
    return f"prediction {found}, against {row['what']}" if found.misses else f"{found} over {row['what']}"


def _missed(row: Mapping[str, Any]) -> str:
    missed = int(row["seeds"] - row["reached"])
    return f", which misses the target on {missed} of {int(row['seeds'])} seeds" if missed else ""


def _quality(row: Mapping[str, Any]) -> str:
    found = ratio(row, "quality")
    return f"Quality on the test split is {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]."


def _equal_time(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how the hybrid stands against each control that is given as much training time."""
    parts = []
    for arm, row in rows.items():
        found = ratio(row, "equal_time_quality")
        shown = f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
        parts.append(f"{shown} against {_SHORT.get(arm, arm.replace('_', ' '))}")
    return f"At equal wall clock it is {', '.join(parts)}."


def _flattering(confirmation: Confirmation, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield what was not tried of the controls, so that the truth may be better for them."""
    for row in rows.values():
        if end := row["outermost"]:
            further = {"largest": "larger", "smallest": "smaller"}[end]
            yield f"{_capital(str(row['what']))} is the {end} that was tried: a {further} one may do better."
    if confirmation.tried < confirmation.configurations and "tuned" in rows:
        yield (
            f"The tuned baseline was chosen from {confirmation.tried} settings, the point from "
            f"{confirmation.configurations}: tuning_trials capped it."
        )


def _inapplicable(reasons: Mapping[str, str]) -> Iterator[str]:
    """Yield which controls this recipe cannot have, and why."""
    for arm, reason in reasons.items():
        name = _SHORT.get(arm, arm.replace("_", " "))
        yield f"{_capital(name)} is left out: {reason.rpartition(': ')[0] or reason}."


def _luck(row: Mapping[str, Any]) -> str:
    """Return how much of what the sweep saw was left on fresh seeds."""
    speed, quality = ratio(row, "speedup_whole_run"), ratio(row, "val_quality")
    return (
        f"The sweep saw {row['explored_speedup']:.2f}× at validation quality {row['explored_quality']:.3f}; "
        f"on fresh seeds it is {speed} at {quality.value:.3f} [{quality.low:.3f}, {quality.high:.3f}]."
    )


def _do(arm: str) -> str:
    if arm == "truncated":
        return "stop your recipe as early instead"
    return "raise the learning rate instead" if arm in ("lr", "lr_matched") else "use that instead"


def _settings(config: str) -> str:
    """Return the trainer's settings that are not the default, as TOML."""
    values, usual = HybridConfig.from_json(config).model_dump(), HybridConfig().model_dump()
    return tomli_w.dumps({name: value for name, value in values.items() if value != usual[name]}).rstrip()


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
