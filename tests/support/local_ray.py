"""Ray in the process of the tests, for as long as a block runs."""

import logging
from contextlib import contextmanager

import pytest
import ray

from hybrid_sweep.cluster.connection import QUIET


@contextmanager
def quiet():
    """Set the variables by which Ray keeps to itself."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET, "RAY_AUTH_MODE": "disabled"}.items():
            patch.setenv(name, value)
        yield


@contextmanager
def ray_at(address, **options):
    """Connect to the Ray at `address`."""
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def local_ray(cpus, gpus=None):
    """Start a Ray with so many CPUs, and with GPUs that are not there where they are given."""
    with quiet(), ray_at("local", num_cpus=cpus, num_gpus=gpus, include_dashboard=False):
        yield
