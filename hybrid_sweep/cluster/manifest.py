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

PROGRAMS = (
    *(
        ".clean",
        ".smudge",
        ".process",
        ".required",
        ".command",
        ".textconv",
        ".program",
        ".helper",
        ".driver",
    ),
    *(".fsmonitor", ".hookspath", ".pager", ".editor", ".sshcommand", ".gitproxy", ".askpass", ".external"),
)
"""How the names of git's settings end that name a program, or insist on one."""
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
    if shutil.which("git") is None:
        return None
    commit = _git("rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(_git("status", "--porcelain"))} if commit else None


def _git(*arguments: str) -> str | None:
    """Return what git says; None where it fails.

    Whatever program the repository's own configuration names for git to run is left out: a repository is data
    from elsewhere, too. To list that configuration runs nothing.
    """
    quiet = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_OPTIONAL_LOCKS": "0"}
    listed = _output(["git", "config", "--local", "--includes", "--list", "--name-only"], quiet) or ""
    names = {name for name in listed.splitlines() if name.lower().endswith(PROGRAMS)}
    off = [part for name in sorted(names) for part in ("-c", f"{name}=")]
    return _output(["git", *off, "-c", "core.fsmonitor=false", *arguments], quiet)


def _output(command: list[str], variables: dict[str, str]) -> str | None:
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, env=os.environ | variables
    )
    return done.stdout.strip() if done.returncode == 0 else None
