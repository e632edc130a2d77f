"""What the README and the pages show works as it stands there."""

import importlib.util
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import typer
from support.toy import Toy

from hybrid_sweep.cli.app import app
from hybrid_sweep.driver.sweep import SweepOutcome
from hybrid_sweep.measure.costs import UnitCosts
from hybrid_sweep.measure.hybrid_run import HybridRun
from hybrid_sweep.measure.reference import reference_run
from hybrid_sweep.measure.workload_builder import warm_up
from hybrid_sweep.spec.files import load_spec
from hybrid_sweep.spec.sweep import SweepSpec
from hybrid_sweep.store.columns import TRIAL_COLUMNS
from hybrid_sweep.trainer.config import HybridConfig
from hybrid_sweep.trainer.presets import PRESETS
from hybrid_sweep.trainer.trainer import HybridTrainer
from hybrid_sweep.workload import load_workload

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def blocks(page, language):
    """Return the fenced blocks of a page in a language; "" is that of commands."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [text for kind, text in found if kind == language]


def every(language):
    return [
        pytest.param(page, text, id=f"{page.name}-{number}")
        for page in PAGES
        for number, text in enumerate(blocks(page, language))
    ]


def commands(text):
    """Return the words after `hybrid-sweep` of each line of a block, comments left out."""
    lines = [line for line in text.splitlines() if "hybrid-sweep " in line]
    parts = [part for line in lines for part in line.split("&&") if "hybrid-sweep " in part]
    return [shlex.split(part.partition("hybrid-sweep ")[2], comments=True) for part in parts]


@pytest.fixture
def cnn(tmp_path, monkeypatch):
    """The workload of the README, in the current folder."""
    path = tmp_path / "cnn.py"
    path.write_text(next(text for text in blocks(README, "python") if "class SmallCnn" in text))
    monkeypatch.chdir(tmp_path)
    return path


def test_the_front_page_is_read_in_five_minutes():
    assert 1000 <= len(README.read_text(encoding="utf-8").split()) <= 1300


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            place, _, heading = target.partition("#")
            file = page.parent / place if place else page
            assert file.is_file(), target
            titles = re.findall(
                r"^#+ (.*)$", file.read_text(encoding="utf-8") if heading else "", re.MULTILINE
            )
            assert not heading or heading in [re.sub(r"[^\w]+", "-", title.lower()) for title in titles]


@pytest.mark.parametrize(("page", "text"), every(""))
def test_every_command_is_one(page, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("results/cnn", "results/grid60"):
        (tmp_path / name).mkdir(parents=True)
    group = typer.main.get_command(app)
    for words in commands(text):
        with group.make_context(
            "hybrid-sweep", list(words), resilient_parsing=words[0].startswith("--")
        ) as context:
            if not words[0].startswith("--"):
                name, command, rest = group.resolve_command(context, words)
                if hasattr(command, "commands"):
                    name, command, rest = command.resolve_command(context, rest)
                command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("words", ["list", "list sweeps", "--version", "cache ls", "run grid60 --dry-run"])
def test_what_takes_no_time_is_run(words, capsys):
    assert any(words.split() in commands(text) for page in PAGES for text in blocks(page, ""))
    app(words.split(), standalone_mode=False)
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(("page", "text"), every("yaml"))
def test_every_sweep_file_is_one(page, text, cnn):
    cnn.write_text(cnn.read_text().replace("def __init__(self):", "def __init__(self, width=16):"))
    (file := cnn.with_name("mine.yaml")).write_text(text)
    assert load_spec(file).space


class TestPython:
    def test_the_users_own_model_sweeps(self, cnn):
        torch.set_num_threads(1)
        workload = load_workload(f"{cnn}:SmallCnn")
        warm_up(workload)
        reference = reference_run(workload, 0, 120, 30)
        config = HybridConfig(warmup_steps=30, full_steps=10, max_predict_steps=10, confidence_threshold=0.3)
        costs = UnitCosts(
            batch=0, plain_step=1, observe=0, update=0, checkpoint=0, jump=0, forward=0.4, score=0
        )
        run = HybridRun(workload, config, reference, costs)
        while not run.done:
            run.report()
        result = run.result()
        assert run.state == "done"
        assert result["predict_phases"] > 0
        assert result["quality"] > 0.5

    @pytest.fixture
    def names(self):
        """What the blocks speak of."""
        model = torch.nn.Linear(4, 1)
        return {
            "HybridTrainer": HybridTrainer,
            "SmallCnn": Toy,
            "model": model,
            "optimizer": torch.optim.SGD(model.parameters(), lr=0.01),
            "loss_fn": lambda model, batch: model(batch).square().mean(),
            "my_batch": lambda step: torch.randn(8, 4, generator=torch.Generator().manual_seed(step)),
            "held_out_loss": lambda model: model.weight.square().sum().item() + 1e-3,
            "__name__": "page",
        }

    @pytest.mark.parametrize(("page", "text"), every("python"))
    def test_every_block_runs(self, page, text, names, tmp_path, monkeypatch, grid60):
        def run_sweep(spec, out, *, on_event, **options):
            return SweepOutcome(folder=grid60, counts={}, interrupted=False)

        monkeypatch.chdir(tmp_path)
        shutil.copytree(grid60.path, tmp_path / "results" / "small")
        monkeypatch.setattr("hybrid_sweep.cluster.launch.run_sweep", run_sweep)
        exec(text, names)

    def test_a_preset_is_chosen_by_size_and_loss(self, names):
        page = blocks(ROOT / "docs" / "trainer.md", "python")
        exec(next(text for text in page if "preset_for_size" in text), names)
        assert names["config"] == PRESETS["medium"]
        assert names["preset_for_loss"](0.8) == PRESETS["mid"]
        assert names["threshold"] is None or 0 < names["threshold"] <= 0.85


class Resources(HTMLParser):
    """What a page loads when it is opened."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag in ("script", "img", "iframe") and values.get("src"):
            self.found.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "preload", "preconnect", "icon"):
            self.found.append(values.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as strictly as it can be."""
    pytest.importorskip("mkdocs")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    place = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(place), strict=True))
    return place


def test_the_site_loads_nothing_from_the_network(site):
    for page in site.glob("*.html"):
        resources = Resources()
        resources.feed(page.read_text(encoding="utf-8"))
        assert resources.found
        assert not [found for found in resources.found if re.match(r"(https?:)?//", found)]


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("sweep-file", [*SweepSpec.model_fields, *HybridConfig.model_fields]),
        ("results-folder", [column.name for column in TRIAL_COLUMNS]),
        ("cli", ["hybrid-sweep run", "hybrid-sweep cache clear", "--gpus-per-trial", "--min-quality"]),
        ("python-api", ["Sweep", "plot_front", "on_run_end", "HybridTrainer"]),
    ],
)
def test_generated_tables_have_every_name(site, page, names):
    text = (site / f"{page}.html").read_text(encoding="utf-8")
    assert not [name for name in names if name not in text]


@pytest.fixture(scope="module")
def generate():
    """The script that writes the tables."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_generated_tables_are_those_of_the_code(generate, page):
    text = page.read_text(encoding="utf-8")
    assert generate.filled(text) == text, "run: python docs/generate.py"


def test_every_field_of_a_sweep_has_a_meaning(generate):
    for model in (SweepSpec, HybridConfig):
        rows = generate.fields_of(model).splitlines()[2:]
        assert not [row for row in rows if row.rstrip(" |").endswith("|") or row.split("|")[3].strip() == ""]
