"""What runs on the workers: building the workload, preparing a sweep, keeping a model."""

import json
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import toy
from support.toy import Toy

from hybrid_sweep.cluster import preparations
from hybrid_sweep.cluster.preparations import prepare_costs, prepare_curvature, prepare_reference
from hybrid_sweep.cluster.worker_context import Shared, cost_class, model_file
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure import cost_cache
from hybrid_sweep.measure import workload_builder as order_module
from hybrid_sweep.measure.costs import COST_NAMES, UnitCosts, measure_unit_costs
from hybrid_sweep.measure.curvature import Curvature
from hybrid_sweep.measure.hybrid_run import HybridRun
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.measure.shared_prefix import SharedPrefixRun
from hybrid_sweep.measure.workload_builder import WorkloadOrder, warm_up
from hybrid_sweep.trainer import HybridConfig

NAME = f"{toy.__file__}:Toy"
COSTS = UnitCosts(**dict.fromkeys(COST_NAMES, 1.0))
SHUT = {"warmup_steps": 5, "full_steps": 5, "confidence_threshold": 0.999}
POINT = {"trial_id": "H010", "seed": 0, "config": SHUT}


def order(name=NAME, device="cpu", **keywords):
    return WorkloadOrder(name=name, keywords=keywords, device=device)


@pytest.fixture
def compiled_with(monkeypatch):
    """What torch was told to compile, which is left as it is."""
    told = []
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", lambda function, **settings: told.append(function) or function)
    return told


@pytest.fixture
def short_toy():
    """A workload that has no batches beyond its own steps."""

    class Short(Toy):
        steps = 12

        def batch(self, seed, step):
            assert 1 <= step <= self.steps
            return super().batch(seed, step)

    return Short()


class TestBuild:
    def test_keywords_reach_the_class_and_a_trial_has_one_thread(self):
        torch.set_num_threads(2)
        assert order(dropout=0.25).build().dropout == 0.25
        assert torch.get_num_threads() == 1

    def test_the_device_is_passed_where_the_class_takes_it(self, monkeypatch):
        class Placed(Toy):
            def __init__(self, device="nowhere", **keywords):
                super().__init__(**keywords)
                self.device = device

        monkeypatch.setattr(toy, "Placed", Placed, raising=False)
        assert order("support.toy:Placed").build().device == "cpu"
        told = WorkloadOrder(name="support.toy:Placed", keywords={"device": "cpu:0"}, device="cpu")
        assert told.build().device == "cpu:0"

    def test_a_process_builds_it_once(self):
        built = order(dropout=0.125).build()
        assert order(dropout=0.125).build() is built
        assert order(dropout=0.25).build() is not built

    def test_a_file_that_was_edited_is_built_again(self, tmp_path):
        file, text = tmp_path / "mine.py", Path(toy.__file__).read_text()
        file.write_text(text)
        before = order(f"{file}:Toy").build()
        file.write_text(text + "\nToy.edited = True\n")
        assert order(f"{file}:Toy").build().edited
        assert not hasattr(before, "edited")

    def test_a_mistake_names_the_node(self):
        with pytest.raises(UserError, match=rf"no_such_module.*\(on node {platform.node()}\)"):
            order("no_such_module:Toy").build()
        with pytest.raises(UserError, match=r"takes no keyword 'colour'.*on node"):
            order(colour="red").build()


class TestCompiled:
    def test_the_loss_is_compiled_where_the_sweep_says_so(self, compiled_with):
        order().build()
        assert not compiled_with
        workload = replace(order(dropout=0.25), compile="default").build()
        assert compiled_with == [workload.workload.loss]
        assert workload.dropout == 0.25

    def test_a_loss_that_is_broken_is_not_blamed_on_the_compiler(self, compiled_with):
        with pytest.raises(RuntimeError, match="the toy\nis broken"):
            replace(order(troubles={0: "raise"}), compile="default").build()

    def test_a_reference_is_another_one(self, compiled_with, monkeypatch, tmp_path):
        monkeypatch.setenv("HYBRID_SWEEP_CACHE", str(tmp_path))
        kept = [
            prepare_reference(replace(order(), compile=mode), 2, 30, 10, True).from_cache
            for mode in ("none", "default", "reduce-overhead", "none", "default", "reduce-overhead")
        ]
        assert kept == [False, False, False, True, True, True]

    def test_curvature_is_that_of_the_uncompiled_loss(self, compiled_with, monkeypatch):
        """Autograd cannot differentiate a compiled one twice."""
        seen = []
        monkeypatch.setattr(
            preparations, "measure_curvature", lambda workload, **parts: seen.append(workload)
        )
        compiles = replace(order(), compile="default")
        prepare_curvature(compiles, 2, 30, False)
        assert seen == [compiles.build().workload]


