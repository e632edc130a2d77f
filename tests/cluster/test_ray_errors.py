"""Memory that ran out is told as that, with what to lower."""

import subprocess
import sys

import pytest
from ray.exceptions import OutOfMemoryError

from hybrid_sweep.cluster.ray_errors import LESS, summarize_ray_error, with_remedy

PROGRAM = """
import resource, sys, torch
from hybrid_sweep.cluster.ray_errors import with_remedy
from hybrid_sweep.errors import named
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 2**28,) * 2)
try:
    exec(sys.argv[1])
except BaseException as error:
    print(with_remedy(named(error)))
"""


@pytest.mark.parametrize("code", ["bytearray(2**32)", "torch.zeros(2**30)", "[0] * 2**31"])
def test_a_real_limit_is_told_with_what_to_lower(code):
    said = subprocess.run([sys.executable, "-c", PROGRAM, code], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("out of memory: ")
    assert said.stdout.strip().endswith(LESS)
    assert len(said.stdout.splitlines()) == 1


def test_what_is_no_lack_of_memory_is_left_as_it_is():
    assert with_remedy("ValueError: no") == "ValueError: no"


def test_a_node_that_runs_low_says_what_to_lower():
    said = summarize_ray_error(OutOfMemoryError("Task was killed due to the node running low on memory."))
    assert said.startswith("out of memory")
    assert said.endswith(LESS)
