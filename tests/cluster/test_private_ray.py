"""A local Ray answers no one else: real processes try."""

import os
import re
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import psutil
import pytest

from hybrid_sweep.cluster.private_ray import SEVERAL_MACHINES, environment, token
from hybrid_sweep.errors import UserError

HOLDER = """
import os, sys
from hybrid_sweep.cluster.connection import connected
from hybrid_sweep.spec.sweep import SweepSpec

spec = SweepSpec(name="x", workload="trainables.mnist_mlp:MnistMlp")
if sys.argv[1] == "second":
    with connected(spec, None):
        pass
with connected(spec, None):
    import ray
    ray.get(ray.remote(lambda: 1).remote())
    context = ray.get_runtime_context()
    print(context.gcs_address, os.environ["RAY_TMPDIR"], os.environ["RAY_AUTH_TOKEN"], flush=True)
    while sys.stdin.readline() == "nodes\\n":
        print(len(ray.nodes()), flush=True)
"""
ATTACH = "import sys, ray; ray.init(address=sys.argv[1]); print('in', ray.nodes())"
CLIENT = "import sys, ray; ray.init(address='ray://' + sys.argv[1]); print('in', ray.nodes())"
JOIN = """
from ray._private import services
services.get_node_ip_address = lambda address=None: "127.0.0.1"  # else it looks at another address
from ray.scripts.scripts import main
main()
"""
STRANGER = {"RAY_AUTH_MODE": "disabled"}
GUESSER = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}


def test_the_variables_are_put_back(monkeypatch):
    monkeypatch.setenv("A", "1")
    monkeypatch.delenv("B", raising=False)
    with environment({"A": "2", "B": "2"}):
        assert (os.environ["A"], os.environ["B"]) == ("2", "2")
    assert os.environ["A"] == "1"
    assert "B" not in os.environ


class TestToken:
    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch):
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.delitem(sys.modules, "ray", raising=False)
        monkeypatch.setattr("hybrid_sweep.cluster.private_ray._imported_here", set())

    def test_is_a_random_one_but_for_the_users_own(self, monkeypatch):
        assert len(token()["RAY_AUTH_TOKEN"]) == 64
        assert token() == token()
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/there")
        assert token() == {"RAY_AUTH_MODE": "token"}

    def test_a_ray_that_was_imported_without_a_word_on_it_is_refused(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(UserError, match="set RAY_AUTH_MODE=token before Ray is imported"):
            token()
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        assert token() == {}
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        assert len(token()["RAY_AUTH_TOKEN"]) == 64


@pytest.fixture(scope="module", params=["first", "second"])
def holder(tmp_path_factory, request):
    """A process with its first or second local Ray, the address of its GCS, its folder and its token."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", HOLDER, request.param]
    with subprocess.Popen(
        command, env=clean, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        address, folder, secret = process.stdout.readline().split()
        yield process, address, Path(folder), secret
        process.communicate("\n")
        assert process.returncode == 0
        assert not Path(folder).exists()


def tree(process):
    root = psutil.Process(process.pid)
    return [root, *root.children(recursive=True)]


def listening(process):
    """Return (address, port) of whatever the process and its descendants listen on."""
    return {
        (c.laddr.ip.removeprefix("::ffff:"), c.laddr.port)
        for p in tree(process)
        for c in p.net_connections("tcp")
        if is_listening(c)
    }


def is_listening(connection):
    return connection.status == psutil.CONN_LISTEN


@pytest.mark.ray
class TestALocalRay:
    def test_listens_on_the_loopback_alone(self, holder):
        places = listening(holder[0])
        assert len(places) > 3
        assert {address for address, _ in places} == {"127.0.0.1"}

    def test_listens_where_the_table_in_the_docs_says(self, holder):
        text = (Path(__file__).parents[2] / "SECURITY.md").read_text(encoding="utf-8")
        rows = [line for line in text.splitlines() if line.startswith("| ") and "127.0.0.1" in line]
        told = {name for row in rows for name in re.findall("`([^`]+)`", row)}
        found = {p.name() for p in tree(holder[0]) if any(map(is_listening, p.net_connections("tcp")))}
        agents = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
        workers = {name for name in found - agents if name.startswith("ray::")}
        python = {name for name in found if name.startswith("python")}
        assert workers
        assert python
        assert found - workers - python == told - {"python", "ray::..."}

    def test_has_no_dashboard_no_client_server_and_no_server_of_metrics(self, holder):
        assert {8265, 10001, 44217, 44227}.isdisjoint(port for _, port in listening(holder[0]))

    def test_keeps_its_folder_and_its_token_to_itself(self, holder):
        process, _, folder, secret = holder
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert not any(secret in part for p in tree(process) for part in p.cmdline())
        files = [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
        assert files
        assert not any(secret.encode() in file.read_bytes() for file in files)

    def test_lets_in_who_has_the_token_alone(self, holder, tmp_path):
        process, address, _, secret = holder
        commands = {
            "join": ["-c", JOIN, "start", f"--address={address}", "--num-cpus=1"],
            "attach": ["-c", ATTACH, address],
            "client": ["-c", CLIENT, address],
        }
        clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}

        def start(how, who):
            private = {"RAY_TMPDIR": str(tmp_path), "HOME": str(tmp_path), "RAY_NUM_REDIS_GET_RETRIES": "2"}
            private[SEVERAL_MACHINES] = (
                "1" if how == "join" else "0"
            )  # with 0 `ray start` does not even knock
            return subprocess.Popen(
                [sys.executable, *commands[how]],
                env=clean | who | private,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

        tries = [(how, start(how, who)) for how in commands for who in (STRANGER, GUESSER)]
        friend = start("attach", {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secret})
        assert "in [" in friend.communicate()[0]
        for how, attempt in tries:
            if how == "client":  # which no server waits for: it would try for minutes
                with suppress(ProcessLookupError):
                    os.killpg(attempt.pid, signal.SIGKILL)
            said = attempt.communicate()[0]
            assert "in [" not in said
            assert attempt.returncode != 0
            assert how == "client" or "InvalidAuthToken" in said, said
        process.stdin.write("nodes\n")
        process.stdin.flush()
        assert process.stdout.readline() == "1\n"

    def test_refuses_http_without_the_token(self, holder):
        answers = []
        for _, port in listening(holder[0]):
            for headers in ({}, {"Authorization": "Bearer " + "0" * 64}):
                request = urllib.request.Request(f"http://127.0.0.1:{port}/api/jobs/", headers=headers)
                try:
                    with urllib.request.urlopen(request) as answer:
                        answers.append((port, answer.status))
                except urllib.error.HTTPError as error:
                    answers.append((port, error.code))
                except (OSError, HTTPException):  # no HTTP there
                    continue
        assert answers
        assert all(400 <= answer < 500 for _, answer in answers), answers
