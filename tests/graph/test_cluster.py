"""cluster.yaml is read strictly and reaches the compiled platform specification."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import json_format
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig

from pipelines.cluster import read_cluster
from tests.graph.conftest import ROOT, Project

CLUSTER = ROOT / "pipelines" / "cluster.yaml"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("  user: 1000", "  usr: 1000", "'usr' in section 'cluster' is unknown (did you mean 'user'?)"),
        ("      memory: 4Gi", "      memory: 4", "'memory' in section 'cluster.machines.small' is 4"),
        ("      timeout_seconds: 3600\n", "", "'timeout_seconds' in section 'cluster.machines.small' is missing"),
        (
            "operator: Exists",
            "operator: Maybe",
            "section 'cluster.machines.gpu.tolerations.0' is \"Maybe\"",
        ),
        ("      gpus: 8", "      gpus: 0", "machine class 'gpus' has gpus 0 and accelerator 'nvidia.com/gpu'"),
        (
            "      gpu_memory: 80Gi\n",
            "      gpu_memory: null\n",
            "class 'gpu' has gpus 1 and gpu_memory None: give both",
        ),
        ("    gpu:  ", "    tpu:  ", "'gpu' in section 'cluster.machines' is missing"),
        ("cluster:\n", "other: {}\ncluster:\n", "unknown section 'other'"),
    ],
)
def test_wrong_cluster_file(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=r"cluster\.yaml") as error:
        read_cluster(file)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_machine_class_reaches_the_pod(toy: Project) -> None:
    """`mean` asks for "gpus", `square` for "cpu"."""
    specification, platform = toy.compiled()
    machine = read_cluster(CLUSTER).machines.gpus
    container = specification["deploymentSpec"]["executors"]["exec-mean"]["container"]["resources"]
    assert container["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert container["accelerator"]["resourceCount"] == str(machine.gpus)
    assert container["resourceCpuLimit"] == container["resourceCpuRequest"] == machine.cpu
    assert container["resourceMemoryLimit"] == container["resourceMemoryRequest"] == machine.memory
    assert specification["root"]["dag"]["tasks"]["mean"]["retryPolicy"]["maxRetryCount"] == machine.retries

    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert pods["exec-mean"]["tolerations"] == [{"effect": "NoSchedule", "key": "nvidia.com/gpu", "operator": "Exists"}]
    assert pods["exec-mean"]["emptyDirMounts"] == [
        {"medium": "Memory", "mountPath": "/dev/shm", "sizeLimit": "256Gi", "volumeName": "shared-memory"}
    ]
    assert pods["exec-mean"]["activeDeadlineSeconds"] == str(machine.timeout_seconds)
    assert "tolerations" not in pods["exec-square"]
    assert "accelerator" not in specification["deploymentSpec"]["executors"]["exec-square"]["container"]["resources"]


def test_every_pod_gets_secrets_volumes_and_the_runs_id(toy: Project) -> None:
    _, platform = toy.compiled()
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert pods.keys() == {"exec-square", "exec-mean"}
    for pod in pods.values():
        json_format.ParseDict(pod, KubernetesExecutorConfig())  # raises for a field that the backend has not
        assert pod["fieldPathAsEnv"] == [{"fieldPath": "metadata.labels['pipeline/runid']", "name": "CANVAS_RUN"}]
        assert pod["pvcMount"][0]["constant"] == "canvas-work"
        assert pod["pvcMount"][0]["mountPath"] == "/canvas/.work"
        assert {entry["envVar"] for entry in pod["secretAsEnv"][0]["keyToEnv"]} == {
            "MLFLOW_TRACKING_URI",
            "MLFLOW_TRACKING_USERNAME",
            "MLFLOW_TRACKING_PASSWORD",
        }
        assert pod["securityContext"] == {"runAsNonRoot": True, "runAsUser": "1000"}


def test_what_the_file_asks_for_is_applied(toy: Project) -> None:
    text = toy.read("pipelines/cluster.yaml")
    text = text.replace("  image: canvas  ", "  image: registry.invalid/team/canvas  ")
    text = text.replace("image_pull_secrets: [] ", "image_pull_secrets: [pull] ")
    text = text.replace("node_selector: {}", "node_selector: {pool: big}")
    toy.write("pipelines/cluster.yaml", text)
    assert toy.pipelines("graph").returncode == 0
    specification, platform = toy.compiled()
    for name, executor in specification["deploymentSpec"]["executors"].items():
        if "container" in executor:
            pod = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][name]
            assert executor["container"]["image"] == "registry.invalid/team/canvas"
            assert pod["imagePullSecret"][0]["secretName"] == "pull"
            assert pod["nodeSelector"] == {"labels": {"pool": "big"}}


def test_dockerfile_builds_what_the_cluster_runs() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    cluster = read_cluster(CLUSTER)
    copied = [line.split()[1] for line in lines if line.startswith("COPY ")]
    assert copied == [
        "requirements.lock",
        "pyproject.toml",
        "canvas",
        "components",
        "evaluation",
        "lifecycle",
        "pipelines",
    ]
    assert all((ROOT / name).exists() for name in copied)
    assert {f"!{name}" for name in copied} <= set((ROOT / ".dockerignore").read_text().split())
    assert any(f"--uid {cluster.user} " in line for line in lines)
    assert "USER canvas" in lines
    assert any("pip install" in line and "--require-hashes" in line for line in lines)
    assert [line for line in lines if line.startswith("FROM ")] == ["FROM python:3.11-slim"]
    assert all(volume.path.startswith("/canvas/") for volume in cluster.volumes)
