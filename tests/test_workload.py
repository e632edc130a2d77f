import ast
import importlib.resources
import sys
import textwrap

import pytest

from hybrid_sweep.cluster.launch import run_sweep
from hybrid_sweep.errors import UserError
from hybrid_sweep.measure.fingerprint import code_of
from hybrid_sweep.workload import (
    METHODS,
    find_workload,
    load_workload,
    located,
    metric_of,
    packaged_workloads,
    quality_of,
    travelling,
)

NET = """
class Net:
    '''A net of the user.'''

    quality = "loss_ratio"
    steps = 30

    def __init__(self, lr=0.1, *, width=8):
        self.lr, self.width = lr, width

    def build_model(self, seed):
        return ("model", seed)

    def build_optimizer(self, model):
        return ("optimizer", model)

    def batch(self, seed, step):
        return seed, step

    def loss(self, model, batch):
        return 0.0

    def evaluate(self, model, split):
        return {"loss": 1.0}
"""


@pytest.fixture(autouse=True)
def _restored_imports(monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("workload_"):
            del sys.modules[name]


@pytest.fixture
def net(tmp_path):
    """Return a function that writes net.py and gives its import string."""

    def write(text: str = NET, name: str = "Net") -> str:
        path = tmp_path / "net.py"
        path.write_text(textwrap.dedent(text))
        return f"{path}:{name}"

    return write


def refusal(name, **keywords):
    with pytest.raises(UserError) as caught:
        load_workload(name, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_of_the_user_is_loaded_with_its_keywords(net):
    workload = load_workload(net(), lr=0.5, width=3)
    assert (workload.lr, workload.width, workload.steps) == (0.5, 3, 30)


def test_a_relative_path_is_read_from_the_current_folder(net, tmp_path, monkeypatch):
    net()
    monkeypatch.chdir(tmp_path)
    assert load_workload("net.py:Net").steps == 30


def test_a_module_is_loaded_by_its_dotted_name(net, tmp_path, monkeypatch):
    net()
    monkeypatch.syspath_prepend(tmp_path)
    assert load_workload("net:Net").steps == 30
    del sys.modules["net"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a workload in a part of it, which finds its data by relative and by whole names."""
    project, text = tmp_path / "project", NET.replace("steps = 30", "steps = STEPS + MORE + MOST")
    inner = project / "mypkg_7" / "models"
    inner.mkdir(parents=True)
    (inner / "__init__.py").touch()
    (inner.parent / "__init__.py").write_text("MOST = 100\n")
    (inner.parent / "data.py").write_text("STEPS = 7\n")
    (inner / "more.py").write_text("MORE = 20\n")
    imports = "from .. import MOST\nfrom ..data import STEPS\nfrom .more import MORE\nimport mypkg_7.data\n"
    (inner / "net.py").write_text(imports + textwrap.dedent(text))
    monkeypatch.chdir(project)
    yield project
    for name in [name for name in sys.modules if name.partition(".")[0] == "mypkg_7"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["mypkg_7/models/net.py:Net", "mypkg_7.models.net:Net"])
def test_a_file_of_a_package_is_loaded_with_its_relative_imports(package, name):
    assert load_workload(name).steps == 127  # from the current folder, which is on no path
    here = located(name, package)
    assert here == f"{package}/mypkg_7/models/net.py:Net"
    assert load_workload(here).steps == 127
    assert travelling(here) == (package, "mypkg_7/models/net.py:Net")
    code = code_of(type(load_workload(here)), None)
    assert {"0 models/net.py", "0 data.py", "0 models/more.py", "0 __init__.py"} <= set(code)


def test_an_edited_package_is_loaded_as_it_is_now_and_only_once(package):
    name = "mypkg_7/models/net.py:Net"
    assert load_workload(name).steps == 127
    (package / "mypkg_7" / "data.py").write_text("STEPS = 8\n")
    file = package / "mypkg_7" / "models" / "net.py"
    file.write_text(file.read_text() + "\n# edited\n")
    assert load_workload(name).steps == 128
    assert len([module for module in sys.modules if module.startswith("workload_mypkg_7_")]) == 4 + 1


def test_a_workload_may_be_the_package_itself(package):
    first = package / "mypkg_7" / "__init__.py"
    first.write_text(
        "from .data import STEPS\n" + textwrap.dedent(NET.replace("steps = 30", "steps = STEPS"))
    )
    assert load_workload(located("mypkg_7:Net", package)).steps == 7


def test_files_beside_each_other_may_import_relatively(net, tmp_path):
    (tmp_path / "beside_net.py").write_text("STEPS = 9\n")
    text = "from .beside_net import STEPS\n" + textwrap.dedent(NET.replace("steps = 30", "steps = STEPS"))
    assert load_workload(net(text)).steps == 9


def test_what_a_package_lacks_is_told_in_a_sentence(package):
    (package / "mypkg_7" / "data.py").unlink()
    said = refusal("mypkg_7/models/net.py:Net")
    assert "cannot be imported: ModuleNotFoundError: No module named" in said
    assert "(net.py, line 2)" in said


def test_content_of_this_package_and_modules_elsewhere_keep_their_names(tmp_path):
    (tmp_path / "trainables").mkdir()
    (tmp_path / "trainables" / "regression.py").touch()
    for name in ("trainables.regression:Regression", "no.such:Class", "Class", ":Class", "no/such.py:Class"):
        assert located(name, tmp_path) == name


def test_a_file_finds_its_neighbours_and_may_hold_dataclasses(net, tmp_path):
    (tmp_path / "neighbour_of_net.py").write_text("STEPS = 7\n")
    text = NET.replace("steps = 30", "steps = STEPS")
    extra = """
    from dataclasses import dataclass
    from neighbour_of_net import STEPS

    @dataclass
    class Other:
        a: int = 0
    """
    assert load_workload(net(textwrap.dedent(extra) + text)).steps == 7


def test_a_function_that_returns_a_workload_will_do(net):
    assert (
        load_workload(net(NET + "\ndef small(lr):\n    return Net(lr, width=1)\n", "small"), lr=2).width == 1
    )


def test_a_class_that_names_no_quality_has_the_usual_one(net):
    assert quality_of(load_workload(net(NET.replace('quality = "loss_ratio"', "")))) == "loss_ratio"


def test_the_packaged_workload_is_listed_without_torch_and_loads():
    listed = packaged_workloads()
    assert listed["trainables.mnist_mlp:MnistMlp"]
    folder = importlib.resources.files("trainables")
    for name in listed:
        module, _, attribute = name.partition(":")
        tree = ast.parse((folder / f"{module.partition('.')[2]}.py").read_text(encoding="utf-8"))
        assert attribute in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        assert load_workload(name).steps >= 1


@pytest.mark.parametrize("name", ["net.py", "net", ":Net", "net.py:", "net.py:not a name", ""])
def test_what_is_no_import_string_is_refused_with_the_two_forms(name):
    assert "package.module:Class or path/to/file.py:Class" in refusal(name)


def test_a_missing_file_is_named(tmp_path):
    assert f"no workload file {tmp_path / 'gone.py'}" in refusal(f"{tmp_path / 'gone.py'}:Net")


def test_a_missing_module_is_named_with_the_way_out():
    message = refusal("no_such_package.part:Net")
    assert "no module 'no_such_package'" in message
    assert "path/to/file.py:Class" in message


def test_an_unknown_class_lists_those_of_the_file(net):
    message = refusal(net(name="Nett"))
    assert "'Nett' (did you mean 'Net'?); known: Net" in message
    assert "defines no class" in refusal(net("x = 1\n", "x"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "import os\nimport no_such_module_here\n",
            ["ModuleNotFoundError", "no_such_module_here", "net.py, line 2"],
        ),
        ("x = 1\nraise RuntimeError('a\\nb')\n", ["RuntimeError: a b", "net.py, line 2"]),
        ("x = 1\n\ndef f(:\n", ["SyntaxError", "net.py, line 3"]),
        ("import json\njson.loads('{')\n", ["JSONDecodeError", "net.py, line 2"]),
        ("import sys\n\nsys.exit(3)\n", ["SystemExit", "net.py, line 3"]),
    ],
)
def test_an_error_inside_the_file_is_given_with_its_line(net, text, parts):
    message = refusal(net(text))
    assert all(part in message for part in parts), message


def test_a_file_that_failed_is_read_again_once_it_is_fixed(net):
    refusal(net("raise RuntimeError\n"))
    assert load_workload(net()).steps == 30


def test_an_edited_file_is_read_again(net):
    assert load_workload(net()).steps == 30
    assert load_workload(net(NET.replace("steps = 30", "steps = 300"))).steps == 300


def test_an_error_inside_an_installed_module_is_given_with_its_line(net, tmp_path, monkeypatch):
    (tmp_path / "broken_net.py").write_text("\nimport no_such_module_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    message = refusal("broken_net:Net")
    assert "no_such_module_here" in message
    assert "broken_net.py, line 2" in message


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_method_is_named_with_its_form(net, method):
    message = refusal(net(NET.replace(f"def {method}(", f"def other_{method}(")))
    assert f"has no method {method}: add `def {method}(self, {', '.join(METHODS[method])})`" in message


def test_a_method_with_other_arguments_is_named_with_its_form(net):
    message = refusal(net(NET.replace("def batch(self, seed, step)", "def batch(self, step)")))
    assert "batch must be `def batch(self, seed, step)`" in message


def test_static_and_class_methods_will_do(net):
    text = NET.replace("    def batch(self, seed, step)", "    @staticmethod\n    def batch(seed, step)")
    text = text.replace(
        "    def loss(self, model, batch)", "    @classmethod\n    def loss(cls, model, batch)"
    )
    assert load_workload(net(text)).batch(1, 2) == (1, 2)


def test_a_keyword_that_the_class_does_not_take_is_refused_with_those_it_does(net):
    message = refusal(net(), data="bundled")
    assert "no keyword 'data' (it takes lr, width)" in message
    assert "--set workload=" in message


def test_a_keyword_that_the_class_needs_is_named(net):
    message = refusal(net(NET.replace("lr=0.1", "lr")))
    assert "--set workload.lr=VALUE" in message


def test_a_class_that_cannot_be_built_says_why_and_where(net):
    message = refusal(net(NET.replace("self.lr, self.width = lr, width", "raise ValueError('lr is odd')")))
    assert "cannot be built: ValueError: lr is odd (net.py, line 9)" in message


def test_a_mistake_that_the_class_tells_itself_is_passed_on(net):
    text = "from hybrid_sweep.errors import UserError\n" + NET
    assert (
        refusal(net(text.replace("self.lr, self.width = lr, width", "raise UserError('no data')")))
        == "no data"
    )


@pytest.mark.parametrize("steps", ["0", "-1", "2.5", "None", "True", "'30'"])
def test_steps_must_be_a_positive_whole_number(net, steps):
    assert f"steps={steps} is not allowed" in refusal(net(NET.replace("steps = 30", f"steps = {steps}")))


def test_an_unknown_quality_is_refused_with_the_known_ones(net):
    message = refusal(net(NET.replace('"loss_ratio"', '"loss_ration"')))
    assert "did you mean 'loss_ratio'?); known: loss_ratio, accuracy_ratio, loss_gap" in message


def test_finding_a_workload_builds_nothing(net):
    name = net(NET.replace("self.lr, self.width = lr, width", "raise RuntimeError"))
    assert find_workload(name, lr=1).__name__ == "Net"


def test_a_file_travels_with_its_folder(net, tmp_path, monkeypatch):
    folder, name = travelling(net())
    assert (folder, name) == (tmp_path.resolve(), "net.py:Net")
    monkeypatch.chdir(folder)
    assert load_workload(name).steps == 30
    assert travelling("trainables.mnist_mlp:MnistMlp") is None


@pytest.mark.parametrize(
    ("attributes", "kind", "metric"),
    [
        ({}, "loss_ratio", "accuracy"),
        ({"quality": "accuracy_ratio"}, "accuracy_ratio", "accuracy"),
        ({"metric": "auc"}, "max_ratio", "auc"),
        ({"metric": "perplexity", "mode": "min"}, "min_ratio", "perplexity"),
        ({"metric": "reward", "quality": "loss_gap"}, "max_gap", "reward"),
    ],
)
def test_what_is_compared_follows_from_quality_metric_and_mode(attributes, kind, metric):
    workload = type("Own", (), attributes)()
    assert (quality_of(workload), metric_of(workload)) == (kind, metric)


SCRIPT = (
    NET
    + """
from hybrid_sweep.cluster.launch import run_sweep

try:
    run_sweep(None)
except Exception:
    raise AssertionError("a handler of its own does not see it")
raise AssertionError("no sweep runs within another")
"""
)


class TestAScriptThatRunsASweep:
    def test_is_imported_as_far_as_that(self, net):
        assert find_workload(net(SCRIPT)).__name__ == "Net"

    def test_within_a_package_is_to_have_a_main_guard(self, tmp_path, monkeypatch):
        (tmp_path / "of_mine").mkdir()
        (tmp_path / "of_mine" / "script.py").write_text(SCRIPT)
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        with pytest.raises(UserError, match=r'of_mine.script runs a sweep .* `if __name__ == "__main__":`$'):
            find_workload("of_mine.script:Net")

    def test_may_run_one_after_an_import(self, net):
        find_workload(net(SCRIPT))
        with pytest.raises(AttributeError):  # it begins
            run_sweep(None)


def test_a_class_of_a_notebook_is_to_be_in_a_file():
    with pytest.raises(UserError, match=r"a class of __main__ .* give path/to/file\.py:Class"):
        find_workload("__main__:Net")
