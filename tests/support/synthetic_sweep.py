"""A synthetic sweep that looks like a real one: 60 trials, a front, one failure, one divergence, twins."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.store.journal import Journal, plain

STEPS = 2345
MANIFEST: dict[str, Any] = {
    "sweep_id": "grid60-20260214T101500Z",
    "created": "2026-02-14T10:15:00+00:00",
    "spec": {
        "name": "grid60",
        "workload": {"name": "trainables.mnist_mlp:MnistMlp", "data": "bundled"},
        "steps": STEPS,
        "timing": "measured",
        "space": {
            "max_predict_steps": [50, 75, 100, 150],
            "correction_interval": [0, 10, 15, 20, 25],
            "confidence_threshold": [0.40, 0.60, 0.85],
        },
    },
    "versions": {"python": "3.11.9", "torch": "2.13.0", "ray": "2.60.0", "hybrid_sweep": "0.1.0"},
    "hardware": {"cpu": "AMD EPYC 7763", "cores": 2, "memory_gib": 7.7, "device": "cpu"},
    "git": {"commit": "0f3c9ab", "dirty": False},
    "seeds": [0],
    "unit_costs": {"plain_step": 0.00131, "forward": 0.00041, "observe": 0.00008, "jump": 0.0011},
    "hypervolume_reference": {"speedup": 1.0, "quality": 0.90},
}

Write = Callable[..., ResultsFolder]


def result_of(horizon: int, interval: int, threshold: float, seed: int) -> dict[str, Any]:
    """Return what a plausible trial with these settings would measure."""
    rng = np.random.default_rng([horizon, interval, int(100 * threshold), seed])
    gate = 0.93 if threshold > 0.8 else 1.0  # 0.40 and 0.60 open at once: they are one behaviour
    realised = horizon * 0.82 * gate
    cycle = 25 + realised
    phases = int((STEPS - 100) / cycle)
    backward = int(100 + 20 * (STEPS - 100) / cycle)
    probes = 0 if interval == 0 else int(phases * realised // interval)
    speedup_counted = STEPS / (backward * 1.06 + 0.31 * (5 * phases + probes) + 0.9 * phases)
    twin = np.random.default_rng([horizon, interval, int(100 * gate), seed])
    loss = 0.005 + 4e-4 * realised + 9e-6 * max(realised - 60, 0) ** 2 - 2e-4 * min(probes, 60)
    quality = 1 / (1 + loss + twin.normal(0, 0.004))
    reference = 0.2904 + 0.002 * seed
    return {
        "speedup": speedup_counted * (1 + rng.normal(0, 0.015)),
        "speedup_counted": speedup_counted,
        "speedup_bound": STEPS / (backward + 0.31 * (5 * phases + probes)) * 1.04,
        "quality": quality,
        "quality_vs_truncated": 1.06 - 0.0009 * realised + twin.normal(0, 0.004),
        "quality_vs_frozen": 1.09 - 0.0004 * realised + twin.normal(0, 0.004),
        "quality_vs_lr_matched": 1.01 - 0.0002 * realised,
        "val_loss": reference / quality,
        "reference_val_loss": reference,
        "backward_reduction_pct": 100 * (1 - backward / STEPS),
        "backward_calls": backward,
        "forward_only_calls": 5 * phases + probes,
        "realised_horizon_mean": realised,
        "micro_corrections": probes,
        "abort_rate": float(abs(twin.normal(0, 0.03))),
        "behaviour": f"b{abs(hash((horizon, interval, gate))) % 0xFFFF:04x}",
        "speedup_cpu": speedup_counted * (1 + rng.normal(0, 0.004)),
        "val_metric": 0.914 * quality,
        "reference_val_metric": 0.914,
        "predict_phases": phases,
        "max_confidence": 0.97,
        "mean_confidence": 0.91,
        "prediction_accuracy": 0.88,
        "calibration_error": 0.06 + 0.0006 * realised,
        "brier": 0.09,
        "confidence_skill": 0.15,
        "confidence_skill_low": 0.05,
        "confidence_skill_high": 0.25,
        "forecast_skill": 0.02,
        "forecast_skill_low": -0.1,
        "forecast_skill_high": 0.14,
        "reliability": json.dumps([[40, 0.75, 0.7], [160, 0.93, 0.95]]),
        "warning_rate": 0.002 + float(abs(twin.normal(0, 0.004))),
        "nonfinite_steps": 0,
        "rollbacks": 0,
        "steps_to_target_ratio": 1.01 + loss if quality > 0.97 else math.inf,
        "peak_memory_ratio": None,
        "overhead_pct": 7.3,
        "train_seconds": 3.07 / speedup_counted,
        "eval_seconds": 0.4,
        "steps": STEPS,
    }


@pytest.fixture
def controlled(grid60: ResultsFolder) -> Callable[..., pd.DataFrame]:
    """A function that adds controls to the trials of a sweep."""
    return lambda qualities, arm="lr": with_controls(grid60, qualities, arm)


def with_controls(folder: ResultsFolder, qualities: Sequence[float], arm: str = "lr") -> pd.DataFrame:
    """Return the trials of a sweep and a control at speedup 2, 3, … for each of `qualities`."""
    trials = folder.trials()
    rows = trials.head(len(qualities)).copy()
    rows["trial_id"] = [f"{arm}_x{place + 2}" for place in range(len(qualities))]
    rows[["arm", "state", "reason", "behaviour"]] = arm, "done", "", ""
    rows["speedup"] = [float(place + 2) for place in range(len(qualities))]
    rows["quality"] = list(qualities)
    rows["backward_calls"] = [STEPS // (place + 2) for place in range(len(qualities))]
    return pd.concat([trials, rows], ignore_index=True)


def write_sweep(
    path: Path,
    seeds: Sequence[int] = (0,),
    manifest: dict[str, Any] | None = None,
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda event: event,
) -> ResultsFolder:
    """Write a whole grid60; `change` may alter each finished event."""
    folder = ResultsFolder.create(path)
    folder.write_manifest({**MANIFEST, "seeds": list(seeds), **(manifest or {})})
    lines = []
    space = MANIFEST["spec"]["space"].values()
    for seed, (horizon, interval, threshold) in product(seeds, product(*space)):
        trial = {"trial_id": f"H{horizon:03}_I{interval:02}_C{threshold:.2f}", "seed": seed}
        config = {
            "max_predict_steps": horizon,
            "correction_interval": interval,
            "confidence_threshold": threshold,
            "divergence_threshold": 3.0,
            "warmup_steps": 100,
        }
        lines.append({"event": "started", "at": "2026-02-14T10:15:01+00:00", **trial, "config": config})
        for step in (500, 1500, STEPS):
            report = {"step": step, "phase": "full", "loss": 0.3, "quality": 0.99, "speedup": 2.0}
            lines.append({"event": "reported", "at": "2026-02-14T10:15:02+00:00", **trial, "report": report})
        finished = {
            "event": "finished",
            "at": "2026-02-14T10:15:03+00:00",
            **trial,
            "state": "done",
            "reason": "",
        }
        finished["result"] = result_of(horizon, interval, threshold, seed)
        if (horizon, interval, threshold) == (150, 0, 0.40):
            finished |= {"state": "diverged", "reason": "held-out loss is NaN at step 1204"}
            finished["result"] = {"quality": None, "val_loss": None, "behaviour": "bdead"}
        if (horizon, interval, threshold) == (100, 20, 0.85):
            finished |= {"state": "failed", "reason": "RuntimeError: worker was lost", "result": {}}
        lines.append(change(finished))
    # as the journal does, without 300 fsyncs
    text = "".join(json.dumps(plain(line)) + "\n" for line in lines)
    folder.journal.path.write_text(text)
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Write:
    """Return a function that writes a synthetic grid60 into a new folder."""
    made = iter(range(100))
    return lambda **options: write_sweep(tmp_path / f"sweep{next(made)}", **options)


@pytest.fixture(scope="session")
def grid60(tmp_path_factory: pytest.TempPathFactory) -> ResultsFolder:
    """A whole grid60 on one seed, every file exported; do not change it."""
    folder = write_sweep(tmp_path_factory.mktemp("results") / "grid60")
    folder.export_all()
    return folder


@pytest.fixture
def empty(tmp_path: Path) -> ResultsFolder:
    """A results folder in which nothing has happened yet."""
    return ResultsFolder.create(tmp_path / "empty")


@pytest.fixture
def journal(empty: ResultsFolder) -> Journal:
    """The journal of the empty folder."""
    return empty.journal
