"""Read damaged results folders and sweep files: what raises anything but a UserError, or hangs.

    python benchmarks/mutated_folders.py FOLDER --reads 20000 --sweeps 5000

FOLDER is a finished and confirmed results folder; it is copied, never changed. Every mutation is a function
of its number: `--first N` starts at that one. Commands print, as they do for a user, into a strict UTF-8
stream. What `resume`, `confirm` and a warm start read of a folder is read as well. The exit code is 1 where
something else than a UserError came, a read took longer than `LONGEST` seconds, or a file beside the copy
was touched.
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
import time
import traceback
from collections import Counter
from importlib.resources import files
from pathlib import Path

from hybrid_sweep.cli import results as cli
from hybrid_sweep.confirm.runs import Runs
from hybrid_sweep.driver.moved import with_workload
from hybrid_sweep.driver.sweep import left_out, recorded_spec, started_arms
from hybrid_sweep.errors import UserError
from hybrid_sweep.results import TABLES, ResultsFolder
from hybrid_sweep.search.study import Study
from hybrid_sweep.search.warm_start import known_points
from hybrid_sweep.simulation.recorded import RecordedRuns
from hybrid_sweep.spec.files import PACKAGED, load_spec, packaged_sweeps
from hybrid_sweep.spec.yaml import parse_yaml
from hybrid_sweep.store.journal import Journal

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
    0.5,
    float("nan"),
    "2026",
    "\ud800",
    [],
    {},
    [[]],
    {"": []},
    [{"a": 1}, 2, "b"],
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
FILES = ("journal.jsonl", "manifest.json", "confirm/confirmed.json", "confirm/journal.jsonl")


def config_of_one(path):
    folder = ResultsFolder.open(path)
    trials = folder.trials()
    for form in ("toml", "json"):
        cli.export(path, form, trial=trials["trial_id"].iloc[0] if len(trials) else "none")


def warm_start(path):
    folder = ResultsFolder.open(path)
    known_points(folder, recorded_spec(folder))


def resume(path):
    """Read what `resume` reads before it starts Ray."""
    folder = ResultsFolder.open(path)
    spec = with_workload(recorded_spec(folder), folder)
    manifest, journal = folder.manifest, folder.journal.path
    study = Study(spec, manifest["sweep_id"], manifest["steps"])
    study.restore(Journal.events(journal))
    events = Journal.read(journal, skip=("reported",))
    left_out(events, started_arms(events))


def confirm(path):
    """Read what `confirm` reads before it trains."""
    folder = ResultsFolder.open(path)
    recorded_spec(folder)
    folder.confirmation()
    Runs(Journal(folder.confirm_path / "journal.jsonl"), None, folder.manifest["steps"])


COMMANDS = {
    "status": lambda path: cli.status(str(path)),
    "status json": lambda path: cli.status(str(path), format="json"),
    **{
        f"pareto {form}": lambda path, form=form: cli.pareto(path, format=form)
        for form in ("table", "csv", "json")
    },
    "verdict": cli.verdict,
    "verdict json": lambda path: cli.verdict(path, format="json"),
    "replay": cli.replay,
    "resume": resume,
    "confirm": confirm,
    "warm start": warm_start,
    "recorded": RecordedRuns.from_folder,
    "export --trial": config_of_one,
    **{
        f"export {what} {form}": lambda path, what=what, form=form: cli.export(path, form, what)
        for what in TABLES
        for form in ("csv", "json", "parquet")
    },
    "report": cli.report,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=lambda text: Path(text).resolve())
    parser.add_argument("--reads", type=int, default=20_000)
    parser.add_argument("--sweeps", type=int, default=5_000)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    signal.signal(signal.SIGALRM, too_long)
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "beside").mkdir()
        (Path(place) / "beside" / "models").mkdir()
        for name in ("a.ckpt", "models/b", "manifest.json"):
            (Path(place) / "beside" / name).write_text("not yours")
        os.chdir(place)  # what a relative path of a damaged file leads to shows here, too
        before, source = surroundings(Path(place)), surroundings(given.folder)
        bad = folders(given, Path(place)) + sweeps(given, Path(place))
        if surroundings(Path(place)) != before or surroundings(given.folder) != source:
            bad["something outside the folder was touched"] += 1
    for where, count in bad.most_common():
        print(f"{count:6} {where}")
    sys.exit(bool(bad))


def surroundings(place):
    """Return of each file below a folder what a touch would change."""
    found = {}
    for path in sorted(place.rglob("*")):
        about = path.lstat()
        found[path] = about.st_mode, about.st_size, about.st_ino, about.st_mtime_ns
    return found


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
        for _ in range(chance.choice((1, 1, 1, 3))):
            there = [name for name in FILES if (copy / name).is_file() and not (copy / name).is_symlink()]
            mutate(chance, copy / chance.choice(there or FILES[:1]))
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
        text = chance.choice(texts)
        if chance.random() < 0.6:  # JSON is YAML
            text = other_value(chance, json.dumps(parse_yaml(text.decode(), "a sweep")).encode(), lines=False)
        file.write_bytes(text if chance.random() < 0.5 and text not in texts else mutated(chance, text))
        if chance.random() < 0.02:
            replace(chance, file)
        done[attempt(load_spec, file, f"sweep file, mutation {number}", bad)] += 1
        file.rmdir() if file.is_dir() else file.unlink(missing_ok=True)
    print(f"{sum(done.values()):,} mutated sweep files: {dict(done)}")
    return bad


def attempt(command, path, what, bad):
    """Read once; return how it went, and count what should not have come by where it came from."""
    signal.alarm(LONGEST)
    began = time.monotonic()
    try:
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), encoding="utf-8")):
            command(path)
            sys.stdout.flush()
        return "read"
    except UserError:
        return "refused"
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        last = ([f for f in frames if "hybrid_sweep/" in f.filename] or frames)[-1]
        bad[f"{type(error).__name__} at {Path(last.filename).name}:{last.name} ({last.line})"] += 1
        print(f"{what}: {type(error).__name__}: {str(error)[:100]!r}", file=sys.stderr)
        return "raised"
    finally:
        signal.alarm(0)
        if time.monotonic() - began > LONGEST:  # also where something has caught the alarm
            bad[f"{what.partition(',')[0]} took more than {LONGEST} s"] += 1


class TooLong(BaseException):
    """No Exception, for a reader makes a sentence of many of those, as of TimeoutError, an OSError."""


def too_long(*_):
    raise TooLong


def replace(chance, path):
    """Put something else in the place of a file: a pipe, a folder, nothing, an empty file, a link."""
    path.unlink()
    strange = [lambda: os.mkfifo(path), path.mkdir, path.touch, int]
    strange += [
        lambda to=to: path.symlink_to(to) for to in ("/dev/zero", "../beside/manifest.json", path.name)
    ]
    chance.choice(strange)()


def mutate(chance, path):
    """Change one file: its bytes, its lines, a value in it, or what it is."""
    if not path.is_file() or path.is_symlink():
        return
    if chance.random() < 0.05:
        replace(chance, path)
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
    lines = content.splitlines(keepends=True) or [b""]
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
    return content.decode(errors="replace").encode(chance.choice(["utf-16", "utf-32", "utf-8-sig"]))


if __name__ == "__main__":
    main()
