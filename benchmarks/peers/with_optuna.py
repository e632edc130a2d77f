"""Optuna in one process and joblib's processes beside it, in which the points are trained.

The grid is enqueued: a `GridSampler` shared by processes runs points twice at its end, and one that is asked
and told raises there. The study is kept in a journal file, as one that may be resumed would be.
"""

from __future__ import annotations

from typing import Any

import optuna
from job import Job, arguments, write_rows
from joblib import Parallel, delayed
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend


def train(job: Job, number: int, point: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Train one point; there is no one to report to, for Optuna takes no reports of two objectives."""
    return number, job.run(point, lambda report: None)


def main() -> None:
    options = arguments()
    job = Job.prepare(options.spec)
    study = optuna.create_study(
        directions=["maximize", "maximize"],
        sampler=optuna.samplers.RandomSampler(),
        storage=JournalStorage(JournalFileBackend(str(options.out / "optuna.journal"))),
    )
    for point in job.points():
        study.enqueue_trial(point)
    axes = {name: CategoricalDistribution(values) for name, values in job.axes().items()}
    trials = [study.ask(axes) for _ in job.points()]
    rows = []
    workers = Parallel(n_jobs=options.concurrency, return_as="generator_unordered")
    for number, row in workers(delayed(train)(job, trial.number, trial.params) for trial in trials):
        study.tell(number, [row["speedup_counted"], row["quality"]])
        rows.append(row)
    write_rows(options.out, rows)


if __name__ == "__main__":
    main()
