"""A compiled loss: compiled once, before any arm trains, and never again."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from support.toy import Toy

from hybrid_sweep.control import ControlConfig
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.compiled import compiled
from hybrid_sweep.measure.control_training import ControlTraining, run_hybrid
from hybrid_sweep.measure.reference import held_out, reference_run, start
from hybrid_sweep.measure.workload_builder import warm_up
from hybrid_sweep.trainer import HybridConfig
from hybrid_sweep.workload import quality_of

CONFIG = HybridConfig(warmup_steps=20, full_steps=5, max_predict_steps=5, confidence_threshold=0.01)


class Compiler:
    """Stands in for torch's, so that no test needs a C++ compiler: it counts, and runs the graph as it is."""

    def __init__(self, monkeypatch):
        self.graphs = self.runs = 0
        self.given = {}
        torch.compiler.reset()
        real = torch.compile

        def compile(function, *, dynamic, options):
            self.given = options
            return real(function, dynamic=dynamic, backend=self.backend)

        monkeypatch.setattr(torch, "compile", compile)

    def backend(self, graph, inputs):
        self.graphs += 1

        def run(*given):
            self.runs += 1
            return graph(*given)

        return run


@pytest.fixture
def compiler(monkeypatch):
    return Compiler(monkeypatch)


def compiled_toy(mode="default", **keywords):
    return compiled(Toy(**keywords), mode, warm_up)


@pytest.mark.parametrize("keywords", [{}, {"dropout": 0.2}, {"norm": True}])
def test_what_warming_up_has_compiled_serves_every_model_that_follows(compiler, keywords):
    workload = compiled_toy(**keywords)
    assert compiler.graphs == 2  # with a gradient and without
    for seed in range(12):  # torch gives up at 8 variants of one function
        before = compiler.runs
        plain = start(workload, seed)
        for step in range(1, 6):
            plain(workload.batch(seed, step))
        assert compiler.runs == before + 5
        before = compiler.runs
        curve = run_hybrid(workload, seed, CONFIG, 60)
        assert curve.forward_only_calls
        assert compiler.runs == before + curve.backward_calls[-1] + curve.forward_only_calls
        for arm in (ControlConfig(name="lr_matched"), ControlConfig(name="frozen")):
            ControlTraining(workload, seed, arm, steps=60, trace=curve.trace).finish()
    assert compiler.graphs == 2


def test_the_oracles_copy_of_a_model_is_served_too(compiler):
    workload = compiled_toy()
    before = compiler.runs
    curve = run_hybrid(workload, 0, CONFIG.replace(predictor="oracle"), 60)
    assert compiler.runs == before + curve.backward_calls[-1] + curve.forward_only_calls


def test_a_second_workload_of_the_same_process_is_compiled_too(compiler):
    compiled_toy()
    workload = compiled_toy()
    before = compiler.runs
    start(workload, 0)(workload.batch(0, 1))
    assert compiler.runs == before + 1


def test_a_batch_that_warming_up_has_not_seen_runs_uncompiled(compiler):
    """No arm pays for a compilation."""
    workload = compiled_toy()
    plain, (x, y) = start(workload, 0), workload.batch(0, 1)
    before = compiler.runs
    smaller = plain((x[:3], y[:3]))
    assert (compiler.graphs, compiler.runs) == (2, before)
    assert smaller == start(Toy(), 0)((x[:3], y[:3]))


def test_the_loss_is_the_same_and_evaluation_is_the_workloads_own(compiler):
    workload = compiled_toy()
    before = compiler.runs
    reference = reference_run(workload, 1, 20, 10)
    assert compiler.runs == before + 20
    assert reference == reference_run(Toy(), 1, 20, 10)
    held_out(workload, workload.build_model(0))
    assert compiler.runs == before + 20


def test_a_loss_outlives_the_next_one(compiler, monkeypatch):
    """A CUDA graph writes its result where it wrote the last one."""
    marked = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marked.append(True))
    place = torch.zeros(())

    def recording(graph, inputs):
        return lambda *given: graph(*given) if torch.is_grad_enabled() else (place.copy_(*graph(*given)),)

    monkeypatch.setattr(compiler, "backend", recording)
    workload = compiled_toy("reduce-overhead")
    model, before = workload.build_model(0), len(marked)
    with torch.no_grad():
        first, second = (workload.loss(model, workload.batch(0, step)) for step in (1, 2))
    assert first != second
    assert len(marked) == before + 2


@pytest.mark.parametrize(("mode", "graphs"), [("default", False), ("reduce-overhead", True)])
def test_cuda_graphs_where_they_are_asked_for(compiler, mode, graphs):
    compiled_toy(mode)
    assert compiler.given["triton.cudagraphs"] is graphs


def test_everything_else_is_the_workloads_own(compiler):
    class Scheduled(Toy):
        def build_scheduler(self, optimizer):
            return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=0.25)

    workload = compiled(Scheduled(quality="loss_gap"), "default", warm_up)
    assert (workload.steps, quality_of(workload)) == (120, "loss_gap")
    assert start(workload, 0).learning_rate == 0.005 / 4
    assert not hasattr(compiled_toy(), "build_scheduler")
    assert not hasattr(compiled_toy(), "data_checksum")


def test_a_workload_that_takes_no_new_attribute(compiler):
    @dataclass(frozen=True, slots=True)
    class Closed:
        toy: Toy
        steps: int = 30

        def build_model(self, seed):
            return self.toy.build_model(seed)

        def build_optimizer(self, model):
            return self.toy.build_optimizer(model)

        def batch(self, seed, step):
            return self.toy.draw(step)

        def loss(self, model, batch):
            return self.toy.loss(model, batch)

        def evaluate(self, model, split):
            return self.toy.evaluate(model, split)

    compiled(Closed(Toy()), "default", warm_up)
    assert compiler.graphs == 2


def test_a_loss_that_cannot_be_compiled_is_refused_in_one_sentence(compiler, monkeypatch):
    def refuse(graph, inputs):
        raise RuntimeError("no compiler\nis there")

    monkeypatch.setattr(compiler, "backend", refuse)
    with pytest.raises(UserError, match=r"loss of Toy.*no compiler.*compile=none") as caught:
        compiled_toy()
    assert "\n" not in str(caught.value)


SCRIPT = """
import torch
from support.toy import Toy
from hybrid_sweep.measure.workload_builder import warm_up
from hybrid_sweep.measure.compiled import compiled
from hybrid_sweep.measure.reference import start
torch.set_num_threads(1)
workload = compiled(Toy(dropout=0.3), "default", warm_up)
plain = start(workload, 3)
print([float(plain(workload.batch(3, step))).hex() for step in range(1, 40)])
print(workload.evaluate(plain.model, "val"))
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
def test_the_same_seed_gives_the_same_losses_in_another_process(tmp_path):
    """With torch's own compiler, random numbers of dropout included."""
    variables = {
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
    }
    command, environment = [sys.executable, "-c", SCRIPT], {**os.environ, **variables}
    first, second = (subprocess.check_output(command, env=environment) for _ in range(2))
    assert len(set(first.partition(b"\n")[0].split(b", "))) == 39
    assert second == first
