"""JumpPlanner: everything that looks at real steps in order to decide, size and correct a jump."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from math import sqrt
from statistics import fmean, pstdev
from typing import Any, cast

from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.forecast.confidence import CEILING, Confidence
from hybrid_sweep.trainer.forecast.correction_schedule import CorrectionSchedule
from hybrid_sweep.trainer.forecast.corrector import Corrector
from hybrid_sweep.trainer.forecast.dynamics import RssmLite
from hybrid_sweep.trainer.forecast.features import FEATURES, StepHistory
from hybrid_sweep.trainer.forecast.outlook import LossForecast, Outlook
from hybrid_sweep.trainer.forecast.residuals import LayerResidual, Residual, ResidualStore
from hybrid_sweep.trainer.gating import gate_targets, literal_targets
from hybrid_sweep.trainer.parted import parts_of
from hybrid_sweep.trainer.phases import Phase
from hybrid_sweep.trainer.plan import Assessment, Plan
from hybrid_sweep.trainer.predictors import MAX_GROUPS, PREDICTORS, LayerGroups, Realised
from hybrid_sweep.trainer.skill import Skill, relative_error
from hybrid_sweep.trainer.train_step import TrainStep
from hybrid_sweep.trainer.weight_average import WeightAverage

logger = logging.getLogger(__name__)
AUDITS = 3
"""Jumps that the post-recovery audit looks back on."""
RARELY = 8
"""Full phases from one that is learned from to the next, where no confidence opens the gate."""
FORECAST_MARGIN = 1
"""Steps forecast beyond a jump and its Correct phase: the first real step after them."""
STATEFUL = (
    "predictor",
    "tail",
    "history",
    "dynamics",
    "mixture",
    "forecast_skill",
    "confidence",
    "residuals",
    "corrector",
    "schedule",
)


class JumpPlanner:
    """Watches real steps, learns once a cycle, and moves the weights when told to jump.

    Args:
        plain: the training step; the trainable parameters of its model are moved in place.
        config: which predictor, gates and confidence.

    Raises:
        UserError: the predictor cannot work with that optimizer.
    """

    def __init__(self, plain: TrainStep, config: HybridConfig) -> None:
        self.config = config
        self._plain = plain
        self._gather()
        self.start_predictor()
        self.start_dynamics()
        self.history = StepHistory()
        self.forecast_skill = Skill()  # by relative error, against the last smoothed loss
        self.confidence = Confidence(config.confidence_rule, config.calibration)
        self.residuals = ResidualStore()
        self.corrector = Corrector(self.residuals)
        self.schedule = CorrectionSchedule(config.correction_interval, config.correction_schedule)
        self._new_steps = 0
        self._phases = 0  # Full phases assessed
        self._first_loss: float | None = None
        self._features: tuple[float, ...] = (0.0,) * FEATURES
        self._rolled: list[float] = []  # RSSM-lite's losses after the newest real step
        self._loss_correction: float | None = None  # of those
        self._scored: list[Residual] = []  # waiting to be filed
        self._audits: deque[bool] = deque(maxlen=AUDITS)

    def start_predictor(self) -> None:
        """Let what predicts and averages the weights begin with those of now."""
        self.predictor = PREDICTORS[self.config.predictor].from_config(self.groups, self.config, self._plain)
        self.tail = WeightAverage(list(parts_of(self.groups.vector)))
        self._plan: Plan | None = None  # of the newest Predict phase, until real steps have judged it
        self._layers: tuple[LayerResidual, ...] = ()  # as measured over the newest Full phase

    def start_dynamics(self) -> None:
        """Let what predicts losses and gates begin with weights of its own."""
        self.dynamics = RssmLite(
            hidden_size=self.config.predictor_hidden_size,
            members=self.config.predictor_members,
            bptt_steps=self.config.bptt_steps,
            seed=self.config.predictor_seed,
            groups=MAX_GROUPS,
            literal=self.config.gates == "original",
        )
        self.mixture = LossForecast()

    def _gather(self) -> None:
        """Put what is trained into the groups' vector."""
        self.groups = LayerGroups.from_model(self._plain.model)
        self._trained = tuple(name for name, p in self._plain.model.named_parameters() if p.requires_grad)

    def finish(self) -> None:
        """End a run: where there is an average of its tail, training would go on from that, afresh."""
        if self.tail.finish():
            self.start_predictor()

    def follow_parameters(self) -> bool:
        """Take in parameters that were unfrozen, added, replaced, converted or moved.

        No predictor knows how they have moved, so it starts afresh, which the log says.

        Returns:
            Whether there are any.
        """
        if self.groups.holds(self._plain.model):
            return False
        self._plain.list_parameters()
        self._gather()
        self.start_predictor()
        logger.warning(
            "the model's trainable parameters were unfrozen, added, replaced, converted or moved while it "
            "trained: the predictor starts afresh with them"
        )
        return True

    @property
    def level(self) -> float:
        """Smoothed loss of the newest real steps: what a probe is compared with."""
        return self.history.tracker.fast

    def is_bad(self, loss: float) -> bool:
        """Whether a loss measured within a horizon is too high to go on with it: by much, and not by noise.

        It has to pass `guard_tolerance` times the level, and the level by `divergence_threshold` standard
        deviations of one batch's loss, as the newest real steps have it.
        """
        level, sigma = self.level, sqrt(self.history.tracker.variance)
        by_much = (self.config.guard_tolerance - 1) * abs(level)
        return loss > level + max(by_much, self.config.divergence_threshold * sigma)

    def is_lost(self, loss: float) -> bool:
        """Whether the loss after a jump is beyond repair: bad, and higher than where training began.

        A good jump raises the loss for a few steps and then pays, so real steps are to judge any other.
        """
        return self.is_bad(loss) and loss > (self._first_loss or 0.0)

    def observe(self) -> None:
        """Look at the weights after a real step."""
        self.predictor.observe()

    def record(self, step: int, loss: float, gradient_norm: float, learning_rate: float) -> None:
        """Take in what a real step has measured; each in its order, before the phase is assessed."""
        self.history.append(step, loss, gradient_norm, learning_rate)
        self._new_steps += 1
        if self._first_loss is None:
            self._first_loss = loss

    def start_full(self) -> None:
        """Mark the start of a Full phase."""
        self.predictor.start_full()

    def assess(self, step: int) -> Assessment:
        """End a Full phase (or Warmup): learn from its steps and say whether to predict.

        Where no confidence is high enough, one phase in eight is learned from, to tell what there is.
        """
        count, self._new_steps = self._new_steps, 0
        self._phases += 1
        shut = self.config.confidence_threshold > CEILING and self._plan is None
        if shut and self._phases % RARELY != 1:
            finite = self.predictor.look()
            return Assessment(self.confidence.value, trusted=False, paid=None, finite=finite, learned=False)
        self.mixture.end_jump()
        self.forecast_skill.end_jump()
        errors = self.dynamics.train(self.history, count)
        self.confidence.update(errors, self.dynamics.spread, self.history.newest(count))
        if newest := self.history.rows(1):
            self._features = newest[0]
        realised, cosine = self.predictor.close_full()
        paid = None
        if realised is not None:
            wanted = self._learn(realised)
            self._layers = self._compare(wanted)
        if self._plan is not None:
            paid = self._audit(count, self._plan)
        self._file(step)
        self._plan = self._loss_correction = None
        self._rolled = []
        agree = cosine is None or cosine >= self.config.minimum_cosine
        return Assessment(self.confidence.value, self.predictor.ready and agree, paid, self.predictor.finite)

    def plan(self) -> None:
        """Start a Predict phase: fix the gates of its jumps."""
        count = len(self.groups.names)
        gates = [1.0] * count
        if self.config.gates != "off" and not self.predictor.exact:
            issued = self.dynamics.gates()
            gates = [issued.size * gate for gate in issued.groups[:count]]
        self._plan = Plan(gates, [0.0] * count, [0.0] * count, self.level)

    def jump(self, steps: int, learning_rate_ratio: float) -> None:
        """Advance the weights by `steps` predicted steps, in one update (contract, Displacement).

        Args:
            steps: logical steps of this (sub-)horizon.
            learning_rate_ratio: mean learning rate of those steps over that of the averaged updates.
        """
        plan, ratio = self._current, 1.0 if self.predictor.exact else learning_rate_ratio
        begin = plan.steps
        plan.steps += steps
        plan.horizon += steps * ratio
        factors = [ratio * g * (1 + c) for g, c in zip(plan.gates, plan.corrections, strict=True)]
        plan.last_move = factors, begin, plan.steps
        self._move(*plan.last_move)

    def undo_last_move(self) -> None:
        """Take the last sub-jump back."""
        factors, begin, end = self._current.last_move
        self._move([-f for f in factors], begin, end)

    def take_half_back(self) -> None:
        """Go back half of the way that the Predict phase went (as Lookahead interpolates, 1907.08610)."""
        if self._plan is not None:
            self._move(self._plan.share(*[-0.5] * len(self._plan.applied)), 0, self._plan.steps)

    def micro_correct(self, step: int) -> None:
        """Scale the sub-jumps that follow by what similar phases had needed."""
        self._current.corrections = self._group_corrections(step)

    def correct(self, step: int) -> None:
        """Correct the displacement just applied, each group by at most the corrector's cap."""
        if self._plan is not None:
            factors = self._plan.share(*self._group_corrections(step))
            self._move(factors, 0, self._plan.steps)

    @property
    def outlook(self) -> Outlook:
        """What a forecast is made of now; later scores make another one and leave this as it is."""
        return self.mixture.outlook(self.level)

    def forecast(self, ahead: int, outlook: Outlook | None = None) -> float:
        """Return L̂ of the logical step `ahead` ≥ 1 after the newest real one; changes nothing that learns.

        Args:
            ahead: logical steps.
            outlook: as of when; None for now.
        """
        return (outlook or self.outlook).loss(self._modelled(ahead))

    def score(self, step: int, ahead: int, actual: float) -> float:
        """Score a loss measured `ahead` steps after the newest real step; return what was predicted."""
        tracker = self.history.tracker
        modelled, predicted = self._modelled(ahead), self.forecast(ahead)
        raw = self._rolled[ahead - 1]
        self.forecast_skill.add(relative_error(predicted, actual), relative_error(tracker.fast, actual))
        self.confidence.score(predicted, actual, sqrt(tracker.variance))
        self.mixture.learn(tracker.fast, modelled, actual)
        self.corrector.learn(actual - raw, self._features)
        self._scored.append(self._residual(step, Phase.CORRECT, ahead, actual - raw, self._features))
        return predicted

    def state_dict(self) -> dict[str, Any]:
        """Return everything that learning and jumping change."""
        return {
            **{name: getattr(self, name).state_dict() for name in STATEFUL},
            "trained": self._trained,
            "new_steps": self._new_steps,
            "phases": self._phases,
            "first_loss": self._first_loss,
            "features": self._features,
            "plan": None if self._plan is None else asdict(self._plan),
            "rolled": list(self._rolled),
            "loss_correction": self._loss_correction,
            "scored": list(self._scored),
            "layers": self._layers,
            "audits": list(self._audits),
        }

    def recycle(self, state: dict[str, Any]) -> None:
        """Let the next `state_dict` write over the buffers of an earlier one, which no one else has."""
        self.predictor.recycle(state["predictor"])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, and train what the saved run had come to train."""
        if state["trained"] != self._trained:
            for name, p in self._plain.model.named_parameters():
                p.requires_grad_(name in state["trained"])
            self._plain.list_parameters()
            self._gather()
            self.start_predictor()
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self._new_steps, self._phases = state["new_steps"], state["phases"]
        self._first_loss = state["first_loss"]
        self._features = state["features"]
        self._plan = None if state["plan"] is None else Plan(**state["plan"])
        self._rolled = list(state["rolled"])
        self._loss_correction = state["loss_correction"]
        self._scored = [Residual.from_saved(saved) for saved in state["scored"]]
        self._layers = tuple(LayerResidual(*layer) for layer in state["layers"])
        self._audits = deque(state["audits"], AUDITS)

    def _modelled(self, ahead: int) -> float:
        """Return RSSM-lite's loss `ahead` steps after the newest real one, corrected by similar residuals."""
        if len(self._rolled) < ahead:
            usual = self.config.max_predict_steps + self.config.correct_steps + FORECAST_MARGIN
            self._rolled = self.dynamics.rollout(max(ahead, usual))
        if self._loss_correction is None:
            tracker = self.history.tracker
            self._loss_correction = self.corrector.loss_correction(tracker.fast, self._features, tracker.step)
        return self._rolled[ahead - 1] + self._loss_correction

    @property
    def _current(self) -> Plan:
        if self._plan is None:
            self.plan()
        return cast(Plan, self._plan)

    def _move(self, factors: list[float], begin: int, end: int) -> None:
        self.predictor.apply(factors, begin, end)
        plan = self._current
        plan.applied = [a + f * (end - begin) for a, f in zip(plan.applied, factors, strict=True)]

    def _group_corrections(self, step: int) -> list[float]:
        return list(self.corrector.group_corrections(self._features, step, self.groups.names))

    def _learn(self, realised: Realised) -> Sequence[float]:
        """Teach the weight-delta head what the gates of the last jump ought to have been; return those.

        Without a jump there is nothing to teach, and the realised ratios are returned.
        """
        plan = self._plan
        if plan is None:
            return realised.ratios
        if self.config.gates == "original":
            targets = literal_targets(realised)
        else:
            targets = gate_targets(plan.used, realised)
        unused = [1.0] * (MAX_GROUPS - len(targets.groups))
        self.dynamics.learn_gates(targets.size, [*targets.groups, *unused])
        return [targets.size * group for group in targets.groups]

    def _compare(self, wanted: Sequence[float]) -> tuple[LayerResidual, ...]:
        """Return what each layer group needed beyond the gate that it had."""
        used = [1.0] * len(wanted) if self._plan is None else self._plan.used
        parts = zip(self.groups.names, wanted, used, strict=True)
        return tuple(LayerResidual(name, want - gate) for name, want, gate in parts)

    def _file(self, step: int) -> None:
        """File a residual for every prediction that was measured since the last jump began."""
        self.schedule.update([residual.loss_residual for residual in self._scored])
        residuals = self.dynamics.residuals
        rows = self.history.rows(len(residuals) + 1)[:-1]  # the situation before each measurement
        first = step - len(residuals) + 1
        self._scored += [
            self._residual(first + i, Phase.FULL, 1, loss_residual, row)
            for i, (loss_residual, row) in enumerate(zip(residuals, rows, strict=True))
        ]
        self.residuals.extend(self._scored)
        self._scored = []

    def _residual(
        self, step: int, phase: Phase, horizon: int, loss_residual: float, features: tuple[float, ...]
    ) -> Residual:
        return Residual(
            step=step,
            phase=str(phase),
            horizon=horizon,
            loss_residual=loss_residual,
            layers=self._layers,
            features=features,
            confidence=self.confidence.value,
        )

    def _audit(self, count: int, plan: Plan) -> bool:
        """Return whether most of the last jumps had paid off after the real steps that followed.

        A jump pays unless the later half of the next Full phase is worse than the level before the jump by
        more than two standard errors (docs/design-notes.md, Formulas: audit).
        """
        losses = [real.loss for real in self.history.newest(max(count // 2, 1))]
        margin = 2 * pstdev(losses) / len(losses) ** 0.5
        self._audits.append(fmean(losses) <= plan.level_before + margin)
        return sum(self._audits) * 2 > len(self._audits) or len(self._audits) < 2
