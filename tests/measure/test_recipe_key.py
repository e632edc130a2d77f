"""The recipe as it is built: another key for whatever trains otherwise, the same one in another process."""

import importlib
import json
import math
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.toy import Toy
from torch import nn

from hybrid_sweep.measure.recipe_key import recipe_of

CHANGES = {  # knob -> values other than its usual one
    "optimizer": ["Adam", "AdamW", "RMSprop"],
    "lr": [0.02, 0.05000000001],
    "momentum": [0.9],
    "weight_decay": [1e-9, 0.1],
    "nesterov": [True],
    "maximize": [True],
    "group_lr": [0.01],
    "swapped": [True],
    "foreach": [True],
    "gamma": [0.5, 0.9],
    "step_size": [50],
    "schedule": ["cosine", "lambda", "late"],
    "late_rate": [0.3],
    "frozen": ["0", "2"],
    "dropout": [0.1, 0.2],
    "width": [9],
    "bias": [False],
    "activation": ["ReLU", "Tanh"],
    "slope": [0.2],
    "gain": [2.0],
    "dtype": ["float64"],
    "shift": [1e-6],
    "hidden": [2.0],
    "rows": [33],
    "late_rows": [33],
    "held_out": [1e-6],
    "test": [1e-6],
    "smoothing": [0.1],
    "temperature": [2.0],
    "penalty": [1e-6],
    "steps": [100],
    "quality": ["loss_gap"],
    "max_grad_norm": [1.0],
}
USUAL = {
    "optimizer": "SGD",
    "lr": 0.05,
    "momentum": 0.5,
    "schedule": "step",
    "activation": "LeakyReLU",
    "dtype": "float32",
    "frozen": "",
    "gamma": 0.1,
    "step_size": 40,
    "width": 8,
    "bias": True,
    "slope": 0.1,
    "gain": 1.0,
    "steps": 120,
    "rows": 32,
    "late_rows": 32,
    "hidden": 1.0,
    "temperature": 1.0,
    "quality": "loss_ratio",
    "max_grad_norm": None,
}


@dataclass
class Rows:
    """Its repr hides its content."""

    x: torch.Tensor
    y: torch.Tensor
    weight: float

    def __repr__(self):
        return "rows"


class Knobs(Toy):
    """Everything that it does comes from outside its code."""

    def __init__(self, **knobs):
        super().__init__()
        self.knobs = {**dict.fromkeys(CHANGES, 0), **USUAL, **knobs}
        for name in ("steps", "quality", "max_grad_norm"):
            setattr(self, name, self.knobs[name])

    def build_model(self, seed):
        knobs = self.knobs
        torch.manual_seed(seed)
        activation = getattr(nn, knobs["activation"])
        layers = [nn.Linear(4, knobs["width"], bias=knobs["bias"])]
        layers += [activation(knobs["slope"]) if knobs["activation"] == "LeakyReLU" else activation()]
        model = nn.Sequential(*layers, nn.Linear(knobs["width"], 1), nn.Dropout(knobs["dropout"]))
        nn.init.uniform_(model[2].bias, 0, knobs["gain"])
        model.temperature = knobs["temperature"]  # which acts later in the run
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name[0] != knobs["frozen"]
        return model.to(getattr(torch, knobs["dtype"]))

    def build_optimizer(self, model):
        knobs = self.knobs
        parameters = [p for p in model.parameters() if p.requires_grad]
        if knobs["swapped"]:
            parameters.reverse()
        groups = [
            {"params": parameters[:1]},
            {"params": parameters[1:], **({"lr": knobs["group_lr"]} if knobs["group_lr"] else {})},
        ]
        settings = {"lr": knobs["lr"], "weight_decay": knobs["weight_decay"]}
        if knobs["optimizer"] == "SGD":
            names = ("momentum", "nesterov", "maximize", "foreach")
            settings |= {name: knobs[name] or (None if name == "foreach" else 0) for name in names}
        return getattr(torch.optim, knobs["optimizer"])(groups, **settings)

    def build_scheduler(self, optimizer):
        knobs, schedules = self.knobs, torch.optim.lr_scheduler
        if knobs["schedule"] == "cosine":
            return schedules.CosineAnnealingLR(optimizer, knobs["steps"])
        if knobs["schedule"] == "lambda":
            return schedules.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        if knobs["schedule"] == "late":
            return schedules.MultiStepLR(optimizer, [100], 1 + knobs["late_rate"])
        return schedules.StepLR(optimizer, knobs["step_size"], knobs["gamma"])

    def batch(self, seed, step):
        x, y = self.draw(1000 * seed + step)
        rows = self.knobs["late_rows" if step > self.steps // 2 else "rows"]
        x, y = (part.repeat(2, 1)[:rows].to(getattr(torch, self.knobs["dtype"])) for part in (x, y))
        return Rows(x + self.knobs["shift"], y, self.knobs["hidden"])

    def loss(self, model, batch):
        smoothing, penalty = self.knobs["smoothing"], self.knobs["penalty"]
        squares = sum((p**2).sum() for p in model.parameters())
        return F.mse_loss(model(batch.x), (1 - smoothing) * batch.y) + penalty * squares

    def evaluate(self, model, split):
        x, y = (part.to(getattr(torch, self.knobs["dtype"])) for part in self.draw(7_000_000))
        model.eval()
        with torch.no_grad():
            return {
                "loss": self.knobs["held_out" if split == "val" else "test"] + F.mse_loss(model(x), y).item()
            }


KNOBS = [{}, *({name: value} for name, values in CHANGES.items() for value in values)]
KNOBS.remove({"late_rate": 0.3})
KNOBS.append({"schedule": "late", "late_rate": 0.3})


def text(workload):
    return json.dumps(recipe_of(workload).key(), sort_keys=True)


def test_recipes_that_differ_never_have_the_same_key():
    keys = {text(Knobs(**knobs)): knobs for knobs in KNOBS}
    assert len(KNOBS) >= 40
    assert len(keys) == len(KNOBS)
    assert text(Knobs()) in keys


def test_drawn_recipes_have_the_same_key_exactly_where_they_are_the_same():
    drawn, rng = {}, random.Random(0)
    for _ in range(30):
        names = rng.sample([name for name in CHANGES if name not in ("optimizer", "schedule")], 2)
        knobs = {name: rng.choice(CHANGES[name]) for name in names if name != "late_rate"}
        drawn.setdefault(text(Knobs(**knobs)), []).append(knobs)
    assert all(knobs == same[0] for same in drawn.values() for knobs in same)


READS = """
import json, os
from pathlib import Path
from test_recipe_key import Knobs

class Mine(Knobs):
    def __init__(self):
        super().__init__(**json.loads((Path(__file__).parent / "config.json").read_text()))
        self.knobs["dropout"] = float(os.environ.get("DROPOUT", 0))
        self.names = {"one", "two", "three"}

    def build_model(self, seed):
        model = super().build_model(seed)
        model.names = self.names
        return model
"""


def test_another_process_gives_the_same_key_until_a_file_or_a_variable_is_another(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(READS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"lr": 0.1, "schedule": "lambda"}))
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "from test_recipe_key import text; from mine import Mine; print(text(Mine()))",
        ],
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    mine = importlib.import_module("mine").Mine
    assert text(mine()) == told
    monkeypatch.setenv("DROPOUT", "0.1")
    other = text(mine())
    monkeypatch.delenv("DROPOUT")
    config.write_text(json.dumps({"lr": 0.2, "schedule": "lambda"}))
    assert len({told, other, text(mine())}) == 3


