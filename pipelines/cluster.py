"""Where each stage runs on a cluster: `pipelines/cluster.yaml` as typed values, applied to Kubeflow tasks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lifecycle.declare.params import read_section, read_sections
from lifecycle.declare.stage import Machine
from lifecycle.run.ranks import RANKS

RUN_LABEL = "metadata.labels['pipeline/runid']"
"""Kubeflow writes the run's id on each pod. As an argument it would differ in every run and defeat the cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Secret:
    """A Kubernetes secret whose `keys` (key of the secret -> variable) become environment variables."""

    name: str
    keys: dict[str, str]
    optional: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """A persistent volume claim, mounted at `path`."""

    claim: str
    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Toleration:
    """A taint that the pod accepts; `value` is null for operator Exists."""

    key: str
    operator: Literal["Equal", "Exists"]
    value: str | None
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineClass:
    """What a pod of this class gets. `shared_memory` sizes /dev/shm (null: the node's 64 MiB); `gpu_memory` is what
    each GPU has, for `make plan`."""

    cpu: str
    memory: str
    gpus: int
    accelerator: str | None
    gpu_memory: str | None
    shared_memory: str | None
    node_selector: dict[str, str]
    tolerations: tuple[Toleration, ...]
    timeout_seconds: int
    retries: int

    @property
    def cores(self) -> float:
        return parse_quantity(self.cpu)

    @property
    def memory_bytes(self) -> float:
        return parse_quantity(self.memory)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRun:
    """What `make plan` takes the run of a profile to be."""

    gpus: int  # that train a denoiser
    gpu_memory: str  # of each of them
    pins: int  # in the shards
    vectors: int  # pins that are embedded and clustered


@dataclass(frozen=True, kw_only=True, slots=True)
class Machines:
    """One entry for each class that a stage may ask for (`lifecycle.declare.stage.Machine`)."""

    small: MachineClass
    cpu: MachineClass
    memory: MachineClass
    gpu: MachineClass
    gpus: MachineClass


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """The cluster as the pipelines see it."""

    image: str
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"]
    image_pull_secrets: tuple[str, ...]
    store: str
    user: int
    secrets: tuple[Secret, ...]
    volumes: tuple[Volume, ...]
    machines: Machines
    runs: dict[str, PlannedRun]


def read_cluster(path: Path) -> Cluster:
    """Read `cluster.yaml`; `ValueError` names the key and the fix for an unknown, missing or wrong one."""
    sections = read_sections(path)
    if unknown := sorted(sections.keys() - {"cluster"}):
        raise ValueError(f"{path} has unknown section {unknown[0]!r}: everything stands below `cluster:`")
    try:
        cluster: Cluster = read_section(Cluster, "cluster", sections)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for name in Machines.__dataclass_fields__:
        machine: MachineClass = getattr(cluster.machines, name)
        for key in ("accelerator", "gpu_memory"):
            if (machine.gpus > 0) != ((value := getattr(machine, key)) is not None):
                raise ValueError(
                    f"{path}: machine class {name!r} has gpus {machine.gpus} and {key} {value!r}: "
                    "give both or neither (0 and null)"
                )
    return cluster


def parse_quantity(text: str) -> float:
    """Return the number that Kubernetes reads, of "96", "500m" or "960Gi"."""
    from kubernetes.utils import quantity

    try:
        return float(quantity.parse_quantity(text))
    except ValueError:
        raise ValueError(f"{text!r} is no quantity of Kubernetes: write it as 96, 500m or 960Gi") from None


def place_task(task: Any, machine: Machine, cluster: Cluster) -> None:
    """Give a Kubeflow task the resources, volumes, secrets and limits of its machine class, in place."""
    from kfp import kubernetes

    machine_class: MachineClass = getattr(cluster.machines, machine)
    task.set_cpu_request(machine_class.cpu).set_cpu_limit(machine_class.cpu)
    task.set_memory_request(machine_class.memory).set_memory_limit(machine_class.memory)
    if machine_class.accelerator is not None:
        task.set_accelerator_type(machine_class.accelerator).set_accelerator_limit(machine_class.gpus)
    if machine_class.gpus > 1:
        task.set_env_variable(RANKS, str(machine_class.gpus))
    if machine_class.retries:
        task.set_retry(num_retries=machine_class.retries, backoff_duration="60s", backoff_factor=2.0)
    for key, value in machine_class.node_selector.items():
        kubernetes.add_node_selector(task, label_key=key, label_value=value)
    for toleration in machine_class.tolerations:
        kubernetes.add_toleration(task, **asdict(toleration))
    if machine_class.shared_memory is not None:  # torch's loaders pass batches through it
        kubernetes.empty_dir_mount(
            task, "shared-memory", "/dev/shm", medium="Memory", size_limit=machine_class.shared_memory
        )
    kubernetes.set_timeout(task, machine_class.timeout_seconds)
    kubernetes.set_security_context(task, run_as_user=cluster.user, run_as_non_root=True)
    kubernetes.set_image_pull_policy(task, cluster.image_pull_policy)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cluster.image_pull_secrets))
    for volume in cluster.volumes:
        kubernetes.mount_pvc(task, pvc_name=volume.claim, mount_path=volume.path)
    for secret in cluster.secrets:
        kubernetes.use_secret_as_env(task, secret.name, dict(secret.keys), optional=secret.optional)
    kubernetes.use_field_path_as_env(task, env_name="CANVAS_RUN", field_path=RUN_LABEL)
