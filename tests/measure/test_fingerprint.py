"""The key of a run: the same for the same run anywhere, another one for whatever could change its result."""

import importlib
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support import toy
from support.toy import Toy

from hybrid_sweep.measure import fingerprint
from hybrid_sweep.measure.fingerprint import Fingerprint
from hybrid_sweep.workload import find_workload, load_workload

USER = """
from neighbour import SCALE
from support.toy import Toy as Base

class Mine(Base):
    def loss(self, model, batch):
        return SCALE * super().loss(model, batch)

def make(**keywords):
    return Base(**keywords)
"""


def content_key(workload, keywords, **parts):
    """Look again at everything that a key depends on."""
    return Fingerprint(workload, keywords).key(**parts)


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Builds the user's workload from files in a new folder, in what would be a new process."""
    count = iter(range(100))
    kept = set(sys.modules)

    def build(text=USER, neighbour="SCALE = 2.0", name="Mine", **keywords):
        for loaded in set(sys.modules) - kept:
            del sys.modules[loaded]
        folder = tmp_path / str(next(count))
        folder.mkdir()
        (folder / "mine.py").write_text(text)
        (folder / "neighbour.py").write_text(neighbour)
        monkeypatch.syspath_prepend(folder)
        path = f"{folder / 'mine.py'}:{name}"
        return Fingerprint(load_workload(path, **keywords), keywords, find_workload(path)).key()

    yield build
    for loaded in set(sys.modules) - kept:
        del sys.modules[loaded]


class TestCode:
    def test_the_same_files_in_another_folder_have_the_same_key(self, user):
        assert user() == user()

    def test_the_workloads_file_counts(self, user):
        assert user() != user(USER + "# edited")

    def test_what_it_imports_from_its_folder_counts(self, user):
        assert user() != user(neighbour="SCALE = 3.0")

    def test_the_function_that_builds_it_counts(self, user):
        assert user(name="make") != user(USER + "# edited", name="make")

    def test_an_edit_while_the_process_runs_is_not_what_runs(self, tmp_path):
        path = shutil.copy(toy.__file__, tmp_path)
        workload = load_workload(f"{path}:Toy")
        before = content_key(workload, {})
        Path(path).write_text(Path(path).read_text() + "# edited")
        assert content_key(workload, {}) == before
        assert content_key(load_workload(f"{path}:Toy"), {}) != before

    def test_a_module_that_is_loaded_later_counts_unless_it_is_installed(self, tmp_path, monkeypatch):
        path = shutil.copy(toy.__file__, tmp_path)
        for folder, module in ((tmp_path / "site-packages", "an_installed_one"), (tmp_path, "a_late_one")):
            folder.mkdir(exist_ok=True)
            (folder / f"{module}.py").touch()
            monkeypatch.syspath_prepend(folder)
        workload = load_workload(f"{path}:Toy")
        key = content_key(workload, {})
        importlib.import_module("an_installed_one")
        assert content_key(workload, {}) == key
        importlib.import_module("a_late_one")
        assert content_key(workload, {}) != key

    def test_files_of_the_same_name_in_two_folders_both_count(self, user, tmp_path, monkeypatch):
        (tmp_path / "base").mkdir()
        monkeypatch.syspath_prepend(tmp_path)
        derived = "from base.mine import Middle\nclass Mine(Middle): pass"

        def key(remark):
            (tmp_path / "base" / "mine.py").write_text(
                f"from support.toy import Toy\nclass Middle(Toy): pass  # {remark}"
            )
            importlib.invalidate_caches()
            fingerprint._file_digest.cache_clear()  # as in a new process
            return user(derived)

        assert key("one") == key("one") != key("other")

    def test_our_own_code_counts(self, monkeypatch):
        before = content_key(Toy(), {})
        monkeypatch.setattr(fingerprint, "_own_code", lambda: "edited")
        assert content_key(Toy(), {}) != before

    def test_a_class_of_no_file_never_has_the_same_key(self):
        namespace = {"__name__": "typed_in", "Toy": Toy}
        exec("class Mine(Toy): pass", namespace)
        workload = namespace["Mine"]()
        assert content_key(workload, {}) != content_key(workload, {})


class TestParts:
    def test_the_same_twice(self):
        assert content_key(Toy(), {}, seed=0, arm={"name": "lr"}) == content_key(
            Toy(), {}, arm={"name": "lr"}, seed=0
        )

    def test_keywords_seed_steps_and_recipe_count(self):
        parts = {"seed": 0, "steps": 120, "eval_every": 25, "arm": {"name": "lr", "multiplier": 2.0}}
        keys = [content_key(Toy(), {}, **parts), content_key(Toy(), {"lr": 0.1}, **parts)]
        for name, other in (("seed", 1), ("steps", 60), ("eval_every", 5), ("arm", {"name": "lr"})):
            keys.append(content_key(Toy(), {}, **{**parts, name: other}))
        keys.append(content_key(Toy(), {}, **parts, trace=[("full", 10)]))
        assert len(set(keys)) == len(keys)

    def test_versions_device_and_threads_count(self, monkeypatch):
        keys = [content_key(Toy(), {})]
        for owner, name, value in (
            (fingerprint, "version", lambda package: "9.9"),
            (fingerprint.sys, "version", "3.99"),
            (torch, "get_num_threads", lambda: 99),
            (torch.backends.cpu, "get_cpu_capability", lambda: "other"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, value)
                keys.append(content_key(Toy(), {}))
        assert len(set(keys)) == len(keys)


class TestData:
    def test_a_checksum_that_the_workload_offers_counts(self):
        class Offers(Toy):
            checksum = "one"

            def data_checksum(self):
                return self.checksum

        one, other = Offers(), Offers()
        other.checksum = "other"
        assert content_key(one, {}) == content_key(one, {}) != content_key(other, {})

    @pytest.mark.parametrize("offers", [False, True])
    def test_a_batch_without_content_never_has_the_same_key_unless_there_is_a_checksum(self, offers):
        class Lock:
            def __reduce_ex__(self, protocol):
                raise TypeError("a lock")

        class Opaque(Toy):
            def batch(self, seed, step):
                return (*super().batch(seed, step), Lock())

            def loss(self, model, batch):
                return super().loss(model, batch[:2])

        if offers:
            Opaque.data_checksum = lambda self: "data"
        assert (content_key(Opaque(), {}) == content_key(Opaque(), {})) == offers

    def test_nothing_notices_that_a_key_was_made(self):
        def numbers():
            return random.random(), np.random.random(), torch.rand(1).item()

        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        expected = numbers()
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        content_key(Toy(dropout=0.5), {})
        assert numbers() == expected
