"""A driver that ends abruptly leaves one sentence with the command that goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys
from pathlib import Path
from hybrid_sweep.cluster.resume_hint import ResumeHint
with ResumeHint() as word:
    if sys.argv[1]:
        word.resume(Path(sys.argv[1]))
    exec(sys.argv[2])
"""


def said(folder: str, end: str) -> tuple[int, str]:
    driver = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, end], stderr=subprocess.PIPE, text=True, check=False
    )
    return driver.returncode, driver.stderr.strip()


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(1)", "os.abort()"])
def test_an_abrupt_end_names_the_command_in_one_line(end: str, tmp_path: Path) -> None:
    code, text = said(str(tmp_path / "my sweep"), end)
    assert code != 0
    assert text.endswith(f"go on with `hybrid-sweep resume '{tmp_path}/my sweep'`")
    assert len(text.splitlines()) == 1


def test_before_there_is_a_folder_it_says_to_start_again() -> None:
    assert said("", "os._exit(1)")[1].endswith("start it again")


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(1)"])
def test_an_end_that_can_speak_for_itself_adds_nothing(end: str) -> None:
    assert said("/results", end)[1] == ""


def test_a_name_cannot_break_the_line() -> None:
    assert len(said("/results/a\nb\x1b[2J", "os._exit(1)")[1].splitlines()) == 1
    assert "\x1b" not in said("/results/a\nb\x1b[2J", "os._exit(1)")[1]


def test_an_interrupt_of_the_group_does_not_reach_the_helper() -> None:
    end = "signal.signal(2, signal.SIG_IGN); os.killpg(0, 2); os.kill(os.getpid(), 9)"
    driver = subprocess.run(
        [sys.executable, "-c", PROGRAM, "/results", end],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert "hybrid-sweep resume /results" in driver.stderr
