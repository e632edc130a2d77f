"""A crew: preparations side by side on workers that stay."""

import os
import sys
import time
from pathlib import Path

import pytest
import ray
from ray.exceptions import RayActorError, RayTaskError
from support.local_ray import local_ray

from hybrid_sweep.cluster import board
from hybrid_sweep.cluster import crew as module
from hybrid_sweep.cluster.backend import hiring
from hybrid_sweep.cluster.crew import Crew
from hybrid_sweep.driver.events import Preparing

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


def wait_for(path):
    """Work until the file is there."""
    while not Path(path).exists():
        time.sleep(0.01)
    return "seen"


def count_until(path, tell):
    """Tell how far it is until the file is there."""
    board.WRITE_EVERY_SECONDS = 0.05
    while not Path(path).exists():
        tell(7, 9)
        time.sleep(0.01)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with local_ray(2):
        yield


@pytest.fixture
def crew():
    crew = Crew(hiring(Preparer, {"cpu": 1, "gpu": 0}), 2)
    yield crew
    crew.close()


def test_preparations_go_round_and_those_for_the_last_stay_with_it(crew):
    round_about = crew.hear(*[crew.ask(os.getpid) for _ in range(4)])
    last = crew.hear(*[crew.ask(os.getpid, last=True) for _ in range(2)])
    assert round_about[:2] == round_about[2:]
    assert len(set(round_about)) == 2
    assert last == [round_about[1]] * 2


def test_another_worker_takes_over_from_one_that_died(crew, tmp_path):
    (survivor,) = crew.hear(crew.ask(os.getpid))
    tasks = [crew.ask(die_once, str(tmp_path / "mark"), last=True), crew.ask(os.getpid, last=True)]
    assert crew.hear(*tasks) == ["done", survivor]
    assert len(crew.hand_over()) == 2  # the back-end finds out that one of them is dead


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


def test_a_failure_is_told_while_others_still_work(crew, tmp_path):
    go_on = tmp_path / "go_on"
    waiting = crew.ask(wait_for, str(go_on))
    with pytest.raises(RayTaskError, match="invalid literal"):
        crew.hear(waiting, crew.ask(int, "seven"))
    go_on.touch()
    assert crew.hear(waiting) == ["seen"]


def test_workers_that_have_no_place_get_no_work():
    """Somebody else has one of the two CPUs."""
    other = hiring(Preparer, {"cpu": 1, "gpu": 0})()
    ray.get(other.prepare.remote(bool))
    crew = Crew(hiring(Preparer, {"cpu": 1, "gpu": 0}), 2)
    try:
        heard = crew.hear(crew.ask(os.getpid), crew.ask(os.getpid), crew.ask(os.getpid, last=True))
        assert len(set(heard)) == 1
    finally:
        crew.close()
        ray.kill(other)


def test_the_last_one_may_have_the_machine_for_itself(crew):
    (last,) = crew.hear(crew.ask(os.getpid, last=True))
    crew.shrink()
    assert crew.hear(crew.ask(os.getpid), crew.ask(os.getpid, last=True)) == [last, last]


def test_what_preparations_say_of_themselves_is_told_while_they_last(tmp_path, monkeypatch):
    monkeypatch.setattr(board, "FIRST_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(module, "LOOK_EVERY_SECONDS", 0.05)
    enough, told = tmp_path / "enough", []

    def tell(event):
        told.append(event)
        if event == Preparing(("counting: 7 of 9", "preparing")):
            enough.touch()

    crew = Crew(hiring(Preparer, {"cpu": 1, "gpu": 0}), 2, tell)
    try:
        counting = crew.ask(count_until, str(enough), label="counting")
        assert crew.hear(counting, crew.ask(wait_for, str(enough))) == [None, "seen"]
        assert Preparing(("counting", "preparing")) in told
    finally:
        crew.close()
