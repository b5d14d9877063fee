"""Versions of registered models, made once for each content.

Tags of a version: `path`, `digest`, `git_sha`, `release` (the project's version), `data_digest`, `parents` (model ->
digest that it was made from, null where that is not recorded), `metrics`; of the composite also `parts` (model ->
version registered with it), `model_id`, `evidence.<page>` (its address), `verdict`, `verdict.reasons` and
`verdict.champion`. The parts' files are DVC's; the composite's version holds its own files, `evidence/` beside them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lifecycle.declare.registry import Decision, ModelVersion, Origin, Outcome, Served
from lifecycle.declare.stage import Model
from lifecycle.record.lineage import Find, Node, lineage, lines, nodes, parents
from lifecycle.record.recording import numbers
from lifecycle.record.tracking import model_address, run_address
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
    """The versions in a tracking store. `made`: its `Tracking.made`, asked once for each content; `pinned`: paths of
    what no stage writes; `work`: where to put files for a moment."""

    tracking: Tracking
    made: Find
    pinned: tuple[str, ...]
    work: Path

    @property
    def client(self) -> MlflowClient:
        return self.tracking.client

    def part(self, kind: type[Model], path: Path, names: Mapping[str, str]) -> ModelVersion:
        """The version that holds the content of `path`, made if need be. `names`: artifact's path -> model."""
        node = lineage(kind.path, digest(path), self.made)
        tags = self._facts(node, names)
        number = self._known(model_name(kind), tags, "digest", "parents")
        if number is None:
            logged = self.tracking.models(path=kind.path, digest=node.digest)
            model = logged[0] if logged else self._ready(self._logged(kind, node))
            where = f"DVC holds the files: `dvc get --rev {tags['git_sha']} . {kind.path}`"
            number = self._create(model_name(kind), model, tags, where)
        return ModelVersion(name=model_name(kind), version=number, digest=node.digest)

    def whole(
        self,
        kind: type[Model],
        path: Path,
        names: Mapping[str, str],
        parts: Mapping[str, ModelVersion],
        *,
        served: Served,
        evidence: Mapping[str, Path],
        metrics: Path,
        decision: Decision,
    ) -> ModelVersion:
        """The version of the composite at `path` with just these parts, made if need be; its evidence, metrics and
        verdict are those given, in either case."""
        node = lineage(kind.path, digest(path), self.made)
        tags = self._facts(node, names)
        tags["parts"] = _json({name: part.version for name, part in sorted(parts.items())})
        number = self._known(model_name(kind), tags, "digest", "parents", "parts")
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            origin = Path(folder) / "origin.json"
            origin.write_text(json.dumps(asdict(self.origin(node)), indent=1) + "\n", encoding="utf-8")
            kept = {**evidence, origin.name: origin}
            if number is None:
                model = self._logged(kind, node)
                write_pyfunc(Path(folder) / "model", path, served)
                self.client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
                self._keep(model.model_id, kept)
                number = self._create(model_name(kind), self._ready(model), tags | {"model_id": model.model_id}, "")
            else:
                self._keep(self.client.get_model_version(model_name(kind), number).tags["model_id"], kept)
        self.client.set_model_version_tag(model_name(kind), number, "metrics", _json(numbers(metrics)))
        source = self.client.get_model_version(model_name(kind), number).source
        for name in (name for name in evidence if name.endswith(".html")):
            self.client.set_model_version_tag(model_name(kind), number, f"evidence.{name}", f"{source}/evidence/{name}")
        version = ModelVersion(name=model_name(kind), version=number, digest=node.digest)
        self.judge(version, decision)
        return version

    def judge(self, version: ModelVersion, decision: Decision) -> None:
        """Write a decision down at the composite's version, in its tags and its description."""
        tags = {
            "verdict.reasons": _json(decision.reasons),
            "verdict.champion": decision.champion or "",
            "verdict": decision.outcome,
        }
        for key, value in tags.items():
            self.client.set_model_version_tag(version.name, version.version, key, value)
        known = self.client.get_model_version(version.name, version.version).tags
        address = model_address(self.client.tracking_uri, self.tracking.experiment, known["model_id"])
        names = sorted(key.removeprefix("evidence.") for key in known if key.startswith("evidence."))
        pages = [f"Read [evidence/{name}]({address})." for name in names]
        parts = [f"**{decision.outcome}**", *pages, "\n".join(f"- {reason}" for reason in decision.reasons)]
        text = "\n\n".join(parts)
        self.client.update_model_version(version.name, version.version, text[:DESCRIPTION_CHARACTERS])

    def decision(self, version: ModelVersion) -> Decision:
        """What was written down there last."""
        tags = self.client.get_model_version(version.name, version.version).tags
        return Decision(
            outcome=cast(Outcome, tags["verdict"]),
            reasons=tuple(json.loads(tags["verdict.reasons"])),
            challenger=version.digest,
            champion=tags["verdict.champion"] or None,
        )

    def members(self, whole: str, number: str) -> dict[str, Member]:
        """All that was registered with a version of the composite, itself included."""
        parts: dict[str, str] = json.loads(self.client.get_model_version(whole, number).tags["parts"])
        found = {}
        for name, version in {**parts, whole: number}.items():
            tags = self.client.get_model_version(name, version).tags
            found[name] = Member(version, tags["digest"], json.loads(tags["parents"]))
        return found

    def origin(self, node: Node) -> Origin:
        """What is recorded of how the node's content was made."""
        runs = {one.path: one.made.run_id for one in nodes(node) if one.made}
        params: dict[str, Any] = {}
        for run_id in sorted(set(runs.values())):
            params |= self.client.get_run(run_id).data.params
        uri, experiment = self.client.tracking_uri, self.tracking.experiment
        return Origin(
            artifacts=dict(sorted((one.path, one.digest) for one in nodes(node))),
            params=dict(sorted(params.items())),
            runs={path: run_address(uri, experiment, run_id) for path, run_id in sorted(runs.items())},
            tree=tuple(lines(node, self.pinned)),
        )

    def _known(self, name: str, tags: Mapping[str, str], *same: str) -> str | None:
        query = f"name = '{name}' and tags.digest = '{tags['digest']}'"
        for version in self.client.search_model_versions(query, order_by=["version_number DESC"]):
            if all(version.tags[key] == tags[key] for key in same):
                return str(version.version)
        return None

    def _facts(self, node: Node, names: Mapping[str, str]) -> dict[str, str]:
        made_from = parents(node, names.keys() - {node.path}, self.pinned)
        run = self.client.get_run(node.made.run_id).data if node.made else None
        figures = {key: value for key, value in run.metrics.items() if not key.startswith("stage.")} if run else {}
        return {
            "path": node.path,
            "digest": node.digest,
            "git_sha": run.tags.get("mlflow.source.git.commit", "unknown") if run else "unknown",
            "release": run.tags.get("canvas.release", "unknown") if run else "unknown",
            "data_digest": next((one.digest for one in nodes(node) if one.path == RAW_DATA), "unknown"),
            "parents": _json(None if made_from is None else {names[path]: found for path, found in made_from.items()}),
            "metrics": _json(figures),
        }

    def _logged(self, kind: type[Model], node: Node) -> LoggedModel:
        tags = {"canvas.path": kind.path, "canvas.digest": node.digest}
        run_id = node.made.run_id if node.made else None
        return self.client.create_logged_model(
            self.tracking.experiment, model_name(kind), run_id, tags, model_type="canvas"
        )

    def _ready(self, model: LoggedModel) -> LoggedModel:
        return self.client.finalize_logged_model(model.model_id, "READY")

    def _keep(self, model_id: str, evidence: Mapping[str, Path]) -> None:
        for name, path in evidence.items():
            if path.is_dir():
                self.client.log_model_artifacts(model_id, str(path), f"evidence/{name}")
            else:
                self.client.log_model_artifact(model_id, str(path), "evidence")

    def _create(self, name: str, model: LoggedModel, tags: Mapping[str, str], description: str) -> str:
        if not self.client.search_registered_models(f"name = '{name}'", max_results=1):
            self.client.create_registered_model(name)
        # A server checks the source by the model's id. A database looks up the model's run where there is none, and
        # does so in the process's default store, which need not be this one.
        served = self.client.tracking_uri.startswith(("http://", "https://"))
        made = self.client.create_model_version(
            name,
            model.artifact_location,
            run_id=model.source_run_id,
            tags=dict(tags),
            description=description,
            model_id=model.model_id if served or model.source_run_id else None,
        )
        return str(made.version)


def model_name(kind: type[Model]) -> str:
    """The name that a kind of model is registered under; `ValueError` if it has none."""
    if kind.registered is None:
        raise ValueError(f"{kind.path} is not registered: give {kind.__name__} a `registered` name")
    return kind.registered


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
