"""Versions of registered models, made once for each content.

Tags of a version: `path`, `digest`, `git_sha`, `release` (the project's version), `data_digest`, `parents` (model ->
digest that it was made from, null where that is not recorded), `metrics`; `sources` (part -> repository, commit and
licence) where public weights are in it, `skipped` (the reason) where its stage made none; of the composite also
`parts` (model -> version registered with it), `model_id`, `evidence.<page>` (its address), `verdict`,
`verdict.reasons`, `verdict.champion` and `evidence_digest` (lifecycle.registry.evidence). The parts' files are DVC's;
the composite's version holds its own files, `evidence/` beside them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from lifecycle.declare.registry import Decision, Facts, ModelVersion, Origin
from lifecycle.declare.skipping import SKIPPED, read_skip_reason
from lifecycle.declare.stage import Model
from lifecycle.record.lineage import FindProducer, Node, find_parents, format_lineage, trace_lineage, walk
from lifecycle.record.recording import read_metrics
from lifecycle.record.tracking import is_server
from lifecycle.record.untrusted import escape_markdown
from lifecycle.registry.evidence import LISTING, TAG, compute_listing_digest, list_digests
from lifecycle.registry.packaging import write_pyfunc
from lifecycle.registry.promotion import Member
from lifecycle.workspace.digest import digest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

    from lifecycle.record.runs import Tracking

DESCRIPTION_CHARACTERS = 5000
RAW_DATA = "data"


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions in a tracking store. `find_producer`: its own, asked once for each content; `pinned`: paths of what
    no stage writes; `work`: where to put files for a moment."""

    tracking: Tracking
    find_producer: FindProducer
    pinned: tuple[str, ...]
    work: Path

    @property
    def client(self) -> MlflowClient:
        return self.tracking.client

    def register_part(self, kind: type[Model], path: Path, names: Mapping[str, str]) -> ModelVersion:
        """Return the version that holds the content of `path`, made if need be. `names`: artifact's path -> model."""
        name, node = require_name(kind), trace_lineage(kind.path, digest(path), self.find_producer)
        tags = self._collect_tags(node, names) | _describe_content(kind, path)
        number = self._find_number(name, tags, "digest", "parents")
        if number is None:
            logged = self.tracking.find_model(path=kind.path, digest=node.digest)
            model = logged or self._finalize(self._create_logged_model(name, node))
            where = f"DVC holds the files: `dvc get --rev {tags['git_sha']} . {kind.path}`"
            number = self._create_version(name, model, tags, where)
        return ModelVersion(name=name, version=number, digest=node.digest)

    def register_composite(
        self,
        kind: type[Model],
        path: Path,
        names: Mapping[str, str],
        parts: Mapping[str, ModelVersion],
        **facts: Unpack[Facts],
    ) -> ModelVersion:
        """Return the version of the composite at `path` with just these parts, made if need be; its evidence, metrics
        and verdict are those given, in either case."""
        name, node = require_name(kind), trace_lineage(kind.path, digest(path), self.find_producer)
        tags = self._collect_tags(node, names) | _describe_content(kind, path)
        tags["parts"] = _format_json({part: version.version for part, version in parts.items()})
        number = self._find_number(name, tags, "digest", "parents", "parts")
        with self._open_packing_folder() as folder:
            origin = folder / "origin.json"
            origin.write_text(json.dumps(asdict(self.describe_origin(node)), indent=1) + "\n", encoding="utf-8")
            files = {**_copy_files(facts["evidence"], folder / "files"), origin.name: origin}
            listing = folder / LISTING
            listing.write_text(list_digests(files), encoding="utf-8")
            tags[TAG] = compute_listing_digest(listing.read_text(encoding="utf-8"))
            files[LISTING] = listing
            if number is None:
                model = self._create_logged_model(name, node)
                write_pyfunc(folder / "model", path, facts["served"])
                self.client.log_model_artifacts(model.model_id, str(folder / "model"))
                self._log_evidence(model.model_id, files)
                number = self._create_version(name, self._finalize(model), tags | {"model_id": model.model_id}, "")
            else:
                self._log_evidence(self.client.get_model_version(name, number).tags["model_id"], files)
                self.client.set_model_version_tag(name, number, TAG, tags[TAG])
        self.client.set_model_version_tag(name, number, "metrics", _format_json(read_metrics(facts["metrics"])))
        source = self.client.get_model_version(name, number).source
        for page in (file for file in facts["evidence"] if file.endswith(".html")):
            self.client.set_model_version_tag(name, number, f"evidence.{page}", f"{source}/evidence/{page}")
        version = ModelVersion(name=name, version=number, digest=node.digest)
        self.write_decision(version, facts["decision"])
        return version

    @contextmanager
    def _open_packing_folder(self) -> Iterator[Path]:
        """Give an empty folder for a moment. Only who holds the registry's lock is here, so that what lies there, or in
        `tmp*` as before version 0.3, is a copy that a killed process left."""
        folder = self.work / "packing"
        for left in (folder, *self.work.glob("tmp*")):
            shutil.rmtree(left, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def write_decision(self, version: ModelVersion, decision: Decision) -> None:
        """Write a decision down at the composite's version, in its tags and its description."""
        verdict = {
            "verdict.reasons": _format_json(decision.reasons),
            "verdict.champion": decision.champion or "",
            "verdict": decision.outcome,
        }
        for key, value in verdict.items():
            self.client.set_model_version_tag(version.name, version.version, key, value)
        tags = self.client.get_model_version(version.name, version.version).tags
        address = self.tracking.format_address(f"models/{tags['model_id']}/artifacts")
        names = sorted(key.removeprefix("evidence.") for key in tags if key.startswith("evidence."))
        pages = [f"Read [evidence/{name}]({address})." for name in names]
        text = "\n\n".join(
            [f"**{decision.outcome}**", *pages, "\n".join(f"- {escape_markdown(line)}" for line in decision.reasons)]
        )
        self.client.update_model_version(version.name, version.version, text[:DESCRIPTION_CHARACTERS])

    def read_members(self, composite: str, number: str) -> dict[str, Member]:
        """Return all that was registered with a version of the composite, itself included."""
        parts: dict[str, str] = json.loads(self.client.get_model_version(composite, number).tags["parts"])
        members = {}
        for name, version in {**parts, composite: number}.items():
            tags = self.client.get_model_version(name, version).tags
            members[name] = Member(version, tags["digest"], json.loads(tags["parents"]), tags["path"])
        return members

    def describe_origin(self, node: Node) -> Origin:
        """Return what is recorded of how the node's content was made."""
        nodes = sorted(walk(node), key=lambda node: (node.path, node.digest))
        runs = {node.path: node.run.run_id for node in nodes if node.run}
        params: dict[str, Any] = {}
        for run_id in sorted(set(runs.values())):
            params |= self.client.get_run(run_id).data.params
        return Origin(
            artifacts={node.path: node.digest for node in nodes},
            params=dict(sorted(params.items())),
            runs={path: self.tracking.format_address(f"runs/{run_id}") for path, run_id in runs.items()},
            tree=tuple(format_lineage(node, self.pinned)),
        )

    def _find_number(self, name: str, tags: Mapping[str, str], *same: str) -> str | None:
        query = f"name = '{name}' and tags.digest = '{tags['digest']}'"
        for version in self.client.search_model_versions(query, order_by=["version_number DESC"]):
            if all(version.tags[key] == tags[key] for key in same):
                return str(version.version)
        return None

    def _collect_tags(self, node: Node, names: Mapping[str, str]) -> dict[str, str]:
        parents = find_parents(node, names.keys() - {node.path}, self.pinned)
        by_model = None if parents is None else {names[path]: content for path, content in parents.items()}
        run = self.client.get_run(node.run.run_id).data if node.run else None
        metrics = {key: value for key, value in run.metrics.items() if not key.startswith("stage.")} if run else {}
        return {
            "path": node.path,
            "digest": node.digest,
            "git_sha": run.tags.get("mlflow.source.git.commit", "unknown") if run else "unknown",
            "release": run.tags.get("canvas.release", "unknown") if run else "unknown",
            "data_digest": next((source.digest for source in walk(node) if source.path == RAW_DATA), "unknown"),
            "parents": _format_json(by_model),
            "metrics": _format_json(metrics),
        }

    def _create_logged_model(self, name: str, node: Node) -> LoggedModel:
        tags = {"canvas.path": node.path, "canvas.digest": node.digest}
        run_id = node.run.run_id if node.run else None
        return self.client.create_logged_model(self.tracking.experiment, name, run_id, tags, model_type="canvas")

    def _finalize(self, model: LoggedModel) -> LoggedModel:
        return self.client.finalize_logged_model(model.model_id, "READY")

    def _log_evidence(self, model_id: str, evidence: Mapping[str, Path]) -> None:
        for name, path in evidence.items():
            if path.is_dir():
                self.client.log_model_artifacts(model_id, str(path), f"evidence/{name}")
            else:
                self.client.log_model_artifact(model_id, str(path), "evidence")

    def _create_version(self, name: str, model: LoggedModel, tags: Mapping[str, str], description: str) -> str:
        if not self.client.search_registered_models(f"name = '{name}'", max_results=1):
            self.client.create_registered_model(name)
        # A server checks the source by the model's id. A database looks up the model's run where there is none, and
        # does so in the process's default store, which need not be this one.
        with_id = is_server(self.client.tracking_uri) or model.source_run_id
        version = self.client.create_model_version(
            name,
            model.artifact_location,
            run_id=model.source_run_id,
            tags=dict(tags),
            description=description,
            model_id=model.model_id if with_id else None,
        )
        return str(version.version)


def _copy_files(evidence: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Return the evidence with its files in `folder` under their names, as MLflow stores a file under its own."""
    folder.mkdir()
    return {
        name: path if path.is_dir() else Path(shutil.copyfile(path, folder / name)) for name, path in evidence.items()
    }


def _describe_content(kind: type[Model], path: Path) -> dict[str, str]:
    """Return the tags of public weights and of a model that was not made."""
    sources, reason = kind.read_sources(path), read_skip_reason(path)
    tags = {"sources": _format_json(sources)} if sources else {}
    return tags | ({SKIPPED: reason} if reason else {})


def require_name(kind: type[Model]) -> str:
    """Return the name that a kind of model is registered under; `ValueError` if it has none."""
    if kind.registered is None:
        raise ValueError(f"{kind.path} is not registered: give {kind.__name__} a `registered` name")
    return kind.registered


def _format_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
