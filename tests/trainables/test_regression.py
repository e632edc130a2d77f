"""The full-batch regression: the same points for everybody, no noise, and it learns."""

import pytest
import torch

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.reference import reference_run, start
from trainables.regression import Regression


@pytest.fixture
def workload() -> Regression:
    return Regression(points=64, width=8, steps=40)


def test_it_has_two_hidden_layers_of_64() -> None:
    assert sum(p.numel() for p in Regression().build_model(0).parameters()) == 4417


def test_every_batch_is_every_point_and_the_splits_are_disjoint(workload: Regression) -> None:
    inputs, values = workload.batch(0, 1)
    assert inputs.shape == (64, 2) and values.shape == (64, 1)
    assert torch.equal(inputs, workload.batch(3, 17)[0])
    assert torch.equal(inputs, Regression(points=64).batch(0, 1)[0])
    model = workload.build_model(0)
    assert len({workload.evaluate(model, split)["loss"] for split in ("val", "test")}) == 2


def test_a_seed_gives_the_weights_whatever_the_global_state(workload: Regression) -> None:
    first = workload.build_model(1)
    torch.rand(3)
    again, other = workload.build_model(1), workload.build_model(2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first[0].weight, other[0].weight)


def test_the_learning_rate_ends_at_zero(workload: Regression) -> None:
    plain = start(workload, 0)
    for step in range(1, 41):
        plain(workload.batch(0, step))
    assert plain.learning_rate == pytest.approx(0, abs=1e-12)


def test_training_lowers_the_held_out_loss() -> None:
    reference = reference_run(Regression(points=256, width=16, steps=200), 0, 200, 100)
    assert reference.val_loss[-1] < 0.3 * reference.val_loss[0]


@pytest.mark.parametrize(
    ("field", "value"), [("points", 0), ("width", 0), ("lr", 0.0), ("steps", 0), ("device", "tpu")]
)
def test_nonsense_is_refused_by_field_and_value(field: str, value: object) -> None:
    with pytest.raises(UserError, match=f"{field}={value!r}"):
        Regression(**{field: value})


def test_an_unknown_split_names_the_known_ones(workload: Regression) -> None:
    with pytest.raises(UserError, match="val"):
        workload.evaluate(workload.build_model(0), "train")
