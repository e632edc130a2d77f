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

from hybrid_sweep.search.storage import masked

PACKAGES = ("hybrid-sweep", "torch", "ray", "numpy", "pandas", "moocore")


def environment(device: str) -> dict[str, Any]:
    """Return versions, hardware and the git state of the working folder, as plain data."""
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
    """Return commit and whether files differ from it; None outside a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    commit = _output([git, "rev-parse", "HEAD"])
    return {"commit": commit, "dirty": bool(_output([git, "status", "--porcelain"]))} if commit else None


def _output(command: list[str]) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
