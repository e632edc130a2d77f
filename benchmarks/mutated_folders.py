"""Read damaged results folders and sweep files: what raises anything but a UserError, or hangs.

    python benchmarks/mutated_folders.py FOLDER --reads 20000 --sweeps 5000

FOLDER is a finished results folder; it is copied, never changed. Every mutation is a function of its number:
`--first N` starts at that one. The exit code is 1 where something else than a UserError came, a read took
longer than `LONGEST` seconds, or a file beside the copy was touched.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from importlib.resources import files
from pathlib import Path

from hybrid_sweep.analysis.folder import TABLES, ResultsFolder
from hybrid_sweep.analysis.front_rows import front_rows
from hybrid_sweep.analysis.status import status_lines, sweep_status
from hybrid_sweep.analysis.sweep_folder import SweepFolder
from hybrid_sweep.errors import UserError
from hybrid_sweep.recorded import Recorded
from hybrid_sweep.spec import PACKAGED, load_spec, packaged_sweeps

LONGEST = 5  # seconds
STRANGE = (
    None,
    True,
    -1,
    1e308,
    10**400,
    2**63,
    "",
    "x" * 100_000,
    "\x1b[31m",
    "../../x",
    "NaN",
    [],
    {},
    [[]],
)
RAW = (
    b"NaN",
    b"Infinity",
    b'"\\ud800"',
    b"[" * 400,
    b"1e999",
    b"\xff\xfe",
    b"\x00",
    b"9" * 5000,
    b'"\\u0000"',
)
FILES = ("journal.jsonl", "manifest.json", "confirm/confirmed.json")


def status(path):
    folder = SweepFolder.open(path)
    status_lines(found := sweep_status(folder, alive=folder.is_driven))
    json.dumps(found.to_dict())


def report(path):
    folder = ResultsFolder.open(path)
    trials = folder.trials()
    folder.export_all(trials=trials)
    folder.analyzer_lines(trials)


COMMANDS = {
    "status": status,
    "pareto": lambda path: front_rows(SweepFolder.open(path)),
    "verdict": lambda path: ResultsFolder.open(path).verdict(),
    "recorded": Recorded.from_folder,
    **{
        f"export {what} {form}": lambda path, what=what, form=form: ResultsFolder.open(path).export(
            what, form, path / "out"
        )
        for what in TABLES
        for form in ("csv", "json", "parquet")
    },
    "report": report,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reads", type=int, default=20_000)
    parser.add_argument("--sweeps", type=int, default=5_000)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    signal.signal(signal.SIGALRM, too_long)
    with tempfile.TemporaryDirectory() as place:
        beside = Path(place) / "beside"
        beside.write_text("not yours")
        bad = folders(given, Path(place)) + sweeps(given, Path(place))
        if beside.read_text() != "not yours" or len(list(Path(place).iterdir())) != 1:
            bad["something beside the folder was touched"] += 1
    for where, count in bad.most_common():
        print(f"{count:6} {where}")
    sys.exit(bool(bad))


def folders(given, place):
    """Mutate a copy, read it by some commands, until enough reads are done; count what was wrong."""
    bad, done, number = Counter(), Counter(), given.first
    while sum(done.values()) < given.reads:
        chance, copy = random.Random(number), place / "copy"
        copy.mkdir()
        for name in FILES:
            if (given.folder / name).exists():
                (copy / name).parent.mkdir(exist_ok=True)
                shutil.copy(given.folder / name, copy / name)
        mutate(chance, copy / chance.choice([name for name in FILES if (copy / name).exists()]))
        names = [name for name in COMMANDS if name != "report"]
        for name in names if number % 50 else COMMANDS:  # the report draws a picture, which takes its time
            done[attempt(COMMANDS[name], copy, f"{name}, mutation {number}", bad)] += 1
        shutil.rmtree(copy)
        number += 1
    print(f"{sum(done.values()):,} reads of {number - given.first:,} mutated folders: {dict(done)}")
    return bad


def sweeps(given, place):
    """Mutate packaged sweep files and read them; no workload is imported."""
    bad, done = Counter(), Counter()
    texts = [(files(PACKAGED) / f"{name}.yaml").read_bytes() for name in packaged_sweeps()]
    for number in range(given.first, given.first + given.sweeps):
        chance = random.Random(number)
        file = place / "sweep.yaml"
        file.write_bytes(mutated(chance, chance.choice(texts)))
        done[attempt(load_spec, file, f"sweep file, mutation {number}", bad)] += 1
        file.unlink()
    print(f"{sum(done.values()):,} mutated sweep files: {dict(done)}")
    return bad


def attempt(command, path, what, bad):
    """Read once; return how it went, and count what should not have come by where it came from."""
    signal.alarm(LONGEST)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            command(path)
        return "read"
    except UserError:
        return "refused"
    except BaseException as error:
        last = [f for f in traceback.extract_tb(error.__traceback__) if "hybrid_sweep/" in f.filename][-1]
        bad[f"{type(error).__name__} at {Path(last.filename).name}:{last.name} ({last.line})"] += 1
        print(f"{what}: {type(error).__name__}: {str(error)[:100]!r}", file=sys.stderr)
        return "raised"
    finally:
        signal.alarm(0)


def too_long(*_):
    raise TimeoutError(f"longer than {LONGEST} s")


def mutate(chance, path):
    """Change one file: its bytes, its lines, a value in it, or what it is."""
    if chance.random() < 0.05:
        path.unlink()
        chance.choice([lambda: os.mkfifo(path), path.mkdir, lambda: path.symlink_to("/dev/zero"), int])()
        return
    content = path.read_bytes()
    if chance.random() < 0.6:
        with contextlib.suppress(ValueError):
            path.write_bytes(other_value(chance, content, lines=path.suffix == ".jsonl"))
            return
    path.write_bytes(mutated(chance, content))


def other_value(chance, content, *, lines):
    """Replace, remove or rename one value somewhere in a JSON text, or in one of its lines."""
    parts = content.splitlines() if lines else [content]
    at = chance.randrange(len(parts))
    value = json.loads(parts[at])
    inner = value
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = chance.choice(keys)
        if not isinstance(inner[key], dict | list) or not inner[key] or chance.random() < 0.3:
            break
        inner = inner[key]
    if chance.random() < 0.2:
        del inner[key]
        mark = ""
    elif chance.random() < 0.4:
        mark, inner[key] = "@@@", "@@@"
    else:
        mark, inner[key] = "", 0
        inner[key] = chance.choice(STRANGE)
    text = json.dumps(value).encode()
    parts[at] = text.replace(b'"@@@"', chance.choice(RAW)) if mark else text
    return b"\n".join(parts) + b"\n"


def mutated(chance, content):
    """Change bytes or lines, whatever they mean."""
    kind, at = chance.randrange(7), chance.randrange(len(content) + 1)
    lines = content.splitlines(keepends=True)
    line = chance.randrange(len(lines))
    match kind:
        case 0:
            return content[:at]
        case 1:
            return content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
        case 2:
            return content[:at] + chance.choice(RAW) + content[at:]
        case 3:
            return b"".join([*lines[:line], *lines[line + 1 :]])
        case 4:
            return b"".join([*lines[: line + 1], *lines[line:]])
        case 5:
            chance.shuffle(lines)
            return b"".join(lines)
    return content.decode().encode(chance.choice(["utf-16", "utf-32", "utf-8-sig"]))


if __name__ == "__main__":
    main()