def test_warming_up_leaves_nothing_behind_that_a_trial_could_see():
    cold, warm = Toy(dropout=0.5), Toy(dropout=0.5)
    warm_up(warm)
    assert reference_run(cold, 0, 40, 10) == reference_run(warm, 0, 40, 10)


@pytest.mark.parametrize("trouble", [{0: "nan"}, {2: "nan"}])
def test_a_divergence_while_warming_up_is_nobodys_business(trouble):
    warm_up(Toy(troubles=trouble))


def test_only_steps_of_the_run_are_asked_for(short_toy):
    warm_up(short_toy)
    measure_unit_costs(short_toy, 0, HybridConfig(max_predict_steps=10))


class TestCode:
    FACTORY = """
from toy import Toy

def make():
    scope = {"Toy": Toy, "__name__": "nowhere"}
    exec("class Made(Toy): pass", scope)
    return scope["Made"]()
"""

    @pytest.fixture
    def folder(self, tmp_path):
        shutil.copy(toy.__file__, tmp_path / "mine.py")
        return tmp_path

    def test_a_file_that_was_changed_is_refused_by_name(self, folder):
        mine = order(f"{folder / 'mine.py'}:Toy")
        before = prepare_reference(mine, 0, 30, 10, False).began_with
        mine.validate_same_workload(before)
        mine.validate_same_workload({})  # of a sweep that kept none
        with (folder / "mine.py").open("a") as file:
            file.write("# another one\n")
        with pytest.raises(UserError, match=r"^mine\.py changed since the sweep began") as refusal:
            mine.validate_same_workload(before)
        assert platform.node() in str(refusal.value)

    def test_a_recipe_that_was_changed_beside_the_code_is_refused_by_what_it_is(self, folder, monkeypatch):
        with (folder / "mine.py").open("a") as file:
            file.write(
                "\nimport os\nclass Mine(Toy):\n    def build_optimizer(self, model):\n"
                "        return torch.optim.SGD(model.parameters(), lr=float(os.environ['RATE']))\n"
            )
        mine = order(f"{folder / 'mine.py'}:Mine")
        monkeypatch.setenv("RATE", "0.005")
        before = json.loads(json.dumps(prepare_reference(mine, 0, 30, 10, False).began_with))
        mine.validate_same_workload(before)
        monkeypatch.setenv("RATE", "0.01")
        order_module._built.clear()  # as in a new process
        with pytest.raises(UserError, match=r"^learning rate \(0\.005, now 0\.01\) changed since the sweep"):
            mine.validate_same_workload(before)

    def test_code_that_is_in_no_file_is_not_compared(self, folder):
        shutil.copy(toy.__file__, folder)
        (folder / "factory.py").write_text(self.FACTORY)
        made = order(f"{folder / 'factory.py'}:make")
        assert made.code() != made.code()
        made.validate_same_workload(made.began_with())


