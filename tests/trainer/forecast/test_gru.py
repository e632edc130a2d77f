"""The GRU in NumPy: torch's own cell, sequence and gradients are the yardstick."""

import numpy as np
import pytest
import torch
from torch import nn

from hybrid_sweep.trainer.forecast.gru import Adam, Gru

FEATURES, HIDDEN, STEPS = 5, 7, 9


def twins(seed=0):
    """A cell of ours and torch's GRU with the same weights, in double precision."""
    cell = Gru(FEATURES, HIDDEN, np.random.default_rng(seed))
    cell.vector = cell.vector.astype(np.float64)
    shapes = [part.shape for part in (cell.w, cell.u, cell.b, cell.c, cell.v, cell.d)]
    ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
    parts = np.split(cell.vector, ends)
    cell.w, cell.u, cell.b, cell.c, cell.v, cell.d = map(np.reshape, parts, shapes)
    torchs = nn.GRU(FEATURES, HIDDEN, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        torchs.weight_ih_l0.copy_(torch.tensor(cell.w))
        torchs.weight_hh_l0.copy_(torch.tensor(cell.u))
        torchs.bias_ih_l0.copy_(torch.tensor(cell.b))
        torchs.bias_hh_l0.zero_()
        torchs.bias_hh_l0[-HIDDEN:] = torch.tensor(cell.c)
    return cell, torchs


def inputs(seed=1, scale=1.0):
    generator = np.random.default_rng(seed)
    return scale * generator.standard_normal((STEPS, FEATURES)), 0.5 * generator.standard_normal(HIDDEN)


@pytest.mark.parametrize("scale", [0.1, 1.0, 300.0])
def test_a_sequence_is_torchs(scale):
    cell, torchs = twins()
    x, start = inputs(scale=scale)
    expected = torchs(torch.tensor(x)[None], torch.tensor(start)[None, None])[0][0]
    np.testing.assert_allclose(cell.run(x, start).states, expected.detach(), atol=1e-12)


def test_a_sequence_in_pieces_is_the_sequence():
    cell, _ = twins()
    x, start = inputs()
    whole = cell.run(x, start).states
    first = cell.run(x[:4], start).states
    np.testing.assert_array_equal(cell.run(x[4:], first[-1]).states, whole[4:])


@pytest.mark.parametrize("measured", [STEPS, STEPS - 1, 1])
def test_the_gradient_is_autograds_with_the_states_before_as_constants(measured):
    cell, torchs = twins()
    x, start = inputs()
    trace = cell.run(x, start)
    slopes = np.random.default_rng(2).standard_normal(measured)
    step = nn.GRUCell(FEATURES, HIDDEN, dtype=torch.float64)
    step.load_state_dict({name.removesuffix("_l0"): value for name, value in torchs.state_dict().items()})
    v = torch.tensor(cell.v, requires_grad=True)
    d = torch.tensor(cell.d, requires_grad=True)
    states = step(torch.tensor(x), torch.tensor(trace.before))
    levels = states @ v + d
    np.testing.assert_allclose(cell.levels(trace.states), levels.detach(), atol=1e-12)
    levels[:measured].backward(torch.tensor(slopes))
    of_torch = [step.weight_ih, step.weight_hh, step.bias_ih, step.bias_hh, v, d]
    expected = [parameter.grad.numpy() for parameter in of_torch]
    expected[3] = expected[3][-HIDDEN:]
    flat = np.concatenate([part.ravel() for part in expected])
    np.testing.assert_allclose(cell.gradient(trace, slopes), flat, atol=1e-12)


@pytest.mark.parametrize("bptt_steps", [1, 2, 3, 5, STEPS, 50])
@pytest.mark.parametrize("measured", [STEPS, STEPS - 1, 1])
def test_the_gradient_through_k_steps_is_autograds(bptt_steps, measured):
    cell, torchs = twins()
    x, start = inputs()
    trace = cell.run(x, start)
    slopes = np.random.default_rng(2).standard_normal(measured)
    v = torch.tensor(cell.v, requires_grad=True)
    d = torch.tensor(cell.d, requires_grad=True)
    for t in range(measured):
        first = max(t + 1 - bptt_steps, 0)
        window = torch.tensor(x[first : t + 1])[None]
        constant = torch.tensor(trace.before[first])[None, None]
        level = torchs(window, constant)[1].flatten() @ v + d
        level.backward(torch.tensor(slopes[t : t + 1]))
    of_torch = [*torchs.parameters(), v, d]
    expected = [parameter.grad.numpy().ravel() for parameter in of_torch]
    expected[3] = expected[3][-HIDDEN:]
    ours = cell.gradient(trace, slopes, bptt_steps)
    np.testing.assert_allclose(ours, np.concatenate(expected), atol=1e-12)


def test_the_gradient_through_k_steps_sees_nothing_older():
    cell, _ = twins()
    x, start = inputs()
    trace = cell.run(x, start)
    last_alone = np.eye(STEPS)[-1]
    moved = trace._replace(inputs=np.where(np.arange(STEPS)[:, None] < STEPS - 3, 9.0, trace.inputs))
    same, other = (cell.gradient(each, last_alone, 3) for each in (trace, moved))
    np.testing.assert_array_equal(same, other)
    assert not np.allclose(cell.gradient(trace, last_alone, 4), cell.gradient(moved, last_alone, 4))


def test_the_parameters_are_one_vector():
    cell = Gru(FEATURES, HIDDEN, np.random.default_rng(0))
    cell.vector[:] = 3
    assert all((part == 3).all() for part in (cell.w, cell.u, cell.b, cell.c, cell.v, cell.d))
    assert cell.vector.size == 3 * HIDDEN * (FEATURES + HIDDEN + 1) + 2 * HIDDEN + 1


def test_adam_is_torchs():
    generator = np.random.default_rng(0)
    vector = generator.standard_normal(20).astype(np.float32)
    parameter = torch.tensor(vector, requires_grad=True)
    ours, theirs = Adam(20, 1e-2), torch.optim.Adam([parameter], lr=1e-2)
    for _ in range(30):
        gradient = generator.standard_normal(20).astype(np.float32)
        ours.step(vector, gradient)
        parameter.grad = torch.tensor(gradient)
        theirs.step()
    np.testing.assert_allclose(vector, parameter.detach(), rtol=1e-4, atol=1e-6)


def test_adam_goes_on_from_its_state():
    one, other, vector = Adam(4, 1e-2), Adam(4, 1e-2), np.zeros(4, np.float32)
    for _ in range(3):
        one.step(vector, np.ones(4, np.float32))
    state, copy = one.state_dict(), vector.copy()
    one.step(vector, np.full(4, 2, np.float32))
    other.load_state_dict(state)
    other.step(copy, np.full(4, 2, np.float32))
    np.testing.assert_array_equal(vector, copy)
