"""Code that is no workload is neither called nor, where that can be told, imported."""

import importlib
import os
import py_compile
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from hybrid_sweep import load_spec
from hybrid_sweep.cli.render import plan
from hybrid_sweep.errors import UserError
from hybrid_sweep.user_code import code_file, kind_of
from hybrid_sweep.workload import METHODS, find_workload, load_workload

CLASS = "\n".join(
    ["class Net:", "    steps = 30", *(f"    def {m}(self, {', '.join(a)}): ..." for m, a in METHODS.items())]
)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    """A current folder and a path of its own, and a marker that shows what was run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refusal(name, **keywords):
    with pytest.raises(UserError) as caught:
        load_workload(name, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("os:system", {"command": "touch ran"}),
        ("builtins:exec", {}),
        ("builtins:open", {"file": "ran", "mode": "w"}),
        ("subprocess:Popen", {"args": ["touch", "ran"]}),
        ("subprocess:run", {"args": ["touch", "ran"]}),
        ("os:execv", {"path": "/bin/touch", "args": ["touch", "ran"]}),
        ("posix:system", {"command": "touch ran"}),
        ("pathlib:Path", {}),
        ("shutil:rmtree", {"path": "."}),
        ("runpy:run_path", {"path_name": "mine.py"}),
        ("importlib:import_module", {"package": "x"}),
    ],
)
def test_what_pythons_library_holds_is_not_called(name, keywords):
    assert "standard library" in refusal(name, **keywords)
    assert not any(Path().iterdir())


@pytest.mark.parametrize("module", ["antigravity", "this", "idlelib.idle", "turtledemo.clock", "__phello__"])
def test_a_module_of_pythons_library_is_not_imported(module):
    assert "is not imported" in refusal(f"{module}:x")
    assert module not in sys.modules


def test_nor_where_its_file_is_given():
    file = code_file("antigravity")
    assert "standard library" in refusal(f"{file}:fly")
    Path("mine.py").symlink_to(file)
    assert "standard library" in refusal("mine.py:fly")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("W = lambda command: open('ran', 'w')", "a lambda"),
        ("from os import system as W", "a builtin_function_or_method"),
        ("from shutil import rmtree as W", "a function that is not of your own file"),
        ("from functools import partial\nW = partial(open, 'ran', 'w')", "a partial"),
        ("class C:\n    def __call__(self, command): open('ran', 'w')\nW = C()", "a C"),
        ("def W(command):\n    open('ran', 'w')\n    return None", "returns nothing"),
        ("def W(command):\n    open('ran', 'w')\n    yield 1", "a generator"),
        ("async def W(command):\n    return 1", "a generator or coroutine"),
        ("from subprocess import Popen as W", "has no method build_model"),
        (
            "class M(type):\n    def __getattr__(c, n): return open\nclass W(metaclass=M): ...",
            "has no method",
        ),
        ("import os as W", "defines no class"),
        ("W = 1", "defines no class"),
    ],
)
def test_what_a_file_holds_beside_classes_and_functions_is_not_called(text, what):
    Path("mine.py").write_text(text)
    assert what in refusal("mine.py:W", command="touch ran")
    assert not Path("ran").exists()


def test_a_class_and_a_function_of_the_users_own_file_are():
    Path("mine.py").write_text(f"{CLASS}\ndef make(n=1):\n    return Net()\n")
    assert load_workload("mine.py:Net").steps == load_workload("mine.py:make", n=2).steps == 30


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return a function that installs a package `shipped` whose import leaves a marker."""
    folder = tmp_path / "lib" / "site-packages"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(folder))

    def write(text, module="__init__"):
        (folder / "shipped").mkdir(exist_ok=True)
        (folder / "shipped" / "__init__.py").touch()
        mark = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        (folder / "shipped" / f"{module}.py").write_text(mark + dedent(text))

    return write


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "defines no class"),
        (f"{CLASS}\n", "known: Net"),
        ("def W(): return 1", "is a function of an installed package"),
        ("try:\n    import rare\nexcept ImportError:\n    async def W(): ...", "function of an installed"),
        ("class W:\n    def loss(self): ...", "has no method build_model"),
        ("if True:\n    class W: ...", "has no method build_model"),
    ],
)
def test_an_installed_module_without_such_a_class_is_not_imported(installed, text, said, tmp_path):
    installed(text)
    assert said in refusal("shipped:W")
    installed(text, "part")
    assert said in refusal("shipped.part:W")
    assert "no module 'shipped.none'" in refusal("shipped.none:W")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("more", ["", "W = Net", "from .part import Net as W", "from .part import *"])
def test_one_that_has_it_is(installed, more, tmp_path):
    installed(f"{CLASS}\n", "part")
    installed(f"{CLASS}\n{more}\n")
    name = "W" if more and "*" not in more else "Net"
    assert load_workload(f"shipped:{name}").steps == 30
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["..os:system", ".:W", "a b:W", "os.:system", "os..path:join"])
def test_a_name_that_is_none_of_a_module_is_refused(name):
    assert "no name of a module" in refusal(name)


def test_files_are_told_apart(tmp_path):
    assert kind_of(code_file("antigravity")) == "standard"
    assert kind_of(code_file("yaml")) == "installed"
    assert kind_of(code_file("hybrid_sweep.cli.render")) == "installed"
    assert kind_of(tmp_path / "mine.py") == "own"
    assert code_file("builtins") is None


def test_a_dry_run_calls_nothing_either():
    spec = load_spec("quick", {"workload": {"name": "os:system", "command": "touch ran"}})
    with pytest.raises(UserError, match="standard library"):
        plan(spec, None)
    assert not any(Path().iterdir())


def test_no_command_of_the_package_is_a_workload():
    with pytest.raises(UserError, match="function of an installed package"):
        find_workload("hybrid_sweep.cli.app:main")


def test_what_runs_is_the_text_and_not_what_lies_compiled_beside_it(tmp_path):
    (tmp_path / "part").mkdir()
    texts = {"mine.py": f"import near, part.deep\n{CLASS}\n"}
    texts |= dict.fromkeys(["near.py", "part/deep.py", "part/__init__.py"], "")
    mark = "open('ran', 'w').close()"
    for name, text in texts.items():
        file, size = Path(name), max(len(text), len(mark))
        file.write_text(mark.ljust(size))
        py_compile.compile(name, invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
        about = file.stat()
        file.write_text(text.ljust(size))
        os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    (tmp_path / "alone.py").write_text(mark)
    py_compile.compile("alone.py", cfile="alone.pyc")
    (tmp_path / "alone.py").unlink()
    assert load_workload("mine.py:Net").steps == 30
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("alone")
