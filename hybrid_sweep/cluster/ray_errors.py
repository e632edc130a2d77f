"""What goes wrong in a worker, in words: its cause in one line, without Ray's text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import RayActorError, RayError

from hybrid_sweep.errors import UserError, named, one_line

LESS = "lower concurrency (trials at once) or pack, or the workload's batch"
"""What to lower where memory is short."""
OUT_OF_MEMORY = re.compile(
    r"MemoryError|bad_alloc|out of memory|can't allocate memory|Cannot allocate memory|failed to allocate",
    re.IGNORECASE,
)
EXIT_CODE = re.compile(r"exits with an exit code (\d+)")


class WorkFailed(Exception):
    """The user's code failed in a worker: `Type: what it says`, which travels whatever the error held."""


@contextmanager
def told() -> Iterator[None]:
    """Turn whatever a worker's work raises into what can travel and be read.

    Also a `SystemExit` or a `KeyboardInterrupt`, which would end the worker: no signal reaches it.

    Raises:
        UserError: as it is.
        WorkFailed: anything else.
    """
    try:
        yield
    except GeneratorExit:
        raise
    except UserError as error:
        raise UserError(one_line(error)) from None
    except BaseException as error:
        raise WorkFailed(named(error)) from None


def with_remedy(said: str) -> str:
    """Return what an error said, and what to lower where it is that memory ran out."""
    return f"out of memory: {said}; {LESS}" if OUT_OF_MEMORY.search(said) else said


def summarize_ray_error(error: RayError) -> str:
    """Return in one line why a call of a worker has no answer."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, UserError):
        return one_line(cause)
    if isinstance(cause, BaseException):
        return with_remedy(one_line(cause) if isinstance(cause, WorkFailed) else named(cause))
    text = one_line(error)
    if "low on memory" in text:
        return f"out of memory: Ray ended the worker, for its node ran low on memory; {LESS}"
    if not isinstance(error, RayActorError):
        return named(error)
    if error.preempted:
        return "the worker's node was taken away"
    if "node has died" in text or "node is dead" in text or "node died" in text:
        return "the worker's node died"
    if code := EXIT_CODE.search(text):
        return f"the worker's process ended with exit code {code[1]}"
    if "worker process has died" in text:
        return (
            "the worker's process died (killed, out of memory, or a crash in native code); "
            f"if memory is short, {LESS}"
        )
    return "the worker died"
