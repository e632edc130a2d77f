"""The small inputs below $HYBRID_SWEEP_CASES, run from scratch: each does what its expect.txt says.

The cases mostly wait for Ray to start, so those that are asked for run a few at a time, the longest first.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from support.patience import HANG_SECONDS
from support.signals import unignored

FOLDER = os.environ.get("HYBRID_SWEEP_CASES", "")
AT_ONCE = 3
LONGEST_FIRST = ("15", "30", "12", "22", "04")
BIG_SEED = 1763900000123456789  # as time.time_ns() draws it

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(not FOLDER, reason="HYBRID_SWEEP_CASES names no folder of cases"),
]


@dataclass(frozen=True)
class Ran:
    """A case that was run: all that it printed, and the folder in which it did."""

    text: str
    folder: Path

    @property
    def exits(self) -> dict[str, int]:
        """What each `echo WORD exit CODE` printed, by its word, "" where there is none; the last counts."""
        found = re.findall(r"^(?:(.*?):? )?exit (?:(\w) )?(\d+)$", self.text, re.MULTILINE)
        return {before or after: int(code) for before, after, code in found}

    def events(self, out: str, kind: str) -> list[dict]:
        lines = (self.folder / out / "journal.jsonl").read_text().splitlines()
        return [event for line in lines if (event := json.loads(line))["event"] == kind]

    def manifest(self, out: str) -> dict:
        return json.loads((self.folder / out / "manifest.json").read_text())

    def states(self, out: str = "out") -> list[str]:
        return [event["state"] for event in self.events(out, "finished")]

    def trials(self, out: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / out / "trials.csv", dtype={"trial_id": str}, keep_default_na=False)

    def part(self, begin: str, end: str = r"\Z") -> str:
        """The text from the line that begins so, to the next that begins with `end`."""
        found = re.search(rf"^{begin}.*?(?=^{end}|\Z)", self.text, re.MULTILINE | re.DOTALL)
        assert found, f"nothing printed begins with {begin}: {self.text}"
        return found[0]


class Cases:
    """Runs cases side by side, in copies: they write beside themselves."""

    def __init__(self, numbers: list[str], scratch: Path) -> None:
        order = [*(n for n in LONGEST_FIRST if n in numbers), *(n for n in numbers if n not in LONGEST_FIRST)]
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._running: set[int] = set()
        self._ran: dict[str, Future[Ran]] = {n: self._pool.submit(self._run, n, scratch) for n in order}

    def ran(self, number: str) -> Ran:
        return self._ran[number].result()

    def _run(self, number: str, scratch: Path) -> Ran:
        (source,) = Path(FOLDER).glob(f"{number}-*/")
        folder = Path(shutil.copytree(source, scratch / source.name))
        command = str(Path(sys.executable).parent / "hybrid-sweep")
        environment = {**os.environ, "HS": command, "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
        with (scratch / f"{number}.txt").open("w+") as told:
            shell = subprocess.Popen(
                ["sh", "run.sh"],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(shell.pid)
            try:
                shell.wait(HANG_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(shell.pid, signal.SIGKILL)
                told.write(f"\nhung: ended after {HANG_SECONDS} s\n")
            self._running.discard(shell.pid)
            told.seek(0)
            return Ran(told.read(), folder)

    def close(self) -> None:
        for future in self._ran.values():
            future.cancel()
        for pid in self._running.copy():
            os.killpg(pid, signal.SIGKILL)
        self._pool.shutdown()


@pytest.fixture(scope="module")
def cases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    wanted = [item.name[5:7] for item in request.session.items if item.path == request.path]
    with unignored():
        cases = Cases(wanted, tmp_path_factory.mktemp("cases"))
        yield cases
        cases.close()


@pytest.fixture
def case(request: pytest.FixtureRequest, cases: Cases) -> Ran:
    """The case whose number the test's name begins with."""
    ran = cases.ran(request.node.name[5:7])
    print(ran.text)  # pytest shows it where the test fails
    assert not re.search("^Traceback", ran.text, re.MULTILINE)  # a line of a journal may hold one
    return ran


def errors(text: str) -> list[str]:
    return re.findall(r"^error: (.*)", text, re.MULTILINE)


