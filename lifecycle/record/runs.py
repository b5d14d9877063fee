"""Runs in MLflow: sending a journal to it, and finding by content what made an artifact.

Sending can be cut anywhere and begun again: each step is either repeated without effect (tags, parameters,
metrics with their own times, artifacts) or looked up before it is made (runs and models, by the tag
`canvas.record`). How far it came stands in the record's `sent.json`.

Tags of a run: `canvas.stage`, `canvas.record`, `canvas.git.dirty`, `digest.in.<path>` and `digest.out.<path>`
with the catalogue's paths and DVC's digests; `canvas.skipped` and `canvas.notes`, what its metrics say in words.
A model that a stage writes is a LoggedModel without files (DVC holds them) with the tags `canvas.path` and
`canvas.digest`.

The run that stages are parts of has the headline as metrics and the params of all its stages, so that MLflow's table
compares whole runs. PNGs are images with a key, too: `reports/train/sheet.png` is `train/sheet`, of the run and of that
which it is a part of; `samples/scene-000200.png` is step 200 of `scene`.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lifecycle.record.journal import DamagedRecordError, Event, batch_events, read_events
from lifecycle.record.privacy import redact
from lifecycle.record.tracking import is_server
from lifecycle.workspace.staging import write_atomically

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, LoggedModel, Run

METRICS_AT_ONCE = 500  # MLflow takes 1000 of everything in one request
PARAMS_AT_ONCE = 100
PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 5000
FIELDS: Mapping[str, Mapping[str, Any]] = {
    "start": {"stage": str, "tags": dict, "params": dict, "inputs": list, "group": dict | None},
    "metrics": {"step": int, "values": dict},
    "artifact": {"name": str},
    "headline": {"values": dict},
    "outputs": {"outputs": list},
    "end": {"status": str, "metrics": dict},
}
"""Event -> field -> type, as lifecycle.record.recording writes them."""


@dataclass(frozen=True, slots=True)
class ProducerRun:
    """The run that made an artifact, and what it read: path -> digest."""

    stage: str
    run_id: str
    inputs: Mapping[str, str]


@dataclass(slots=True)
class Progress:
    """How much of a record the server at `uri` (its digest) has."""

    uri: str
    run_id: str | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Tracking:
    """An MLflow server or store, and the experiment that holds the project's runs."""

    client: MlflowClient
    experiment: str

    @classmethod
    def open(cls, uri: str, experiment: str, artifacts: str | None) -> Tracking:
        """Open the experiment of that name at `uri`, made if need be, its artifacts at URI `artifacts`."""
        from mlflow.exceptions import MlflowException
        from mlflow.tracking.client import MlflowClient

        client = MlflowClient(uri, registry_uri=uri)
        if (existing := client.get_experiment_by_name(experiment)) is None:
            try:
                return cls(client, client.create_experiment(experiment, artifact_location=artifacts))
            except MlflowException:  # somebody else made it meanwhile
                if (existing := client.get_experiment_by_name(experiment)) is None:
                    raise
        return cls(client, existing.experiment_id)

    def send(self, folder: Path) -> None:
        """Send what is new in the record `folder`; remove the record when its end is sent. `DamagedRecordError` if it
        is not what a journal writes; its run, if there is one, ends as killed."""
        progress = self._read_progress(folder)
        ended = False
        try:
            for batch, offset in batch_events(read_events(folder, progress.offset), METRICS_AT_ONCE):
                self._send_batch(progress, batch, folder)
                progress.offset, ended = offset, batch[0]["event"] == "end"
                write_atomically(folder / "sent.json", json.dumps(asdict(progress)))
            if progress.run_id is None:
                raise DamagedRecordError(f"{folder.name}/journal.jsonl holds no event")
        except DamagedRecordError:
            if run := self._find_run(f"tags.`canvas.record` = '{folder.name}'"):
                self.client.set_terminated(run.info.run_id, "KILLED")
            raise
        if ended:
            discarded = folder.with_name(f".sent-{folder.name}")
            folder.rename(discarded)
            shutil.rmtree(discarded, ignore_errors=True)

    def _send_batch(self, progress: Progress, batch: list[Event], folder: Path) -> None:
        kind = batch[0]["event"]
        for event in batch:
            _check_event(event, folder)
        if kind == "start":
            progress.run_id = self._start(folder.name, batch[0])
        elif progress.run_id is None:
            raise DamagedRecordError(f"{folder.name} has event {kind!r} where a start is due")
        else:
            getattr(self, f"_send_{kind}")(progress.run_id, batch, folder)

    def find_producer(self, path: str, digest: str) -> ProducerRun | None:
        """Return the latest finished run that wrote content `digest` as artifact `path`."""
        run = self._find_run(f"tags.`digest.out.{path}` = '{digest}' and attributes.status = 'FINISHED'", "DESC")
        if run is None:
            return None
        prefix = "digest.in."
        inputs = {key.removeprefix(prefix): value for key, value in run.data.tags.items() if key.startswith(prefix)}
        return ProducerRun(run.data.tags["canvas.stage"], run.info.run_id, inputs)

    def format_address(self, page: str) -> str:
        """Return where MLflow shows a page of the experiment; of a file store, where `make ui` serves it."""
        server = self.client.tracking_uri if is_server(self.client.tracking_uri) else "http://127.0.0.1:5000"
        return f"{redact(server).rstrip('/')}/#/experiments/{self.experiment}/{page}"

    def _read_progress(self, folder: Path) -> Progress:
        fresh = Progress(hashlib.md5(self.client.tracking_uri.encode(), usedforsecurity=False).hexdigest())
        try:
            progress = Progress(**json.loads((folder / "sent.json").read_text(encoding="utf-8")))
            with (folder / "journal.jsonl").open("rb") as journal:
                journal.seek(max(progress.offset - 1, 0))
                follows_a_line = progress.offset == 0 or journal.read(1) == b"\n"
        except (FileNotFoundError, ValueError, TypeError):
            return fresh  # torn: what was sent is sent again, without effect
        if progress.uri != fresh.uri or progress.run_id is None or not follows_a_line:
            return fresh  # another server than before: it gets the whole record
        exists = self._find_run(f"attributes.run_id = '{progress.run_id}'")
        return progress if exists else fresh  # somebody deleted it

    def _find_run(self, query: str, order: str = "ASC") -> Run | None:
        order_by = [f"attributes.start_time {order}"]
        runs = self.client.search_runs([self.experiment], query, max_results=1, order_by=order_by)
        return runs[0] if runs else None

    def _start(self, record: str, event: Event) -> str:
        tags = {**event["tags"], "canvas.record": record}
        if event["group"]:
            tags["mlflow.parentRunId"] = self._find_or_create_parent(event["group"])
            self.client.update_run(tags["mlflow.parentRunId"], status="RUNNING")
        run = self._find_run(f"tags.`canvas.record` = '{record}'") or self.client.create_run(
            self.experiment, start_time=event["time"], tags=tags, run_name=event["stage"]
        )
        run_id = run.info.run_id
        params = {_clean_key(key): _format_value(value) for key, value in event["params"].items()}
        self._log_params(run_id, params)
        if event["group"]:
            self._log_params_of_parent(tags["mlflow.parentRunId"], event["stage"], params)
        self._log_inputs(run_id, event["inputs"])
        return run_id

    def _log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        entries = [Param(key, value) for key, value in params.items()]
        for start in range(0, len(entries), PARAMS_AT_ONCE):
            self.client.log_batch(run_id, params=entries[start : start + PARAMS_AT_ONCE])

    def _log_params_of_parent(self, run_id: str, stage: str, params: Mapping[str, str]) -> None:
        """Log what the run of all stages lacks; a param that differs between stages is `<stage>.<param>`, too."""
        logged = self.client.get_run(run_id).data.params
        named = {
            key if logged.get(key, value) == value else _clean_key(f"{stage}.{key}"): value
            for key, value in params.items()
        }
        self._log_params(run_id, {key: value for key, value in named.items() if key not in logged})

    def _find_or_create_parent(self, group: Mapping[str, str]) -> str:
        """Return the run of the group. Two that make it at the same time agree on the first one."""
        key = group["key"].replace("'", "_")
        query = f"tags.`canvas.group` = '{key}'"
        if run := self._find_run(query):
            return run.info.run_id
        new_run = self.client.create_run(
            self.experiment, time.time_ns() // 1_000_000, tags={"canvas.group": key}, run_name=group["name"]
        )
        first = self._find_run(query) or new_run
        if first.info.run_id != new_run.info.run_id:
            self.client.delete_run(new_run.info.run_id)
        return first.info.run_id

    def _log_inputs(self, run_id: str, inputs: list[dict[str, str]]) -> None:
        from mlflow.entities import LoggedModelInput

        datasets = [_describe_dataset(item) for item in inputs if item["kind"] == "Dataset"]
        models = [
            LoggedModelInput(model.model_id)
            for item in inputs
            if item["kind"] == "Model" and (model := self.find_model(path=item["path"], digest=item["digest"]))
        ]
        if datasets or models:
            self.client.log_inputs(run_id, datasets=datasets, models=models)

    def find_model(self, **tags: str) -> LoggedModel | None:
        """Return the newest logged model with these tags `canvas.<key>`."""
        query = " AND ".join(f"tags.`canvas.{key}` = '{value}'" for key, value in tags.items())
        newest = [{"field_name": "creation_timestamp", "ascending": False}]
        models = self.client.search_logged_models([self.experiment], query, max_results=1, order_by=newest)
        return models[0] if models else None

    def _send_metrics(self, run_id: str, batch: list[Event], folder: Path) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(_clean_key(key), value, event["time"], event["step"])
            for event in batch
            for key, value in event["values"].items()
        ]
        for start in range(0, len(metrics), METRICS_AT_ONCE):
            self.client.log_batch(run_id, metrics=metrics[start : start + METRICS_AT_ONCE])

    def _send_artifact(self, run_id: str, batch: list[Event], folder: Path) -> None:
        name = PurePosixPath(batch[0]["name"])
        parent = None if name.parent == PurePosixPath(".") else str(name.parent)
        file = folder / "artifacts" / name
        self.client.log_artifact(run_id, str(file), parent)
        if name.suffix == ".png":
            key, step = _parse_image_name(name)
            parent_id = self._find_parent(run_id) if name.parts[0] == "reports" else None
            for run in filter(None, (run_id, parent_id)):
                self._log_image(run, file, key, step, batch[0]["time"])

    def _log_image(self, run_id: str, file: Path, key: str, step: int, time: int) -> None:
        from PIL import Image

        stem = f"images/{key.replace('/', '~')}+step+{step}+timestamp+{time}+"  # as `log_image` names it
        if any(image.path.startswith(stem) for image in self.client.list_artifacts(run_id, "images")):
            return  # sent before
        try:
            with Image.open(file) as opened:
                image = opened.copy()
        except (OSError, SyntaxError, ValueError):  # none, cut or damaged: an artifact, but no image to compare
            return
        self.client.log_image(run_id, image, key=key, step=step, timestamp=time, synchronous=True)

    def _send_headline(self, run_id: str, batch: list[Event], folder: Path) -> None:
        if parent := self._find_parent(run_id):
            self._send_metrics(parent, [{**batch[0], "step": 0}], folder)

    def _find_parent(self, run_id: str) -> str | None:
        parent: str | None = self.client.get_run(run_id).data.tags.get("mlflow.parentRunId")
        return parent

    def _send_outputs(self, run_id: str, batch: list[Event], folder: Path) -> None:
        from mlflow.entities import LoggedModelOutput, RunTag

        outputs = batch[0]["outputs"]
        tags = {f"digest.out.{out['path']}": out["digest"] for out in outputs}
        texts = {"canvas.skipped": batch[0].get("skipped"), "canvas.notes": "; ".join(batch[0].get("notes", ()))}
        tags |= {key: text[:TAG_CHARACTERS] for key, text in texts.items() if text}
        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        for out in outputs:
            if out["kind"] == "Model":
                model_id = self._find_or_create_model(run_id, out, folder.name)
                self.client.finalize_logged_model(model_id, "READY")
                logged = self.client.get_run(run_id).outputs
                if model_id not in {model.model_id for model in (logged.model_outputs if logged else ())}:
                    self.client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])

    def _find_or_create_model(self, run_id: str, out: Mapping[str, str], record: str) -> str:
        model = self.find_model(record=record, path=out["path"])
        if model is None:
            tags = {"canvas.record": record, "canvas.path": out["path"], "canvas.digest": out["digest"]}
            name = re.sub(r"[/:.%\"']", "_", out["path"])
            model = self.client.create_logged_model(self.experiment, name, run_id, tags, model_type="canvas")
        return str(model.model_id)

    def _send_end(self, run_id: str, batch: list[Event], folder: Path) -> None:
        end = batch[0]
        self._send_metrics(run_id, [{"time": end["time"], "step": 0, "values": end["metrics"]}], folder)
        self.client.set_terminated(run_id, end["status"], end["time"])
        parent = self._find_parent(run_id)
        if parent is None:
            return
        if end["status"] != "FINISHED":
            self.client.set_tag(parent, "canvas.failed", "true")
        failed = "canvas.failed" in self.client.get_run(parent).data.tags
        self.client.set_terminated(parent, "FAILED" if failed else "FINISHED", end["time"])


