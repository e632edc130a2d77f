"""A results folder through a log and back."""

import base64
import errno
import gzip
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid_sweep.cluster.job_archive import pack, unpack
from hybrid_sweep.errors import UserError

NOISE = "INFO job_manager.py -- Runtime env is setting up.\n"


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def log_of(folder):
    return NOISE + "\n".join(pack(folder)) + "\n" + NOISE


def parcel(members):
    """Return a well-formed log of any tar members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    packed = buffer.getvalue()
    digest = hashlib.sha256(packed).hexdigest()
    return f"parcel begins, sha256 {digest}\n{base64.b64encode(packed).decode()}\nparcel ends\n"


@settings(max_examples=30, deadline=None)
@given(manifest=st.binary(max_size=50), journal=st.binary(max_size=20_000))
def test_what_goes_in_comes_out(tmp_path_factory, manifest, journal):
    folder = tmp_path_factory.mktemp("parcel")
    files = {
        "manifest.json": manifest,
        "journal.jsonl": journal,
        "models/H020_I00_C0.60_seed0.pt": b"weights",
    }
    write(folder / "there", files | {"report.html": b"is made again", ".driver.lock": b""})
    unpack(log_of(folder / "there"), folder / "here" / "results")
    assert read(folder / "here" / "results") == files
    assert [p.name for p in (folder / "here").iterdir()] == ["results"]


def test_lines_are_short(tmp_path):
    write(tmp_path, {"manifest.json": b"{}", "journal.jsonl": bytes(range(256)) * 1000})
    lines = list(pack(tmp_path))
    assert len(lines) > 2
    assert max(map(len, lines)) <= 4000


@pytest.mark.parametrize("cut", ["middle", "end", "begin"])
def test_a_damaged_one_is_refused_and_leaves_nothing(tmp_path, cut):
    write(tmp_path / "there", {"manifest.json": b"{}", "journal.jsonl": b"x" * 10_000})
    text = log_of(tmp_path / "there")
    middle = text.index("\n", text.index("sha256")) + 20
    damaged = {
        "middle": text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :],
        "end": text[: text.index("parcel ends")],
        "begin": text[text.index("sha256") :],
    }[cut]
    with pytest.raises(UserError, match="damaged: fetch them again"):
        unpack(damaged, tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_one_that_has_no_room_is_told_of_in_a_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    write(tmp_path / "there", {"manifest.json": b"{}", "journal.jsonl": b""})
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(UserError, match=r"cannot write to .*here \(No space left on device\)"):
        unpack(log_of(tmp_path / "there"), tmp_path / "here")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../escaped", tarfile.REGTYPE),
        ("/tmp/escaped", tarfile.REGTYPE),
        ("models/../../escaped", tarfile.REGTYPE),
        ("models/deeper/escaped", tarfile.REGTYPE),
        ("notes.txt", tarfile.REGTYPE),
        ("manifest.json", tarfile.SYMTYPE),
        ("journal.jsonl", tarfile.LNKTYPE),
        ("models/a.pt", tarfile.FIFOTYPE),
    ],
)
def test_no_file_is_written_but_those_of_a_results_folder(tmp_path, name, kind):
    manifest, strange = tarfile.TarInfo("manifest.json"), tarfile.TarInfo(name)
    strange.type, strange.linkname = kind, "/etc/passwd"
    text = parcel([(manifest, b"{}"), (strange, b"")])
    with pytest.raises(UserError, match="no file of ours"):
        unpack(text, tmp_path / "in" / "here")
    assert list((tmp_path / "in").iterdir()) == []
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_as_a_command(tmp_path):
    words = [sys.executable, "-m", "hybrid_sweep.cluster.job_archive", str(tmp_path)]
    none = subprocess.run(words, capture_output=True, text=True)
    assert none.returncode == 2
    assert none.stderr == f"error: {tmp_path} has no manifest.json yet: wait until its trials have started\n"
    write(tmp_path, {"manifest.json": b"{}", "journal.jsonl": b""})
    some = subprocess.run(words, capture_output=True, text=True, check=True)
    unpack(some.stdout, tmp_path / "copy")
    assert read(tmp_path / "copy") == {"manifest.json": b"{}", "journal.jsonl": b""}


def test_more_than_the_disk_is_to_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("hybrid_sweep.cluster.job_archive.UNPACKED_BYTES", 1000)
    members = [(tarfile.TarInfo("manifest.json"), b"0" * 600), (tarfile.TarInfo("journal.jsonl"), b"0" * 600)]
    with pytest.raises(UserError, match="unpack to more than"):
        unpack(parcel(members), tmp_path / "results")
    assert not list(tmp_path.iterdir())


def test_more_files_than_any_sweep_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("hybrid_sweep.cluster.job_archive.MOST_FILES", 2)
    members = [(tarfile.TarInfo(f"models/{name}.pt"), b"") for name in "abc"]
    with pytest.raises(UserError, match="or 2 files"):
        unpack(parcel(members), tmp_path / "results")
    assert not list(tmp_path.iterdir())


def test_a_header_that_is_read_at_once_has_a_length(tmp_path):
    header = tarfile.TarInfo("long")
    header.type, length = tarfile.XHDTYPE, 64 << 20
    with pytest.raises(UserError, match=r"arrived damaged \(a header is too long\)"):
        unpack(parcel([(header, b"0" * length)]), tmp_path / "results")
    assert not list(tmp_path.iterdir())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_behind_a_right_checksum_is_more_than_a_sentence(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("parcel")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("manifest.json", "models/é" + "x" * 120):
            member = tarfile.TarInfo(name)
            member.size = 600
            archive.addfile(member, io.BytesIO(b"0" * 600))
    damaged = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, 3000))] = data.draw(st.integers(0, 255))
    packed = gzip.compress(bytes(damaged))
    digest = hashlib.sha256(packed).hexdigest()
    try:
        unpack(
            f"parcel begins, sha256 {digest}\n{base64.b64encode(packed).decode()}\nparcel ends\n",
            folder / "to",
        )
    except UserError:
        assert not list(folder.iterdir())


@pytest.mark.parametrize("cut", [0, 1, 20, -500])
def test_a_broken_archive_is_told(tmp_path, cut):
    whole = base64.b64decode(
        parcel([(tarfile.TarInfo("journal.jsonl"), bytes(range(256)) * 50)]).split("\n")[1]
    )
    packed = whole[:cut] if cut else b"no archive"
    digest = hashlib.sha256(packed).hexdigest()
    text = f"parcel begins, sha256 {digest}\n{base64.b64encode(packed).decode()}\nparcel ends\n"
    with pytest.raises(UserError, match="the results arrived damaged"):
        unpack(text, tmp_path / "results")
    assert not list(tmp_path.iterdir())
