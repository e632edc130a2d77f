"""Real Ray nodes on this machine, started by the two scripts that containers start them with."""

import ctypes
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psutil
from support.patience import HANG_SECONDS

DOCKER = Path(__file__).resolve().parents[2] / "docker"
MARK = "HYBRID_SWEEP_TEST_NODE"  # inherited by every process of a node, also where its parent has ended
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_GIVEN = set()


class Node:
    """One node: the script that started it, and everything that descends from it."""

    def __init__(self, script, folder, settings):
        self.mark, self.log = uuid4().hex, folder / "log"
        folder.mkdir()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        bin_folder = str(Path(sys.executable).parent)
        shared = {
            "RAY_AUTH_MODE": "disabled",  # a ~/.ray/auth_token would turn it on
            "OBJECT_STORE_BYTES": str(100 * 2**20),
            "MIN_WORKER_PORT": "0",
            "MAX_WORKER_PORT": "0",
            "AGENT_PORT": str(free_port()),
            "TEMP_DIR": str(folder),
            "HYBRID_SWEEP_CACHE": str(folder / "cache"),  # as on a disk of its own
            "RETRY_SECONDS": "0.2",
        }
        environment = inherited | shared | settings
        environment |= {MARK: self.mark, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
        with self.log.open("wb") as log:
            self.script = subprocess.Popen(
                [str(DOCKER / script)],
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def processes(self):
        """Return every live process of the node."""
        return [p for p in psutil.process_iter() if _environment(p).get(MARK) == self.mark]

    def kill(self):
        """Kill -9 all of it, as a machine that loses power does."""
        while alive := self.processes():
            for process in alive:
                try:
                    process.send_signal(signal.SIGKILL)
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(alive, timeout=10)
        self.script.wait()


class Nodes:
    """A head without CPUs of its own, and its workers.

    Attributes:
        address: `host:port` for drivers.
        dashboard: `http://host:port` of the Jobs server.
    """

    def __init__(self, folder, count, cpus, gpus, settings):
        self.settings = settings
        head_port, dashboard_port = free_port(), free_port()
        self.address, self.dashboard = f"127.0.0.1:{head_port}", f"http://127.0.0.1:{dashboard_port}"
        ports = {"HEAD_PORT": head_port, "DASHBOARD_PORT": dashboard_port, "CLIENT_PORT": free_port()}
        head = {name: str(port) for name, port in ports.items()} | {"NUM_CPUS": "0", "NUM_GPUS": "0"}
        self.head = Node("start-head.sh", folder / "h", head | settings)
        worker = {"HEAD_ADDRESS": self.address, "NUM_CPUS": str(cpus), "NUM_GPUS": str(gpus)}
        self.workers = [Node("start-worker.sh", folder / f"w{i}", worker | settings) for i in range(count)]

    def kill_worker(self, index):
        """Kill -9 every process of one worker node."""
        self.workers[index].kill()

    def alive(self):
        """Return how many nodes the head believes to be alive, itself included; 0 while it is silent."""
        request = urllib.request.Request(f"{self.dashboard}/api/v0/nodes")
        if token := self.settings.get("RAY_AUTH_TOKEN"):
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                nodes = json.load(answer)["data"]["result"]["result"]
        except (OSError, ValueError, TypeError, KeyError):
            return 0
        return sum(node["state"] == "ALIVE" for node in nodes)

    def wait(self):
        """Return once every node is up; raise with the log of one that is not."""
        deadline = time.monotonic() + HANG_SECONDS
        while self.alive() < 1 + len(self.workers):
            for node in (self.head, *self.workers):
                if node.script.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"a node did not start:\n{node.log.read_text()[-4000:]}")
            time.sleep(0.2)

    def close(self):
        """Kill every node."""
        for node in (*self.workers, self.head):
            node.kill()


@contextmanager
def nodes(count, *, cpus=1, gpus=0, **settings):
    """Start a head and `count` workers, each with so many CPUs and (pretended) GPUs; kill all at the end.

    `settings` are environment variables of the scripts, the same for every node. The folder is short,
    because the path of a Unix socket ends at 107 characters, and each node has its own within it, because
    nodes that share a session folder delete each other's copies of a job's working folder.
    """
    folder = Path(tempfile.mkdtemp(prefix="hs", dir="/tmp"))
    cluster = None
    try:
        cluster = Nodes(folder, count, cpus, gpus, settings)
        cluster.wait()
        yield cluster
    finally:
        if cluster:
            cluster.close()
        shutil.rmtree(folder, ignore_errors=True)


def free_port():
    """Return a port on which nothing listens, below those that the system hands out to anybody meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as free:
            try:
                free.bind(("", port))
            except OSError:
                continue
        if port not in _GIVEN:
            _GIVEN.add(port)
            return port


def _die_with_parent():
    """Have Linux send SIGTERM when the test process ends, however it does; that ends a node."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _environment(process):
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}
