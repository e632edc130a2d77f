"""The study as a Ray Tune searcher, and its early stopping as a scheduler, for one's own `tune.Tuner`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from hybrid_sweep.search.study import Study
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.store.journal import Journal, plain


class StudySearcher(Searcher):
    """Suggests a study's runs, one a point and seed, as `HybridTrainable` takes them, and reads its results.

    What it saves is a journal of the study; what was suggested after the last save is suggested again.

    Args:
        spec: the sweep.
        sweep_id: for the name of the study.
        steps: logical steps of a run.
        on_told: as of `Study`.

    Attributes:
        study: asked and told as Tune goes on.
    """

    _events: list[dict[str, Any]]
    _waiting: list[dict[str, Any]]
    _runs: dict[str, tuple[str, int]]

    def __init__(
        self,
        spec: SweepSpec,
        sweep_id: str,
        steps: int,
        *,
        on_told: Callable[[FrozenTrial], None] | None = None,
    ) -> None:
        super().__init__()
        self._sweep, self._on_told = (spec, sweep_id, steps), on_told
        self._forget()

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        """Accept Tune's settings unless they bring a space, for the study has its own."""
        return not config

    def suggest(self, trial_id: str) -> Any:
        """Return the config of Tune's next trial, or `FINISHED`."""
        while not (wanted := [run for run in self._waiting if self.study.wants(run["trial_id"])]):
            asked = self.study.ask()
            if asked is None:
                return Searcher.FINISHED
            self._keep(asked.event())
        self._keep({"event": "started", "run": trial_id, **wanted[0]})
        return {"point": wanted[0]}

    def report(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Take an intermediate result; return whether the run is to be stopped."""
        if trial_id not in self._runs or not self.study.spec.early_stopping:
            return False
        self._take("reported", trial_id, report=_part(result, "report"))
        return not self.study.wants(self._runs[trial_id][0])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Take the end of a run: one without `finished` was stopped, and one that is not known was lost."""
        if trial_id not in self._runs:
            return
        report, finished = _part(result or {}, "report"), _part(result or {}, "finished")
        state, reason, values = "pruned", "stopped", {**report, "steps": report.get("step")}
        if error:
            state, reason, values = "failed", "Tune reports an error", {}
        elif finished:
            state, reason, values = finished["state"], finished["reason"], _part(finished, "result")
        self._take("finished", trial_id, state=state, reason=reason, result=values)

    def save(self, checkpoint_path: str) -> None:
        """Write the events so far."""
        lines = (json.dumps(plain(event)) + "\n" for event in self._events)
        Path(checkpoint_path).write_text("".join(lines), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Go on from what `save` wrote."""
        self._forget()
        for event in Journal.events(checkpoint_path):
            self.study.apply(event)
            self._keep(event)

    def _take(self, kind: str, trial_id: str, **fields: Any) -> None:
        name, seed = self._runs[trial_id]
        event = {"event": kind, "run": trial_id, "trial_id": name, "seed": seed, **fields}
        self.study.apply(event)
        self._keep(event)

    def _keep(self, event: dict[str, Any]) -> None:
        """Note an event, and what follows from it for the runs that wait and those that Tune has."""
        self._events.append(event)
        match event["event"]:
            case "asked":
                point = {name: event[name] for name in ("trial_id", "config")}
                self._waiting += [{**point, "seed": seed} for seed in self.study.spec.seeds]
            case "started":
                key = self._runs[event["run"]] = event["trial_id"], event["seed"]
                self._waiting = [run for run in self._waiting if (run["trial_id"], run["seed"]) != key]
            case "finished":
                del self._runs[event["run"]]

    def _forget(self) -> None:
        self.study = Study(*self._sweep, on_told=self._on_told)
        self._events, self._waiting, self._runs = [], [], {}


class ParetoScheduler(FIFOScheduler):
    """Stops the runs that a study's early stopping gives up.

    Args:
        searcher: the one whose runs Tune runs.
    """

    def __init__(self, searcher: StudySearcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return `STOP` for a run that has passed a rung among the worst."""
        stop = self.searcher.report(trial.trial_id, result)
        return FIFOScheduler.STOP if stop else FIFOScheduler.CONTINUE


def _part(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a part of a result, nested as the trainable returns it or flat (`part/key`) as Tune does."""
    flat = {
        key.removeprefix(f"{name}/"): value for key, value in values.items() if key.startswith(f"{name}/")
    }
    return flat | dict(values.get(name) or {})
