"""CostMeter: every moment between `start` and a `lap` is charged to one kind of work."""

import time
import weakref

import pytest
import torch

from hybrid_sweep.trainer import cost_meter
from hybrid_sweep.trainer.cost_meter import CostMeter, PricedMeter, Work


@pytest.fixture
def clock(monkeypatch):
    """A clock set by hand: `clock(wall, cpu)`."""
    now = {"wall": 0.0, "cpu": 0.0}

    class Clock:
        perf_counter = staticmethod(lambda: now["wall"])
        thread_time = staticmethod(lambda: now["cpu"])

    monkeypatch.setattr(cost_meter, "time", Clock)
    return lambda wall, cpu: now.update(wall=wall, cpu=cpu)


def test_laps_are_charged_to_their_kind(clock):
    meter = CostMeter()
    clock(10.0, 1.0)
    meter.start()
    clock(11.0, 1.5)
    meter.lap(Work.BATCH)
    clock(15.0, 4.5)
    meter.lap(Work.PLAIN)
    clock(100.0, 50.0)  # an evaluation: no one's time
    meter.start()
    clock(102.0, 51.0)
    meter.lap(Work.PLAIN)
    nothing = dict.fromkeys(Work, 0.0)
    assert meter.seconds() == nothing | {Work.BATCH: 1.0, Work.PLAIN: 6.0}
    assert meter.cpu_seconds() == nothing | {Work.BATCH: 0.5, Work.PLAIN: 6.0 * 3 / 4}  # of the first start
    assert meter.calls == dict.fromkeys(Work, 0) | {Work.BATCH: 1, Work.PLAIN: 2}


def test_the_cpu_clock_is_read_after_every_seventh_start(clock):
    meter = CostMeter()
    for i in range(15):
        clock(10.0 * i, 10.0 * i)
        meter.start()
        clock(10.0 * i + 2.0, 10.0 * i + (1.0 if i % 7 == 0 else 2.0))
        meter.lap(Work.PLAIN)
    assert meter.seconds()[Work.PLAIN] == 30.0
    assert meter.cpu_seconds()[Work.PLAIN] == 15.0
    meter.lap(Work.SCORE)
    again = CostMeter()
    again.load_state_dict(meter.state_dict())
    assert again.cpu_seconds() == meter.cpu_seconds()


def test_a_batch_belongs_to_the_pass_that_follows_it(clock):
    meter, now = CostMeter(), 0.0

    def laps(*parts):
        nonlocal now
        meter.start()
        for kind, seconds in parts:
            now += seconds
            clock(now, 0.0)
            meter.lap(kind)

    laps((Work.BATCH, 1.0), (Work.PLAIN, 2.0), (Work.OBSERVE, 9.0))
    laps((Work.BATCH, 3.0), (Work.PLAIN, 2.0))
    assert meter.plain() == (2, 8.0, 3.0, 0.5)
    laps((Work.JUMP, 7.0))
    laps((Work.BATCH, 0.25), (Work.FORWARD, 0.75))
    laps((Work.BATCH, 100.0), (Work.PLAIN, 100.0))  # after a jump: no plain one
    assert meter.plain() == (2, 8.0, 3.0, 0.5)
    assert meter.forward_pass() == 1.0
    laps((Work.BATCH, 0.0), (Work.PLAIN, 2.0))
    again = CostMeter()
    again.load_state_dict(meter.state_dict())
    assert again.plain() == meter.plain() == (3, 10.0, (2.0 + 3.0 + 3.0) / 3, 0.4)
    assert again.forward_pass() == 1.0


def test_one_step_in_a_hundred_counts_no_more_than_the_next(clock):
    meter, now = CostMeter(), 0.0
    for i in range(299):
        clock(now, 0.0)
        meter.start()
        now += 500.0 if i in (0, 100, 200) else 2.0 if i == 50 else 1.0
        clock(now, 0.0)
        meter.lap(Work.PLAIN)
    assert meter.plain().mean == pytest.approx((4 * 2.0 + 295) / 299)
    assert meter.plain().seconds == pytest.approx(3 * 500 + 2 + 295)


def test_what_is_rare_has_its_cpu_time_read_always_and_the_rest_is_as_what_was_read(clock):
    meter = CostMeter()
    meter.start()
    clock(4.0, 1.0)
    meter.lap(Work.PLAIN)  # running a quarter of it
    meter.start()
    clock(8.0, 5.0)
    meter.lap(Work.SCORE)  # not read
    meter.start(always=True)
    clock(10.0, 7.0)
    meter.lap(Work.JUMP)
    expected = {Work.PLAIN: 1.0, Work.JUMP: 2.0, Work.SCORE: 4.0 * (1.0 + 2.0) / (4.0 + 2.0)}
    assert meter.cpu_seconds() == dict.fromkeys(Work, 0.0) | expected
    assert CostMeter().cpu_seconds() is CostMeter().cpu_plain() is None


