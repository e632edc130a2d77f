"""The frozen twin: the same real steps on the same batches, and nothing in between."""

import pytest
import torch
from support.toy import Toy

from hybrid_sweep.measure.controls import frozen_run
from hybrid_sweep.measure.reference import reference_run, start
from hybrid_sweep.trainer import HybridConfig, HybridTrainer
from hybrid_sweep.trainer.records import Segment

STILL = HybridConfig(
    warmup_steps=20,
    full_steps=10,
    max_predict_steps=20,
    confidence_threshold=0.001,
    minimum_cosine=-1.0,
    horizon_rule="fixed",
    predictor="frozen",
)


class Scheduled(Toy):
    def build_scheduler(self, optimizer):
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)


def hybrid_run(workload, config, steps=150):
    plain = start(workload, 0)
    trainer = HybridTrainer(
        plain.model, plain.optimizer, config, loss_fn=workload.loss, lr_scheduler=plain.scheduler
    )
    trainer.run(lambda step: workload.batch(0, step), steps)
    return workload.evaluate(plain.model, "val"), trainer.trace()


ADAPTIVE = {"correction_interval": 6, "correction_schedule": "adaptive"}


@pytest.mark.parametrize(
    "workload",
    [Toy(), Toy(norm=True), Toy(dropout=0.5), Scheduled()],
    ids=["plain", "norm", "dropout", "schedule"],
)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"correct_steps": 0},
        {"correction_interval": 6},
        ADAPTIVE,
        {"tail": "average", "stop_fraction": 0.2},
    ],
    ids=str,
)
def test_it_is_the_hybrid_run_whose_jumps_stand_still(workload, changes):
    result, trace = hybrid_run(workload, STILL.replace(**changes))
    assert sum(segment.phase == "predict" for segment in trace) >= 3
    averaged = 0.2 if "tail" in changes else 0.0
    assert frozen_run(workload, 0, trace, averaged) == result


def test_without_a_jump_it_is_the_reference():
    reference = reference_run(Toy(dropout=0.5), 0, 50, 50)
    trace = [Segment("warmup", 20, 0), Segment("full", 30, 0)]
    assert frozen_run(Toy(dropout=0.5), 0, trace)["loss"] == reference.val_loss[-1]


def test_only_batches_that_were_looked_at_are_loaded():
    loaded = []

    class Watched(Toy):
        def batch(self, seed, step):
            loaded.append(step)
            return super().batch(seed, step)

    trace = [
        Segment("warmup", 3, 0),
        Segment("predict", 5, 2, 2),
        Segment("correct", 2, 0),
        Segment("full", 2, 0),
    ]
    frozen_run(Watched(), 0, trace)
    assert loaded == [1, 2, 3, 5, 7, 9, 10, 11, 12]
