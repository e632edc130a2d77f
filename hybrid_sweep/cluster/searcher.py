"""The study as a Ray Tune searcher, and its early stopping as a scheduler, for one's own `tune.Tuner`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from hybrid_sweep.journal import Journal, plain
from hybrid_sweep.search.study import Study
from hybrid_sweep.spec import SweepSpec

COLUMNS = ("speedup_counted", "quality", "warning_rate", "peak_memory_ratio", "behaviour")
REPORTED = ("step", "speedup_counted", "quality", "backward_calls")


class StudySearcher(Searcher):
    """Suggests a study's runs, one a point and seed: `{"point": {"trial_id", "seed", "config"}}`.

    A result is one of `HybridTrainable`, or holds `step`, `speedup_counted` and `quality`: a run that ends
    before the last step was stopped, and its values stay out of the model. What it saves are its events.

    Args:
        spec: the sweep.
        sweep_id: for the name of the study.
        steps: logical steps of a run.

    Attributes:
        study: asked and told as Tune goes on.
    """

    _events: list[dict[str, Any]]
    _waiting: list[dict[str, Any]]
    _runs: dict[str, tuple[str, int]]

    def __init__(self, spec: SweepSpec, sweep_id: str, steps: int) -> None:
        super().__init__()
        self._sweep = spec, sweep_id, steps
        self._forget()

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        """Accept Tune's settings unless they bring a space, for the study has its own."""
        return not config

    def suggest(self, trial_id: str) -> Any:
        """Return the config of Tune's next trial, or `FINISHED`."""
        while True:
            self._waiting = [run for run in self._waiting if self.study.wants(run["trial_id"])]
            if self._waiting:
                run = self._waiting[0]
                self._record({"event": "started", "run": trial_id, **run})
                return {"point": run}
            asked = self.study.ask()
            if asked is None:
                return Searcher.FINISHED
            point = {"trial_id": asked.point.trial_id, "config": asked.point.config}
            chosen = {"number": asked.number, "params": asked.params, "source": asked.source}
            self._record({"event": "asked", **point, **chosen})

    def report(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Take an intermediate result; return whether the run is to be stopped."""
        key = self._runs.get(trial_id)
        if key is None or not self.study.spec.early_stopping:
            return False
        values = result.get("report") or result
        report = {name: values.get(name) for name in REPORTED if name in values}
        self._record({"event": "reported", "trial_id": key[0], "seed": key[1], "report": report})
        return self.study.report(key, report)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Take the end of a run; one that the last save did not know is suggested again."""
        key = self._runs.get(trial_id)
        if key is None:
            return
        ended = self._ended(result or {}, error)
        self._record({"event": "finished", "run": trial_id, "trial_id": key[0], "seed": key[1], **ended})
        self.study.finish(key, **ended)

    def save(self, checkpoint_path: str) -> None:
        """Write the events so far, a journal."""
        lines = (json.dumps(plain(event)) + "\n" for event in self._events)
        Path(checkpoint_path).write_text("".join(lines), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Go on from what `save` wrote."""
        self._forget()
        for event in Journal.events(checkpoint_path):
            self.study.apply(event)
            self._record(event)

    def _forget(self) -> None:
        self.study = Study(*self._sweep)
        self._events, self._waiting, self._runs = [], [], {}

    def _record(self, event: dict[str, Any]) -> None:
        """Keep an event, and what follows from it for the runs that wait and those that Tune has."""
        self._events.append(event)
        if event["event"] == "asked":
            point = {name: event[name] for name in ("trial_id", "config")}
            self._waiting.extend({**point, "seed": seed} for seed in self.study.spec.seeds)
        elif event["event"] == "started":
            run = {name: event[name] for name in ("trial_id", "config", "seed")}
            self._waiting = [waiting for waiting in self._waiting if waiting != run]
            self._runs[event["run"]] = event["trial_id"], event["seed"]
        elif event["event"] == "finished":
            self._runs.pop(event["run"], None)

    def _ended(self, result: Mapping[str, Any], error: bool) -> dict[str, Any]:
        if error:
            return {"state": "failed", "reason": "Tune reports an error", "result": {}}
        if finished := result.get("finished"):
            return {name: finished[name] for name in ("state", "reason", "result")}
        last = result.get("report") or result
        step, steps = last.get("step"), self._sweep[2]
        values = {"steps": step, **{name: last.get(name) for name in COLUMNS}}
        if step is not None and step < steps:
            return {"state": "pruned", "reason": f"stopped at step {step} of {steps}", "result": values}
        return {"state": "done", "reason": "", "result": values}


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
