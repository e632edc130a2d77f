"""Two sweeps at the same time on one machine, with one cache, find what one finds alone."""

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from support import toy

from hybrid_sweep.measure.costs import COST_NAMES

pytestmark = [pytest.mark.ray, pytest.mark.slow]
COUNTED = ["trial_id", "seed", "quality", "val_loss", "speedup_counted"]
SWEEP = {
    "workload": "toy.py:Toy",
    "steps": 300,
    "trainer": {"warmup_steps": 20, "full_steps": 10, "horizon_rule": "fixed", "confidence_threshold": 0.001},
    "space": {"max_predict_steps": [5, 20]},
    "sampler": "grid",
    "repeats": 2,
    "controls": "none",
    "unit_costs": dict.fromkeys(COST_NAMES, 0.1) | {"plain_step": 1.0},
}


def test_two_sweeps_and_one_cache_give_what_one_gives_alone(tmp_path):
    shutil.copy(toy.__file__, tmp_path)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))

    def start(out, cache):
        return subprocess.Popen(
            [sys.executable, "-m", "hybrid_sweep", "run", "sweep.yaml", "--out", out],
            cwd=tmp_path,
            env={**os.environ, "HYBRID_SWEEP_CACHE": str(tmp_path / cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def table(out):
        found = pd.read_csv(tmp_path / out / "trials.csv")[COUNTED]
        return found.sort_values(COUNTED[:2], ignore_index=True)

    for together in ([("alone", "own")], [("a", "shared"), ("b", "shared")], [("later", "shared")]):
        for process in [start(out, cache) for out, cache in together]:
            said = process.communicate()[0]
            assert process.returncode == 0, said
    assert len(table("alone")) == 4
    assert table("alone").notna().all(axis=None)
    for out in ("a", "b", "later"):
        pd.testing.assert_frame_equal(table(out), table("alone"), check_exact=True)
