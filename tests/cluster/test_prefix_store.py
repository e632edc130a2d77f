"""Edges in Ray's object store: what the disk alone promises, on every node, and whatever dies."""

import sys
import time
from hashlib import sha256

import pytest
import ray
from support.local_ray import local_ray

from hybrid_sweep.cluster import prefix_store
from hybrid_sweep.cluster.prefix_store import Directory, PrefixStore, start_directory
from hybrid_sweep.measure.shared_prefix import SweepStore

pytestmark = pytest.mark.ray
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
KEY, OTHER = (sha256(name).hexdigest() for name in (b"one", b"other"))
LIMIT = 10_000_000
DATA = b"an edge" * 50_000  # more than a call carries by itself


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with local_ray(1):
        yield


@pytest.fixture(scope="module")
def directory(cluster):
    return ray.remote(Directory).options(num_cpus=0).remote(LIMIT)


@pytest.fixture
def node(monkeypatch, tmp_path):
    """Make the store of a node by its name; without a directory, that of its disk."""

    def make(name, directory=None, kind="alike"):
        monkeypatch.setenv("HYBRID_SWEEP_CACHE", str(tmp_path / name))
        disk = SweepStore("one")
        return PrefixStore(disk, directory, f"{kind} {tmp_path}") if directory else disk

    return make


def until_held(store):
    """Wait for what another node has put: no one waits for that otherwise."""
    while store.get(KEY) is None:
        time.sleep(0.01)


@pytest.mark.parametrize("alone", [True, False])
def test_what_was_put_is_there_until_it_is_put_again(node, directory, alone):
    store = node("a", None if alone else directory)
    assert store.get(KEY) is None
    store.put(KEY, DATA)
    store.put(OTHER, b"small")
    assert (store.get(KEY), store.get(OTHER)) == (DATA, b"small")
    store.put(KEY, b"again")
    assert store.get(KEY) == b"again"


def test_another_node_finds_it_and_then_has_it_on_its_disk(node, directory):
    node("a", directory).put(KEY, DATA)
    there = node("b", directory)
    assert there.get(OTHER) is None
    until_held(there)
    assert there.get(KEY) == node("b").get(KEY) == DATA
    assert node("c").get(KEY) is None


def test_a_node_on_which_the_same_run_is_another_does_not_find_it(node, directory):
    node("a", directory).put(KEY, DATA)
    until_held(node("b", directory))
    assert node("c", directory, kind="different").get(KEY) is None


def test_it_outlives_the_worker_that_put_it(node, directory):
    worker = ray.remote(PrefixStore).options(num_cpus=0).remote(node("a"), directory, "worker's")
    ray.get([worker.put.remote(KEY, DATA), worker.put.remote(OTHER, DATA)])  # by now the first has arrived
    ray.kill(worker)
    assert PrefixStore(node("b"), directory, "worker's").get(KEY) == DATA


def test_without_the_directory_there_is_the_disk(node):
    directory = ray.remote(Directory).options(num_cpus=0).remote(LIMIT)
    first, second = node("a", directory), node("b", directory)
    first.put(KEY, DATA)
    until_held(second)
    ray.kill(directory)
    for store in (first, second):
        store.put(OTHER, DATA)
        store.put(OTHER, b"again")
        assert (store.get(KEY), store.get(OTHER)) == (DATA, b"again")
    third = node("c", directory)
    assert third.get(KEY) is None
    third.put(KEY, DATA)
    assert third.get(KEY) == DATA


class Stuck(Directory):
    """Never answers."""

    def get(self, key):
        time.sleep(3600)


def test_one_that_does_not_answer_is_asked_once(node, monkeypatch):
    monkeypatch.setattr(prefix_store, "DIRECTORY_TIMEOUT_SECONDS", 0.1)
    directory = ray.remote(Stuck).options(num_cpus=0).remote(LIMIT)
    store = node("a", directory)
    assert store.get(KEY) is None
    ray.kill(directory)
    monkeypatch.setattr(ray, "get", lambda *given, **named: pytest.fail("asked again"))
    assert store.get(KEY) is None
    store.put(KEY, DATA)
    assert store.get(KEY) == DATA


def test_the_least_recently_used_goes_when_there_is_no_room():
    directory = Directory(25)
    for name in "abc":
        directory.put(name, b"x" * 8)
    assert directory.get("a")  # now b is the oldest
    directory.put("d", b"y" * 8)
    assert [name for name in "abcd" if directory.get(name)] == ["a", "c", "d"]
    directory.put("e", b"z" * 26)
    assert [name for name in "abcde" if directory.get(name)] == ["a", "c", "d"]
    directory.put("a", b"x" * 9)
    assert [name for name in "acd" if directory.get(name)] == ["a", "c", "d"]
    assert ray.get(directory.get("a")) == b"x" * 9


def test_a_single_node_starts_nothing():
    assert start_directory() is None