def test_what_is_read_is_a_copy():
    meter = CostMeter()
    meter.start()
    meter.lap(Work.PLAIN)
    before = meter.seconds()[Work.PLAIN], meter.cpu_seconds()[Work.PLAIN], meter.plain_steps()
    meter.seconds()[Work.PLAIN] = meter.cpu_seconds()[Work.PLAIN] = 5.0
    meter.plain_steps().append(5.0)
    assert (meter.seconds()[Work.PLAIN], meter.cpu_seconds()[Work.PLAIN], meter.plain_steps()) == before


class Gpus:
    """Two GPUs that stand in for CUDA's: a time line each, in ms, of which they have done all but the newest.

    The current device is the first, unless another one is set.
    """

    def __init__(self):
        self.now, self.done, self.events = [0.0, 0.0], [0.0, 0.0], weakref.WeakSet()

    def work(self, device, milliseconds):
        self.done[device] = self.now[device]
        self.now[device] += milliseconds

    def current_stream(self, device=None):
        return 0 if device is None else torch.device(device).index

    def synchronize(self, device=None):
        stream = self.current_stream(device)
        self.done[stream] = self.now[stream]

    def Event(self, enable_timing):
        assert enable_timing
        event = Event(self)
        self.events.add(event)
        return event


class Event:
    def __init__(self, gpus):
        self.gpus, self.stream, self.at = gpus, None, None

    def record(self, stream=None):
        self.stream = self.gpus.current_stream() if stream is None else stream
        self.at = self.gpus.now[self.stream]

    def query(self):
        return self.at <= self.gpus.done[self.stream]

    def elapsed_time(self, end):
        assert self.query() and end.query(), "Both events must be completed before calculating elapsed time."
        return end.at - self.at


@pytest.fixture
def gpus(monkeypatch):
    gpus = Gpus()
    for name in ("Event", "current_stream", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, getattr(gpus, name))
    return gpus


def test_a_gpu_that_is_not_the_current_one_is_timed_by_its_own_line(gpus):
    meter = CostMeter("cuda:1")
    meter.start()
    gpus.work(1, 40.0)
    meter.lap(Work.PLAIN)
    assert meter.seconds()[Work.PLAIN] == 0.04


def test_a_long_run_on_a_gpu_that_no_one_reads_keeps_few_events(gpus):
    meter = CostMeter("cuda:0")
    for _ in range(10_000):
        meter.start()
        for kind in (Work.BATCH, Work.PLAIN, Work.OBSERVE):
            gpus.work(0, 1.0)
            meter.lap(kind)
        assert len(gpus.events) < 5000
    assert meter.seconds() == pytest.approx(
        dict.fromkeys(Work, 0.0) | dict.fromkeys((Work.BATCH, Work.PLAIN, Work.OBSERVE), 10.0)
    )
    assert len(meter.plain_steps()) == 10_000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_it_is_the_devices_time_and_not_the_launches():
    weights = torch.randn(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    meter = CostMeter("cuda")
    meter.start()
    for _ in range(20):
        weights @ weights
    meter.lap(Work.PLAIN)
    meter.lap(Work.OBSERVE)
    launched = time.perf_counter()
    torch.cuda.synchronize()
    waited = time.perf_counter() - launched
    seconds = meter.seconds()
    assert seconds[Work.PLAIN] >= waited
    assert seconds[Work.OBSERVE] < seconds[Work.PLAIN]
    assert meter.seconds() == seconds


def test_a_meter_with_prices_counts_and_looks_at_no_clock(clock):
    meter = PricedMeter({kind: float(i) for i, kind in enumerate(Work, 1)})
    meter.start()
    clock(100.0, 100.0)
    for kind in (Work.BATCH, Work.PLAIN, Work.PLAIN):
        meter.lap(kind)
    meter.lap(Work.UPDATE, count=False)
    assert meter.seconds() == dict.fromkeys(Work, 0.0) | {Work.BATCH: 1.0, Work.PLAIN: 4.0}
    assert meter.plain() == (2, 5.0, 2.0, 0.2)
    other = CostMeter()
    other.load_state_dict(meter.state_dict())
    assert other.seconds() == meter.seconds()
