"""The global generators: put back to where they stood."""

import random

import numpy as np
import pytest
import torch

from hybrid_sweep.trainer.random_state import random_state, seed_random_state, set_random_state


def draw():
    """One number of each generator, with the second half of a pair of Gaussians kept within it."""
    return torch.randn(3).tolist(), random.gauss(0, 1), float(np.random.standard_normal())


def test_every_generator_repeats_itself():
    draw()
    state = random_state()
    first = [draw() for _ in range(3)]
    set_random_state(state)
    assert [draw() for _ in range(3)] == first
    assert draw() not in first


def test_a_seed_fixes_all_of_them():
    numbers = []
    for seed in (1, 1, 2, 2**40):
        seed_random_state(seed)
        numbers.append(draw())
    assert numbers[0] == numbers[1]
    assert all(a != b for other in numbers[2:] for a, b in zip(numbers[0], other, strict=True))


@pytest.mark.parametrize("used", [False, True])
def test_a_gpu_that_no_one_has_used_is_left_alone(monkeypatch, used):
    """Asking for its random numbers would take memory on it, and fails in a forked process."""
    asked = [torch.zeros(16, dtype=torch.uint8)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: asked if used else pytest.fail("asked"))
    assert random_state()["cuda"] == (asked if used else [])
