"""Checking: one worker looks at the workload before anything is trained on it, while the others build it."""

from __future__ import annotations

from itertools import chain

from hybrid_sweep.cluster.preparation_pool import PreparationPool
from hybrid_sweep.driver.events import Note, OnEvent
from hybrid_sweep.measure.saved_whole import STATE, whole
from hybrid_sweep.measure.workload_builder import WorkloadOrder, load_seconds, uncompiled
from hybrid_sweep.measure.workload_check import Finding, refuse, repeats
from hybrid_sweep.spec.sweep import SweepSpec

BUILT_AGAIN_SECONDS = 5.0
"""A workload that takes longer to build is not built a second time to see whether it is the same."""


def prepare_check(order: WorkloadOrder) -> list[Finding]:
    """Look whether the workload repeats what it is asked for; return what a sweep does otherwise then.

    Raises:
        UserError: it does not.
    """
    workload = uncompiled(order.build())
    quick = load_seconds.get(repr(order), 0.0) <= BUILT_AGAIN_SECONDS
    looks = chain(repeats(workload, order.load if quick else None), whole(workload))
    return [each for each in refuse(looks) if each.state == "note"]


def prepare_workload(order: WorkloadOrder) -> None:
    """Build it, so that a preparation which comes later finds it."""
    order.build()


def checked(
    spec: SweepSpec, order: WorkloadOrder, pool: PreparationPool, on_event: OnEvent
) -> tuple[SweepSpec, str]:
    """Have one worker look at the workload, and tell what is not shared.

    Returns:
        the sweep as it can be run; and why its runs cannot be saved, "" where they can.

    Raises:
        RayError: that has failed, or the workload does not repeat.
    """
    looks = pool.ask(prepare_check, order, label="a look at the workload")
    for _ in range(pool.size - 1):
        pool.ask(prepare_workload, order, label="the build of the workload")
    (found,) = pool.hear(looks)
    for each in found:
        on_event(Note(each.said))
    unsaved = next((each.said for each in found if each.about == STATE), "")
    return (spec.model_copy(update={"share": False}) if found else spec), unsaved
