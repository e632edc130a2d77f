"""Sweeps as jobs of real Ray nodes: files travel there, results come back, and a stop is a gentle one."""

import shutil
import socket

import pytest
import torch
from ray.job_submission import JobSubmissionClient
from support import toy
from support.nodes import nodes
from support.patience import until
from support.toy import Toy

from hybrid_sweep.cluster.jobs import Jobs
from hybrid_sweep.errors import UserError
from hybrid_sweep.results import ResultsFolder
from hybrid_sweep.store.journal import Journal

TABLES = ["trials.csv", "trials.parquet", "steps.parquet", "pareto.csv", "pareto.png", "report.html"]
SWEEP = """
workload: ../models/neighbour_of_toy.py:Mine
trainer: {warmup_steps: 20, full_steps: 10}
sampler: grid
space: {max_predict_steps: [20], confidence_threshold: [0.001, 0.999]}
"""
WORKLOAD = """
import time
from pathlib import Path
from toy import Toy

(Path.home() / "beside_me").write_text(",".join(p.name for p in Path(__file__).parent.iterdir()))

class Mine(Toy):
    pass

class Slow(Toy):
    def batch(self, seed, step):
        time.sleep(0.005)
        return super().batch(seed, step)
"""


def end_of(jobs, job):
    return until(lambda: (state := jobs.status(job)).ended and state)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The home folder of the head node."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def cluster(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # the address that is given goes before it
        with nodes(1, cpus=2, HOME=str(home)) as started:
            yield started


@pytest.fixture(scope="module")
def jobs(cluster):
    return Jobs(cluster.dashboard)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A user's project: a sweep file in one folder, a workload and its neighbour in another."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("sweeps", "models/.git", "models/results"):
        (folder / name).mkdir(parents=True)
        (folder / name / "stays.txt").write_text("here")
    shutil.copy(toy.__file__, folder / "models")
    (folder / "models" / "neighbour_of_toy.py").write_text(WORKLOAD)
    (folder / "sweeps" / "mine.yaml").write_text(SWEEP)
    return folder


@pytest.fixture(scope="module")
def finished(jobs, project):
    """The user's sweep, submitted from anywhere and run to its end."""
    job = jobs.submit(
        str(project / "sweeps" / "mine.yaml"),
        ["--repeats", "2", "--keep-models", "front", "--set=controls=none"],
        results="~/a folder",
    )
    return job, "".join(jobs.logs(job, follow=True))


@pytest.mark.ray
@pytest.mark.slow
class TestAJobThatEnds:
    def test_its_state(self, jobs, finished):
        job, printed = finished
        state = end_of(jobs, job)
        assert (state.job, state.sweep, state.state) == (job, "mine", "succeeded"), printed
        assert job.startswith("mine-20")
        assert state.results == f"~/a folder/{job}"
        assert state.started < state.ended
        assert "\n" not in state.message

    def test_its_logs_are_the_same_later(self, jobs, finished):
        job, printed = finished
        assert "4 runs: 4 done" in printed
        assert "".join(jobs.logs(job)) == printed

    def test_its_results_come_back_and_the_tables_with_them(self, jobs, finished, home, tmp_path):
        job, _ = finished
        folder = jobs.fetch(job, tmp_path / "new" / "place")
        assert folder == tmp_path / "new" / "place"
        there = home / "a folder" / job
        for name in ("journal.jsonl", "manifest.json"):
            assert (folder / name).read_bytes() == (there / name).read_bytes()
        assert all((folder / name).stat().st_size for name in TABLES)
        trials = ResultsFolder.open(folder).trials()
        assert list(trials["state"]) == ["done"] * 4
        models = sorted(p.name for p in (folder / "models").iterdir())
        assert models == sorted(p.name for p in (there / "models").iterdir())
        assert models
        Toy().build_model(9).load_state_dict(torch.load(folder / "models" / models[0]))
        assert [p.name for p in (tmp_path / "new").iterdir()] == ["place"]

    def test_what_fetches_is_no_sweep(self, jobs, finished, tmp_path):
        before = jobs.jobs()
        jobs.fetch(finished[0], tmp_path / "one")
        assert jobs.jobs() == before

    def test_a_place_that_is_taken_is_refused(self, jobs, finished, tmp_path):
        (tmp_path / "mine.txt").write_text("mine")
        with pytest.raises(UserError, match="exists already"):
            jobs.fetch(finished[0], tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]

    def test_there_is_nothing_to_stop(self, jobs, finished):
        with pytest.raises(UserError, match=r"has ended already \(succeeded\)"):
            jobs.stop(finished[0])

    def test_the_folder_of_the_workload_travelled(self, finished, home):
        beside = set((home / "beside_me").read_text().split(","))
        assert {"neighbour_of_toy.py", "toy.py"} <= beside
        assert not beside & {".git", "results"}


