"""The hash of a batch: another one for other content, whatever holds it; the same in every process."""

import os
import subprocess
import sys
from collections import OrderedDict, UserDict, deque, namedtuple
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch

from hybrid_sweep.measure.digest import MOST_DRAWN, Digest

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch, of its sparse and nested tensors
Pair = namedtuple("Pair", "x y")
Colour = Enum("Colour", "RED GREEN")


@dataclass
class Rows:
    x: torch.Tensor

    def __repr__(self):
        return "rows"


class Hidden:
    """Its content shows in no repr, and equal ones are equal."""

    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x

    def __repr__(self):
        return "hidden"

    def __eq__(self, other):
        return True

    __hash__ = None


class Picture:
    """Like an image of a library in C: no state that pickle could keep, but an array."""

    def __init__(self, x):
        self.x = x

    def __reduce_ex__(self, protocol):
        raise TypeError("cannot pickle")

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.x)


class Marked(torch.Tensor):
    pass


class Batch(UserDict):
    pass


def marked(x):
    tensor = torch.ones(2).as_subclass(Marked)
    tensor.label = x
    return tensor


def closing_over(x):
    return lambda value: value * x


HOLDERS = {
    "tensor": torch.tensor,
    "half": lambda x: torch.tensor(x, dtype=torch.bfloat16),
    "complex": lambda x: torch.tensor(complex(1.0, x)).conj(),
    "integers": lambda x: torch.tensor([1, int(x)]),
    "bits": lambda x: torch.tensor([x > 1.5]),
    "not contiguous": lambda x: torch.tensor([[1.0, x], [2.0, 3.0]]).T,
    "coo": lambda x: torch.tensor([[0.0, x]]).to_sparse(),
    "csr": lambda x: torch.tensor([[0.0, x]]).to_sparse_csr(),
    "nested": lambda x: torch.nested.nested_tensor([torch.ones(2), torch.full((3,), x)]),
    "jagged": lambda x: torch.nested.nested_tensor([torch.ones(2), torch.full((3,), x)], layout=torch.jagged),
    "marked": marked,
    "packed": lambda x: torch.nn.utils.rnn.pack_sequence([torch.tensor([[x], [2.0]]), torch.ones(1, 1)]),
    "array": lambda x: np.array([0.0, x])[::-1],
    "objects": lambda x: np.array([None, {"x": x}], dtype=object),
    "records": lambda x: np.array([(1, x)], dtype=[("i", "i4"), ("x", "f8")]),
    "masked array": lambda x: np.ma.array([1.0, 2.0], mask=[x > 1.5, False]),
    "scalar": np.float64,
    "dict": lambda x: {"a": 1, "x": x},
    "dict by number": lambda x: {1: "a", x: "x"},
    "ordered": lambda x: OrderedDict(x=x),
    "user's dict": lambda x: Batch(x=x),
    "proxy": lambda x: MappingProxyType({"x": x}),
    "set": lambda x: {"one", "two", str(x)},
    "deque": lambda x: deque([x]),
    "named tuple": lambda x: Pair(1.0, torch.tensor(x)),
    "dataclass": lambda x: Rows(torch.tensor(x)),
    "slots": Hidden,
    "nested in slots": lambda x: [Hidden({"deep": Rows(torch.tensor([x]))})],
    "picture": lambda x: Picture([1.0, x]),
    "text": str,
    "bytes": lambda x: bytearray([int(x)]),
    "range": lambda x: range(int(x)),
    "slice": lambda x: slice(int(x)),
    "enum": lambda x: Colour.RED if x > 1.5 else Colour.GREEN,
    "generator of rows": lambda x: (x * i for i in range(3)),
    "iterator": lambda x: map(abs, [x]),
    "closure": closing_over,
    "module": lambda x: torch.nn.Dropout(x / 10),
    "random numbers": lambda x: torch.Generator().manual_seed(int(x)),
}
"""Kinds of batches that hold a number."""


def digest(value):
    return Digest(draws=True).of(value)


@pytest.mark.parametrize("kind", HOLDERS)
def test_content_counts_and_nothing_else(kind):
    known = Digest(draws=True)
    one, same, other = (known.of(HOLDERS[kind](x)) for x in (1.0, 1.0, 2.0))
    assert one == same != other
    assert not known.unknown


def test_type_and_shape_count():
    values = [1, 1.0, True, "1", None, [1], (1,), {1}, {1: 1}, torch.ones(1), torch.ones(1, 1), np.ones(1)]
    values += [torch.ones(1, dtype=torch.float64), torch.ones(1).to_sparse(), [[1], []], [[], [1]], b"1"]
    assert len({digest(value) for value in values}) == len(values)


def test_an_uncoalesced_tensor_holds_what_its_sum_holds():
    parts = torch.sparse_coo_tensor([[0, 0]], [1.0, 2.0], (2,))
    assert digest(parts) == digest(parts.coalesce())


def test_what_holds_itself_ends():
    loop = [1]
    loop.append(loop)
    assert digest(loop) == digest(loop) != digest([1, 2])


class TestUnknown:
    class Locked:
        def __reduce_ex__(self, protocol):
            raise TypeError("a lock")

    def test_what_shows_no_content_is_named(self):
        known = Digest()
        known.of({"x": [torch.ones(1), self.Locked()], "meta": torch.ones(1, device="meta")})
        assert known.unknown == {"TestUnknown.Locked", "Tensor"}

    def test_an_iterator_is_used_up_only_where_it_may_be(self):
        left = (i for i in range(3))
        known = Digest()
        known.of(left)
        assert known.unknown == {"generator"}
        assert list(left) == [0, 1, 2]

    def test_one_without_end_is_not_waited_for(self):
        def endless():
            while True:
                yield 1

        known = Digest(draws=True)
        known.of(endless())
        assert known.unknown == {"generator"}
        assert MOST_DRAWN < 1e6


def test_another_process_gives_the_same():
    """Its addresses, and the order of its sets, are others."""
    code = "from test_digest import HOLDERS, digest; print(*(digest(make(1.0)) for make in HOLDERS.values()))"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.split() == [digest(make(1.0)) for make in HOLDERS.values()]
