"""LayerGroups: the trainable parameters in one vector a type and device, cut into groups of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hybrid_sweep.errors import UserError
from hybrid_sweep.trainer.parted import Parted, common_type, parts_of

MAX_GROUPS = 8
"""Layer groups that the weight-delta head scales (original, Weight Delta Prediction)."""
CPU_ALIGNMENT_BYTES, GPU_ALIGNMENT_BYTES = 64, 512
"""Where a parameter may begin: as torch's own allocator has it, so that every kernel goes the same way."""


class _Place(NamedTuple):
    """Where a parameter lies: in the vector of which kind, and there `torch.as_strided`'s arguments.

    A complex number is two real ones, next to each other.
    """

    kind: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    complex: bool


@dataclass(frozen=True, slots=True)
class LayerGroups:
    """Trainable parameters in model order, cut into eight contiguous groups.

    Of more than eight layers neighbours share a group; of fewer the largest are cut into parts of equal size,
    so that every gate of the weight-delta head has something to scale. Only a model of less than eight times
    the memory at whose multiples a parameter may begin has fewer groups.

    The parameters become views into one vector for each kind (type and device) of theirs, so that what is
    done to all of them is one call a kind; zeros fill the gaps between them. A group is a stretch of each
    vector. Code that puts other tensors in their place (`model.to`, `p.data = …`) takes them out of the
    vector again, which `holds` tells.

    Attributes:
        vector: the weights [n]; a `Parted` where there are more kinds than one.
        names: name of the first layer of each group, "layer[i/n]" for one of n parts of a layer.
        lengths: for each kind, the length of each group within its vector.
    """

    vector: Tensor
    names: tuple[str, ...]
    lengths: list[list[int]]
    _places: list[_Place]
    _owners: list[nn.Parameter] = field(repr=False)
    _marks: list[tuple[nn.Parameter, int, int]] = field(repr=False)

    @classmethod
    def from_model(cls, model: nn.Module) -> LayerGroups:
        """Move the model's trainable parameters into one vector a kind, grouped by the module that owns them.

        Raises:
            UserError: two of them are the same memory.
        """
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        _validate_own_memory(named)
        names, group_of = _grouped(named)
        kinds: dict[tuple[torch.dtype, torch.device], int] = {}
        lengths: list[list[int]] = []
        units: list[int] = []
        places = []
        for name, p in named.items():
            kind = kinds.setdefault((reals(p).dtype, p.device), len(kinds))
            if kind == len(lengths):
                alignment = CPU_ALIGNMENT_BYTES if p.device.type == "cpu" else GPU_ALIGNMENT_BYTES
                units.append(alignment // reals(p).element_size())
                lengths.append([0] * len(names))
            places.append(_place(p, kind, sum(lengths[kind])))
            lengths[kind][group_of[name]] += -(-reals(p).numel() // units[kind]) * units[kind]
        vectors = [
            torch.zeros(sum(of_groups), dtype=dtype, device=device)
            for (dtype, device), of_groups in zip(kinds, lengths, strict=True)
        ]
        owners = list(named.values())
        parts, cut = cut_by_size(names, lengths, MAX_GROUPS, units)
        marks = [
            (p, place.kind, place.offset * vectors[place.kind].element_size())
            for p, place in zip(owners, places, strict=True)
            if p.numel()
        ]  # whose memory begins where, in bytes
        groups = cls(Parted.from_tensors(vectors), parts, cut, places, owners, marks)
        for p, view in zip(owners, groups.views(groups.vector), strict=True):
            view.copy_(p.detach())
            p.data = view
        return groups

    @property
    def sizes(self) -> list[int]:
        """Length of each group, over all kinds."""
        return [sum(of_kinds) for of_kinds in zip(*self.lengths, strict=True)]

    def holds(self, model: nn.Module) -> bool:
        """Return whether all that is trainable in the model, and nothing else, lies in the vector."""
        own, all_of_it = set(map(id, self._owners)), list(model.parameters())
        trainable = {id(p) for p in all_of_it if p.requires_grad}
        return trainable <= own <= set(map(id, all_of_it)) and self.in_place()

    def in_place(self) -> bool:
        """Return whether no parameter has been given other memory, as `model.double()` does."""
        begins = [part.data_ptr() for part in parts_of(self.vector)]
        return all(p.data_ptr() == begins[kind] + distance for p, kind, distance in self._marks)

    def fits(self, vector: Tensor) -> bool:
        """Return whether a vector [n] is one of as many weights of the same kinds."""
        ours, theirs = ([(p.shape, p.dtype, p.device) for p in parts_of(v)] for v in (self.vector, vector))
        return ours == theirs

    def views(self, vector: Tensor, *, real: bool = False) -> list[Tensor]:
        """Return what of a vector [n] belongs to each parameter, in its shape and order in memory.

        Of rows [k, n] it is what belongs to each parameter in all of them, with k in front of its shape. With
        `real` a complex parameter comes as real numbers, two in its last dimension.
        """
        kinds = [(part, part.storage_offset(), part.stride()[:-1]) for part in parts_of(vector)]
        views = []
        for kind, size, stride, offset, is_complex in self._places:
            part, begin, row = kinds[kind]
            view = part.as_strided((*part.shape[:-1], *size), (*row, *stride), begin + offset)
            views.append(torch.view_as_complex(view) if is_complex and not real else view)
        return views

    def move(self, vector: Tensor) -> None:
        """Let the weights, of one kind, live in another vector [n], which takes their values.

        Holders of ours follow.
        """
        vector.copy_(self.vector)
        self.vector.data = vector
        for p, view in zip(self._owners, self.views(self.vector), strict=True):
            p.data = view

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return one tensor a parameter as a fresh vector [n]."""
        vector = torch.zeros_like(self.vector)
        for view, tensor in zip(self.views(vector, real=True), tensors, strict=True):
            view.copy_(reals(tensor))
        return vector

    def here(self, saved: Tensor | Sequence[Tensor]) -> Tensor:
        """Return a saved vector, or what was sampled of one, on the devices of the weights."""
        parts = parts_of(saved) if isinstance(saved, Tensor) else saved
        devices = [own.device for own in parts_of(self.vector)]
        return Parted.from_tensors([part.to(device) for part, device in zip(parts, devices, strict=False)])

    def squares(self, vector: Tensor) -> list[float]:
        """Return the squared norm of each group, reckoned in single precision or better."""
        of_kinds: list[list[float]] = [
            torch.stack([torch.dot(v, v) for v in torch.split(_wide(part), lengths)]).tolist()
            for part, lengths in zip(parts_of(vector), self.lengths, strict=True)
        ]
        return of_kinds[0] if len(of_kinds) == 1 else list(map(sum, zip(*of_kinds, strict=True)))

    def scale_(self, vector: Tensor, factors: Sequence[float]) -> None:
        """Multiply each group by its factor, in place."""
        for of_kind, lengths in zip(parts_of(vector), self.lengths, strict=True):
            for part, factor in zip(torch.split(of_kind, lengths), factors, strict=True):
                part.mul_(factor)

    def hold_frozen_(self, vector: Tensor) -> None:
        """Zero what of a vector [n] belongs to parameters that have been frozen since, in place."""
        frozen = [i for i, p in enumerate(self._owners) if not p.requires_grad]
        if frozen:
            views = self.views(vector)
            torch._foreach_zero_([views[i] for i in frozen])


def cut_by_size(
    names: Sequence[str], lengths: Sequence[Sequence[int]], count: int, units: Sequence[int]
) -> tuple[tuple[str, ...], list[list[int]]]:
    """Cut contiguous pieces into `count` parts as equal as can be, no part reaching across two pieces.

    Args:
        names: of the pieces.
        lengths: for each kind, of the pieces; multiples of its unit.
        count: parts wanted; fewer come where there is not a unit for each, more where pieces are more.
        units: of each kind; a part is a multiple of it.

    Returns:
        Names ("name[i/n]" for a part of a piece) and, for each kind, lengths of the parts.
    """
    sizes = [sum(of_kinds) for of_kinds in zip(*lengths, strict=True)]
    parts = [1] * len(sizes)
    while sum(parts) < count:
        whole = max(range(len(sizes)), key=lambda i: sizes[i] / parts[i])
        if sizes[whole] < (parts[whole] + 1) * max(units):
            break
        parts[whole] += 1
    labels = [
        f"{name}[{i + 1}/{of}]" if of > 1 else name
        for name, of in zip(names, parts, strict=True)
        for i in range(of)
    ]
    return tuple(labels), [
        [part for size, of in zip(sizes, parts, strict=True) for part in _cut(size, of, unit)]
        for sizes, unit in zip(lengths, units, strict=True)
    ]


def _cut(size: int, parts: int, unit: int) -> list[int]:
    """Return the lengths of `parts` parts, multiples of `unit`."""
    return [
        end - begin for begin, end in pairwise(size // unit * i // parts * unit for i in range(parts + 1))
    ]


def _grouped(named: Mapping[str, nn.Parameter]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the names of the groups, and the group of each parameter: ascending in model order.

    A layer is a module with parameters of its own; layers are dealt to at most eight groups, as evenly by
    their number as it goes. What is returned here decides all else: a group's stretch of a vector is the
    parameters of that group and kind, each rounded up to the alignment.
    """
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in named))
    count = min(len(layers), MAX_GROUPS)
    of_layer = {layer: i * count // len(layers) for i, layer in enumerate(layers)}
    first = {of_layer[layer]: layer or "model" for layer in reversed(layers)}
    return tuple(first[i] for i in range(count)), {name: of_layer[name.rpartition(".")[0]] for name in named}


def _validate_own_memory(named: Mapping[str, nn.Parameter]) -> None:
    first: dict[int, str] = {}
    for name, p in named.items():
        if (begin := p.data_ptr()) and (other := first.setdefault(begin, name)) != name:
            raise UserError(
                f"the parameters {other} and {name} are two of the same memory: make them one parameter, "
                f"by `{name} = {other}`"
            )


def _place(parameter: Tensor, kind: int, offset: int) -> _Place:
    size, stride = tuple(parameter.shape), _dense_stride(parameter)
    if parameter.is_complex():
        return _Place(kind, (*size, 2), (*(2 * s for s in stride), 1), offset, True)
    return _Place(kind, size, stride, offset, False)


def reals(tensor: Tensor) -> Tensor:
    """Return a tensor as real numbers: of complex ones a view with two in its last dimension."""
    return torch.view_as_real(tensor.detach().resolve_conj()) if tensor.is_complex() else tensor.detach()


def _wide(part: Tensor) -> Tensor:
    """Return a tensor in a type in which sums of squares are safe: itself, unless it is of half precision."""
    return part.to(common_type([part]))


class Sample:
    """A fixed sample of the vector's coordinates: what directions are compared on.

    Inner products over all weights would throw them out of a processor's cache once a cycle. Of each group
    at most `SIZE` coordinates are taken, one at random in each of as many equal stretches, so inner products
    are known to about 1.5 %, whatever the size of the model. They depend on the sizes alone.
    """

    SIZE = 4096
    SEED = 0

    def __init__(self, groups: LayerGroups) -> None:
        generator = torch.Generator().manual_seed(self.SEED)
        parts = parts_of(groups.vector)
        self._rows: list[Tensor] = []
        self._scales: list[Tensor] = []
        self._counts: list[int] = []  # of each group of each kind
        self._groups = len(groups.names)
        dtype, device = common_type(parts), parts[0].device
        for part, sizes in zip(parts, groups.lengths, strict=True):
            counts, begins = [min(size, self.SIZE) for size in sizes], [0, *accumulate(sizes)]
            rows = [
                begin + _spread(size, count, generator)
                for begin, size, count in zip(begins, sizes, counts, strict=False)
            ]
            scales = [(size / max(count, 1)) ** 0.5 for size, count in zip(sizes, counts, strict=True)]
            scale = torch.tensor(scales).repeat_interleave(torch.tensor(counts))
            self._rows.append(torch.cat(rows).to(part.device))
            self._scales.append(scale.to(device, dtype))
            self._counts += counts

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the sampled coordinates [m] of a vector [n], scaled to stand for all of them.

        Those of several kinds follow each other, where the first kind is and in a type that suits all.
        """
        found = [
            part.index_select(0, rows).to(scale.device, scale.dtype).mul_(scale)
            for part, rows, scale in zip(parts_of(vector), self._rows, self._scales, strict=True)
        ]
        return found[0] if len(found) == 1 else torch.cat(found)

    def grams(self, vectors: Sequence[Tensor]) -> list[list[list[float]]]:
        """Return the matrix of inner products of sampled `vectors` [m] within each group."""
        parts = torch.split(torch.stack(list(vectors)), self._counts, 1)
        products = torch.stack([part @ part.T for part in parts])
        if len(parts) > self._groups:
            products = products.view(-1, self._groups, *products.shape[1:]).sum(0)
        grams: list[list[list[float]]] = products.tolist()
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
