"""Sources of the displacement of a jump, by the name that `HybridConfig.predictor` uses."""

from hybrid_sweep.trainer.layer_groups import MAX_GROUPS, LayerGroups
from hybrid_sweep.trainer.predictors.base import Linear, Predictor, Realised
from hybrid_sweep.trainer.predictors.dmd import DynamicModes
from hybrid_sweep.trainer.predictors.ema import EmaVelocity
from hybrid_sweep.trainer.predictors.ema_nesterov import EmaNesterov
from hybrid_sweep.trainer.predictors.frozen import Frozen
from hybrid_sweep.trainer.predictors.optimizer_replay import OptimizerReplay
from hybrid_sweep.trainer.predictors.oracle import Oracle
from hybrid_sweep.trainer.predictors.outer import OuterMomentum
from hybrid_sweep.trainer.predictors.outer_nesterov import OuterNesterov
from hybrid_sweep.trainer.predictors.random_direction import RandomDirection
from hybrid_sweep.trainer.predictors.rre import ReducedRank
from hybrid_sweep.trainer.predictors.shuffled import Shuffled
from hybrid_sweep.trainer.predictors.sign_flipped import SignFlipped

PREDICTORS: dict[str, type[Predictor]] = {
    "ema": EmaVelocity,
    "ema_nesterov": EmaNesterov,
    "outer_momentum": OuterMomentum,
    "outer_nesterov": OuterNesterov,
    "optimizer_replay": OptimizerReplay,
    "dmd": DynamicModes,
    "rre": ReducedRank,
    "frozen": Frozen,
    "random": RandomDirection,
    "sign_flipped": SignFlipped,
    "shuffled": Shuffled,
    "oracle": Oracle,
}

__all__ = [
    "MAX_GROUPS",
    "PREDICTORS",
    "DynamicModes",
    "EmaNesterov",
    "EmaVelocity",
    "Frozen",
    "LayerGroups",
    "Linear",
    "OptimizerReplay",
    "Oracle",
    "OuterMomentum",
    "OuterNesterov",
    "Predictor",
    "RandomDirection",
    "Realised",
    "ReducedRank",
    "Shuffled",
    "SignFlipped",
]
