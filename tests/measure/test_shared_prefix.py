"""Shared trials: the numbers of trials on their own, for less training."""

from itertools import product

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.toy import Toy

from hybrid_sweep.measure.hybrid_run import HybridRun
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.measure.shared_prefix import DECIDING, SharedPrefixRun
from hybrid_sweep.trainer import HybridConfig

from .test_hybrid_run import CLOCKED, COSTS

STEPS = 140
BASE = HybridConfig(warmup_steps=20, full_steps=10, max_predict_steps=20, minimum_cosine=-1.0)
GRID = [
    BASE.replace(max_predict_steps=horizon, correction_interval=interval, confidence_threshold=threshold)
    for horizon, interval, threshold in product([12, 35], [0, 8, 40], [0.05, 0.1, 0.9, 0.999])
]


class Counting(Toy):
    """Counts the batches that were loaded."""

    loaded = 0

    def batch(self, seed, step):
        self.loaded += 1
        return super().batch(seed, step)


class Store(dict):
    """Keeps edges in memory."""

    def put(self, key, data):
        self[key] = data


@pytest.fixture(scope="module")
def reference():
    return reference_run(Toy(dropout=0.2), 0, STEPS, 20)


@pytest.fixture(scope="module")
def alone(reference):
    """Return reports and result of every configuration on its own."""
    return {config: finished(HybridRun(Toy(dropout=0.2), config, reference, COSTS)) for config in GRID}


def finished(trial):
    reports = []
    while not trial.done:
        reports.append(untimed(trial.report()))
    return reports, untimed(trial.result()), trial.state


def untimed(numbers):
    clocked = CLOCKED | {"seconds", "followed_seconds"}
    return numbers and {name: value for name, value in numbers.items() if name not in clocked}


def shared(config, reference, store, workload, others=GRID, open_ended=False, every=1):
    return SharedPrefixRun(
        lambda: HybridRun(workload, config, reference, COSTS, report_every=every),
        config,
        0,
        others,
        open_ended=open_ended,
        store=store,
    )


def test_a_shared_grid_has_the_numbers_of_trials_on_their_own_and_trains_less(reference, alone):
    store, workload = Store(), Counting(dropout=0.2)
    for config in GRID:
        assert finished(shared(config, reference, store, workload)) == alone[config]
    together, workload.loaded = workload.loaded, 0
    for config in GRID:
        finished(HybridRun(workload, config, reference, COSTS))
    assert together < 0.7 * workload.loaded


def test_what_was_shared_is_charged_to_everyone(reference):
    store, workload = Store(), Counting(dropout=0.2)
    first, twin = BASE.replace(confidence_threshold=0.01), BASE.replace(confidence_threshold=0.02)
    results = []
    for config in (first, twin):
        trial = shared(config, reference, store, workload, others=[first, twin])
        finished(trial)
        results.append(trial.result())
        loaded, workload.loaded = workload.loaded, 0
    assert loaded == 0  # the second is the first, whose confidence never was that low
    assert results[0]["train_seconds"] == results[1]["train_seconds"] > 0
    assert results[0]["speedup"] == results[1]["speedup"]
    assert [result["followed_seconds"] for result in results] == [0, results[1]["train_seconds"]]
    assert results[0]["eval_seconds"] > 0 == results[1]["eval_seconds"]
    assert results[1]["confidence_threshold"] == 0.02
    assert HybridConfig.from_json(results[1]["config"]) == twin


def test_a_part_that_was_shared_is_named(reference):
    store, workload = Store(), Toy()
    configs = [BASE.replace(confidence_threshold=threshold) for threshold in (0.05, 0.9)]
    for config in configs:
        trial = shared(config, reference, store, workload, others=configs)
        finished(trial)
    assert 0 < trial.result()["followed_seconds"] < trial.result()["train_seconds"]


@pytest.fixture(scope="module")
def drawless(reference):
    """Return what trials show that draw no random numbers, and so may take turns in one process.

    By how often they report.
    """
    return {
        every: [finished(HybridRun(Toy(), config, reference, COSTS, report_every=every)) for config in GRID]
        for every in (1, 60)
    }


@given(data=st.data())
@settings(max_examples=5, phases=[Phase.generate])
def test_in_any_order_side_by_side_and_stopped_anywhere(reference, drawless, data):
    """Several run in turns over one store; some are stopped and go on as trials from what they saved."""
    store, workload = Store(), Toy()
    open_ended, every = data.draw(st.booleans()), data.draw(st.sampled_from(sorted(drawless)))
    others = [] if open_ended else GRID
    chosen = data.draw(st.lists(st.integers(0, len(GRID) - 1), min_size=2, max_size=4, unique=True))
    running = {i: shared(GRID[i], reference, store, workload, others, open_ended, every) for i in chosen}
    told = {i: [] for i in chosen}
    while running:
        i = data.draw(st.sampled_from(sorted(running)))
        trial = running[i]
        if told[i] and data.draw(st.integers(0, 9)) == 0:
            assert told[i][-1] is None or trial.result()["steps"] == told[i][-1]["step"]
            own = HybridRun(workload, GRID[i], reference, COSTS, report_every=every)
            own.load_state_dict(trial.state_dict(), may_differ=DECIDING)
            running[i] = trial = own
        told[i].append(untimed(trial.report()))
        if trial.done:
            assert (told[i], untimed(trial.result()), trial.state) == drawless[every][i]
            del running[i]
    for i in chosen:
        follower = shared(GRID[i], reference, store, workload, others, every=every)
        assert finished(follower) == drawless[every][i]


def test_a_damaged_edge_is_trained_again(reference, alone):
    store, workload = Store(), Counting(dropout=0.2)
    finished(shared(GRID[0], reference, store, workload))
    for key in store:
        store[key] = store[key][:40]
    assert finished(shared(GRID[1], reference, store, workload)) == alone[GRID[1]]


def test_a_parting_whose_state_is_lost_is_trained_again_from_the_start(reference, alone):
    store, workload = Store(), Counting(dropout=0.2)
    finished(shared(GRID[0], reference, store, workload))
    states = [key for key, data in store.items() if not data.startswith(b"[")]
    assert states
    for key in states:
        del store[key]
    for config in GRID[1:]:
        assert finished(shared(config, reference, store, workload)) == alone[config]


def test_no_one_else_nothing_kept(reference):
    store = Store()
    config = BASE.replace(full_steps=11)  # differs from its first step on
    finished(shared(config, reference, store, Counting(dropout=0.2)))
    assert not store


def test_a_state_that_cannot_be_saved_is_not_shared(reference, alone):
    store = Store()
    trial = shared(GRID[0], reference, store, Counting(dropout=0.2))
    trial._own.trainer.optimizer.param_groups[0]["of the user"] = object()
    assert finished(trial) == alone[GRID[0]]
    assert not store
