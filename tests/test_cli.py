import io
import json
import re
import subprocess
import sys
import types
from dataclasses import dataclass

import pandas as pd
import pytest

from hybrid_sweep import cli
from hybrid_sweep.analysis.comparison import NUMBERS, Confirmation
from hybrid_sweep.cluster.jobs import JobState
from hybrid_sweep.driver.events import SweepEnded, SweepStarted, TrialFinished, TrialStarted
from hybrid_sweep.driver.sweep import FORMAT
from hybrid_sweep.measure.cache import Cache
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.search.space import grid
from hybrid_sweep.search.study import Study
from hybrid_sweep.spec.files import load_spec
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.presets import PRESETS

RESULT = {
    "speedup_counted": 2.0,
    "quality_vs_truncated": 1.02,
    "quality_vs_frozen": 1.1,
    "backward_reduction_pct": 61.5,
    "realised_horizon_mean": 44.0,
}
SPEEDS = {"H050_I00_C0.60": (2.0, 1.001), "H050_I15_C0.60": (1.9, 0.99), "H075_I00_C0.60": (3.0, 0.985)}
LAST = "H075_I15_C0.60"


@dataclass
class Outcome:
    folder: ResultsFolder
    counts: dict
    interrupted: bool


class FakeSweep:
    """Stands in for `run_sweep`: writes a real results folder of made-up numbers, and trains nothing."""

    def __init__(self):
        self.last_state, self.interrupted = "done", False
        self.calls = []

    def __call__(self, spec, out=None, *, on_event=None, **options):
        self.calls.append((spec, out, options))
        folder = ResultsFolder.create(out)
        folder.write_manifest({"sweep_id": "x", "spec": spec.model_dump(mode="json")})
        on_event(SweepStarted(4, folder.path, 2))
        counts = {}
        for point in grid(spec):
            speedup, quality = SPEEDS.get(point.trial_id, (1.5, 0.95))
            state = self.last_state if point.trial_id == LAST else "done"
            result = {**RESULT, **point.config, "speedup": speedup, "quality": quality}
            config = HybridConfig(**point.config).model_dump()
            event = {"trial_id": point.trial_id, "seed": spec.seed, "config": config}
            folder.journal.append({"event": "started", **event})
            on_event(TrialStarted(point.trial_id, spec.seed))
            folder.journal.append(
                {"event": "finished", **event, "state": state, "reason": "why", "result": result}
            )
            on_event(TrialFinished(point.trial_id, spec.seed, state, "why", result))
            counts[state] = counts.get(state, 0) + 1
        on_event(SweepEnded(counts, self.interrupted))
        return Outcome(folder, counts, self.interrupted)


@pytest.fixture
def sweep(monkeypatch):
    fake = FakeSweep()
    module = types.ModuleType("hybrid_sweep.cluster.launch")
    module.run_sweep = module.resume_sweep = fake
    monkeypatch.setitem(sys.modules, "hybrid_sweep.cluster.launch", module)
    return fake


@pytest.fixture
def hybrid_sweep(monkeypatch, capsys):
    """Return a function that runs the command line and gives exit code, standard output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["hybrid-sweep", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        output = capsys.readouterr()
        return left.value.code or 0, output.out, output.err

    return call


@pytest.fixture
def results(sweep, hybrid_sweep, tmp_path):
    """Return the folder of a finished sweep."""
    assert hybrid_sweep("run", "quick", "--out", tmp_path / "done")[0] == 0
    return tmp_path / "done"


def refused(result):
    """Return the one line that tells a user's mistake."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_help_names_every_command(hybrid_sweep):
    code, out, _ = hybrid_sweep("--help")
    assert code == 0
    assert all(
        command in out for command in ("list", "run", "pareto", "report", "export", "cache", "--version")
    )