class TestChanges:
    def said(self, same_platform=True, **knobs):
        before = json.loads(json.dumps(recipe_of(Knobs()).to_dict()))
        return recipe_of(Knobs(**knobs)).changes(before, same_platform=same_platform)

    def test_nothing_has_changed(self):
        assert self.said() == []
        assert self.said(same_platform=False) == []

    @pytest.mark.parametrize(
        ("knobs", "said"),
        [
            ({"lr": 0.2}, "learning rate of group 0 (0.05, 0.005, 0.0005, now 0.2, 0.02, 0.002)"),
            ({"weight_decay": 0.1}, "weight_decay of group 0 (0, now 0.1)"),
            ({"optimizer": "Adam"}, "optimizer (SGD, now Adam)"),
            ({"dropout": 0.1}, "the model"),
            ({"frozen": "0"}, "trained parameters"),
            ({"swapped": True}, "parameter groups"),
            ({"gain": 2.0}, "initial weights"),
            ({"hidden": 2.0}, "batches"),
            ({"penalty": 0.1}, "what two steps make of the weights"),
            ({"held_out": 0.1}, "held-out results"),
        ],
    )
    def test_what_has_changed_is_told(self, knobs, said):
        found = self.said(**knobs)
        assert any(each.startswith(said) for each in found)
        assert "optimizer" in knobs or len(found) <= 2

    def test_on_another_platform_last_bits_may_differ_and_settings_may_not(self):
        assert self.said(same_platform=False, shift=1e-6) == []
        assert self.said(same_platform=False, shift=1.0) == ["losses of the first steps"]
        assert len(self.said(same_platform=False, momentum=0.9)) == 2


class TestParts:
    def test_what_is_not_the_same_when_it_is_built_again_decides_nothing(self):
        class Counts(Toy):
            built = 0

            def build_model(self, seed):
                model = super().build_model(seed)
                Counts.built += 1
                model.number, model.width = Counts.built, 4
                return model

        assert text(Counts()) == text(Counts())

    def test_only_steps_of_the_run_are_asked_for(self):
        class Short(Toy):
            def batch(self, seed, step):
                assert 1 <= step <= self.steps
                return super().batch(seed, step)

        for Short.steps in (1, 2, 3, 10):
            recipe_of(Short())

    def test_a_schedule_is_never_stepped_beyond_its_end(self):
        class OneCycle(Toy):
            def build_scheduler(self, optimizer):
                return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=self.steps)

        assert recipe_of(OneCycle()).settings["learning rate"] == "0.004, 0.00419323, ... 4e-07"

    def test_a_loss_that_is_no_number_is_a_result_like_another(self):
        recipe = recipe_of(Toy(troubles={0: "nan"}))
        assert math.isnan(recipe.results["losses of the first steps"][0])
        assert recipe.changes(json.loads(json.dumps(recipe.to_dict())), same_platform=True) == []

    def test_nothing_notices_that_it_was_looked_at(self):
        def numbers():
            return random.random(), np.random.random(), torch.rand(1).item()

        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        expected = numbers()
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        recipe_of(Toy(dropout=0.5))
        assert numbers() == expected
