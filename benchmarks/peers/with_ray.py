"""The script that a user of Ray Tune would write: a function, a grid, and the defaults."""

from __future__ import annotations

from typing import Any

import ray
from job import Job, arguments, write_rows
from ray import tune


def train(point: dict[str, Any], job: Job) -> None:
    """Train one point."""
    tune.report(job.run(point, tune.report))


def main() -> None:
    options = arguments()
    job = Job.prepare(options.spec)
    ray.init(num_cpus=options.concurrency)
    tuner = tune.Tuner(
        tune.with_parameters(train, job=job),
        param_space={name: tune.grid_search(values) for name, values in job.axes().items()},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=options.concurrency, reuse_actors=options.reuse_actors
        ),
        run_config=tune.RunConfig(name="sweep", storage_path=str(options.out)),
    )
    write_rows(options.out, [result.metrics for result in tuner.fit()])


if __name__ == "__main__":
    main()