def trained_or_refused(ran: Ran, text: str, out: str, hint: str) -> None:
    """Both trials are done; or one sentence says what to do, and nothing is written."""
    if text.rstrip().endswith("exit 0"):
        assert set(ran.states(out)) == {"done"}
        return
    assert text.rstrip().endswith("exit 2")
    (sentence,) = errors(text)
    assert re.search(hint, sentence)
    assert not (ran.folder / out).exists()


def test_01_onecycle(case: Ran) -> None:
    assert case.exits == {"": 0}
    assert case.states() == ["done", "done"]


def test_03_lazy(case: Ran) -> None:
    trained_or_refused(case, case.text, "out", "[Ll]azy")


def test_04_optimizer_no_closure(case: Ran) -> None:
    assert case.part("== NoReturn", "==").rstrip().endswith("exit 0")
    for name in ("NoReturn", "NoClosure", "Ignores"):
        trained_or_refused(case, case.part(f"== {name}", "=="), f"out/{name}", "closure")


def test_05_two_optimizers(case: Ran) -> None:
    if case.exits[""]:
        assert "starting Ray" not in case.text
    trained_or_refused(case, case.text, "out", "optimizer")


def test_06_same_second(case: Ran) -> None:
    assert case.exits == {"A": 0, "B": 0}
    folders = [f"results/{path.name}" for path in (case.folder / "results").iterdir()]
    assert sorted(case.manifest(folder)["seeds"] for folder in folders) == [[1], [2]]
    assert all(case.states(folder) == ["done", "done"] for folder in folders)


def test_07_long_tmpdir(case: Ran) -> None:
    trained_or_refused(case, case.text, "out", "TMPDIR")


def test_10_big_seed(case: Ran) -> None:
    assert case.exits == {"": 0}
    seeds = {BIG_SEED, BIG_SEED + 1}
    rows = re.findall(r"^H\w+_C0\.30,(\d+),done$", case.text, re.MULTILINE)  # of the table of trials
    assert sorted(map(int, rows)) == sorted([*seeds] * 2)
    assert {int(seed) for seed in re.findall(r'"seed": ?"?(\d+)', case.text)} == seeds
    steps = re.findall(r"^H\w+_C0\.30,(\d+),\d+$", case.text, re.MULTILINE)
    assert {int(seed) for seed in steps} == seeds
    assert "9007199254740992" not in case.text and "1763900000123456768" not in case.text


def test_11_float_step(case: Ran) -> None:
    assert case.exits["dry-run"] == 0
    assert re.findall(r"^exit (\d)", case.text, re.MULTILINE) == ["0", "2"]
    assert set(case.trials("out")["max_predict_steps"]) <= set(range(20, 101, 10))
    last = case.text[case.text.index("exit 0\n", case.text.index("exit 0\n") + 1) :]
    assert "max_predict_steps" in errors(last)[0] and "0.5" in errors(last)[0]
    assert "starting Ray" not in last
    assert not (case.folder / "out2").exists()


def test_12_config_beside(case: Ran) -> None:
    losses = {name: case.manifest(f"out/{name}")["references"]["0"]["val_loss"] for name in "abc"}
    assert losses["b"] == losses["c"] != losses["a"]
    last = {name: case.trials(f"out/{name}").set_index("trial_id")["val_loss"] for name in "abc"}
    assert last["b"].equals(last["c"])
    assert not last["b"].equals(last["a"])


def test_15_hangup(case: Ran) -> None:
    assert case.exits["hangup"] == case.exits["SIGTERM, for comparison"]
    for out in ("out", "out2"):
        assert len(case.events(out, "interrupted")) == 2
        assert len(list((case.folder / out / "checkpoints").glob("*.ckpt"))) == 2
        assert (case.folder / out / "trials.csv").is_file()
    looks = case.part(r"left \(", "SIGTERM").splitlines()  # three, what each found on the lines below
    left = [line for line in looks if not line.startswith("run.sh:")]  # others' processes end meanwhile
    assert [line[:5] for line in left] == ["left "] * 3, "processes are left over"


