"""The samplers, with every argument said, and the Optuna study in memory that they learn from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseGASampler, BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState

from hybrid_sweep.search.dimensions import distribution, exists, nearest
from hybrid_sweep.search.outcome import TrialOutcome
from hybrid_sweep.spec.axes import condition, in_order
from hybrid_sweep.spec.sweep import SweepSpec

OBJECTIVES = ("speedup_counted", "quality")
"""Both maximised."""


def sampler_arguments(spec: SweepSpec) -> dict[str, Any]:
    """Return the sampler's name and every argument but the seed, for the manifest: Optuna's defaults move."""
    arguments: dict[str, Any] = {}
    match spec.sampler:
        case "tpe":
            arguments = {
                "n_startup_trials": 10,
                "n_ei_candidates": 24,
                "multivariate": True,
                "group": any(condition(axis) for axis in spec.space.values()),
                "constant_liar": True,
                "constraints_func": None,
            }
        case "gp":
            arguments = {
                "independent_sampler": None,
                "n_startup_trials": 10,
                "deterministic_objective": False,
                "constraints_func": None,
                "warn_independent_sampling": False,
            }
        case "nsga2":
            arguments = {
                "population_size": 50,
                "mutation": None,
                "mutation_prob": None,
                "crossover": None,
                "crossover_prob": 0.9,
                "swapping_prob": 0.5,
                "constraints_func": None,
                "elite_population_selection_strategy": None,
                "child_generation_strategy": None,
                "after_trial_strategy": None,
            }
    return {"sampler": spec.sampler, **arguments}


def make_sampler(spec: SweepSpec, seed: int) -> BaseSampler:
    """Return a new sampler; a grid, which samples nothing, has the random one."""
    arguments = sampler_arguments(spec)
    kinds: dict[str, Callable[..., BaseSampler]] = {
        "tpe": TPESampler,
        "gp": GPSampler,
        "nsga2": NSGAIISampler,
    }
    kind = kinds.get(arguments.pop("sampler"), RandomSampler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # group=True
        return kind(**arguments, seed=seed)


class SamplerStudy:
    """What a sampler has seen: the points that are open, which it keeps away from, and those that were told.

    A draw leaves nothing behind but a failed Optuna trial, which no sampler looks at; points enter by `open`
    alone, no matter who chose them. So a memory that is fed the same points in the same order draws the same.

    Args:
        spec: sampler and space.
        name: of the Optuna study.

    Attributes:
        distributions: what each axis is drawn from.
    """

    def __init__(self, spec: SweepSpec, name: str) -> None:
        self._spec = spec
        self._order = in_order(spec.space)
        self.distributions = {field: distribution(axis) for field, axis in spec.space.items()}
        self._sampler = make_sampler(spec, 0)
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            study_name=name, directions=["maximize"] * len(OBJECTIVES), sampler=self._sampler
        )
        optuna.logging.set_verbosity(verbosity)

    def draw(self, seed: int, *, at_random: bool = False) -> dict[str, Any]:
        """Return the parameters that a new sampler with this seed chooses, for the axes that then exist."""
        self._study.sampler = RandomSampler(seed=seed) if at_random else make_sampler(self._spec, seed)
        trial = self._study.ask()
        params: dict[str, Any] = {}
        for field in self._order:
            if exists(self._spec.space, field, params):
                drawn = _suggest(trial, field, self.distributions[field])
                params[field] = nearest(self._spec.space[field], drawn)
        self._study.tell(trial, state=TrialState.FAIL)
        return params

    def open(self, params: Mapping[str, Any]) -> Trial:
        """Take up a point that has all parameters of the space, until it is told."""
        self._study.enqueue_trial(dict(params))
        trial = self._study.ask({field: self.distributions[field] for field in params})
        if isinstance(self._sampler, BaseGASampler):  # what a draw settles, for points that were not drawn
            frozen = self._study.get_trials(deepcopy=False)[trial.number]
            generation = self._sampler.get_trial_generation(self._study, frozen)
            self._sampler.get_parent_population(self._study, generation)
        return trial

    def tell(self, trial: Trial, told: TrialOutcome) -> None:
        """Close a point."""
        for name, violation in told.constraints.items():
            trial.set_constraint(name, violation)
        self._study.tell(trial, told.values, told.state)


def _suggest(trial: Trial, field: str, domain: Any) -> Any:
    if isinstance(domain, IntDistribution):
        return trial.suggest_int(field, domain.low, domain.high, step=domain.step, log=domain.log)
    if isinstance(domain, FloatDistribution):
        return trial.suggest_float(field, domain.low, domain.high, step=domain.step, log=domain.log)
    return trial.suggest_categorical(field, domain.choices)
