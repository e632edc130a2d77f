"""A tensor in parts of several types: each call works on each, norms and products are those of the whole."""

import pytest
import torch

from hybrid_sweep.trainer.parted import Parted, common_type, parts_of
from hybrid_sweep.trainer.snapshot import plain


def parted():
    return Parted.from_tensors([torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0], dtype=torch.float64)])


def test_one_kind_is_a_plain_tensor():
    vector = torch.ones(3)
    assert Parted.from_tensors([vector]) is vector
    assert parts_of(vector) == (vector,)


def test_a_call_works_on_each_part_and_in_place_on_the_parts_themselves():
    vector = parted()
    other = vector.clone()
    first = parts_of(vector)[0]
    vector.lerp_(torch.zeros_like(vector), 0.5).add_(other, alpha=2).sub_(other).mul_(2)
    assert first.tolist() == [3.0, 6.0]
    assert parts_of(vector)[1].tolist() == [6.0, 12.0]
    assert parts_of(vector)[1].dtype == torch.float64
    assert [part.tolist() for part in parts_of((vector - other) / 2)] == [[1.0, 2.0], [2.0, 4.0]]
    other.copy_(vector).zero_()
    assert not any(part.any() for part in parts_of(other))


def test_norms_and_inner_products_are_those_of_the_whole():
    vector = parted()
    assert float(torch.linalg.vector_norm(vector)) == pytest.approx(5)
    assert torch.dot(vector, vector) == 25


def test_what_has_no_meaning_is_an_error():
    with pytest.raises(TypeError, match="no meaning"):
        len(parted())


def test_it_is_saved_as_its_tensors():
    assert [part.tolist() for part in plain({"average": parted()})["average"]] == [[1.0, 2.0], [2.0, 4.0]]
    assert "Parted(tensor([1., 2.])" in repr(parted())


def test_numbers_are_compared_in_single_precision_or_better():
    assert common_type([torch.ones(1, dtype=torch.float16)]) == torch.float32
    assert common_type(parts_of(parted())) == torch.float64
