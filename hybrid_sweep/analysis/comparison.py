"""What a confirmation measured: each front point against each control arm, paired by seed, with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, create_model

from hybrid_sweep.analysis.export import encode
from hybrid_sweep.analysis.intervals import bootstrap_interval
from hybrid_sweep.errors import EXACT_AS_FLOAT, UserError, brief, sentence
from hybrid_sweep.paths import validate_identifier, validate_path
from hybrid_sweep.store.atomic import replacing, write_text
from hybrid_sweep.store.journal import plain

COUNTS = ("seeds", "reached", "hybrid_reached", "backward_calls", "equal_time_steps")
RATIOS = ("speedup_to_target", "speedup_whole_run", "quality", "val_quality", "equal_time_quality")
NUMBERS = (
    *COUNTS,
    *(f"{name}{end}" for name in RATIOS for end in ("", "_low", "_high")),
    *("explored_speedup", "explored_quality"),
)
PAIR_COLUMNS = {
    "trial_id": "the front point",
    "arm": "the control that it is compared with: reference is the same recipe without prediction",
    "what": "the control's settings in words",
    "outermost": "largest or smallest, where the control's learning rate is the last that was tried",
    "seed": "of both runs: same initial weights, same batches",
    "target_loss": "validation loss to reach: that at which the reference's end has the bar's quality",
    "seconds_to_target": "training seconds until the control has it, median of the timings; inf for never",
    "hybrid_seconds_to_target": "the same of the hybrid",
    "seconds": "training seconds of the control's whole run, median of the timings",
    "hybrid_seconds": "the same of the hybrid",
    "backward_calls": "backward passes of the control: the steps of both are as many, not the reference's",
    "hybrid_backward_calls": "backward passes of the hybrid",
    "test_loss": "the control's loss on the test split at the end of its run",
    "hybrid_test_loss": "the same of the hybrid",
    "quality": "the hybrid against the control at the end of both, test split; above 1 it is better",
    "val_quality": "the same on the validation split, as the sweep measured it",
    "equal_time_steps": "real steps of the control that the hybrid's training time pays for, at its own pace",
    "equal_time_test_loss": "the control's loss on the test split after as many",
    "equal_time_quality": "the hybrid against the control at equal wall clock, test split",
}


class Ratio(NamedTuple):
    """A ratio over seeds with its 95 % interval; above 1 the hybrid is better.

    With `at_least` the control never reached the target on some seed, so that the true ratio is larger. Where
    the hybrid does not on some seed, `misses` says on how many: a ratio of times is then none.
    """

    value: float
    low: float
    high: float
    at_least: bool = False
    misses: str = ""

    def __str__(self) -> str:
        """Return it as a person reads it: "4.10× [3.90, 4.30]", ">1.20× [1.10, ∞)", or what it misses."""
        if self.misses:
            return f"misses the target on {self.misses}"
        high = "∞)" if math.isinf(self.high) else f"{self.high:.2f}]"
        return f"{'>' if self.at_least else ''}{self.value:.2f}× [{self.low:.2f}, {high}"


def comparisons(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return one row a front point and control, from one a seed of them (`PAIR_COLUMNS`).

    `speedup_to_target` is the training time that the control needs to the target loss over that of the
    hybrid, and `speedup_whole_run` the same of their whole runs: against the reference, N real steps, it is
    the speedup of the sweep; every other control takes as many backward passes as the hybrid, so that it is
    near 1 by design. Both are geometric means of the paired ratios. A seed on which training begins below the
    target counts as 1. One on which the hybrid does not reach it counts as 0, whatever the control did. A
    seed on which only the control does not is infinite: it enters with the control's whole run, the mean is
    then a lower bound (`at_least`) and its interval has no upper end. `reached` and `hybrid_reached` count
    the seeds that did, `backward_calls` are the control's.

    `quality` compares the ends of both runs on the test split, `val_quality` on the validation split, and
    `equal_time_quality` on the test split where the control has as much training time as the hybrid: means.
    A diverged hybrid counts as 0. Every interval is `bootstrap_interval` over seeds.
    """
    rows = []
    for (trial_id, arm), group in pairs.groupby(["trial_id", "arm"], sort=False):
        reached = np.isfinite(group["seconds_to_target"])
        hybrid_reached = np.isfinite(group["hybrid_seconds_to_target"])
        needed = group["seconds_to_target"].where(reached, group["seconds"])
        to_target = (needed / group["hybrid_seconds_to_target"]).where(hybrid_reached, 0.0).fillna(1.0)
        at_least = bool((hybrid_reached & ~reached).any() and hybrid_reached.all())
        row = {
            "trial_id": trial_id,
            "arm": arm,
            "what": group["what"].iloc[0],
            "outermost": group["outermost"].iloc[0],
            "seeds": len(group),
            "reached": int(reached.sum()),
            "hybrid_reached": int(hybrid_reached.sum()),
            "backward_calls": round(group["backward_calls"].mean()),
            "equal_time_steps": round(group["equal_time_steps"].mean()),
        }
        row |= _columns("speedup_to_target", geometric_mean(to_target, at_least=at_least))
        row |= {"at_least": at_least}
        row |= _columns("speedup_whole_run", geometric_mean(group["seconds"] / group["hybrid_seconds"]))
        for name in ("quality", "val_quality", "equal_time_quality"):
            values = group[name].to_numpy(dtype="float64")
            row |= _columns(name, Ratio(float(values.mean()), *bootstrap_interval(values)))
        rows.append(row)
    return pd.DataFrame(rows)


