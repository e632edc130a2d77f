"""CostMeter: seconds and calls of each kind of work, so that a speedup can be computed from one run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from math import fsum
from typing import Any, NamedTuple

import torch

CPU_STRIDE = 7
"""One `start` in so many reads the CPU clock, which is a slow system call on some machines."""

EVENTS_KEPT = 1000
"""Laps on CUDA from which on those that are over are added up: a long run would fill the memory with them."""


class Work(StrEnum):
    """The kinds of work of a hybrid run."""

    BATCH = "batch"  # loading a batch
    PLAIN = "plain"  # a real step but for its batch: forward, loss, backward, clipping, optimizer, schedule
    OBSERVE = "observe"  # what the trainer adds to a real step
    UPDATE = "update"  # once a Full phase: training RSSM-lite, confidence, gates, and deciding what comes
    CHECKPOINT = "checkpoint"  # once a Predict phase: what a rollback restores, and the gates of its jumps
    JUMP = "jump"  # moving the weights
    FORWARD = "forward"  # the forward pass of a probe or a Correct step
    SCORE = "score"  # what the trainer adds to that pass


class PlainSteps(NamedTuple):
    """What plain steps took, each with the loading of its batch.

    A real step that follows a jump or a forward pass is none of them: nothing could load its batch in
    advance, and the processor's caches hold other things.

    Attributes:
        taken: how many.
        seconds: of all of them.
        mean: seconds of one, the slowest one in a hundred (and one more) taken to be as quick as the next.
            What happens once in a run (compiling, opening the data, a stall of the machine) would otherwise
            be multiplied by every step that was not taken.
        loading_share: what part of `seconds` was loading.
    """

    taken: int
    seconds: float
    mean: float
    loading_share: float


class CostMeter:
    """A stopwatch with laps: `start`, then `lap(kind)` charges the time since the last mark to `kind`.

    A batch belongs to the pass that follows it. On a CPU the meter reads the wall clock, and from every
    seventh `start` to the next the thread's CPU time too.
    On CUDA it records an event a lap and adds them up when they are read, or when there are many and the
    device has come so far, so that it is never stalled for the sake of a clock.

    Attributes:
        calls: laps of each kind.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        device = torch.device(device)
        self._gpu = device if device.type == "cuda" else None
        self._wall = dict.fromkeys(Work, 0.0)
        self._sampled = dict.fromkeys(Work, (0.0, 0.0))  # CPU and wall-clock seconds of the laps in a sample
        self.calls = dict.fromkeys(Work, 0)
        self._plain: list[float] = []  # seconds of each plain step, with its batch
        self._loading = 0.0  # seconds of their batches
        self._looking = 0.0  # seconds of forward passes, with their batches
        self._batch = 0.0  # seconds of the newest one, until its pass is charged
        self._after_jump = False  # whether the real step to come is no plain one
        self._starts = 0
        self._mark_wall = 0.0
        self._mark_cpu: float | None = None
        self._mark_event: Any = None
        self._pending: deque[tuple[Work, Any, Any]] = deque()

    def start(self, *, always: bool = False) -> None:
        """Set the mark: time before it is not charged. What is rare has its CPU time read `always`."""
        if self._gpu:
            if len(self._pending) >= EVENTS_KEPT:
                self._add_up()
            self._mark_event = self._event()
        self._mark_cpu = time.thread_time() if always or self._starts % CPU_STRIDE == 0 else None
        self._starts += 1
        self._mark_wall = time.perf_counter()

    def lap(self, kind: Work, *, count: bool = True) -> None:
        """Charge the time since the mark to `kind`, as a lap or (not counted) part of one; set a new mark."""
        wall = time.perf_counter()
        self.calls[kind] += count
        if self._mark_cpu is not None:
            now, (cpu, sampled) = time.thread_time(), self._sampled[kind]
            self._sampled[kind] = cpu + now - self._mark_cpu, sampled + wall - self._mark_wall
            self._mark_cpu = now
        if self._gpu:
            event = self._event()
            self._pending.append((kind, self._mark_event, event))
            self._mark_event = event
        else:
            self._charge(kind, wall - self._mark_wall)
        self._mark_wall = wall

    def seconds(self) -> dict[Work, float]:
        """Return wall-clock seconds (on CUDA: seconds of the device's time line) of each kind."""
        if self._pending:
            torch.cuda.synchronize(self._gpu)
            self._add_up()
        return dict(self._wall)

    def plain(self) -> PlainSteps:
        """Return what plain steps took so far."""
        steps = sorted(self.plain_steps())
        seconds = fsum(steps)
        kept = steps[: len(steps) - len(steps) // 100 - 1] or steps
        mean = (fsum(kept) + (len(steps) - len(kept)) * kept[-1]) / len(steps) if steps else 0.0
        return PlainSteps(len(steps), seconds, mean, self._loading / seconds if seconds else 0.0)

    def plain_steps(self) -> list[float]:
        """Return the seconds of each plain step, with the loading of its batch."""
        self.seconds()
        return list(self._plain)

    def forward_pass(self) -> float:
        """Return the mean seconds of a forward pass with the loading of its batch; 0.0 of none."""
        self.seconds()
        return self._looking / self.calls[Work.FORWARD] if self.calls[Work.FORWARD] else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return everything that was measured; on CUDA this waits for the device."""
        wall = self.seconds()
        of_kind = {kind: (wall[kind], self._sampled[kind], self.calls[kind]) for kind in Work}
        return {
            "work": of_kind,
            "plain": list(self._plain),
            "loading": self._loading,
            "looking": self._looking,
            "after_jump": self._after_jump,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for kind in Work:
            self._wall[kind], sampled, self.calls[kind] = state["work"][kind]
            self._sampled[kind] = sampled[0], sampled[1]
        self._plain, self._batch = list(state["plain"]), 0.0
        self._loading, self._looking = state["loading"], state["looking"]
        self._after_jump = state["after_jump"]
        self._pending.clear()

    def _add_up(self) -> None:
        """Charge the laps that the device has done, oldest first."""
        while self._pending and all(event.query() for event in self._pending[0][1:]):
            kind, begin, end = self._pending.popleft()
            self._charge(kind, begin.elapsed_time(end) / 1000)

    def _charge(self, kind: Work, seconds: float) -> None:
        self._wall[kind] += seconds
        if kind is Work.BATCH:
            self._batch = seconds
        elif kind is Work.PLAIN:
            if not self._after_jump:
                self._plain.append(self._batch + seconds)
                self._loading += self._batch
            self._after_jump, self._batch = False, 0.0
        elif kind is Work.FORWARD:
            self._looking += self._batch + seconds
            self._after_jump, self._batch = True, 0.0
        elif kind is Work.JUMP:
            self._after_jump = True

    def cpu_seconds(self) -> dict[Work, float] | None:
        """Return CPU seconds of this thread for each kind, where a CPU trains; None where none was sampled.

        The wall clock of a kind times the share of it that the thread was running in the laps sampled; where
        none of a kind was, the share of all laps that were.
        """
        cpu, wall = (sum(part) for part in zip(*self._sampled.values(), strict=True))
        if not wall:
            return None
        shares = {kind: own / of if of else cpu / wall for kind, (own, of) in self._sampled.items()}
        return {kind: seconds * shares[kind] for kind, seconds in self.seconds().items()}

    def cpu_plain(self) -> PlainSteps | None:
        """Return `plain` in CPU seconds of this thread, as `cpu_seconds`; None where none was sampled."""
        cpu, wall, plain = self.cpu_seconds(), self.seconds(), self.plain()
        if cpu is None or not plain.seconds:
            return None
        loading, own = (cpu[k] / wall[k] if wall[k] else 0.0 for k in (Work.BATCH, Work.PLAIN))
        share = loading * plain.loading_share + own * (1 - plain.loading_share)
        loading_share = loading * plain.loading_share / share if share else 0.0
        return PlainSteps(plain.taken, share * plain.seconds, share * plain.mean, loading_share)

    def _event(self) -> Any:
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._gpu))
        return event


class PricedMeter(CostMeter):
    """A meter without a clock: each lap costs the price of its kind.

    It is for runs that are trained together, of whose time none is one run's own.

    Args:
        prices: seconds of a unit of each kind.
    """

    def __init__(self, prices: Mapping[Work, float]) -> None:
        super().__init__()
        self._prices = prices

    def start(self, *, always: bool = False) -> None:
        """Nothing: there is no clock."""

    def lap(self, kind: Work, *, count: bool = True) -> None:
        """Charge the price of one unit of `kind`; a part of one costs nothing of its own."""
        if count:
            self.calls[kind] += 1
            self._charge(kind, self._prices[kind])
