"""What the README shows works as it stands there."""

import re
from pathlib import Path

import pytest
import torch

from hybrid_sweep.measure.costs import UnitCosts
from hybrid_sweep.measure.hybrid_run import HybridRun
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.measure.workload_builder import warm_up
from hybrid_sweep.spec.sweep import load_spec
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.presets import PRESETS
from hybrid_sweep.trainer.trainer import HybridTrainer
from hybrid_sweep.workload import load_workload

README = Path(__file__).parent.parent / "README.md"
PICTURE = re.search(r"!\[[^]]*\]\(([^)]+)\)", README.read_text(encoding="utf-8"))


def block(language, containing):
    blocks = re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return next(text for text in blocks if containing in text)


@pytest.fixture
def cnn(tmp_path):
    path = tmp_path / "cnn.py"
    path.write_text(block("python", "class SmallCnn"))
    return path


def test_the_users_own_model_sweeps(cnn):
    torch.set_num_threads(1)
    workload = load_workload(f"{cnn}:SmallCnn")
    warm_up(workload)
    reference = reference_run(workload, 0, 120, 30)
    config = HybridConfig(warmup_steps=30, full_steps=10, max_predict_steps=10, confidence_threshold=0.3)
    costs = UnitCosts(batch=0, plain_step=1, observe=0, update=0, checkpoint=0, jump=0, forward=0.4, score=0)
    trial = HybridRun(workload, config, reference, costs)
    while not trial.done:
        trial.report()
    result = trial.result()
    assert trial.state == "done"
    assert result["predict_phases"] > 0
    assert result["quality"] > 0.5


def test_the_sweep_file_is_one(cnn):
    sweep = cnn.with_name("mine.yaml")
    sweep.write_text(block("yaml", "workload: cnn.py:SmallCnn"))
    spec = load_spec(sweep)
    assert spec.repeats == 3
    assert spec.workload.name == f"{cnn}:SmallCnn"


def test_the_picture_is_there():
    assert (README.parent / PICTURE[1]).is_file()


def test_a_preset_is_chosen_and_its_threshold_tuned():
    model = torch.nn.Linear(4, 1)
    names = {
        "HybridTrainer": HybridTrainer,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.01),
        "loss_fn": lambda model, batch: model(batch).square().mean(),
        "my_batch": lambda step: torch.randn(8, 4, generator=torch.Generator().manual_seed(step)),
        "held_out_loss": lambda model: model.weight.square().sum().item() + 1e-3,
    }
    exec(block("python", "preset_for_size"), names)
    assert names["config"] == PRESETS["medium"]
    assert names["preset_for_loss"](0.8) == PRESETS["mid"]
    assert names["threshold"] is None or 0 < names["threshold"] <= 0.85
