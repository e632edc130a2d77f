"""Last word: what to do next, said by a helper where the driver's process ends without a chance to say it.

SIGKILL ends it so, and so does Ray, whose native code ends the driver when its raylet or its GCS has died.
"""

from __future__ import annotations

import shlex
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType

HELPER = 'while IFS= read -r line; do said=$line; done; [ -z "$said" ] || printf "\\n%s\\n" "$said" >&2'
"""Of the lines that the driver writes the last one is printed, unless it is empty."""
CAUSE = (
    "error: the process of the sweep was ended from outside, or by Ray, whose raylet or GCS died "
    "(a signal, or memory that ran out)"
)


def resume_command(folder: Path) -> str:
    """Return the command that goes on with the sweep in `folder`, as a shell takes it."""
    name = str(folder)
    return shlex.join(["hybrid-sweep", "resume", name if name.isprintable() else ascii(name)[1:-1]])


class ResumeHint:
    """Within its block, a helper says on standard error what to do next if this process ends abruptly."""

    def __init__(self) -> None:
        # in a session of its own, for Ctrl-C and a closed terminal tell every process of this one's
        self._helper = subprocess.Popen(
            ["/bin/sh", "-c", HELPER],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )

    def __enter__(self) -> ResumeHint:
        self._say(f"{CAUSE} before its first trial; start it again")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._say("")
        with suppress(OSError):
            self._helper.communicate()

    def resume(self, folder: Path) -> None:
        """Have the helper name the command that goes on with the sweep in `folder`."""
        self._say(f"{CAUSE}; what was written is kept: go on with `{resume_command(folder)}`")

    def _say(self, line: str) -> None:
        if self._helper.stdin:
            with suppress(OSError):  # it has gone, and a sweep does not end for that
                self._helper.stdin.write(f"{line}\n")
                self._helper.stdin.flush()
