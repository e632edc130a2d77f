"""Whether a run that is saved and loaded goes on as it would have: `state_dict` holds all there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from hybrid_sweep.errors import UserError, named, one_line
from hybrid_sweep.measure.checkpoint import from_bytes, to_bytes
from hybrid_sweep.measure.digest import Digest, near
from hybrid_sweep.measure.recipe_key import attributes_of
from hybrid_sweep.measure.reference import hybrid_of, start
from hybrid_sweep.measure.workload_check import TOLERANCE, Finding
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.random_state import random_state, set_random_state
from hybrid_sweep.trainer.trainer import HybridTrainer
from hybrid_sweep.workload import Workload

STATE = "saved state"
TRAINED, COMPARED = 3, 2
"""Steps before the run is saved, and after it is loaded."""
CONSEQUENCE = (
    "so nothing of this sweep is shared, a run that is resumed begins from its start, and a rollback puts "
    "back no more than state_dict() holds"
)
REMEDY = (
    "keep it in register_buffer() or get_extra_state() of the model, or in the optimizer's or schedule's "
    "state_dict()"
)


def whole(workload: Workload) -> Iterator[Finding]:
    """Yield whether the same seed trains the same again, and a saved run goes on as it would have.

    A run is saved as a checkpoint is, through bytes, and loaded into a model, optimizer and schedule that
    were just built. Both then train on the same batches; losses and weights are compared, on a CPU to the
    last bit. The global random numbers are left as they were.
    """
    before = random_state()
    try:
        yield from _whole(workload)
    finally:
        set_random_state(before)


def _whole(workload: Workload) -> Iterator[Finding]:
    trained = max(min(TRAINED, workload.steps - COMPARED), 1)
    run = _Run(workload)
    if not _Run(workload).goes_as(run, 1, trained):
        yield Finding(
            about="training",
            state="problem",
            said="the same seed trains otherwise when it is started again in the same process, so that a "
            "result depends on the runs before it: keep nothing of a run in the workload, a module or a "
            "class, and draw from the global random numbers of torch, NumPy or Python, which a run seeds, "
            "or from (seed, step)",
        )
        return
    yield Finding(about="training", state="ok", said="the same losses when a seed is started again")
    if lost := _lost(run, trained):
        yield Finding(about=STATE, state="note", said=f"{lost}, {CONSEQUENCE}: {REMEDY}")
    else:
        yield Finding(about=STATE, state="ok", said="a run that is saved and loaded goes on as it would have")


class _NotLoaded(Exception):
    """What a saved state says where it does not fit."""


class _Run:
    """A run of no use, of which real steps are taken; it is built when the first of them is.

    Args:
        workload: what is trained.
        state: from which it goes on; None begins.
    """

    def __init__(self, workload: Workload, state: dict[str, Any] | None = None) -> None:
        self.workload, self._state = workload, state
        self.losses: list[float] = []
        self.loaded: dict[str, str] = {}  # attributes as they are when the state is in
        self._trainer: HybridTrainer | None = None

    @property
    def trainer(self) -> HybridTrainer:
        """The run's own."""
        if self._trainer is None:
            self._trainer = hybrid_of(start(self.workload, 0), HybridConfig())
            if self._state is not None:
                try:
                    self._trainer.load_state_dict(self._state)
                except Exception as error:  # torch's and the user's words for what does not fit
                    raise _NotLoaded(named(error)[:200]) from error
                self.loaded = attributes_of(self._trainer.plain)
        return self._trainer

    def take(self, first: int, last: int) -> list[Tensor]:
        """Train from step `first` to `last`; return their losses, and the weights and buffers at the end."""
        plain, ending = self.trainer.plain, self.workload.steps
        losses = [plain(self.workload.batch(0, min(step, ending))) for step in range(first, last + 1)]
        self.losses = [float(loss) for loss in losses]
        model = plain.model
        return [*losses, *(each.detach() for each in (*model.parameters(), *model.buffers()))]

    def goes_as(self, other: _Run, first: int, last: int) -> bool:
        """Return whether both train the same, this one first."""
        mine, theirs = Digest(near=True), Digest(near=True)
        same = mine.of(self.take(first, last)) == theirs.of(other.take(first, last))
        return same and near(mine, theirs, TOLERANCE)


def _lost(run: _Run, trained: int) -> str:
    """Return in words how a run that is loaded does not go on as it would have; "" where it does."""
    held = attributes_of(run.trainer.plain)
    try:
        state = from_bytes(to_bytes(run.trainer.state_dict()))
    except UserError as error:
        return one_line(error).partition(":")[0]
    loaded = _Run(run.workload, state)
    try:
        if run.goes_as(loaded, trained + 1, trained + COMPARED):
            return ""
    except _NotLoaded as error:
        return f"a saved run cannot be loaded into a model that was just built ({error})"
    places = [place for place, digest in held.items() if loaded.loaded.get(place) != digest]
    such = f", such as {', '.join(places[:3])}" if places else ""
    return (
        f"a run that is saved and loaded goes on otherwise (loss {run.losses[0]:.6g}, loaded "
        f"{loaded.losses[0]:.6g}), for there is state that is not in state_dict(){such}"
    )
