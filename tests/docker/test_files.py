"""What the files of docker/ name exists: paths, scripts, commands, settings, ports, versions."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
FILES = sorted(file for file in DOCKER.rglob("*") if file.is_file())
SCRIPTS = sorted(DOCKER.glob("*.sh"))
IMAGE_BIN = "/usr/local/bin/"
INSTRUCTIONS = {"ARG", "FROM", "RUN", "COPY", "USER", "WORKDIR", "VOLUME", "EXPOSE", "CMD", "ENV"}


def requirement(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    image = {"python_version": argument_defaults()["PYTHON"]}
    asked = [r for r in map(Requirement, project["dependencies"]) if r.name == name]
    return next(r for r in asked if r.marker is None or r.marker.evaluate(image))


def instructions():
    """Return the Dockerfile as pairs of instruction and argument."""
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def argument_defaults():
    return dict(value.split("=", 1) for name, value in instructions() if name == "ARG")


def copied():
    """Return pairs of source and target of every COPY."""
    pairs = []
    for name, value in instructions():
        if name == "COPY":
            *sources, target = [word for word in shlex.split(value) if not word.startswith("--")]
            pairs += [(source, target) for source in sources]
    return pairs


def services():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


def ray_containers():
    """Return every container of the KubeRay manifests."""
    found = []
    for name in ("raycluster", "rayjob"):
        spec = yaml.safe_load((DOCKER / "kuberay" / f"{name}.yaml").read_text())["spec"]
        cluster = spec.get("rayClusterSpec", spec)
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            found += group["template"]["spec"]["containers"]
    return found


def commands():
    """Return every command that a container is started with, as words."""
    entrypoint = yaml.safe_load((DOCKER / "kuberay" / "rayjob.yaml").read_text())["spec"]["entrypoint"]
    (cmd,) = (value for name, value in instructions() if name == "CMD")
    return [
        yaml.safe_load(cmd),
        entrypoint.split(),
        *(service["command"] for service in services().values() if "command" in service),
        *(container["command"] for container in ray_containers()),
    ]


def settings(script):
    """Return the environment variables that a script reads, with their defaults."""
    return dict(re.findall(r"\$\{([A-Z_]+):[-+]?([^}\s]*)", (DOCKER / script).read_text()))


class TestDockerfile:
    def test_it_is_made_of_instructions_and_ends_as_no_root(self):
        names = [name for name, _ in instructions()]
        assert set(names) <= INSTRUCTIONS
        assert names[:2] == ["ARG", "FROM"]
        assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))
        assert dict(instructions())["USER"] not in ("root", "0")

    def test_every_argument_that_is_used_is_declared(self):
        used = set(re.findall(r"\$\{?([A-Z]+)", " ".join(value for _, value in instructions())))
        assert used == set(argument_defaults())

    @pytest.mark.parametrize("shell", [["bash", "-n"], ["sh", "-n"]], ids=lambda words: words[0])
    def test_its_shell_parses(self, shell):
        for body in (value for name, value in instructions() if name == "RUN"):
            subprocess.run([*shell, "-c", body], check=True)

    def test_what_it_copies_exists_and_is_let_through(self):
        ignore = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
        assert "*" in ignore
        assert copied()
        for source, _ in copied():
            assert (ROOT / source).exists()
            assert f"!{source}" in ignore

    def test_every_package_of_the_wheel_is_copied(self):
        build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
        sources = {source for source, _ in copied()}
        assert set(build["targets"]["wheel"]["packages"]) < sources
        assert {"pyproject.toml", "README.md", "LICENSE"} < sources

    def test_it_installs_an_extra_that_there_is(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        (extra,) = re.findall(r'"/src\[(\w+)\]"', " ".join(value for _, value in instructions()))
        assert extra in project["optional-dependencies"]

    def test_it_asks_for_the_torch_and_python_of_the_package(self):
        torch = Requirement(argument_defaults()["TORCH"].strip('"'))
        assert (torch.name, torch.specifier) == ("torch", requirement("torch").specifier)
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert Requirement(f"python{project['requires-python']}").specifier.contains(
            argument_defaults()["PYTHON"]
        )


class TestScripts:
    @pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
    @pytest.mark.parametrize("shell", ["bash", "sh"])
    def test_they_parse_and_may_be_run(self, script, shell):
        subprocess.run([shell, "-n", script], check=True)
        assert script.stat().st_mode & 0o111 == 0o111

    @pytest.mark.parametrize("script", ["start-head.sh", "start-worker.sh"])
    def test_ray_knows_every_option_they_give(self, script, tmp_path):
        """A `ray` that prints its arguments stands in; every setting is set."""
        stub = tmp_path / "ray"
        stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        stub.chmod(0o755)
        values = {name: "7" for name in settings(script) if not name.startswith("RAY_")}
        given = subprocess.run(
            [DOCKER / script],
            env={"PATH": f"{tmp_path}:/bin:/usr/bin", **values},
            capture_output=True,
            text=True,
        )
        assert given.returncode == 0, given.stderr
        start, *options = given.stdout.splitlines()
        assert start == "start"
        help_text = subprocess.run(
            [Path(sys.executable).parent / "ray", "start", "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        known = set(re.findall(r"^\s+(--[a-z-]+)", help_text, re.MULTILINE))
        assert {option.partition("=")[0] for option in options} <= known
        unused = {"RETRY_SECONDS"}  # of the script itself
        assert sum(option.endswith("=7") for option in options) == len(set(values) - unused)

    def test_a_worker_without_ray_does_not_wait_for_ever(self, tmp_path):
        refused = subprocess.run(
            ["/bin/sh", DOCKER / "start-worker.sh"],
            env={"PATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert (refused.returncode, refused.stderr) == (127, "no ray on the PATH: activate its environment\n")

    def test_token_authentication_is_what_one_gets_without_asking(self):
        for script in ("start-head.sh", "start-worker.sh"):
            assert settings(script)["RAY_AUTH_MODE"] == "token"

    def test_their_heads_say_every_setting(self):
        named = {}
        for script in ("start-head.sh", "start-worker.sh"):
            lines = re.findall(
                r"^#   ((?:[A-Z_]+, )*[A-Z_]+) {2,}", (DOCKER / script).read_text(), re.MULTILINE
            )
            named[script] = set(", ".join(lines).split(", "))
        assert set(settings("start-worker.sh")) - {"RAY_ADDRESS"} == named["start-worker.sh"]
        assert set(settings("start-head.sh")) == named["start-head.sh"] | (
            named["start-worker.sh"] - {"HEAD_ADDRESS", "RETRY_SECONDS"}
        )


class TestWhatIsNamed:
    @pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
    def test_paths_exist(self, file):
        for path in re.findall(r"\bdocker/[\w./-]*\w", file.read_text()):
            assert (ROOT / path).exists(), path

    def test_commands_are_scripts_of_the_image(self):
        in_image = {Path(source).name for source, target in copied() if target == IMAGE_BIN}
        assert in_image == {script.name for script in SCRIPTS}
        assert {words[0] for words in commands()} == in_image

    def test_subcommands_of_ours_exist(self):
        text = "\n".join(file.read_text() for file in FILES)
        named = set(re.findall(r"\bhybrid-sweep ([a-z]+)\b", text))
        assert {"run", "resume", "submit"} <= named
        for command in sorted(named):
            help_text = subprocess.run(
                [sys.executable, "-m", "hybrid_sweep", command, "--help"], capture_output=True, text=True
            )
            assert help_text.returncode == 0, help_text.stderr

    def test_options_of_ours_exist(self):
        script = (DOCKER / "run-sweep.sh").read_text()
        for line in re.findall(r"exec hybrid-sweep (.+)", script):
            command, *words = line.split()
            help_text = subprocess.run(
                [sys.executable, "-m", "hybrid_sweep", command, "--help"],
                capture_output=True,
                text=True,
                check=True,
                env={"COLUMNS": "200", "PATH": "", "NO_COLOR": "1", "TERM": "dumb"},
            ).stdout
            options = [word for word in words if word.startswith("--")]
            assert options
            assert all(option in help_text for option in options)

    def test_settings_are_read_by_the_script_they_are_given_to(self):
        given = [(s["command"][0], s["environment"]) for s in services().values() if "command" in s]
        given += [(c["command"][0], {e["name"]: e for e in c["env"]}) for c in ray_containers()]
        assert len(given) == 6
        for script, environment in given:
            others = {"RAY_AUTH_TOKEN", "PGPASSWORD"}  # which Ray and PostgreSQL's client read themselves
            assert set(environment) - others <= set(settings(script)), script

    def test_ports_are_those_of_the_scripts(self):
        head = settings("start-head.sh")
        ours = {head["HEAD_PORT"], head["DASHBOARD_PORT"], head["CLIENT_PORT"]}
        exposed = set(dict(instructions())["EXPOSE"].split())
        opened = {str(port["containerPort"]) for c in ray_containers() for port in c.get("ports", [])}
        published = {entry.rpartition(":")[2] for entry in services()["head"]["ports"]}
        assert exposed < ours
        assert opened == ours
        assert published == {head["DASHBOARD_PORT"]}
        assert services()["worker"]["environment"]["HEAD_ADDRESS"] == f"head:{head['HEAD_PORT']}"
        probe = " ".join(services()["head"]["healthcheck"]["test"])
        assert f"127.0.0.1:{head['DASHBOARD_PORT']}/api/gcs_healthz" in probe

    def test_the_dashboard_is_published_to_this_machine_only(self):
        assert all(entry.startswith("127.0.0.1:") for entry in services()["head"]["ports"])

    def test_results_are_on_the_volume(self):
        volume = dict(instructions())["VOLUME"]
        assert any(f"ln -s {volume} /home/sweep/hybrid-sweep-results" in v for _, v in instructions())
        assert f"results:{volume}" in services()["head"]["volumes"]
        job = yaml.safe_load((DOCKER / "kuberay" / "rayjob.yaml").read_text())["spec"]
        script, folder, sweep = job["entrypoint"].split()
        assert script == "run-sweep.sh"
        assert folder.startswith(f"{volume}/")
        assert job["metadata"] == {"hybrid_sweep": sweep, "results": folder}
        assert (ROOT / "search_spaces" / f"{sweep}.yaml").is_file()
