"""Sources of the direction of a jump, by the name that `HybridConfig.predictor` uses."""

from hybrid_sweep.trainer.predictors.base import MAX_GROUPS, LayerGroups, Predictor, Realised
from hybrid_sweep.trainer.predictors.ema import EmaVelocity
from hybrid_sweep.trainer.predictors.frozen import Frozen
from hybrid_sweep.trainer.predictors.outer import OuterMomentum

PREDICTORS: dict[str, type[Predictor]] = {
    "ema": EmaVelocity,
    "outer_momentum": OuterMomentum,
    "frozen": Frozen,
}

__all__ = [
    "MAX_GROUPS",
    "PREDICTORS",
    "EmaVelocity",
    "Frozen",
    "LayerGroups",
    "OuterMomentum",
    "Predictor",
    "Realised",
]
