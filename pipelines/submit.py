"""A run of a compiled pipeline on a cluster."""

from __future__ import annotations

import os
import subprocess
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from lifecycle.declare.skipping import is_skipped
from lifecycle.declare.stage import Artifact, Pipeline, Stage
from lifecycle.workspace.digest import read_pin
from pipelines.cluster import Cluster, read_cluster
from pipelines.emit_kfp import build_arguments, compile_pipelines, list_imports
from pipelines.outside import compute_cache_keys
from pipelines.project import CLUSTER, build_graph_files, find_drift, load_checked_sections

EXPERIMENT = "canvas"
REACH_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """A run before it is created: the compiled pipeline with this commit's image, and its arguments, among them the
    URIs at which the cluster finds what comes from outside."""

    package: str
    arguments: dict[str, str]
    uris: dict[str, str]
    run_name: str


def prepare_submission(
    root: Path,
    stages: Sequence[Stage[Any]],
    *,
    profile: str,
    pipeline: Pipeline,
    uris: Mapping[str, str],
    allow_dirty: bool,
) -> Submission:
    """Check the project and put the run together.

    Args:
        uris: Path -> URI of outside artifacts that lie elsewhere than in the cluster's store.

    Raises:
        ValueError: For an unclean work tree (the image is built from a commit), a drifted graph, an unknown profile
            or pipeline, and an outside artifact that neither a `.dvc` file nor `uris` places.
    """
    if not allow_dirty and (changes := _git(root, "status", "--porcelain")):
        raise ValueError(
            f"the work tree has uncommitted changes ({changes.splitlines()[0].strip()}, ...): commit them, "
            "or --allow-dirty to run the last commit's image all the same"
        )
    if stale := find_drift(root, build_graph_files(root, stages)):
        raise ValueError(f"{', '.join(map(str, stale))} no longer fits the stages: run `make graph` and commit")
    sha = _git(root, "rev-parse", "--short=12", "HEAD")
    cluster = read_cluster(root / CLUSTER)
    sections = load_checked_sections(root, profile, stages)
    skipped = {stage.name for stage in stages if is_skipped(stage, sections)}
    pipeline_stages = [stage for stage in stages if stage.pipeline == pipeline]
    if not pipeline_stages:
        names = dict.fromkeys(stage.pipeline for stage in stages)
        raise ValueError(f"pipeline {pipeline!r} has no stages: there is {', '.join(names)}")
    outside = {
        name: _find_uri(root, artifact, cluster, uris) for name, artifact in list_imports(pipeline_stages).items()
    }
    keys = compute_cache_keys(root, pipeline_stages, sections, outside, sha)
    packages = compile_pipelines(stages, cluster, tag=sha, skipped=skipped, cache_keys=keys)
    return Submission(
        package=packages[pipeline],
        arguments=build_arguments(pipeline_stages, sections, outside),
        uris=outside,
        run_name=f"{pipeline}-{profile}-{sha}",
    )


def create_run(submission: Submission, host: str, namespace: str | None = None) -> str:
    """Create the run, with caching on, in experiment `canvas`, and return its id.

    A bearer token is taken from KF_PIPELINES_TOKEN. `ValueError` if `host` cannot be reached or refuses.
    """
    token = os.environ.get("KF_PIPELINES_TOKEN")
    _check_reachable(host, token)
    import kfp
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError as TransportError

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # kfp.Client announces its own version on every start
        package = Path(folder) / "pipeline.yaml"
        package.write_text(submission.package, encoding="utf-8")
        try:
            client = kfp.Client(host=host, existing_token=token)
            run = client.create_run_from_pipeline_package(
                str(package),
                arguments=submission.arguments,
                run_name=submission.run_name,
                experiment_name=EXPERIMENT,
                namespace=namespace,
                enable_caching=True,
            )
        except ApiException as error:
            raise ValueError(
                f"{host} refused the run: {error.status} {error.reason}: {_join_lines(error.body)}"
            ) from error
        except TransportError as error:
            raise ValueError(f"{host} stopped answering: {_join_lines(error)}") from error
    return str(run.run_id)


def _check_reachable(host: str, token: str | None) -> None:
    """Ask once, briefly: the client itself would try a silent or refusing address for half a minute and more."""
    if not host.startswith(("http://", "https://")):
        raise ValueError(f"--host {host!r} must start with http:// or https://")
    health = Request(f"{host.rstrip('/')}/apis/v2beta1/healthz")
    if token:
        health.add_header("authorization", f"Bearer {token}")
    try:
        urlopen(health, timeout=REACH_SECONDS).close()
    except HTTPError as error:
        raise ValueError(
            f"{host} answers {error.code} {error.reason}: KF_PIPELINES_TOKEN must hold a token that it accepts, "
            "and --host be the address of Kubeflow Pipelines itself"
        ) from error
    except (URLError, OSError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise ValueError(f"cannot reach Kubeflow Pipelines at {host} ({reason}): is the address right?") from error


def _find_uri(root: Path, artifact: type[Artifact], cluster: Cluster, uris: Mapping[str, str]) -> str:
    """Return where an outside artifact lies: by content, so that other data is another URI and no cache hit."""
    if artifact.path in uris:
        return uris[artifact.path]
    pin = read_pin(artifact.path, root)
    if pin is None:
        raise ValueError(f"{artifact.path} comes from outside this pipeline: give --uri {artifact.path}=URI")
    return f"{cluster.store.rstrip('/')}/{artifact.path}/{pin.removesuffix('.dir')}"


def _git(root: Path, *arguments: str) -> str:
    process = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if process.returncode:
        raise ValueError(f"a run is named by its commit, but git says: {_join_lines(process.stderr)}")
    return process.stdout.rstrip()


def _join_lines(text: object) -> str:
    return " ".join(str(text or "").split())
