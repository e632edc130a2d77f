"""LayerGroups: the trainable parameters in one vector, cut into groups of layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hybrid_sweep.errors import UserError

MAX_GROUPS = 8
"""Layer groups that the weight-delta head scales (seed, Weight Delta Prediction)."""
CPU_ALIGNMENT_BYTES, GPU_ALIGNMENT_BYTES = 64, 512
"""Where a parameter may begin: as torch's own allocator has it, so that every kernel goes the same way."""


class _Place(NamedTuple):
    """Where a parameter lies in the vector: `torch.as_strided`'s arguments."""

    size: torch.Size
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class LayerGroups:
    """Trainable parameters in model order, cut into eight contiguous groups.

    Of more than eight layers neighbours share a group; of fewer the largest are cut into parts of equal size,
    so that every gate of the weight-delta head has something to scale. Only a model of less than eight times
    the memory at whose multiples a parameter may begin has fewer groups.

    The parameters become views into one vector, so that what is done to all of them is one call; zeros fill
    the gaps between them. Whoever puts other tensors in their place (`model.to`, `p.data = …`) takes them
    out of the vector again.

    Attributes:
        vector: the weights [n].
        names: name of the first layer of each group, "layer[i/n]" for one of n parts of a layer.
        sizes: length of each group within the vector.
    """

    vector: Tensor
    names: tuple[str, ...]
    sizes: list[int]
    _places: list[_Place]
    _owners: list[nn.Parameter] = field(repr=False)

    @classmethod
    def of(cls, model: nn.Module) -> LayerGroups:
        """Move the model's trainable parameters into one vector, grouped by the module that owns them.

        Raises:
            UserError: they differ in type or device, are complex, or two of them are the same memory.
        """
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        kinds = sorted({f"{p.dtype} on {p.device}" for p in named.values()})
        if len(kinds) > 1 or any(p.is_complex() for p in named.values()):
            raise UserError(
                f"the trainable parameters are {', '.join(kinds)}: "
                "bring them to one type, which is not complex, on one device"
            )
        first: dict[int, str] = {}
        for name, p in named.items():
            if (begin := p.data_ptr()) and (other := first.setdefault(begin, name)) != name:
                raise UserError(
                    f"the parameters {other} and {name} are two of the same memory: make them one parameter, "
                    f"by `{name} = {other}`"
                )
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in named))
        count = min(len(layers), MAX_GROUPS)
        group_of = {layer: i * count // len(layers) for i, layer in enumerate(layers)}
        names = {group_of[layer]: layer or "model" for layer in reversed(layers)}
        sizes, places = [0] * count, []
        for name, p in named.items():
            places.append(_Place(p.size(), _dense_stride(p), sum(sizes)))
            alignment = CPU_ALIGNMENT_BYTES if p.device.type == "cpu" else GPU_ALIGNMENT_BYTES
            unit = alignment // p.element_size()
            sizes[group_of[name.rpartition(".")[0]]] += -(-p.numel() // unit) * unit
        owners = list(named.values())
        parts, cut = cut_by_size([names[i] for i in range(count)], sizes, MAX_GROUPS, unit)
        groups = cls(
            owners[0].new_zeros(sum(sizes)).detach(),
            parts,
            cut,
            places,
            owners,
        )
        for p, view in zip(owners, groups.views(groups.vector), strict=True):
            view.copy_(p.detach())
            p.data = view
        return groups

    def check(self) -> None:
        """Make sure that the parameters still lie in the vector.

        Raises:
            UserError: they do not.
        """
        step, begin = self.vector.element_size(), self.vector.data_ptr()
        if any(
            p.data_ptr() != begin + step * at.offset
            for p, at in zip(self._owners, self._places, strict=True)
            if p.numel()
        ):
            raise UserError(
                "the model's parameters were replaced by other tensors while it trained: convert or move the "
                "model before the trainer is built, and build one trainer a model"
            )

    def views(self, vector: Tensor) -> list[Tensor]:
        """Return what of a vector [n] belongs to each parameter, in its shape and order in memory.

        Of rows [k, n] it is what belongs to each parameter in all of them, with k in front of its shape.
        """
        begin, *row = vector.storage_offset(), *vector.stride()[:-1]
        count = vector.shape[:-1]
        return [
            vector.as_strided((*count, *place.size), (*row, *place.stride), begin + place.offset)
            for place in self._places
        ]

    def move(self, vector: Tensor) -> None:
        """Let the weights live in another vector [n], which takes their values; holders of ours follow."""
        vector.copy_(self.vector)
        self.vector.data = vector
        for p, view in zip(self._owners, self.views(self.vector), strict=True):
            p.data = view

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return one tensor a parameter as a fresh vector [n]."""
        vector = torch.zeros_like(self.vector)
        for view, tensor in zip(self.views(vector), tensors, strict=True):
            view.copy_(tensor)
        return vector

    def squares(self, vector: Tensor) -> list[float]:
        """Return the squared norm of each group."""
        squares: list[float] = torch.stack(
            [torch.dot(v, v) for v in torch.split(vector, self.sizes)]
        ).tolist()
        return squares

    def scale_(self, vector: Tensor, factors: Sequence[float]) -> None:
        """Multiply each group by its factor, in place."""
        for part, factor in zip(torch.split(vector, self.sizes), factors, strict=True):
            part.mul_(factor)

    def hold_frozen_(self, vector: Tensor) -> None:
        """Zero what of a vector [n] belongs to parameters that have been frozen since, in place."""
        frozen = [i for i, p in enumerate(self._owners) if not p.requires_grad]
        if frozen:
            views = self.views(vector)
            torch._foreach_zero_([views[i] for i in frozen])


def cut_by_size(
    names: Sequence[str], sizes: Sequence[int], count: int, unit: int
) -> tuple[tuple[str, ...], list[int]]:
    """Cut contiguous pieces into `count` parts as equal as can be, no part reaching across two pieces.

    Args:
        names: of the pieces.
        sizes: of the pieces, multiples of `unit`.
        count: parts wanted; fewer come where there is not a `unit` for each, more where pieces are more.
        unit: a part is a multiple of it.

    Returns:
        Names ("name[i/n]" for a part of a piece) and sizes of the parts.
    """
    parts = [1] * len(sizes)
    while sum(parts) < count:
        whole = max(range(len(sizes)), key=lambda i: sizes[i] / parts[i])
        if sizes[whole] < (parts[whole] + 1) * unit:
            break
        parts[whole] += 1
    labels: list[str] = []
    lengths: list[int] = []
    for name, size, of in zip(names, sizes, parts, strict=True):
        ends = [size // unit * i // of * unit for i in range(of + 1)]
        labels += [f"{name}[{i + 1}/{of}]" if of > 1 else name for i in range(of)]
        lengths += [end - begin for begin, end in pairwise(ends)]
    return tuple(labels), lengths


class Sample:
    """A fixed sample of the vector's coordinates: what directions are compared on.

    Inner products over all weights would throw them out of a processor's cache once a cycle. Of each group
    at most `SIZE` coordinates are taken, one at random in each of as many equal stretches, so inner products
    are known to about 1 %, whatever the size of the model. They depend on the sizes alone.
    """

    SIZE = 8192
    SEED = 0

    def __init__(self, groups: LayerGroups) -> None:
        self._sizes = [min(size, self.SIZE) for size in groups.sizes]
        generator = torch.Generator().manual_seed(self.SEED)
        begins = [0, *accumulate(groups.sizes)]
        rows = [
            begin + _spread(size, count, generator)
            for begin, size, count in zip(begins, groups.sizes, self._sizes, strict=False)
        ]
        scales = [
            (size / max(count, 1)) ** 0.5 for size, count in zip(groups.sizes, self._sizes, strict=True)
        ]
        counts = torch.tensor(self._sizes)
        self._rows = torch.cat(rows).to(groups.vector.device)
        self._scale = torch.tensor(scales).repeat_interleave(counts).to(groups.vector)

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the sampled coordinates [m] of a vector [n], scaled to stand for all of them."""
        return vector.index_select(0, self._rows).mul_(self._scale)

    def grams(self, vectors: Sequence[Tensor]) -> list[list[list[float]]]:
        """Return the matrix of inner products of sampled `vectors` [m] within each group."""
        parts = torch.split(torch.stack(list(vectors)), self._sizes, 1)
        grams: list[list[list[float]]] = torch.stack([part @ part.T for part in parts]).tolist()
        return grams


def _spread(size: int, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` ascending indices below `size`, all of them where that is as many."""
    if count == size:
        return torch.arange(size)
    within = torch.rand(count, generator=generator, dtype=torch.double)
    stretches = torch.arange(count, dtype=torch.double) + within
    return (stretches * (size / count)).long().clamp_(max=size - 1)


def _dense_stride(parameter: Tensor) -> tuple[int, ...]:
    """Return the strides of a parameter that fills its memory in some order; else those of a plain one."""
    order = sorted(range(parameter.dim()), key=lambda i: (parameter.stride(i), parameter.size(i)))
    filled = 1
    for i in order:
        if parameter.size(i) > 1 and parameter.stride(i) != filled:
            return tuple(prod(parameter.shape[j + 1 :]) for j in range(parameter.dim()))
        filled *= parameter.size(i)
    return parameter.stride()
