"""What Ray and torch want of a machine is found, or told in a sentence."""

import getpass
import os
import pwd
import stat
import tempfile
from pathlib import Path

import pytest

from hybrid_sweep.cluster.surroundings import LONGEST_FOLDER, RAY_FOLDER, folder_for_ray, name_user
from hybrid_sweep.errors import UserError

LONG = "a_folder_of_a_job" * 8


@pytest.fixture(autouse=True)
def without(monkeypatch):
    monkeypatch.delenv(RAY_FOLDER, raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)


def test_the_folder_is_a_private_one_in_the_usual_place(monkeypatch, tmp_path):
    place = tempfile.mkdtemp(dir="/tmp")
    monkeypatch.setenv("TMPDIR", place)
    with folder_for_ray():
        own = Path(os.environ[RAY_FOLDER])
        assert own.parent == Path(place)
        assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert not own.exists()
    Path(place).rmdir()


def test_one_that_was_asked_for_holds_it_and_is_asked_for_afterwards(monkeypatch, tmp_path):
    place = tempfile.mkdtemp(dir="/tmp")
    monkeypatch.setenv(RAY_FOLDER, place)
    with folder_for_ray():
        assert Path(os.environ[RAY_FOLDER]).parent == Path(place)
    assert os.environ[RAY_FOLDER] == place
    Path(place).rmdir()


@pytest.mark.parametrize("temporary", [f"/tmp/{LONG}", "relative", "/dev/null/there"])
def test_a_place_that_ray_cannot_use_gives_way_to_a_private_one_that_goes(monkeypatch, temporary):
    monkeypatch.setenv("TMPDIR", temporary)
    with folder_for_ray():
        own = Path(os.environ[RAY_FOLDER])
        assert stat.S_IMODE(own.stat().st_mode) == 0o700
        assert len(bytes(own)) <= LONGEST_FOLDER + len("/hs-xxxxxxxx")
        (own / "ray").mkdir()
    assert not own.exists()
    assert RAY_FOLDER not in os.environ


@pytest.mark.parametrize(
    ("asked", "why"), [(f"/tmp/{LONG}", "bytes"), ("/dev/null/there", "cannot be written")]
)
def test_one_that_was_asked_for_and_cannot_be_is_refused(monkeypatch, asked, why):
    monkeypatch.setenv(RAY_FOLDER, asked)
    with pytest.raises(UserError, match=rf"{asked}.*{why}.*: set RAY_TMPDIR to"), folder_for_ray():
        pytest.fail("it starts")


def test_a_user_whom_no_list_names_gets_a_name(monkeypatch):
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LOGNAME", "")

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    name_user()
    assert getpass.getuser() == str(os.getuid())
