"""Digest: the content of a batch, or of what else may hold tensors, as a hash that every process gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from hashlib import sha256
from itertools import islice
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.layout)
MOST_DRAWN = 10_000
"""Items taken from a batch that is an iterator; one that holds more counts as unknown."""
COMPRESSED = {
    torch.sparse_csr: ("crow_indices", "col_indices"),
    torch.sparse_bsr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"),
    torch.sparse_bsc: ("ccol_indices", "row_indices"),
}


class Digest:
    """Hashes values by what they hold: no address, no order of a set or a mapping, no seed of Python's hash.

    An object counts by its type and by what pickle would keep of it; a function by its code and what it
    encloses. What shows none of its content counts by its type alone.

    Args:
        draws: whether an iterator is used up to see what it holds.
        near: whether the numbers of a tensor that is on no CPU are left out of the hash, and kept in
            `numbers`: the last bits of a device may differ from one time to the next.
        outlined: types of which nothing but the type counts.

    Attributes:
        unknown: names of the types whose content cannot be had.
        numbers: the tensors that were left out, on the CPU.
    """

    def __init__(self, *, draws: bool = False, near: bool = False, outlined: tuple[type, ...] = ()) -> None:
        self.unknown: set[str] = set()
        self.numbers: list[Tensor] = []
        self._draws, self._near, self._outlined = draws, near, outlined
        self._inside: dict[int, Any] = {}

    def of(self, value: Any) -> str:
        """Return the hash of a value, 64 hexadecimal digits."""
        if isinstance(value, PLAIN) and type(value).__module__ in ("builtins", "torch"):
            return _hash(type(value).__name__, repr(value))
        if id(value) in self._inside:
            return _hash("a part of itself")
        self._inside[id(value)] = value
        try:
            return self._composed(value)
        finally:
            del self._inside[id(value)]

    def _composed(self, value: Any) -> str:
        name = type(value).__qualname__
        if isinstance(value, self._outlined):
            return _hash(name)
        if isinstance(value, Tensor):
            own = {} if type(value) in (Tensor, Parameter) or value.is_nested else vars(value)
            return _hash(name, self._tensor(value), *([self.of(own)] if own else []))
        if isinstance(value, np.ndarray | np.generic):
            return _hash(name, self._array(value))
        if isinstance(value, Enum):
            return _hash(name, value.name)
        if isinstance(value, torch.Generator):
            return _hash(name, self.of(value.get_state()))
        if type(value) is dict:
            return _hash(name, *sorted(_hash(self.of(k), self.of(v)) for k, v in value.items()))
        if type(value) in (list, tuple):
            return _hash(name, *map(self.of, value))
        if isinstance(value, set | frozenset):
            return _hash(name, *sorted(map(self.of, value)))
        if isinstance(value, bytearray | memoryview):
            return _hash(name, bytes(value).hex())
        if isinstance(value, FunctionType):
            return _hash(name, value.__qualname__, self._function(value))
        if isinstance(value, CodeType):
            return _hash(value.co_code.hex(), *map(self.of, value.co_consts), *value.co_names)
        if isinstance(value, type):
            return _hash(value.__qualname__)
        if isinstance(value, ModuleType):
            return _hash(value.__name__)
        return _hash(name, self._object(value))

    def _tensor(self, value: Tensor) -> str:
        """Hash type, shape and numbers, of a sparse tensor its places too, of a nested one each part."""
        value = value.detach()
        about = f"{value.dtype} {value.layout}"
        try:
            if value.is_nested:
                return _hash(about, *map(self.of, value.unbind()))
            about += f" {tuple(value.shape)}"
            if value.layout == torch.sparse_coo:
                whole = value.coalesce()
                return _hash(about, self.of(whole.indices()), self.of(whole.values()))
            if names := COMPRESSED.get(value.layout):
                return _hash(about, *(self.of(getattr(value, n)()) for n in (*names, "values")))
            if value.is_quantized:
                return _hash(about, self.of(value.int_repr()), self.of(value.dequantize()))
            if value.is_complex():
                return _hash(about, self.of(torch.view_as_real(value.resolve_conj())))
            dense = value.cpu().to_dense() if value.layout != torch.strided else value.cpu()
            if self._near and value.is_floating_point() and value.device.type != "cpu":
                self.numbers.append(dense)
                return _hash(about)
            flat = dense.resolve_neg().contiguous().reshape(-1)
            hashed = sha256(about.encode())
            hashed.update(flat.view(torch.uint8).numpy().data)
            return hashed.hexdigest()
        except (RuntimeError, ValueError, TypeError):  # of a subclass without numbers of its own
            return self._gives_none(value, about)

    def _array(self, value: Any) -> str:
        about = f"{value.dtype.descr} {value.shape}"
        if value.dtype.hasobject:
            return _hash(about, self.of(value.tolist()))
        mask = [self.of(np.asarray(value.mask))] if isinstance(value, np.ma.MaskedArray) else []
        data = np.ascontiguousarray(np.asarray(value))
        return _hash(about, sha256(data.tobytes()).hexdigest(), *mask)

    def _function(self, value: FunctionType) -> str:
        cells = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
        return _hash(
            *map(self.of, (value.__code__, value.__defaults__, value.__kwdefaults__, vars(value))),
            *map(self.of, cells),
        )

    def _object(self, value: Any) -> str:
        """Hash what pickle would keep: how it is made, its state, its items."""
        try:
            reduced = value.__reduce_ex__(4)
        except Exception:  # the user's code, or Python's refusal
            return self._seen(value)
        if isinstance(reduced, str):
            return _hash(reduced)
        made, arguments, *rest = reduced
        state, items, pairs = (*rest, None, None, None)[:3]
        return _hash(
            self.of(made),
            self.of(arguments),
            self.of(state),
            *(self.of(item) for item in items or ()),
            *sorted(_hash(self.of(k), self.of(v)) for k, v in pairs or ()),
        )

    def _seen(self, value: Any) -> str:
        """Hash what an object without a state of its own lets others see."""
        if isinstance(value, Mapping):
            return self.of(dict(value))
        if isinstance(value, Iterator):
            return self._drawn(value)
        try:
            array = np.asarray(value)
        except Exception:  # the user's code
            return self._gives_none(value)
        return self._gives_none(value) if array.dtype.hasobject else self._array(array)

    def _drawn(self, value: Iterable[Any]) -> str:
        if not self._draws:
            return self._gives_none(value)
        items = list(islice(value, MOST_DRAWN + 1))
        return self._gives_none(value) if len(items) > MOST_DRAWN else _hash(*map(self.of, items))

    def _gives_none(self, value: Any, *about: str) -> str:
        self.unknown.add(type(value).__qualname__)
        return _hash("unknown", *about)


def near(one: Digest, other: Digest, tolerance: float = 1e-3) -> bool:
    """Return whether the numbers that two digests left out are the same but for rounding."""
    return len(one.numbers) == len(other.numbers) and all(
        a.shape == b.shape
        and torch.allclose(
            a.double(), b.double(), tolerance, tolerance * float(b.double().abs().mean()), equal_nan=True
        )
        for a, b in zip(one.numbers, other.numbers, strict=True)
    )


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _hash(*parts: str) -> str:
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
