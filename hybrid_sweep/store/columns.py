"""The columns of a table of trials: their order, their kind, and what each one means in a line."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Column(NamedTuple):
    """One column of `trials.csv`.

    `digits` is how many decimals a person wants to see; files keep full precision.
    """

    name: str
    kind: Literal["text", "count", "number"]
    meaning: str
    digits: int = 0


def _skill(name: str, meaning: str) -> tuple[Column, ...]:
    """Return a skill and the ends of its interval."""
    ends = "end of its 95 % interval over the jumps of the run"
    return (
        Column(name, "number", f"skill {meaning}: 1 is perfect, 0 no better", 3),
        Column(f"{name}_low", "number", f"lower {ends}", 3),
        Column(f"{name}_high", "number", f"upper {ends}", 3),
    )


SETTINGS = ("max_predict_steps", "correction_interval", "confidence_threshold", "divergence_threshold")

TRIAL_COLUMNS = (
    Column("trial_id", "text", "the configuration, by the settings that the sweep varies"),
    Column("seed", "count", "seed of the data order, the initial weights and the reference run"),
    Column("state", "text", "done, diverged, pruned, failed, or running when the table was made"),
    Column("reason", "text", "why the trial ended in that state"),
    Column("max_predict_steps", "count", "H: the most steps that one jump may replace"),
    Column("correction_interval", "count", "I: predicted steps between micro-corrections, 0 for none"),
    Column("confidence_threshold", "number", "the confidence at which the trainer dares to jump", 2),
    Column("divergence_threshold", "number", "how many sigmas of loss count as divergence", 2),
    Column("speedup", "number", "wall clock: time of N plain steps over all training time of the trial", 3),
    Column(
        "speedup_counted", "number", "the same from counted work at unit costs frozen before the sweep", 3
    ),
    Column("speedup_bound", "number", "the most that these backward and forward passes could allow", 3),
    Column(
        "quality", "number", "held-out loss of plain training over the trial's, or as its workload says", 4
    ),
    Column("quality_vs_truncated", "number", "against plain training stopped at as many backward passes", 4),
    Column(
        "quality_vs_frozen", "number", "against the same phases with jumps that leave the weights alone", 4
    ),
    Column("val_loss", "number", "loss on the validation split at the last step", 4),
    Column("reference_val_loss", "number", "the same of plain training with this seed", 4),
    Column("backward_reduction_pct", "number", "share of all steps that ran no backward pass, in percent", 1),
    Column("backward_calls", "count", "backward passes in the whole run, warmup included"),
    Column("forward_only_calls", "count", "forward passes without a backward one: probes and Correct"),
    Column("realised_horizon_mean", "number", "steps that a jump really covered, on average", 1),
    Column("micro_corrections", "count", "corrections applied inside the jumps"),
    Column("abort_rate", "number", "share of Predict phases cut short by the guard", 3),
    Column("behaviour", "text", "trials with the same phases, lengths and corrections share one"),
    Column(
        "quality_vs_lr_matched",
        "number",
        "against the same real steps at a learning rate that makes up for those left out",
        4,
    ),
    Column("arm", "text", "which control it is, empty for a configuration of the sweep"),
    Column("speedup_cpu", "number", "speedup by CPU time of the one thread instead of wall clock", 3),
    Column("loading_share", "number", "share of a plain step that is waiting for its batch", 3),
    Column(
        "val_metric",
        "number",
        "the workload's metric, or its accuracy, on the validation split at the last step",
        4,
    ),
    Column("reference_val_metric", "number", "the same of plain training with this seed", 4),
    Column("predict_phases", "count", "Predict phases in the whole run"),
    Column(
        "max_confidence",
        "number",
        "highest confidence where nothing else kept Predict from starting",
        3,
    ),
    Column("mean_confidence", "number", "average confidence of the predictor", 3),
    Column("prediction_accuracy", "number", "share of measured losses predicted within 10 %", 3),
    Column("calibration_error", "number", "largest gap between confidence and share of losses confirmed", 3),
    Column("brier", "number", "mean squared error of the confidence as a forecast, 0 is perfect", 4),
    *_skill("confidence_skill", "of the confidence over always forecasting the share confirmed so far"),
    *_skill("forecast_skill", "of predicted losses over the last smoothed loss, by relative error"),
    Column("warning_rate", "number", "share of steps with a divergence signal at Warning or above", 4),
    Column("nonfinite_steps", "count", "steps with a NaN or infinite loss, recovered or not"),
    Column("rollbacks", "count", "times that the trainer went back to a snapshot"),
    Column(
        "steps_to_target_ratio", "number", "steps to the first report at the target loss / the reference's", 3
    ),
    Column("peak_memory_ratio", "number", "peak GPU memory over that of plain training", 3),
    Column("overhead_pct", "number", "the predictor's own work as a share of training time, in percent", 1),
    Column("train_seconds", "number", "training time, evaluation excluded", 2),
    Column("followed_seconds", "number", "the part of it that another trial had done for both", 2),
    Column("eval_seconds", "number", "its own evaluation time, outside every speedup", 2),
    Column("steps", "count", "logical steps of the run: N, or where it was stopped"),
    Column("attempts", "count", "times that it was started: again where its worker or the sweep was lost"),
    Column("number", "count", "the point's place in the order in which the points were chosen"),
    Column("source", "text", "who chose the point: grid, preset, point or the sampler's name"),
    Column("reliability", "text", "count, confidence and accuracy of each tenth of confidence, as JSON"),
    Column("config", "text", "every setting of the trainer, as JSON"),
)
