"""A worker of several seats without Ray: each seat is a runner, and what it says is what a runner says."""

import asyncio
from dataclasses import replace

import pytest
from support import toy
from support.toy import Toy

from hybrid_sweep.cluster.batched_worker import BatchedWorker
from hybrid_sweep.cluster.worker import TrialWorker
from hybrid_sweep.cluster.worker_context import Shared, cost_class
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.costs import COST_NAMES, UnitCosts
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.measure.workload_builder import WorkloadOrder
from hybrid_sweep.trainer import HybridConfig

FIELDS = {"warmup_steps": 20, "full_steps": 10, "horizon_rule": "fixed", "confidence_threshold": 0.001}
COUNTED = ["speedup_counted", "behaviour", "backward_calls", "steps"]
MEASURED = ["val_loss", "quality", "quality_vs_frozen", "quality_vs_lr_matched"]


def point(horizon=20, seed=0):
    return {"trial_id": f"H{horizon}", "seed": seed, "config": FIELDS | {"max_predict_steps": horizon}}


@pytest.fixture
def shared():
    def make(pack=3, **keywords):
        return Shared(
            order=WorkloadOrder(name=f"{toy.__file__}:Toy", keywords=keywords, device="cpu"),
            references={seed: reference_run(Toy(), seed, 120, 10) for seed in (0, 1)},
            costs={cost_class(HybridConfig(**FIELDS)): UnitCosts(**dict.fromkeys(COST_NAMES, 1.0))},
            controls=True,
            share=False,
            pack=pack,
        )

    return make


async def to_end(worker, slot, point, checkpoint=None):
    """Run a trial in a seat; return what was said."""
    await worker.start(slot, point, checkpoint)
    said = [await worker.step(slot)]
    while "finished" not in said[-1]:
        said.append(await worker.step(slot))
    return said


def run(worker, *points):
    async def all_of_them():
        return await asyncio.gather(*(to_end(worker, slot, each) for slot, each in enumerate(points)))

    return asyncio.run(all_of_them())


def alone(shared, point, checkpoint=None):
    runner = TrialWorker(replace(shared, pack=1))
    runner.start(point, checkpoint)
    said = [runner.step()]
    while "finished" not in said[-1]:
        said.append(runner.step())
    return said


def assert_agree(ours, theirs):
    assert [one["report"]["step"] for one in ours] == [one["report"]["step"] for one in theirs]
    mine, expected = ours[-1]["finished"]["result"], theirs[-1]["finished"]["result"]
    assert [mine[name] for name in COUNTED] == [expected[name] for name in COUNTED]
    assert [mine[name] for name in MEASURED] == pytest.approx([expected[name] for name in MEASURED], rel=1e-4)
    assert mine["speedup"] == pytest.approx(mine["speedup_counted"])


def test_every_seat_says_what_a_runner_does(shared):
    points = [point(20), point(30, seed=1), point(9)]
    worker = BatchedWorker(shared())
    for ours, each in zip(run(worker, *points), points, strict=True):
        assert_agree(ours, alone(shared(), each))
    assert worker._pack.fused.steps > 50
    assert worker._pack.fused.refused == ""


def test_seats_are_taken_again_while_others_train(shared):
    worker, points = (
        BatchedWorker(shared(pack=2)),
        [point(h, seed) for h in (5, 9, 20, 30) for seed in (0, 1)],
    )
    waiting, said = list(enumerate(points)), {}

    async def slot(number):
        while waiting:
            i, each = waiting.pop(0)
            said[i] = await to_end(worker, number, each)

    async def both():
        await asyncio.gather(slot(0), slot(1))

    asyncio.run(both())
    for i, each in enumerate(points):
        assert_agree(said[i], alone(shared(), each))


def test_an_error_fails_its_run_and_no_other(shared):
    bad = {**point(20), "config": {"max_predict_steps": -1}}
    worker = BatchedWorker(shared())
    broken, whole = run(worker, bad, point(9))
    assert broken[-1]["finished"]["state"] == "failed"
    assert "max_predict_steps" in broken[-1]["finished"]["reason"]
    assert_agree(whole, alone(shared(), point(9)))


def test_a_stopped_run_goes_on_in_another_seat_or_alone(shared):
    async def part():
        worker = BatchedWorker(shared(pack=2))
        other = asyncio.create_task(to_end(worker, 1, point(20)))
        await worker.start(0, point(9))
        report = (await worker.step(0))["report"]
        stopped = await worker.stop_now(0, True)
        rest = await to_end(worker, 0, point(9), stopped["checkpoint"])
        return report, stopped, rest, await other

    report, stopped, rest, other = asyncio.run(part())
    assert stopped["result"]["steps"] == report["step"]
    expected = alone(shared(), point(9))
    assert_agree(rest, expected[1:])
    assert_agree(other, alone(shared(), point(20)))
    after = alone(shared(), point(9), stopped["checkpoint"])
    assert [one["report"]["step"] for one in after] == [one["report"]["step"] for one in expected[1:]]
    found = [after[-1]["finished"]["result"][name] for name in MEASURED]
    assert found == pytest.approx([expected[-1]["finished"]["result"][name] for name in MEASURED], rel=1e-4)


def test_a_step_that_comes_before_its_start_waits_for_it(shared):
    async def part():
        worker = BatchedWorker(shared())
        early = asyncio.create_task(worker.step(1))
        await asyncio.sleep(0)
        other = await to_end(worker, 0, point(9))
        assert not early.done()
        await worker.start(1, point(20))
        return other, await early

    other, first = asyncio.run(part())
    assert other[-1]["finished"]["state"] == "done"
    assert first["report"]["step"] == alone(shared(), point(20))[0]["report"]["step"]


def test_nothing_is_kept_where_no_one_asks(shared):
    async def part():
        worker = BatchedWorker(shared())
        await worker.start(0, point())
        await worker.step(0)
        return await worker.stop_now(0, False)

    assert asyncio.run(part())["checkpoint"] is None


def test_the_workload_is_built_once_and_what_cannot_be_built_is_said(shared):
    worker = BatchedWorker(shared())

    async def ready(worker):
        for slot in range(3):
            await worker.ready(slot)

    asyncio.run(ready(worker))
    assert len({id(slot._workload) for slot in worker._slots}) == 1
    with pytest.raises(UserError, match="colour"):
        asyncio.run(ready(BatchedWorker(shared(colour="red"))))


def test_what_breaks_the_pack_loses_its_runs_and_hangs_none(shared, monkeypatch):
    def broken(self, steps):
        raise MemoryError("no room")

    monkeypatch.setattr("hybrid_sweep.trainer.fused.FusedStep.__call__", broken)

    async def both():
        worker = BatchedWorker(shared())
        return await asyncio.gather(
            *(to_end(worker, slot, point(9)) for slot in (0, 1)), return_exceptions=True
        )

    assert [type(error) for error in asyncio.run(both())] == [MemoryError, MemoryError]
