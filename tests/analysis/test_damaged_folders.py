"""A few of the damaged folders and sweep files that `benchmarks/mutated_folders.py` reads by the thousand."""

import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "mutated_folders.py"
KNOWN = (1015, 2046, 3048, 20272)
"""Folders that once raised something else than a UserError."""


def test_damage_is_told_in_a_sentence(grid60):
    for first, reads in [(0, 120), *((number, 1) for number in KNOWN)]:
        numbers = ["--reads", str(reads), "--sweeps", "40", "--first", str(first)]
        done = subprocess.run(
            [sys.executable, BENCHMARK, grid60.path, *numbers], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout
