"""A crew: preparations side by side on workers that stay."""

import logging
import os
import sys
from pathlib import Path

import pytest
import ray
from ray.exceptions import RayActorError, RayTaskError

from hybrid_sweep.cluster.backend import hiring
from hybrid_sweep.cluster.connection import QUIET
from hybrid_sweep.cluster.crew import Crew

pytestmark = pytest.mark.ray
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests


class Preparer:
    """Calls what it is given."""

    def prepare(self, function, *arguments):
        return function(*arguments)


def die_once(mark):
    """Kill the process unless another one was killed here before."""
    if not Path(mark).exists():
        Path(mark).touch()
        os._exit(1)
    return "done"


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET, "RAY_AUTH_MODE": "disabled"}.items():
            patch.setenv(name, value)
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        yield
        ray.shutdown()


@pytest.fixture
def crew():
    crew = Crew(hiring(Preparer, {"cpu": 1, "gpu": 0}), 2)
    yield crew
    crew.close()


def test_preparations_go_round_and_those_for_the_last_stay_with_it(crew):
    round_about = [crew.hear(task) for task in [crew.ask(os.getpid) for _ in range(4)]]
    last = [crew.hear(crew.ask(os.getpid, last=True)) for _ in range(2)]
    assert round_about[:2] == round_about[2:]
    assert len(set(round_about)) == 2
    assert last == [round_about[1]] * 2


def test_another_worker_takes_over_from_one_that_died(crew, tmp_path):
    tasks = [crew.ask(die_once, str(tmp_path / "mark"), last=True), crew.ask(os.getpid, last=True)]
    before = list(crew.workers)
    assert crew.hear(tasks[0]) == "done"
    assert crew.hear(tasks[1])
    assert crew.workers[0] is before[0]
    assert crew.workers[1] is not before[1]


def test_workers_that_were_handed_over_live_on(crew):
    workers = crew.hand_over()
    crew.close()
    assert len({ray.get(worker.prepare.remote(os.getpid)) for worker in workers}) == 2
    for worker in workers:
        ray.kill(worker)


def test_one_that_kills_every_worker_is_given_up(crew):
    with pytest.raises(RayActorError):
        crew.hear(crew.ask(os._exit, 1))


def test_what_it_raises_is_raised_here(crew):
    with pytest.raises(RayTaskError, match="invalid literal"):
        crew.hear(crew.ask(int, "seven"))
