"""A worker that prints much fills no disk: its logs are rotated, and limited."""

import os
from pathlib import Path

import pytest
import ray
from support.local_ray import quiet

from hybrid_sweep.cluster.connection import connected
from hybrid_sweep.spec.sweep import SweepSpec

pytestmark = pytest.mark.ray
MEBI = 2**20


def test_what_a_worker_prints_takes_little_room():
    spec = SweepSpec(name="x", workload="trainables.mnist_mlp:MnistMlp", concurrency=1)
    with quiet(), connected(spec, None):

        def prints():
            for _ in range(200):
                os.write(1, b"x" * MEBI)
                os.write(2, b"y" * MEBI)

        context = ray.get_runtime_context()
        logs = Path(context.get_temp_dir(), context.get_session_name(), "logs")
        ray.get(ray.remote(prints).remote())
        sizes = [file.stat().st_size for file in logs.glob("worker-*")]
        assert sizes
        assert sum(sizes) < 100 * MEBI