def _check_event(event: Event, folder: Path) -> None:
    """Raise `DamagedRecordError` for an event without what sending it reads: a KeyError of MLflow's own is no damage,
    and the record is sent again."""
    kind = event["event"]
    where = f"{folder.name}, event {kind!r}"
    if kind not in FIELDS:
        raise DamagedRecordError(f"{where} is not of {', '.join(FIELDS)}")
    for name, expected in FIELDS[kind].items():
        if name not in event or not isinstance(event[name], expected):
            raise DamagedRecordError(f"{where} has no whole field {name!r}")
    for side in FIELDS[kind].keys() & {"inputs", "outputs"}:
        for item in event[side]:
            needed = {"path", "kind", "digest"}
            if isinstance(item, dict) and side == "inputs" and item.get("kind") == "Dataset":
                needed |= {"uri", "argument"}
            if not isinstance(item, dict) or not needed <= item.keys():
                raise DamagedRecordError(f"{where}: an artifact of its {side} lacks one of {', '.join(sorted(needed))}")
    if kind == "artifact" and not (folder / "artifacts" / event["name"]).is_file():
        raise DamagedRecordError(f"{where}: {event['name']} is not there")


def _describe_dataset(item: Mapping[str, str]) -> DatasetInput:
    from mlflow.data.dataset_source_registry import get_dataset_source_from_json
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag

    source = get_dataset_source_from_json(json.dumps({"uri": item["uri"]}), "local")
    dataset = MetaDataset(source, name=item["path"], digest=item["digest"])  # type: ignore[abstract]
    return DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", item["argument"])])


def _clean_key(key: str) -> str:
    """Return `key` in the characters that MLflow takes."""
    return re.sub(r"[^\w\-. :/]", "_", key)[:250]


def _format_value(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:PARAM_CHARACTERS]


def _parse_image_name(name: PurePosixPath) -> tuple[str, int]:
    """Return the key and step under which an artifact's image is compared with those of other runs."""
    key, _, step = str(PurePosixPath(*name.parts[1:]).with_suffix("")).rpartition("-")
    if not (key and step.isdecimal()):
        key, step = f"{key}-{step}" if key else step, "0"
    return re.sub(r"[^\w\-./ ]", "_", key, flags=re.ASCII), int(step)
