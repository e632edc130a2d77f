"""What goes wrong in a worker, in words: its cause in one line, without Ray's text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import RayActorError, RayError

from hybrid_sweep.errors import UserError, named, one_line

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


def last_words(error: RayError) -> str:
    """Return in one line why a call of a worker has no answer."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, UserError | WorkFailed):
        return one_line(cause)
    if isinstance(cause, BaseException):
        return named(cause)
    text = one_line(error)
    if "low on memory" in text:
        return "Ray ended the worker, for its node ran low on memory"
    if not isinstance(error, RayActorError):
        return named(error)
    if error.preempted:
        return "the worker's node was taken away"
    if "node has died" in text or "node is dead" in text or "node died" in text:
        return "the worker's node died"
    if code := EXIT_CODE.search(text):
        return f"the worker's process ended with exit code {code[1]}"
    if "worker process has died" in text:
        return "the worker's process died (killed, out of memory, or a crash in native code)"
    return "the worker died"