def geometric_mean(ratios: Sequence[float] | pd.Series[Any], *, at_least: bool = False) -> Ratio:
    """Return the geometric mean of paired ratios >= 0 with its interval; one zero makes it zero."""
    with np.errstate(divide="ignore"):
        logs = np.log(np.asarray(ratios, dtype="float64"))
    low, high = bootstrap_interval(logs)
    value = math.exp(logs.mean())
    return Ratio(value, math.exp(low), math.inf if at_least else math.exp(high), at_least)


Count = Annotated[int, Field(ge=0, le=EXACT_AS_FLOAT)]
Measured = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A number of a file in which null stands for not-a-number."""
_numbers = [name for name in NUMBERS if name not in COUNTS]
_fields: dict[str, Any] = {
    **dict.fromkeys(("trial_id", "arm", "what"), str),
    "outermost": Literal["", "largest", "smallest"],
    **dict.fromkeys(COUNTS, Count),
    **dict.fromkeys(_numbers[:3], Measured),
    "at_least": bool,
    **dict.fromkeys(_numbers[3:], Measured),
}
Row: Any = create_model("Row", **_fields)
"""A row of `comparisons` with what `Confirmation.table` adds, in a file."""


class _Confirmed(BaseModel):
    """The file `confirmed.json`."""

    seeds: list[int]
    min_quality: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    left_out: list[str]
    tried: int
    configurations: int
    not_applicable: dict[str, str] = {}
    comparisons: Annotated[list[Row], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """What `confirm` found.

    Attributes:
        seeds: fresh ones, on which the points and their controls were run.
        min_quality: the bar: quality that a point shall have, and what sets the target loss.
        left_out: points of the front that were not run again.
        tried: how many settings the tuned control was chosen from.
        configurations: how many the sweep had tried, from which its best point was chosen.
        not_applicable: why, by arm, the controls that this recipe cannot have.
        table: `comparisons`, and of each point `explored_speedup` and `explored_quality`, the values that it
            was chosen by; best point first.
    """

    seeds: list[int]
    min_quality: float
    left_out: list[str]
    tried: int
    configurations: int
    table: pd.DataFrame
    not_applicable: dict[str, str] = field(default_factory=dict)

    @property
    def points(self) -> list[str]:
        """Ids of the points, the best one first."""
        return [str(trial_id) for trial_id in self.table["trial_id"].unique()]

    def rows(self, trial_id: str) -> dict[str, dict[str, Any]]:
        """Return a point's comparisons by arm."""
        rows = self.table[self.table["trial_id"] == trial_id].to_dict("records")
        return {str(row["arm"]): {str(name): value for name, value in row.items()} for row in rows}

    def luck(self) -> tuple[float, float]:
        """Return what was left of the explored front: confirmed - explored, means over the points.

        In speed as a share of the explored one, whole runs, and in quality, both on the validation split.
        """
        rows = self.table[self.table["arm"] == "reference"]
        speed = (rows["speedup_whole_run"] / rows["explored_speedup"]).mean() - 1
        return float(speed), float((rows["val_quality"] - rows["explored_quality"]).mean())

    def write(self, folder: Path) -> None:
        """Write confirmed.csv and confirmed.json."""
        with replacing(folder / "confirmed.csv") as temporary:
            temporary.write_bytes(encode(self.table, "csv"))
        names = ("seeds", "min_quality", "left_out", "tried", "configurations", "not_applicable")
        about = {name: getattr(self, name) for name in names}
        values = plain({**about, "comparisons": self.table.to_dict("records")})
        write_text(folder / "confirmed.json", json.dumps(values, indent=1, allow_nan=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Confirmation | None:
        """Return what `write` wrote, None where it has not.

        Raises:
            UserError: the file is damaged.
        """
        path = validate_path(folder / "confirmed.json")
        try:
            values = dict(_Confirmed.model_validate_json(path.read_bytes()))
            table = pd.DataFrame([row.model_dump() for row in values.pop("comparisons")])
            for trial_id in table["trial_id"]:
                validate_identifier(trial_id, str(path))
            kinds = {**dict.fromkeys(("trial_id", "arm", "what", "outermost"), "str"), "at_least": "bool"}
            return cls(table=table.astype(kinds | dict.fromkeys(NUMBERS, "float64")), **values)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            why = sentence(error, _Confirmed) if isinstance(error, ValidationError) else error
            raise UserError(
                f"{path} is corrupt ({brief(why)}): delete it and run confirm again, which loses no run"
            ) from None


def ratio(row: Mapping[str, Any], name: str) -> Ratio:
    """Return one of `RATIOS` of a row of `comparisons`."""
    to_target = name == "speedup_to_target"
    missed = int(row["seeds"] - row["hybrid_reached"]) if to_target else 0
    misses = f"{missed} of {int(row['seeds'])} seeds" if missed else ""
    at_least = to_target and bool(row["at_least"])
    return Ratio(row[name], row[f"{name}_low"], row[f"{name}_high"], at_least, misses)


def _columns(name: str, found: Ratio) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
