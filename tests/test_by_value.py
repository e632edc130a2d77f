"""Where a worker finds a class: in its file, or in one that holds it by value."""

import subprocess
import sys
from pathlib import Path

import pytest
from support import toy
from support.toy import Toy

from hybrid_sweep.by_value import import_string
from hybrid_sweep.errors import UserError
from hybrid_sweep.workload import find_workload, load_workload
from trainables.mnist_mlp import MnistMlp


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


def test_a_class_of_a_file_is_found_there(data_folder):
    assert import_string(Toy) == f"{Path(toy.__file__).resolve()}:Toy"
    assert import_string("a.b:C") == "a.b:C"
    assert not data_folder.exists()


def test_one_of_a_package_is_found_by_its_module():
    assert import_string(MnistMlp) in (
        "trainables.mnist_mlp:MnistMlp",
        f"{sys.modules[MnistMlp.__module__].__file__}:MnistMlp",
    )


def test_one_that_is_in_no_file_travels_by_value(data_folder):
    rate = 0.25

    class Local(Toy):
        steps = 33

        def build_optimizer(self, model):
            optimizer = super().build_optimizer(model)
            optimizer.param_groups[0]["lr"] = rate
            return optimizer

    name = import_string(Local)
    assert Path(name.rpartition(":")[0]).is_relative_to(data_folder)
    assert import_string(Local) == name
    workload = load_workload(name)
    assert workload.steps == 33
    assert workload.build_optimizer(workload.build_model(0)).param_groups[0]["lr"] == 0.25
    assert Local.__module__ == __name__, "reading the file leaves the class alone"
    rate = 0.5
    assert import_string(Local) != name, "what it holds is another"


def test_another_process_builds_the_same(data_folder, tmp_path):
    script = tmp_path / "notebook.py"
    script.write_text(
        "from support.toy import Toy\n"
        "from hybrid_sweep.by_value import import_string\n"
        "class Mine(Toy):\n    steps = 44\n"
        ""
        "print(import_string(Mine))\n"
    )
    tests = Path(toy.__file__).parents[1]
    code = f"import sys; sys.path.insert(0, {str(tests)!r}); exec(open({str(script)!r}).read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = find_workload(done.stdout.strip())
    assert (found.steps, found.__module__ != "__main__") == (44, True)


@pytest.mark.parametrize("value", [Toy(), 7, None, lambda: Toy()])
def test_what_is_no_class_is_refused(value):
    with pytest.raises(UserError, match="give a class with the five methods"):
        import_string(value)


def test_a_class_that_cannot_be_pickled_is_refused():
    import threading

    lock = threading.Lock()

    class Locked(Toy):
        held = lock

    with pytest.raises(UserError, match=r"cannot be sent to workers .*write it into a file"):
        import_string(Locked)


def test_a_place_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))

    class Local(Toy):
        pass

    with pytest.raises(UserError, match="cannot be written to"):
        import_string(Local)
