"""The compose files, against the published schema."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DOCKER = Path(__file__).resolve().parents[2] / "docker"


def accepted(file):
    """Whether the compose specification, as check-jsonschema carries it, takes a file."""
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", file]
    return subprocess.run(words, capture_output=True).returncode == 0


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
class TestSchema:
    def test_it_is_compose(self, name):
        assert accepted(DOCKER / name)

    def test_a_slip_would_be_seen(self, name, tmp_path):
        compose = yaml.safe_load((DOCKER / name).read_text())
        compose["services"]["worker"]["replicas"] = 2
        slip = tmp_path / "compose.yaml"
        slip.write_text(yaml.safe_dump(compose))
        assert not accepted(slip)


def test_volumes_and_services_that_are_named_exist():
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    services = compose["services"]
    mounted = {volume.partition(":")[0] for s in services.values() for volume in s.get("volumes", [])}
    assert mounted == set(compose["volumes"])
    assert {name for s in services.values() for name in s.get("depends_on", {})} <= set(services)
    assert set(yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text())["services"]) <= set(services)


def test_a_plain_start_is_a_head_and_workers():
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    assert [name for name, service in services.items() if "profiles" not in service] == ["head", "worker"]
    assert services["head"]["image"] == services["worker"]["image"]
