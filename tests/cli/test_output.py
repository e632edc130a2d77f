"""A reader that leaves, a full disk, a closed stream: no command ends in the middle without a word."""

import os
import subprocess
import sys

import pytest

TRAINS = """
import sys
from pathlib import Path
from hybrid_sweep.cli.output import Output

output = Output()
output.trains = True
for line in range(3):
    print("line", line, flush=True)
    print("word", line, file=sys.stderr)
Path(sys.argv[1]).write_text("trained")
sys.exit(output.code(1))
"""
READS = "from hybrid_sweep.cli import main; import sys; sys.argv[1:] = ['list', 'presets']; main()"


def ended(program, redirected, tmp_path):
    """Run a program below a shell's redirections; return its exit code and what it said."""
    line = f'"$0" -c "$1" "$2" {redirected}; exit ${{PIPESTATUS[0]}}'
    words = ["bash", "-c", line, sys.executable, program, str(tmp_path / "done")]
    ran = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return ran.returncode, ran.stdout, ran.stderr


FULL = "error: cannot write to standard output (No space left on device): make room there\n"


@pytest.mark.parametrize(
    ("redirected", "said"),
    [
        ("| true", ""),
        (">&-", ""),
        ("2>&-", None),
        (">&- 2>&- <&-", ""),
        ("> /dev/full", FULL),
        ("> /dev/full 2> /dev/full", ""),
    ],
)
def test_one_that_trains_goes_on_with_its_own_exit_code(tmp_path, redirected, said):
    code, out, err = ended(TRAINS, redirected, tmp_path)
    assert code == 1
    assert (tmp_path / "done").read_text() == "trained"
    if said is not None:
        assert "line" not in out
        assert err.replace("word 0\nword 1\nword 2\n", "") == said


@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [("| true", 0, ""), (">&-", 0, ""), ("> /dev/full", 2, FULL), ("2>&-", 0, "")],
)
def test_one_that_reads_ends_quietly_unless_its_output_is_lost(tmp_path, redirected, code, said):
    assert ended(READS, redirected, tmp_path)[::2] == (code, said)


def test_one_that_reads_ends_when_its_reader_leaves(tmp_path):
    endless = "from hybrid_sweep.cli.output import Output\nOutput()\nwhile True: print('line', flush=True)"
    reader, writer = os.pipe()
    with subprocess.Popen([sys.executable, "-c", endless], stdout=writer, stderr=subprocess.PIPE) as process:
        os.close(writer)
        assert os.read(reader, 4) == b"line"
        os.close(reader)
        assert process.wait() == 0
        assert process.stderr.read() == b""
