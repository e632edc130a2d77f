"""What a manifest says about where a sweep ran: versions, hardware, git state."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from hybrid_sweep.credentials import masked

PACKAGES = ("hybrid-sweep", "torch", "ray", "numpy", "pandas", "moocore")


def environment(device: str) -> dict[str, Any]:
    """Return versions, hardware and the git commit of the working folder, as plain data."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "hardware": {
            "device": device,
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "threads_per_trial": 1 if device == "cpu" else None,
        },
        "git": _git_state(),
        "command": [masked(word) for word in sys.argv],
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _git_state() -> dict[str, Any] | None:
    """Return the commit; None outside a repository.

    Whether files differ from it is not asked: `git status` runs what the repository's own configuration names
    (filters, also of submodules and worktrees), and a repository is data from elsewhere, too. The digests of
    the code say what ran.
    """
    if (git := shutil.which("git")) is None:
        return None
    quiet = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(
        [git, "rev-parse", "--verify", "HEAD"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=os.environ | quiet,
    )
    return {"commit": done.stdout.strip()} if done.returncode == 0 else None
