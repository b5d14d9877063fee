"""A submission, against a small HTTP server on loopback that answers as Kubeflow's API does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import kfp_server_api
import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.graph.conftest import Project


class Kubeflow(ThreadingHTTPServer):
    """Keeps the bodies of experiments and runs; `refuses` maps a method to the status it is refused with."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.experiments: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.refuses: dict[str, int] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: Kubeflow

    def do_GET(self) -> None:
        match urlsplit(self.path).path.removeprefix("/apis/v2beta1/"):
            case "healthz":
                self._answer({"multi_user": False})
            case "experiments":
                self.server.tokens.add(self.headers["authorization"])
                self._answer({"experiments": self.server.experiments} if self.server.experiments else {})
            case _:
                self.send_error(404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        kind = urlsplit(self.path).path.removeprefix("/apis/v2beta1/")
        made = {"experiments": self.server.experiments, "runs": self.server.runs}[kind]
        made.append(body | {f"{kind[:-1]}_id": f"{kind}-{len(made)}"})
        self._answer(made[-1])

    def _answer(self, body: dict[str, Any]) -> None:
        refusal = self.server.refuses.get(self.command)
        content = json.dumps({"error": "not\nallowed"} if refusal else body).encode()
        self.send_response(refusal or 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests read what was kept."""


@pytest.fixture
def kubeflow() -> Iterator[Kubeflow]:
    server = Kubeflow()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_run_is_created_with_this_commits_image_and_the_profiles_arguments(
    repository: Project, kubeflow: Kubeflow
) -> None:
    submit = ("submit", "--host", kubeflow.address, "--profile", "tiny")
    done = repository.pipelines(*submit, KF_PIPELINES_TOKEN="secret")
    assert done.returncode == 0, done.stderr
    sha = repository.ok("git", "rev-parse", "--short=12", "HEAD").strip()
    assert f"run runs-0 created: train-tiny-{sha}" in done.stdout
    assert kubeflow.tokens == {"Bearer secret"}

    (body,) = kubeflow.runs
    run: Any = kfp_server_api.ApiClient()._ApiClient__deserialize(body, "V2beta1Run")  # raises for a wrong type
    assert run.display_name == f"train-tiny-{sha}"
    assert run.experiment_id == "experiments-0"
    assert kubeflow.experiments[0]["display_name"] == "canvas"
    assert body.keys() - {"run_id"} <= set(kfp_server_api.V2beta1Run.attribute_map.values())

    specification = json_format.ParseDict(body["pipeline_spec"]["pipeline_spec"], pipeline_spec_pb2.PipelineSpec())
    executors = json_format.MessageToDict(specification.deployment_spec)["executors"]
    assert {executors[name]["container"]["image"] for name in ("exec-square", "exec-mean")} == {f"canvas:{sha}"}
    assert all(task.caching_options.enable_cache for task in specification.root.dag.tasks.values())
    assert "kubernetes" in body["pipeline_spec"]["platform_spec"]["platforms"]

    arguments = body["runtime_config"]["parameters"]
    assert arguments.keys() == specification.root.input_definitions.parameters.keys()
    assert json.loads(arguments["square"]) == {"first": 3, "offset": 0.0001}
    md5 = yaml.safe_load(repository.read("data.dvc"))["outs"][0]["md5"].removesuffix(".dir")
    assert arguments["data_uri"] == f"s3://canvas/pinned/data/{md5}"
    assert f"data_uri: {arguments['data_uri']}\n" in done.stdout

    repository.pipelines(*submit, "--uri", "data=gs://bucket/data")
    assert kubeflow.runs[1]["runtime_config"]["parameters"]["data_uri"] == "gs://bucket/data"
    assert len(kubeflow.experiments) == 1, "the experiment is found again, not made twice"


def test_uncommitted_changes_are_refused(repository: Project, kubeflow: Kubeflow) -> None:
    repository.write("notes.txt", "not committed")
    submit = ("submit", "--host", kubeflow.address, "--profile", "tiny")
    done = repository.pipelines(*submit)
    assert done.returncode == 1
    assert "the work tree has uncommitted changes (?? notes.txt, ...): commit them" in done.stderr
    assert kubeflow.runs == []
    assert repository.pipelines(*submit, "--allow-dirty").returncode == 0
    repository.write("dvc.yaml", "stages: {}\n")
    drift = repository.pipelines(*submit, "--allow-dirty")
    assert "dvc.yaml no longer fits the stages: run `make graph` and commit" in drift.stderr
    assert len(kubeflow.runs) == 1


def test_every_failure_is_one_sentence(repository: Project, kubeflow: Kubeflow) -> None:
    gone = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    gone.server_close()  # a port that nobody listens on
    closed, host = f"http://127.0.0.1:{gone.server_port}", kubeflow.address

    def sentence(*arguments: str) -> str:
        done = repository.pipelines("submit", *arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("pipelines submit: ")
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    tiny = ("--profile", "tiny")
    assert f"cannot reach Kubeflow Pipelines at {closed} ([Errno 111]" in sentence("--host", closed, *tiny)
    assert "--host 'kubeflow' must start with http:// or https://" in sentence("--host", "kubeflow", *tiny)
    assert "no profile 'huge': there are demo, tiny" in sentence("--host", host, "--profile", "huge")
    assert "pipeline 'promote' has no stages" in sentence("--host", host, *tiny, "--pipeline", "promote")
    kubeflow.refuses = {"GET": 403}
    assert f"{host} answers 403 Forbidden: KF_PIPELINES_TOKEN" in sentence("--host", host, *tiny)
    kubeflow.refuses = {"POST": 400}
    assert f'{host} refused the run: 400 Bad Request: {{"error": "not\\nallowed"}}' in sentence("--host", host, *tiny)
    (repository.root / "data.dvc").unlink()
    unplaced = sentence("--host", host, *tiny, "--allow-dirty")
    assert "data comes from outside this pipeline: give --uri data=URI" in unplaced
