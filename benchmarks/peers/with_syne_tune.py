"""Syne Tune's local back-end: a process a trial, which reads what is shared from a file.

Its searchers go on drawing points when a given list is at its end, so the list is a searcher of its own. Its
loop looks for news every five seconds unless told otherwise; trials this short want it told.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

from job import Job, arguments, write_rows
from syne_tune import StoppingCriterion, Tuner
from syne_tune.backend import LocalBackend
from syne_tune.backend.trial_status import HybridRun
from syne_tune.config_space import choice
from syne_tune.optimizer.schedulers.searchers.searcher import BaseSearcher
from syne_tune.optimizer.schedulers.single_fidelity_scheduler import SingleFidelityScheduler
from syne_tune.results_callback import StoreResultsCallback
from syne_tune.tuner_callback import TunerCallback

LOOK_EVERY_SECONDS = 0.1


class Listed(BaseSearcher):
    """Suggests the points of a list, and then no more."""

    def suggest(self, **keywords: Any) -> dict[str, Any] | None:
        return self.points_to_evaluate.pop(0) if self.points_to_evaluate else None


class Collect(TunerCallback):
    """Keeps the last report of each trial, which is its row."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def on_trial_complete(self, trial: HybridRun, result: dict[str, Any]) -> None:
        self.rows.append(result)


def main() -> None:
    options = arguments()
    os.environ["SYNETUNE_FOLDER"] = str(options.out / "syne-tune")
    job = Job.prepare(options.spec)
    shared = options.out / "job.pkl"
    shared.write_bytes(pickle.dumps(job))
    space = {**{name: choice(values) for name, values in job.axes().items()}, "job": str(shared)}
    collect = Collect()
    Tuner(
        trial_backend=LocalBackend(str(Path(__file__).with_name("syne_tune_trial.py"))),
        scheduler=SingleFidelityScheduler(
            space,
            metrics=["speedup_counted", "quality"],
            do_minimize=False,
            searcher=Listed(space, points_to_evaluate=job.points()),
        ),
        stop_criterion=StoppingCriterion(),
        n_workers=options.concurrency,
        sleep_time=LOOK_EVERY_SECONDS,
        callbacks=[StoreResultsCallback(), collect],
    ).run()
    write_rows(options.out, collect.rows)


if __name__ == "__main__":
    main()
