"""The KubeRay manifests: pods by the schemas of Kubernetes, KubeRay's own fields by a check of ours.

The models below are not KubeRay's schema: they are what we know of the fields that we use, of ray.io/v1 as of
KubeRay 1.5, and refuse every other.
"""

import re
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

ROOT = Path(__file__).resolve().parents[2]
KUBERAY = ROOT / "docker" / "kuberay"
KUBERNETES = kubernetes_validate.latest_version()
LONGEST_NAME = 47  # KubeRay appends to it, and 63 is the end


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Strict):
    name: Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", max_length=LONGEST_NAME)]
    annotations: dict[str, str]


class Head(Strict):
    rayStartParams: dict[str, str]
    template: dict[str, Any]


class Workers(Head):
    groupName: str
    replicas: Annotated[int, Field(ge=0)]
    minReplicas: Annotated[int, Field(ge=0)]
    maxReplicas: int

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.minReplicas <= self.replicas <= self.maxReplicas:
            raise ValueError("minReplicas <= replicas <= maxReplicas")
        return self


class Authentication(Strict):
    mode: Literal["disabled", "token"]


class ClusterSpec(Strict):
    rayVersion: str
    authOptions: Authentication
    headGroupSpec: Head
    workerGroupSpecs: list[Workers]


class JobSpec(Strict):
    entrypoint: str
    jobId: str
    metadata: dict[str, str]
    runtimeEnvYAML: str
    backoffLimit: Annotated[int, Field(ge=0)]
    shutdownAfterJobFinishes: Literal[True]  # else ttlSecondsAfterFinished means nothing
    ttlSecondsAfterFinished: Annotated[int, Field(ge=0)]
    rayClusterSpec: ClusterSpec


class Cluster(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class Job(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


MODELS = {"raycluster": Cluster, "rayjob": Job}


def read(name):
    return yaml.safe_load((KUBERAY / f"{name}.yaml").read_text())


def cluster_spec(manifest):
    return manifest["spec"].get("rayClusterSpec", manifest["spec"])


def pods(manifest):
    """Return the pod of each group, as KubeRay would make it."""
    spec = cluster_spec(manifest)
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]}
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])
    ]


def set_at(manifest, path, value):
    *above, last = path
    for step in above:
        manifest = manifest[step]
    manifest[last] = value


@pytest.mark.parametrize("name", MODELS)
class TestManifests:
    def test_kuberays_fields(self, name):
        MODELS[name](**read(name))

    def test_pods(self, name):
        for pod in pods(read(name)):
            assert kubernetes_validate.validate(pod, KUBERNETES, strict=True) == KUBERNETES.rpartition(".")[0]

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (["headGroupSpec", "replicas"], 1),
            (["workerGroupSpecs", 0, "replicas"], 17),
            (["workerGroupSpecs", 0, "minReplicas"], "0"),
            (["authOptions", "mode"], "on"),
            (["enableAutoscaling"], True),
        ],
        ids=str,
    )
    def test_a_slip_in_kuberays_fields_would_be_seen(self, name, path, value):
        manifest = read(name)
        set_at(cluster_spec(manifest), path, value)
        with pytest.raises(ValidationError):
            MODELS[name](**manifest)

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (["spec", "containers", 0, "command"], "start-head.sh"),
            (["spec", "containers", 0, "enviroment"], []),
            (["spec", "containers", 0, "resources", "cpu"], "1"),
            (["spec", "securityContext", "runAsUser"], "sweep"),
        ],
        ids=str,
    )
    def test_a_slip_in_a_pod_would_be_seen(self, name, path, value):
        for pod in map(deepcopy, pods(read(name))):
            set_at(pod, path, value)
            with pytest.raises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(pod, KUBERNETES, strict=True)

    def test_our_commands_are_run(self, name):
        """Without the annotation KubeRay puts a `ray start` of its own behind them."""
        assert read(name)["metadata"]["annotations"] == {"ray.io/overwrite-container-cmd": "true"}

    def test_the_version_is_rays(self, name):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        ray = next(r for r in map(Requirement, project["dependencies"]) if r.name == "ray")
        assert ray.specifier.contains(cluster_spec(read(name))["rayVersion"])

    def test_volumes_are_declared_and_claimed(self, name):
        claim = read("results")["metadata"]["name"]
        for pod in pods(read(name)):
            volumes = {v["name"]: v for v in pod["spec"].get("volumes", [])}
            mounts = [m for c in pod["spec"]["containers"] for m in c.get("volumeMounts", [])]
            assert {mount["name"] for mount in mounts} == set(volumes)
            assert all(v["persistentVolumeClaim"]["claimName"] == claim for v in volumes.values())

    def test_no_one_is_root(self, name):
        user = int(re.search(r"--uid (\d+)", (ROOT / "docker" / "Dockerfile").read_text()).group(1))
        for pod in pods(read(name)):
            context = pod["spec"]["securityContext"]
            assert context["runAsNonRoot"]
            assert context["runAsUser"] == user


def test_the_claim_is_one():
    kubernetes_validate.validate(read("results"), KUBERNETES, strict=True)


def test_a_job_gets_the_same_cluster():
    assert cluster_spec(read("rayjob")) == cluster_spec(read("raycluster"))


def test_the_environment_of_a_job_is_yaml():
    environment = yaml.safe_load(read("rayjob")["spec"]["runtimeEnvYAML"])
    assert set(environment) == {"env_vars"}
    assert all(isinstance(value, str) for value in environment["env_vars"].values())