@pytest.mark.ray
@pytest.mark.slow
def test_a_packaged_sweep(jobs):
    job = jobs.submit("quick", ["--steps", "120", "--set=name=mine.too"])
    assert end_of(jobs, job).state == "succeeded", "".join(jobs.logs(job))
    assert jobs.jobs()[0] == jobs.status(job)
    assert jobs.jobs()[0].sweep == "mine.too"


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_is_fetched_while_it_runs_and_stopped_gently(jobs, project, home, tmp_path, monkeypatch):
    monkeypatch.chdir(project / "models")  # where the workload of a packaged sweep is looked for
    many = f"space.max_predict_steps={list(range(20, 60))}"
    workload = "workload=neighbour_of_toy.py:Slow"
    job = jobs.submit("quick", ["--steps", "200", "--concurrency", "1", "--set", workload, "--set", many])
    with pytest.raises(UserError, match=r"has no results yet: fetch them when its trials have started"):
        jobs.fetch(job, tmp_path / "early")
    there = home / "hybrid-sweep-results" / job

    def events(folder):
        return [event["event"] for event in Journal.events(folder / "journal.jsonl")]

    until(lambda: "finished" in events(there))
    fetched = jobs.fetch(job, tmp_path / "meanwhile")
    assert "finished" in events(fetched)
    assert jobs.status(job).state == "running"

    jobs.stop(job)
    state = end_of(jobs, job)
    assert state.state == "stopped", "".join(jobs.logs(job))
    assert events(there)[-1] in ("interrupted", "finished")  # its last cycle may have been the trial's last
    assert (there / "report.html").exists()  # it was let finish
    states = ResultsFolder.open(jobs.fetch(job, tmp_path / "after")).trials()["state"]
    assert set(states) <= {"done", "pruned"}
    assert list(states).count("pruned") <= 1
    assert len(states) < 40


@pytest.mark.ray
@pytest.mark.slow
class TestRefused:
    def test_an_unknown_job_is_told_the_latest(self, jobs, finished, cluster):
        with pytest.raises(UserError, match=rf"knows no sweep 'nope': its latest sweeps are .*{finished[0]}"):
            jobs.status("nope")
        for ask in (jobs.stop, lambda job: list(jobs.logs(job)), lambda job: jobs.fetch(job, "x")):
            with pytest.raises(UserError, match="knows no sweep"):
                ask("nope")

    def test_a_job_that_is_no_sweep_is_left_alone(self, jobs, cluster, monkeypatch):
        monkeypatch.setenv("RAY_ADDRESS", cluster.dashboard)
        other = JobSubmissionClient().submit_job(entrypoint="sleep 600")
        with pytest.raises(UserError, match="knows no sweep"):
            jobs.stop(other)
        assert other not in {state.job for state in jobs.jobs()}
        JobSubmissionClient().stop_job(other)

    def test_a_job_that_never_began_says_why(self, jobs, tmp_path):
        job = jobs.submit("quick", ["--set", "steps=-1"])
        state = end_of(jobs, job)
        assert state.state == "failed"
        assert state.message.startswith("quick: steps=-1 is not allowed")
        with pytest.raises(UserError, match=r"failed before its first trial.*steps=-1 is not allowed"):
            jobs.fetch(job, tmp_path / "nothing")
        assert not (tmp_path / "nothing").exists()

    @pytest.mark.parametrize(
        ("sweep", "arguments", "message"),
        [
            ("quick", ["--out=here"], "--out=here cannot be given to a job"),
            ("quick", ["--address", "auto"], "--address cannot be given to a job"),
            ("quikc", [], r"unknown sweep 'quikc' \(did you mean 'quick'\?\)"),
            ("nowhere.yaml", [], "no sweep file nowhere.yaml"),
            ("quick", ["--set", "workload=nowhere.py:Mine"], "no workload file for nowhere.py:Mine"),
        ],
    )
    def test_before_anything_is_sent(self, jobs, sweep, arguments, message):
        before = jobs.jobs()
        with pytest.raises(UserError, match=message):
            jobs.submit(sweep, arguments)
        assert jobs.jobs() == before

    def test_results_in_the_folder_of_a_job_would_be_lost(self, jobs):
        with pytest.raises(UserError, match=r"results='here' is nowhere on the head node: begin it with /"):
            jobs.submit("quick", [], results="here")

    def test_the_port_of_drivers_is_not_that_of_jobs(self, cluster):
        with pytest.raises(UserError, match=r"no Jobs server of Ray answers.*not the port of --address"):
            Jobs(cluster.address)


def test_an_address_where_no_one_answers_is_refused_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UserError, match=f"no Jobs server of Ray answers at http://{address} .*start-head.sh"):
        Jobs(address)


@pytest.mark.parametrize(
    "address", ["ray://head:10001", "http://", "ftp://head:8265", "http://[::1", "head:x", "head:99999"]
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(UserError, match="is not the address of a Jobs server"):
        Jobs(address)


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_with_a_token(monkeypatch):
    """Another process asks, because a process of Ray makes up its mind on authentication once."""
    import subprocess
    import sys

    token = "0123456789abcdef" * 4
    ask = "import sys; from hybrid_sweep.cluster.jobs import Jobs; print(Jobs(sys.argv[1]).jobs())"
    with nodes(0, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token) as cluster:
        for given, accepted in ((token, True), ("f" * 64, False), (None, False)):
            monkeypatch.setenv("RAY_AUTH_MODE", "token" if given else "disabled")
            monkeypatch.setenv("RAY_AUTH_TOKEN", given or "")
            answer = subprocess.run(
                [sys.executable, "-c", ask, cluster.dashboard], capture_output=True, text=True
            )
            assert (answer.stdout.strip() == "[]") is accepted
            assert ("refuses the token: set RAY_AUTH_MODE=token" in answer.stderr) is not accepted
