"""The front door: `hybrid-sweep`, one function a command, no logic.

Exit codes: 0; 1 where a trial failed or was lost; 2 for a mistake of the user; 130 after
Ctrl-C, SIGTERM or SIGHUP.
A command imports what it needs when it runs, so that `--help` and `list` answer at once.
"""

from hybrid_sweep.cli.app import main

__all__ = ["main"]