class TestPreparing:
    def test_the_reference_takes_the_workloads_own_steps_unless_told(self):
        assert prepare_reference(order(), 2, None, 50, False).reference.steps == [0, 50, 100, 120]
        reference = prepare_reference(order(), 2, 30, 50, False).reference
        assert (reference.seed, reference.steps) == (2, [0, 30])

    def test_a_reference_is_trained_once_where_it_is_shared(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HYBRID_SWEEP_CACHE", str(tmp_path))
        trained = []

        def train(*given, **named):
            trained.append(named)
            return reference_run(*given, **named)

        monkeypatch.setattr(preparations, "reference_run", train)
        alone = prepare_reference(order(), 2, 30, 10, False)
        first, again = (prepare_reference(order(), 2, None if n else 120, 10, True) for n in range(2))
        assert [each.from_cache for each in (alone, first, again)] == [False, False, True]
        assert alone.quality == again.quality == "loss_ratio"
        assert first.reference == again.reference
        for other in (
            (order(), 3, 120, 10),
            (order(), 2, 60, 10),
            (order(), 2, 120, 20),
            (order(norm=True), 2, 120, 10),
        ):
            assert not prepare_reference(*other, True).from_cache
        assert len(trained) == 6
        assert not prepare_reference(order(), 2, 120, 10, False).from_cache

    def test_a_curvature_is_measured_once_where_it_is_shared(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HYBRID_SWEEP_CACHE", str(tmp_path))
        measured = []

        def measure(*given, **named):
            measured.append(named)
            return Curvature(steps=[len(measured)], eta_lambda=[0.5])

        monkeypatch.setattr(preparations, "measure_curvature", measure)
        assert prepare_curvature(order(), 2, None, True) == prepare_curvature(order(), 2, 120, True)
        assert len(measured) == 1
        for other in ((order(), 3, 120, True), (order(norm=True), 2, 120, True), (order(), 2, 120, False)):
            prepare_curvature(*other)
        assert len(measured) == 4

    def test_costs_are_kept_by_the_orders_keywords(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HYBRID_SWEEP_CACHE", str(tmp_path))
        measured = []
        monkeypatch.setattr(cost_cache, "measure_unit_costs", lambda *given: measured.append(given) or COSTS)
        config = HybridConfig(full_steps=7)
        for keywords, fresh in (({}, False), ({}, False), ({"dropout": 0.1}, False), ({}, True)):
            assert prepare_costs(order(**keywords), {"a": config}, None, fresh) == {"a": COSTS}
        assert len(measured) == 3


class TestShared:
    def shared(self, models=None, controls=True):
        references = {0: reference_run(Toy(), 0, 40, 10)}
        return Shared(
            order=order(),
            references=references,
            costs={cost_class(HybridConfig(**SHUT)): COSTS},
            controls=controls,
            models=models,
        )

    def test_a_trial_of_a_point(self):
        twins = {}
        trial = self.shared().trial(POINT, Toy(), twins)
        while not trial.done:
            trial.report()
        assert trial.config == HybridConfig(**SHUT)
        assert trial.result()["quality_vs_frozen"] == 1.0
        assert len(twins) == 2

    def test_costs_are_those_of_the_nearest_class(self):
        steps = (1, 4, 16)
        costs = {
            cost_class(HybridConfig(**SHUT, bptt_steps=k)): UnitCosts(
                **{**COSTS.to_dict(), "update": float(k)}
            )
            for k in steps
        }
        shared = replace(self.shared(), costs=costs)
        for asked, nearest in ((1, 1), (5, 4), (12, 16)):
            point = {**POINT, "config": {**SHUT, "bptt_steps": asked}}
            assert shared.trial(point, Toy(), {}).costs.update == nearest

    def test_a_control_is_charged_its_own_step(self):
        shared = replace(self.shared(), step_ratios={"tuned adamw": 3.0})
        counted = {}
        for optimizer in ("sgd", "adamw"):
            config = {"name": "tuned", "optimizer": optimizer, "lr": 0.01, "steps": 10}
            trial = shared.trial({"trial_id": "t", "seed": 0, "arm": "tuned", "config": config}, Toy(), {})
            while not trial.done:
                trial.report()
            counted[optimizer] = trial.result()["speedup_counted"]
        assert counted == pytest.approx({"sgd": 40 / 10, "adamw": 40 / 30})

    def test_without_controls(self):
        trial = self.shared(controls=False).trial(POINT, Toy(), {})
        while not trial.done:
            trial.report()
        assert trial.result()["quality_vs_frozen"] is None

    def test_trials_share_what_they_have_in_common_unless_told(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HYBRID_SWEEP_CACHE", str(tmp_path))
        together = replace(self.shared(), sweep_id="one")
        assert isinstance(together.trial(POINT, Toy(), {}), SharedPrefixRun)
        assert isinstance(together.trial(POINT, Toy(), {}, alone=True), HybridRun)
        assert isinstance(replace(together, share=False).trial(POINT, Toy(), {}), HybridRun)

    def test_a_kept_model_loads(self, tmp_path):
        trial = self.shared(models=tmp_path).trial(POINT, Toy(), {})
        self.shared(models=tmp_path).keep_model(POINT, trial)
        (file,) = tmp_path.iterdir()
        assert file.name == model_file("H010", 0) == "H010_seed0.pt"
        model = Toy().build_model(1)
        model.load_state_dict(torch.load(file))
        assert torch.equal(model[0].weight, trial.trainer.model[0].weight)

    def test_no_model_is_kept_unless_asked(self, tmp_path):
        shared = self.shared()
        shared.keep_model(POINT, shared.trial(POINT, Toy(), {}))
        assert not list(tmp_path.iterdir())
