import subprocess
import sys

import pytest

import hybrid_sweep

READ = """
import sys
import hybrid_sweep
assert 'pandas' not in sys.modules
from hybrid_sweep import load_results, pareto_front, load_spec, SweepSpec, HybridConfig
load_spec('grid60')
HybridConfig()
table = load_results(sys.argv[1]).trials
pareto_front(table)
loaded = {'torch', 'ray'} & set(sys.modules)
assert not loaded, loaded
"""


def test_reading_results_needs_neither_torch_nor_ray(tmp_path):
    (tmp_path / "journal.jsonl").touch()
    subprocess.run([sys.executable, "-c", READ, str(tmp_path)], check=True)


def test_every_name_of_the_face_can_be_listed():
    assert set(hybrid_sweep.__all__) <= set(dir(hybrid_sweep))


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(
        AttributeError, match=r"has no attribute 'run_sweeps'; it has .*HybridConfig, .*run_sweep"
    ):
        _ = hybrid_sweep.run_sweeps
