"""Training runs of a confirmation: each is on disk once it is over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from hybrid_sweep.control import ControlConfig
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.control_training import ControlTraining, HybridCurve, run_hybrid
from hybrid_sweep.measure.curve import Curve
from hybrid_sweep.store.journal import Journal
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.state import Segment
from hybrid_sweep.workload import Workload

REFERENCE: Literal["reference"] = "reference"
HYBRID = "hybrid"
Key = tuple[str, str, int]
"""Trial id ("" for the reference), settings of the arm as JSON ("hybrid" for the point itself), seed."""


class Runs:
    """Training runs, each on disk once it is over and never run twice.

    Args:
        journal: where they are.
        workload: what is trained.
        steps: N, logical steps of the reference and the hybrid.
    """

    def __init__(self, journal: Journal, workload: Workload, steps: int) -> None:
        self.workload, self.steps = workload, steps
        self._journal = journal
        self._curves: dict[Key, list[Curve]] = {}
        for event in Journal.events(journal.path):
            if event["event"] == "ran" and event["steps"] == steps:
                key = event["trial_id"], event["arm"], event["seed"]
                self._curves.setdefault(key, []).append(_curve(event["curve"]))

    def curves(self, key: Key) -> list[Curve]:
        """Return what is known of a run, a curve a timing."""
        return self._curves.get(key, [])

    def hybrid(self, trial_id: str, seed: int) -> HybridCurve:
        """Return the first hybrid run of a point with this seed.

        Raises:
            UserError: the journal has it without its trace.
        """
        curve = self.curves((trial_id, HYBRID, seed))[0]
        if not isinstance(curve, HybridCurve):
            raise UserError(f"{self._journal.path} is corrupt ({trial_id} has no trace): delete it")
        return curve

    def add(self, key: Key, config: HybridConfig | None, *, test: bool) -> None:
        """Train once more; a point with its `config`, a control on its own budget or its hybrid's."""
        trial_id, arm, seed = key
        test = test and not self.curves(key)  # the split is looked at once
        if config is not None:
            curve: Curve = run_hybrid(self.workload, seed, config, self.steps, test=test)
        elif arm == REFERENCE:
            recipe = ControlConfig(name=REFERENCE)
            run = ControlTraining(self.workload, seed, recipe, steps=self.steps, recipe_steps=self.steps)
            curve = run.finish(test=test)
        else:
            hybrid = self.hybrid(trial_id, seed)
            settings = ControlConfig(**json.loads(arm))
            budget = settings.real_steps or hybrid.real_steps
            run = ControlTraining(
                self.workload, seed, settings, steps=budget, trace=hybrid.trace, recipe_steps=self.steps
            )
            curve = run.finish(test=test)
        values = {"trial_id": trial_id, "arm": arm, "seed": seed, "steps": self.steps}
        self._journal.append({"event": "ran", **values, "curve": asdict(curve)})
        self._curves.setdefault(key, []).append(curve)


def _curve(values: Mapping[str, Any]) -> Curve:
    """Return a curve from its journal, where infinities are text."""
    lists = {name: [float(x) for x in values[name]] for name in ("seconds", "val_loss")}
    test = {name: float(value) for name, value in values["test"].items() if value is not None}
    if "trace" not in values:
        return Curve(**{**values, **lists, "test": test})
    return HybridCurve(**{**values, **lists, "test": test, "trace": [Segment(*s) for s in values["trace"]]})