def test_16_top_level_run(case: Ran) -> None:
    results = list((case.folder / "results").glob("*/")) if (case.folder / "results").exists() else []
    if case.exits[""]:
        assert "__main__" in case.text and not results
    else:
        (folder,) = results
        assert case.states(f"results/{folder.name}") == ["done"]


def test_18_stateful_batches(case: Ran) -> None:
    assert case.exits == {"": 2}
    assert "batch" in errors(case.text)[0]
    assert not (case.folder / "out").exists()


def test_21_reason_not_utf8_trial(case: Ran) -> None:
    first = re.search(r"^exit (\d+)$", case.text, re.MULTILINE)
    assert first and first[1] == "1"
    ends = case.events("out", "finished")
    assert any(end["state"] == "failed" and "holds no rows" in end["reason"] for end in ends)
    assert [case.exits[command] for command in ("status", "report")] == [0, 0]
    if case.exits["resume"] == 2:  # its workers read the bad file, too
        assert "holds no rows" in errors(case.text)[-1]
    assert "corrupt" not in case.text


def test_22_own_exception(case: Ran) -> None:
    assert re.findall(r"^exit (\d+)$", case.text, re.MULTILINE) == ["2", "2"]
    args, local = errors(case.text)
    assert re.search(r"^plain training of .* fails: BadShard: shard a\.bin, row 7", args)
    assert re.search(r"^plain training of .* fails: Inner: shard a\.bin", local)
    assert not list((case.folder / "out").glob("*")) if (case.folder / "out").exists() else True


def test_23_model_counts_itself(case: Ran) -> None:
    told = "state_dict" in case.text
    tables = [case.trials(f"out/{share}").set_index("trial_id") for share in ("true", "false")]
    same = all(tables[0][name].equals(tables[1][name]) for name in ("val_loss", "quality", "state"))
    assert same or told


def test_30_reader_goes_away(case: Ran) -> None:
    assert case.part("== tee", "==").count("exit 130") == 1
    assert len(case.events("out", "interrupted")) == 2
    assert len(list((case.folder / "out" / "checkpoints").glob("*.ckpt"))) == 2
    assert (case.folder / "out" / "trials.csv").is_file()
    gone = case.part("== a reader")
    if "exit 130" in gone:
        assert len(case.events("out2", "interrupted")) == 2
    else:
        assert "exit 0" in gone
        assert case.states("out2") == ["done", "done"]
    assert (case.folder / "out2" / "trials.csv").is_file()


def test_31_big_seed_models(case: Ran) -> None:
    assert re.findall(r"^exit (\d+)$", case.text, re.MULTILINE) == ["0", "0"]
    for out, seed in (("out", BIG_SEED), ("out2", 7)):
        front = pd.read_csv(case.folder / out / "pareto.csv")["trial_id"]
        kept = {file.name for file in (case.folder / out / "models").iterdir()}
        assert kept == {f"{trial_id}_seed{seed}.pt" for trial_id in front} != set()


def test_32_sparse_confirm(case: Ran) -> None:
    assert (case.exits["confirm"], case.exits["verdict"]) == (0, 0)
    assert re.search(r"tuned.*(left out|leaves out|without)|(left out|leaves out|without).*tuned", case.text)
    confirmed = json.loads((case.folder / "out" / "confirm" / "confirmed.json").read_text())
    assert confirmed["seeds"] == [1, 2, 3]


def test_34_moved_project(case: Ran) -> None:
    assert (case.exits["report"], case.exits["resume"]) == (0, 0)
    assert case.text.startswith("exit 0")
    assert not errors(case.text)
    assert len(set(case.trials("b/out")["trial_id"])) >= 3
    assert (case.folder / "b" / "out" / "confirm" / "pairs.csv").is_file()


def test_35_csv_lines(case: Ran) -> None:
    ended = len(case.states())
    assert f"trials: {ended}, lines of trials.csv: {ended + 1}, of export: {ended + 1}" in case.text
    last = case.text.splitlines()[-1]
    config = pd.read_csv(StringIO(last), header=None).iloc[0]
    texts = [json.loads(cell) for cell in config if isinstance(cell, str) and cell.startswith("{")]
    assert texts[0]["confidence_threshold"] == 0.3