def test_help_of_run_names_every_option(hybrid_sweep, monkeypatch):
    monkeypatch.setenv("TERMINAL_WIDTH", "120")
    _, out, _ = hybrid_sweep("run", "--help")
    options = (
        "out dry-run device set seed repeats concurrency address steps keep-models remeasure gpus-per-trial "
        "no-share"
    )
    assert all(f"--{option} " in out for option in options.split())


def test_the_version_names_what_a_report_of_a_problem_needs(hybrid_sweep):
    code, out, _ = hybrid_sweep("--version")
    assert code == 0
    assert out.startswith("hybrid-sweep ")
    assert "torch" in out
    assert "ray" in out


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["list"], ["cache", "ls"], ["--version"]]
)
def test_what_answers_at_once_loads_nothing_heavy(arguments):
    code = (
        "import sys\nfrom hybrid_sweep import cli\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "sys.exit(str(sorted({'torch', 'ray', 'pandas', 'matplotlib'} & set(sys.modules)) or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == ""


def test_list_shows_sweeps_workloads_and_presets_without_claimed_figures(hybrid_sweep):
    code, out, _ = hybrid_sweep("list")
    assert code == 0
    assert "grid60_upstream" in out
    assert "trainables.mnist_mlp:MnistMlp" in out
    assert all(name in out for name in PRESETS)
    assert "×" not in out
    only = hybrid_sweep("list", "presets")[1]
    assert "balanced" in only
    assert "grid60" not in only


def test_a_dry_run_shows_the_sweep_and_writes_nothing(hybrid_sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = hybrid_sweep("run", "quick", "--dry-run", "--repeats", 2, "--seed", 3, "--steps", 77)
    assert code == 0
    assert "4 points × 2 seeds = 8" in out
    assert "basic: 16 × 2 seeds = 32" in out
    assert "77 a run" in out
    assert "3, 4" in out
    assert "MnistMlp, found and loaded" in out
    assert "results/quick-<time>" in out
    assert all(trial in out for trial in (*SPEEDS, LAST))
    assert not list(tmp_path.iterdir())


def test_a_dry_run_shows_how_the_search_goes(hybrid_sweep, tmp_path):
    sweep = tmp_path / "mine.yaml"
    sweep.write_text(
        "workload: trainables.mnist_mlp:MnistMlp\nspace: {max_predict_steps: [20, 40]}\nreport_every: 50\n"
        "presets: [balanced]\npoints: [{max_predict_steps: 20}]\nconstraints: {min_quality: 0.9}\n"
        "early_stopping: {reduction: 4}\nstop_when_flat: 7\nstorage: postgresql://me:secret@host/db\n"
    )
    code, out, _ = hybrid_sweep("run", sweep, "--dry-run")
    assert code == 0
    for shown in (
        "balanced, points given: 1",
        "min_quality 0.9",
        "reduction 4, first_rung 0.111",
        "when 7 points add nothing",
        "every 50 steps",
        "postgresql://me:***@host/db",
    ):
        assert shown in out
    assert "secret" not in out
    assert "compiled" not in out


@pytest.mark.parametrize(
    ("more", "points"),
    [
        ("sampler: grid", 2),
        (
            "sampler: grid\npresets: [balanced]\npoints: [{max_predict_steps: 20}]",
            3,
        ),  # that point is the grid's
        ("sampler: grid\ntrials: 2\npresets: [balanced]", 2),
        ("sampler: tpe", 2),  # the space holds no more
        ("sampler: random\npresets: [balanced, early]\ntrials: 40", 4),
    ],
)
def test_a_dry_run_counts_what_will_run(hybrid_sweep, tmp_path, more, points):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "workload: trainables.mnist_mlp:MnistMlp\nspace: {max_predict_steps: [20, 40]}\nmask: null\n" + more
    )
    assert f"{points} points × 1 seed = {points}," in hybrid_sweep("run", path, "--dry-run")[1]
    study, asked = Study(load_spec(path), "", 2345), 0
    while study.has_more and study.ask():
        asked += 1
    assert asked == points


def test_a_run_ends_with_front_verdict_folder_and_next_commands(sweep, hybrid_sweep, tmp_path):
    out = tmp_path / "new"
    code, text, err = hybrid_sweep("run", "quick", "--out", out)
    assert (code, err) == (0, "")
    _, _, front = text.partition("Pareto front")
    assert front.index("H075_I00_C0.60") < front.index("H050_I00_C0.60")
    assert "H050_I15_C0.60" not in front
    assert "4 runs: 4 done" in front
    for label in ("Optimal Config: H=75, I=0", "Speedup: 3.00×", "Quality: 98.50%", "Recommendation: "):
        assert label in front
    assert f"Results: {out}" in front
    assert f"hybrid-sweep report {out}" in front
    assert f"hybrid-sweep pareto {out}" in front
    assert f"hybrid-sweep export {out} --trial H075_I00_C0.60 --format toml" in front


def test_the_options_of_run_reach_the_sweep(sweep, hybrid_sweep, tmp_path):
    options = "--steps 9 --seed 5 --repeats 1 --concurrency 2 --device cpu --gpus-per-trial 0.5 --remeasure"
    more = "--address a:1 --keep-models front --no-share --set eval_every=7 --set steps=8 "
    more += "--set workload.lr=1e-2 --pack 8"
    hybrid_sweep("run", "quick", "--out", tmp_path / "x", *options.split(), *more.split())
    [(spec, out, given)] = sweep.calls
    assert (spec.steps, spec.seed, spec.concurrency, spec.device, spec.gpus_per_trial) == (
        9,
        5,
        2,
        "cpu",
        0.5,
    )
    assert (spec.eval_every, spec.workload.keywords["lr"], spec.share) == (7, 0.01, False)
    assert spec.pack == 8
    assert out == tmp_path / "x"
    assert given == {"address": "a:1", "keep_models": "front", "remeasure": True}


def test_a_sweep_is_compiled_where_it_is_asked_for(sweep, hybrid_sweep, tmp_path):
    assert (
        "torch.compile, mode default" in hybrid_sweep("run", "quick", "--compile", "default", "--dry-run")[1]
    )
    hybrid_sweep("run", "quick", "--out", tmp_path / "x", "--compile", "default")
    [(spec, _, _)] = sweep.calls
    assert spec.compile == "default"


def test_a_failed_run_makes_exit_code_1_and_says_why(sweep, hybrid_sweep, tmp_path):
    sweep.last_state = "failed"
    code, out, _ = hybrid_sweep("run", "quick", "--out", tmp_path / "x")
    assert code == 1
    assert "4 runs: 3 done, 1 failed" in out
    assert f"{LAST} (seed 0) failed: why" in out


def test_a_diverged_run_is_a_result(sweep, hybrid_sweep, tmp_path):
    sweep.last_state = "diverged"
    code, out, _ = hybrid_sweep("run", "quick", "--out", tmp_path / "x")
    assert code == 0
    assert "4 runs: 3 done, 1 diverged" in out


def test_a_screen_that_lacks_a_character_shows_another(sweep, hybrid_sweep, monkeypatch, tmp_path):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    for arguments in (["run", "quick", "--out", tmp_path / "x"], ["status", tmp_path / "x"], ["list"]):
        assert hybrid_sweep(*arguments)[::2] == (0, "")
    screen.flush()
    assert b"3.00? quality 0.985" in screen.buffer.getvalue()


def test_ctrl_c_makes_exit_code_130_and_says_how_to_look(sweep, hybrid_sweep, tmp_path):
    sweep.interrupted = True
    code, out, _ = hybrid_sweep("run", "quick", "--out", tmp_path / "x")
    assert code == 130
    assert "what is finished is written" in out
    assert f"hybrid-sweep pareto {tmp_path / 'x'}" in out


def test_ctrl_c_before_anything_is_written_makes_exit_code_130(hybrid_sweep, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("hybrid_sweep.spec.files.load_spec", interrupt)
    assert hybrid_sweep("run", "quick")[0] == 130


def test_a_fault_of_ours_is_not_dressed_as_a_mistake_of_the_user(monkeypatch):
    def fault(*_, **__):
        raise ValueError("ours")

    monkeypatch.setattr("hybrid_sweep.spec.files.load_spec", fault)
    monkeypatch.setattr(sys, "argv", ["hybrid-sweep", "run", "quick"])
    with pytest.raises(ValueError, match="ours"):
        cli.main()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nothing"], "known: explore, grid60, grid60_upstream, quick, rates, regression"),
        (["quick", "--set", "steps"], "the keys are about"),
        (["quick", "--set", "stepz=1"], "did you mean 'steps'"),
        (["quick", "--steps", "0"], "steps=0"),
        (["quick", "--set", "space.confidence_threshold=[1.5]"], "confidence_threshold=1.5"),
        (["quick", "--set", "workload=nowhere.py:Net", "--dry-run"], "no workload file"),
        (["quick", "--set", "workload.lrr=1", "--dry-run"], "no keyword 'lrr'"),
        (
            ["quick", "--set", "early_stopping={}", "--set", "report_every=99", "--dry-run"],
            "report_every=99 leaves early stopping nothing",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(sweep, hybrid_sweep, arguments, part):
    assert part in refused(hybrid_sweep("run", *arguments))
    assert not sweep.calls


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_folder_in_use_is_refused(sweep, hybrid_sweep, tmp_path, more):
    (tmp_path / "precious.txt").touch()
    assert "exists already" in refused(hybrid_sweep("run", "quick", "--out", tmp_path, *more))
    assert "exists already" in refused(
        hybrid_sweep("run", "quick", "--out", tmp_path / "precious.txt", *more)
    )
    assert not sweep.calls


@pytest.mark.parametrize(
    "arguments",
    [
        ["rum"],
        ["run"],
        ["run", "quick", "--steps", "abc"],
        ["list", "things"],
        ["export", "x", "--format", "xml"],
    ],
)
def test_a_mistyped_command_makes_exit_code_2(hybrid_sweep, arguments):
    code, out, err = hybrid_sweep(*arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err


def test_pareto_prints_a_table_csv_or_json(results, hybrid_sweep, tmp_path):
    code, out, _ = hybrid_sweep("pareto", results)
    assert code == 0
    assert "H075_I00_C0.60" in out
    (tmp_path / "front.csv").write_text(hybrid_sweep("pareto", results, "--format", "csv")[1])
    assert list(pd.read_csv(tmp_path / "front.csv")["trial_id"]) == ["H075_I00_C0.60", "H050_I00_C0.60"]
    records = json.loads(hybrid_sweep("pareto", results, "--format", "json", "--min-quality", "0.99")[1])
    assert [record["trial_id"] for record in records] == ["H050_I00_C0.60"]


def test_pareto_says_where_no_point_is_good_enough(results, hybrid_sweep):
    code, out, _ = hybrid_sweep("pareto", results, "--min-quality", "1.5")
    assert code == 0
    assert "no point" in out.lower()


def test_report_rebuilds_the_files_and_prints_the_verdict(results, hybrid_sweep):
    assert not (results / "report.html").exists()
    code, out, _ = hybrid_sweep("report", results)
    assert code == 0
    assert "Recommendation: " in out
    assert f"Report: {results / 'report.html'}" in out
    assert (results / "report.html").is_file()


def test_export_writes_a_table(results, hybrid_sweep, tmp_path):
    target = tmp_path / "t.parquet"
    assert hybrid_sweep("export", results, "--format", "parquet", "--to", target)[0] == 0
    assert len(pd.read_parquet(target)) == 4
    assert len(json.loads(hybrid_sweep("export", results, "--format", "json", "--what", "front")[1])) == 2


@pytest.mark.parametrize(
    ("form", "read"), [("toml", HybridConfig.from_toml), ("json", HybridConfig.from_json)]
)
def test_the_configuration_of_a_trial_loads(results, hybrid_sweep, tmp_path, form, read):
    target = tmp_path / f"config.{form}"
    assert hybrid_sweep("export", results, "--trial", LAST, "--format", form, "--to", target)[0] == 0
    config = HybridConfig.load(target)
    assert (config.max_predict_steps, config.correction_interval, config.warmup_steps) == (75, 15, 50)
    assert read(hybrid_sweep("export", results, "--trial", LAST, "--format", form)[1]) == config


def test_mistakes_in_looking_at_results_are_one_line(results, hybrid_sweep, tmp_path):
    assert "no folder" in refused(hybrid_sweep("pareto", tmp_path / "nowhere"))
    assert "not a results folder" in refused(hybrid_sweep("report", tmp_path))
    assert "H075_I15_C0.60" in refused(hybrid_sweep("export", results, "--trial", "H075_I15_C0.6"))
    assert "toml" in refused(hybrid_sweep("export", results, "--trial", LAST, "--format", "csv"))
    assert "toml" in refused(hybrid_sweep("export", results, "--format", "toml"))
    missing = tmp_path / "no" / "such" / "file"
    assert "cannot write" in refused(hybrid_sweep("export", results, "--to", missing))
    assert "cannot write" in refused(hybrid_sweep("export", results, "--trial", LAST, "--to", missing))


@pytest.fixture
def jobs(monkeypatch):
    """Stands in for the Jobs client and keeps what it was asked."""
    asked = []

    class Jobs:
        def __init__(self, address):
            asked.append(address)

        def submit(self, sweep, arguments, *, results):
            asked.append((sweep, arguments, results))
            return "grid60-1"

        def status(self, job):
            return JobState(
                job=job,
                sweep="grid60",
                state="running",
                message="fine",
                results="/results/grid60-1",
                started=None,
                ended=None,
            )

        def stop(self, job):
            asked.append(("stop", job))

        def logs(self, job, *, follow):
            yield from (f"{job} ", f"follow={follow}\n")

        def fetch(self, job, to):
            return to

    module = types.ModuleType("hybrid_sweep.cluster.jobs")
    module.Jobs = Jobs
    monkeypatch.setitem(sys.modules, "hybrid_sweep.cluster.jobs", module)
    return asked


def test_status_says_how_far_a_sweep_is(results, hybrid_sweep):
    code, out, _ = hybrid_sweep("status", results)
    assert code == 0
    assert "4 of 4 ended" in out
    code, out, _ = hybrid_sweep("status", results, "--format", "json")
    assert json.loads(out)["runs"]["done"] == 4


def test_what_no_one_drives_cannot_be_stopped(results, hybrid_sweep):
    assert "nothing drives the sweep" in refused(hybrid_sweep("stop", results))


def test_a_driven_sweep_is_asked_to_stop(results, hybrid_sweep):
    folder = ResultsFolder.open(results)
    with folder.driven():
        code, out, _ = hybrid_sweep("stop", results)
        assert (code, folder.stop_request.exists()) == (0, True)
        assert f"hybrid-sweep resume {results}" in out
    with folder.driven():
        assert not folder.stop_request.exists()


def test_resume_hands_on_what_may_change(sweep, results, hybrid_sweep, monkeypatch):
    calls = []

    def resume(folder, **options):
        calls.append((folder, options.pop("changes"), {k: v for k, v in options.items() if k != "on_event"}))
        return Outcome(ResultsFolder.open(folder), {"done": 4}, False)

    sys.modules["hybrid_sweep.cluster.launch"].resume_sweep = resume
    manifest = ResultsFolder.open(results).manifest
    ResultsFolder.open(results).write_manifest({**manifest, "format": FORMAT, "steps": 400})
    assert hybrid_sweep("resume", results, "--trials", "9", "--retry-failed", "--address", "a:1")[0] == 0
    given = {"address": "a:1", "retry_failed": True, "workload": None, "trust": False}
    assert calls == [(results, {"trials": 9}, given)]
    assert hybrid_sweep("resume", results, "--workload", "w.py:W", "--trust")[0] == 0
    assert (calls[-1][2]["workload"], calls[-1][2]["trust"]) == ("w.py:W", True)


def test_a_sweep_replays_from_its_journal(sweep, hybrid_sweep, results):
    folder = ResultsFolder.open(results)
    folder.write_manifest({**folder.manifest, "format": FORMAT, "steps": 400})
    assert "0 points asked again" in hybrid_sweep("replay", results)[1]
    event = {"event": "asked", "trial_id": "x", "number": 0, "config": {}, "params": {}, "source": "grid"}
    folder.journal.append(event)
    assert "ask 0 does not replay" in refused(hybrid_sweep("replay", results))


def test_a_folder_of_another_version_is_not_carried_on(results, hybrid_sweep):
    assert "written in format 1" in refused(hybrid_sweep("resume", results))


def test_submit_passes_the_options_of_run_on_and_says_what_comes_next(jobs, hybrid_sweep):
    code, out, _ = hybrid_sweep(
        "submit", "grid60", "--address", "http://h:8265", "--repeats", "3", "--seed=4"
    )
    assert code == 0
    assert jobs == ["http://h:8265", ("grid60", ["--repeats", "3", "--seed=4"], "~/hybrid-sweep-results")]
    for verb in ("status", "logs", "stop", "fetch"):
        assert f"hybrid-sweep {verb} grid60-1 --address http://h:8265" in out


def test_a_job_is_looked_at_followed_stopped_and_fetched(jobs, hybrid_sweep):
    where = ("grid60-1", "--address", "http://h:8265")
    assert "running" in hybrid_sweep("status", *where)[1]
    assert json.loads(hybrid_sweep("status", *where, "--format", "json")[1])["state"] == "running"
    assert hybrid_sweep("logs", *where, "--follow")[1] == "grid60-1 follow=True\n"
    assert hybrid_sweep("stop", *where)[0] == 0
    assert ("stop", "grid60-1") in jobs
    assert "results/grid60-1" in hybrid_sweep("fetch", *where)[1]


def test_verdict_of_what_is_not_confirmed_says_so(hybrid_sweep, results):
    code, out, _ = hybrid_sweep("verdict", results)
    assert code == 0
    assert out.startswith("CONFIRM FIRST\n")
    assert f"hybrid-sweep confirm {results}" in out
    code, out, _ = hybrid_sweep("verdict", results, "--format", "json")
    assert json.loads(out)["trial_id"] == "H075_I00_C0.60"


def test_confirm_shows_what_was_found_and_the_verdict(hybrid_sweep, results, monkeypatch):
    front = ResultsFolder.open(results).table("front")
    row = {"trial_id": front["trial_id"][0], "arm": "reference", "what": "your recipe", "at_least": False}
    row |= {"outermost": ""} | dict.fromkeys(NUMBERS, 3.0)
    found = Confirmation(
        seeds=[1, 2, 3],
        min_quality=0.98,
        left_out=["x"],
        tried=4,
        configurations=4,
        table=pd.DataFrame([row]),
    )
    asked = {}

    def confirm(folder, *, on_progress, **options):
        asked.update(options)
        on_progress(types.SimpleNamespace(done=7, total=9, next="tuned of H075"))
        (folder / "confirm").mkdir()
        found.write(folder / "confirm")
        return found

    module = types.ModuleType("hybrid_sweep.confirm.sweep")
    module.confirm_sweep = confirm
    monkeypatch.setitem(sys.modules, "hybrid_sweep.confirm.sweep", module)
    code, out, _ = hybrid_sweep("confirm", results, "--seeds", 3, "--points", 1, "--arms", "full")
    assert code == 0
    assert asked == {
        "seeds": 3,
        "points": 1,
        "min_quality": 0.98,
        "arms": "full",
        "workload": None,
        "trust": False,
    }
    assert "7/9 | tuned of H075" in out
    assert "Confirmed on seeds 1, 2, 3" in out
    assert "Left out: 1 other point of the front" in out
    assert "CONFIRM FIRST: lr_matched, tuned" in out


def test_confirm_that_is_stopped_says_how_to_go_on(hybrid_sweep, results, monkeypatch):
    module = types.ModuleType("hybrid_sweep.confirm.sweep")
    module.confirm_sweep = lambda *_, **__: None
    monkeypatch.setitem(sys.modules, "hybrid_sweep.confirm.sweep", module)
    code, out, _ = hybrid_sweep("confirm", results)
    assert code == 130
    assert f"Go on with: hybrid-sweep confirm {results}" in out


@pytest.mark.parametrize("command", ["confirm", "verdict"])
def test_what_is_no_results_folder_cannot_be_confirmed_or_judged(hybrid_sweep, tmp_path, command):
    assert "no results folder" in refused(hybrid_sweep(command, tmp_path)).replace("not a", "no")


def contents(folder):
    """Return every file of a folder with what is in it."""
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seeds", "2"], "seeds=2 is too few for an interval: use at least 3"),
        (["--seeds", "0"], "seeds=0 is too few for an interval"),
        (["--points", "0"], "points=0 leaves nothing to confirm"),
        (["--min-quality", "0"], "min_quality=0 is no bar"),
        (["--min-quality", "nan"], "min_quality=nan is no bar"),
    ],
)
def test_confirm_refuses_what_it_cannot_do_and_writes_nothing(hybrid_sweep, results, options, said):
    before = contents(results)
    assert said in refused(hybrid_sweep("confirm", results, *options))
    assert contents(results) == before


class TestCache:
    @pytest.fixture(autouse=True)
    def kept(self, tmp_path, monkeypatch):
        """Two controls and a reference."""
        monkeypatch.setenv("HYBRID_SWEEP_CACHE", str(tmp_path))
        monkeypatch.setenv("HYBRID_SWEEP_CACHE_BYTES", "1MB")
        for kind, number in (("arms", 1), ("arms", 2), ("references", 1)):
            Cache().put(kind, f"{number:064x}", bytes(100))

    def test_it_is_listed_by_kind(self, hybrid_sweep, tmp_path):
        code, out, _ = hybrid_sweep("cache", "ls")
        assert code == 0
        assert re.search(r"arms +2 +\d+ bytes +20\d\d-\d\d-\d\d \d\d:\d\d *\n", out)
        assert re.search(r"references +1 ", out)
        assert f"of 1.0 MB in {tmp_path}\n" in out

    def test_as_json(self, hybrid_sweep, tmp_path):
        found = json.loads(hybrid_sweep("cache", "ls", "--format", "json")[1])
        assert (found["root"], found["limit_bytes"]) == (str(tmp_path), 1_000_000)
        assert [(each["kind"], each["entries"]) for each in found["kinds"]] == [
            ("arms", 2),
            ("references", 1),
        ]
        assert sum(each["size_bytes"] for each in found["kinds"]) == found["size_bytes"] > 300

    def test_one_kind_or_all_are_cleared(self, hybrid_sweep):
        assert hybrid_sweep("cache", "clear", "references") == (0, "1 entry removed.\n", "")
        assert hybrid_sweep("cache", "clear") == (0, "2 entries removed.\n", "")
        assert hybrid_sweep("cache", "clear") == (0, "0 entries removed.\n", "")

    def test_an_unknown_kind_is_a_mistake(self, hybrid_sweep):
        assert "did you mean 'arms'?" in refused(hybrid_sweep("cache", "clear", "arm"))
