"""A pool: preparations side by side on workers that stay."""

import os
import sys
import threading
import time
from pathlib import Path

import pytest
import ray
from ray.exceptions import RayActorError, RayTaskError
from support.local_ray import local_ray

from hybrid_sweep.cluster import board
from hybrid_sweep.cluster import preparation_pool as module
from hybrid_sweep.cluster.backend import actor_factory
from hybrid_sweep.cluster.preparation_pool import PreparationPool
from hybrid_sweep.driver.events import Note, Preparing
from hybrid_sweep.errors import UserError

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


def hang_until_tried(mark, times):
    """Hang in as many workers, one after another."""
    tried = len(list(Path(mark).parent.glob("tried*")))
    (Path(mark).parent / f"tried{tried}").touch()
    if tried < times:
        threading.Event().wait()
    return "done"


def count_to(number, on_event):
    """Tell for long how far it is; each single step is short."""
    for done in range(number):
        board.WRITE_EVERY_SECONDS = 0.05
        on_event(done, number)
        time.sleep(0.1)
    return number


def count_until(path, on_event):
    """Tell how far it is until the file is there."""
    board.WRITE_EVERY_SECONDS = 0.05
    while not Path(path).exists():
        on_event(7, 9)
        time.sleep(0.01)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with local_ray(2):
        yield


@pytest.fixture
def pool():
    pool = PreparationPool(actor_factory(Preparer, {"cpu": 1, "gpu": 0}), 2)
    yield pool
    pool.close()


def test_preparations_go_round_and_those_for_the_last_stay_with_it(pool):
    round_about = pool.hear(*[pool.ask(os.getpid) for _ in range(4)])
    last = pool.hear(*[pool.ask(os.getpid, last=True) for _ in range(2)])
    assert round_about[:2] == round_about[2:]
    assert len(set(round_about)) == 2
    assert last == [round_about[1]] * 2


def test_another_worker_takes_over_from_one_that_died(pool, tmp_path):
    (survivor,) = pool.hear(pool.ask(os.getpid))
    tasks = [pool.ask(die_once, str(tmp_path / "mark"), last=True), pool.ask(os.getpid, last=True)]
    assert pool.hear(*tasks) == ["done", survivor]
    assert len(pool.hand_over()) == 2  # the back-end finds out that one of them is dead


def test_workers_that_were_handed_over_live_on(pool):
    workers = pool.hand_over()
    pool.close()
    assert len({ray.get(worker.prepare.remote(os.getpid)) for worker in workers}) == 2
    for worker in workers:
        ray.kill(worker)


def test_one_that_kills_every_worker_is_given_up(pool):
    with pytest.raises(RayActorError):
        pool.hear(pool.ask(os._exit, 1))


def test_what_it_raises_is_raised_here(pool):
    with pytest.raises(RayTaskError, match="invalid literal"):
        pool.hear(pool.ask(int, "seven"))


def test_a_failure_is_told_while_others_still_work(pool, tmp_path):
    go_on = tmp_path / "go_on"
    waiting = pool.ask(wait_for, str(go_on))
    with pytest.raises(RayTaskError, match="invalid literal"):
        pool.hear(waiting, pool.ask(int, "seven"))
    go_on.touch()
    assert pool.hear(waiting) == ["seen"]


def test_workers_that_have_no_place_get_no_work():
    """Another process has one of the two CPUs."""
    other = actor_factory(Preparer, {"cpu": 1, "gpu": 0})()
    ray.get(other.prepare.remote(bool))
    pool = PreparationPool(actor_factory(Preparer, {"cpu": 1, "gpu": 0}), 2)
    try:
        heard = pool.hear(pool.ask(os.getpid), pool.ask(os.getpid), pool.ask(os.getpid, last=True))
        assert len(set(heard)) == 1
    finally:
        pool.close()
        ray.kill(other)


def test_the_last_one_may_have_the_machine_for_itself(pool):
    (last,) = pool.hear(pool.ask(os.getpid, last=True))
    pool.shrink()
    assert pool.hear(pool.ask(os.getpid), pool.ask(os.getpid, last=True)) == [last, last]


def test_what_preparations_say_of_themselves_is_told_while_they_last(tmp_path, monkeypatch):
    monkeypatch.setattr(board, "FIRST_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(module, "LOOK_EVERY_SECONDS", 0.05)
    enough, told = tmp_path / "enough", []

    def on_event(event):
        told.append(event)
        if event == Preparing(("counting: 7 of 9", "preparing")):
            enough.touch()

    pool = PreparationPool(actor_factory(Preparer, {"cpu": 1, "gpu": 0}), 2, on_event)
    try:
        counting = pool.ask(count_until, str(enough), label="counting", tells=True)
        assert pool.hear(counting, pool.ask(wait_for, str(enough))) == [None, "seen"]
        assert Preparing(("counting", "preparing")) in told
    finally:
        pool.close()


@pytest.fixture
def impatient(monkeypatch):
    """Return what makes a pool with a limit, and what it is told."""
    monkeypatch.setattr(board, "FIRST_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(module, "LOOK_EVERY_SECONDS", 0.05)
    crews = []

    def make(size, limit=2.0):
        told = []
        crews.append(PreparationPool(actor_factory(Preparer, {"cpu": 1, "gpu": 0}), size, told.append, limit))
        return crews[-1], told

    yield make
    for pool in crews:
        pool.close()


def notes(told):
    return [event.text for event in told if isinstance(event, Note)]


@pytest.mark.parametrize("size", [1, 2])
def test_a_preparation_that_hangs_is_tried_once_more_and_what_waited_behind_it_too(impatient, size, tmp_path):
    pool, told = impatient(size)
    tasks = [pool.ask(hang_until_tried, str(tmp_path / "mark"), 1, label="the reference", last=True)]
    tasks += [pool.ask(abs, number, last=True) for number in (-1, -2)]
    assert pool.hear(*tasks) == ["done", 1, 2]
    (note,) = notes(told)
    assert note.startswith("hung at the reference, with no sign of life for 2 s")


def test_one_that_hangs_again_ends_the_sweep_with_the_setting_to_raise(impatient, tmp_path):
    pool, told = impatient(2)
    waits = pool.ask(hang_until_tried, str(tmp_path / "mark"), 9, label="unit costs")
    with pytest.raises(UserError, match=r"^hung at unit costs, .* for 2 s, .*trial_timeout=SECONDS") as ended:
        pool.hear(waits)
    assert len(str(ended.value).splitlines()) == 1
    assert len(notes(told)) == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_a_worker_that_hangs_at_what_is_not_waited_for_is_found_too(impatient, tmp_path):
    pool, told = impatient(2)
    pool.ask(hang_until_tried, str(tmp_path / "mark"), 1, label="the build")
    assert pool.hear(*[pool.ask(abs, -number) for number in range(4)]) == [0, 1, 2, 3]
    assert notes(told)[0].startswith("hung at the build")


def test_one_that_tells_how_far_it_is_does_not_hang_and_those_behind_it_wait(impatient):
    pool, told = impatient(1, 3.0)
    long = pool.ask(count_to, 60, label="counting", tells=True)
    assert pool.hear(long, pool.ask(abs, -1)) == [60, 1]
    assert not notes(told)
