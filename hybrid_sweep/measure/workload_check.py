"""Whether a workload keeps what it promises, looked at in seconds before anything is trained on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import nan
from typing import Any, Literal

from torch import nn

from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.digest import Digest, near
from hybrid_sweep.measure.model import built_model
from hybrid_sweep.measure.reference import held_out
from hybrid_sweep.trainer.random_state import random_state, seed_random_state, set_random_state
from hybrid_sweep.workload import Workload

SEEDED = "torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)"
TOLERANCE = 1e-3
"""Share by which a number may differ off the CPU, where kernels round otherwise each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one look has found.

    Attributes:
        about: what was looked at, in a word or two.
        state: "ok"; "note" where a sweep runs, but differently; "problem" where a sweep refuses to begin.
        said: in a sentence, with what to do.
    """

    about: str
    state: Literal["ok", "note", "problem"]
    said: str


def repeats(workload: Workload, rebuild: Callable[[], Workload] | None = None) -> Iterator[Finding]:
    """Yield whether batches, models and evaluations are the same when they are asked for again.

    Each is asked for twice, with the global random numbers elsewhere; batches also in another order; and all
    of it once more of a workload that is built for it. An evaluation is to leave the model as it is.

    Args:
        workload: what is trained.
        rebuild: builds it again, as another worker would; None looks at this one alone.
    """
    before = random_state()
    try:
        again = rebuild() if rebuild else workload
        yield _models(workload, again)  # first: batches may rest on what it prepares
        yield _batches(workload, again)
        yield _evaluations(workload, again)
        yield _traces(workload)
    finally:
        set_random_state(before)


def refuse(findings: Iterator[Finding]) -> list[Finding]:
    """Return the findings.

    Raises:
        UserError: at the first that is a problem.
    """
    found = []
    for finding in findings:
        if finding.state == "problem":
            raise UserError(finding.said)
        found.append(finding)
    return found


def sampled_steps(steps: int) -> list[int]:
    """Return the steps of a run at which batches are looked at."""
    return sorted({1, min(2, steps), steps // 2 + 1, steps})


def _batches(workload: Workload, again: Workload) -> Finding:
    asked = [(seed, step) for step in sampled_steps(workload.steps) for seed in (0, 1)]
    first = {each: _content(workload.batch, *each, elsewhere=1) for each in asked}
    others = [
        (each, _content(w.batch, *each, elsewhere=2)) for w in (again, workload) for each in asked[::-1]
    ]
    for (seed, step), other in others:
        if not first[seed, step].same(other):
            return Finding(
                about="batches",
                state="problem",
                said="batch(seed, step) gives another batch when it is asked again "
                f"(seed {seed}, step {step}), so that no two runs see the same data: derive everything that "
                f"is drawn from (seed, step), with {SEEDED}, and keep no iterator",
            )
    if unknown := sorted({name for batch in first.values() for name in batch.known.unknown}):
        return Finding(
            about="batches",
            state="note",
            said=f"the content of a batch cannot be seen ({', '.join(unknown)}), so nothing of this sweep is "
            "shared or kept for later ones: return tensors, arrays, numbers, text, and containers of these",
        )
    return Finding(about="batches", state="ok", said=f"the same when asked again ({len(asked)} looked at)")


def _models(workload: Workload, again: Workload) -> Finding:
    def weights(of: Workload, elsewhere: int) -> _Content:
        return _content(lambda: built_model(of, 0).state_dict(), elsewhere=elsewhere)

    if weights(workload, 1).same(weights(again, 2)):
        return Finding(about="model", state="ok", said="the same weights when build_model is asked again")
    return Finding(
        about="model",
        state="problem",
        said="build_model(seed) gives other weights when it is asked again, so that no two runs begin alike: "
        "call torch.manual_seed(seed) before the first layer is made, and draw from nothing else",
    )


def _evaluations(workload: Workload, again: Workload) -> Finding:
    model = built_model(workload, 0)
    results = []
    for elsewhere, of in enumerate((workload, workload, again)):
        seed_random_state(elsewhere)
        results.append(held_out(of, model))
    exact = all(p.device.type == "cpu" for p in model.parameters())
    first, *others = results
    differing = [name for name in first if not all(_same(r.get(name), first[name], exact) for r in others)]
    if not differing:
        return Finding(about="evaluation", state="ok", said="the same result when evaluate is asked again")
    name = differing[0]
    values = ", ".join(f"{result.get(name, nan):.6g}" for result in results)
    return Finding(
        about="evaluation",
        state="problem",
        said=f"evaluate(model, split) gives another {name} for the same weights when it is asked again "
        f"({values}), so that no two results compare: call model.eval() first, take the same rows each time, "
        "and draw random numbers from a generator that it seeds itself",
    )


def _traces(workload: Workload) -> Finding:
    """Look whether an evaluation changes the model, which arms are evaluated at different steps of."""
    model = built_model(workload, 0)
    held_out(workload, model)  # the first may make what is lazy
    before = _state(model)
    held_out(workload, model)
    changed = [name for name, digest in _state(model).items() if before.get(name) != digest]
    if not changed:
        return Finding(about="evaluation leaves", state="ok", said="no trace in the model")
    return Finding(
        about="evaluation leaves",
        state="problem",
        said=f"evaluate(model, split) changes the model ({', '.join(changed[:3])}), so that training depends "
        "on how often it is evaluated, and learns from held-out data: call model.eval() first, and train "
        "nothing there",
    )


def _state(model: nn.Module) -> dict[str, str]:
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: Digest().of(tensor.detach()) for name, tensor in named}


@dataclass(frozen=True, slots=True)
class _Content:
    """The hash of a value, and what it was made with."""

    text: str
    known: Digest

    def same(self, other: _Content) -> bool:
        """Return whether both hold the same, but for the last bits of a device."""
        return self.text == other.text and near(self.known, other.known, TOLERANCE)


def _content(ask: Callable[..., Any], *arguments: int, elsewhere: int) -> _Content:
    """Ask with the global random numbers at a place of its own, and look at what comes."""
    seed_random_state(elsewhere)
    known = Digest(draws=True, near=True)
    return _Content(known.of(ask(*arguments)), known)


def _same(one: float | None, other: float, exact: bool) -> bool:
    if one is None or exact:
        return repr(one) == repr(other)
    return abs(one - other) <= TOLERANCE * abs(other) or repr(one) == repr(other)
