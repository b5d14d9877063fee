"""The registry of models in MLflow: what a stage knows as `Registry`, and what the command line asks of it."""

from __future__ import annotations

import fcntl
import getpass
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifecycle.declare.registry import Decision, ModelVersion, Origin, Promotion, Served
from lifecycle.declare.stage import Artifact, Model
from lifecycle.record.lineage import lineage
from lifecycle.record.redaction import redacted
from lifecycle.record.sender import send_kept_records
from lifecycle.record.tracking import TrackingDownError, connect
from lifecycle.registry.aliases import MlflowShelf
from lifecycle.registry.promotion import (
    CANDIDATE,
    CHAMPION,
    Intent,
    carry_out,
    check_decision,
    check_not_rolled_back,
    check_parents,
    promoted,
    rolled_back,
    settle,
)
from lifecycle.registry.versions import Versions, model_name
from lifecycle.workspace.staging import private

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as Version


@dataclass(frozen=True, slots=True)
class MlflowRegistry:
    """The registry of the project at `home`. Every call first brings a move of the champion that a killed process
    left half done to an end. Raises `ValueError` in one sentence for what the registry refuses."""

    home: Path
    versions: Versions

    @classmethod
    def open(cls, home: Path, pinned: Iterable[str]) -> MlflowRegistry:
        """The project's registry, once it has the records of all runs so far; `pinned`: paths of what no stage writes.
        `ValueError` if it does not answer."""
        try:
            send_kept_records(home)
            tracking = connect(home)
        except TrackingDownError as error:
            raise ValueError(f"the registry is needed: {error}") from error
        return cls(home, Versions(tracking, cache(tracking.made), tuple(pinned), private(home / ".mlflow")))

    def origin(self, artifact: type[Artifact], digest: str) -> Origin:
        with self._answering():
            return self.versions.origin(lineage(artifact.path, digest, self.versions.made))

    def register(
        self,
        whole: type[Model],
        models: Mapping[type[Model], Path],
        *,
        served: Served,
        evidence: Mapping[str, Path],
        metrics: Path,
        decision: Decision,
    ) -> Mapping[str, ModelVersion]:
        names = {kind.path: model_name(kind) for kind in models}
        with self._alone(model_name(whole)) as shelf:
            found = {
                names[kind.path]: self.versions.part(kind, models[kind], names) for kind in models if kind != whole
            }
            found[names[whole.path]] = self.versions.whole(
                whole,
                models[whole],
                names,
                found,
                served=served,
                evidence=evidence,
                metrics=metrics,
                decision=decision,
            )
            for version in found.values():
                shelf.point(version.name, CANDIDATE, version.version)
        return found

    def promote(self, version: ModelVersion, decision: Decision, why: str, *, again: bool = False) -> Promotion:
        """As `Registry` says. What was rolled back is refused, so that no pipeline brings it back by itself; `again`
        is for a person who wants that."""
        with self._alone(version.name) as shelf:
            champion, history = self._champion(shelf), shelf.history()
            if champion is not None and champion.version == version.version and history:
                return history[-1].promotion  # done before, by whoever was killed since
            label = f"{version.name} version {version.version}"
            if not again:
                check_not_rolled_back(history, version.version, label)
            if decision.challenger == version.digest:
                self.versions.judge(version, decision)
            check_decision(decision, version.digest, champion.digest if champion else None, label)
            members = self.versions.members(version.name, version.version)
            check_parents(members)
            numbers = {name: member.version for name, member in members.items()}
            return _carried_out(shelf, promoted(shelf, version.name, numbers, *_signature(), why))

    def rollback(self, whole: str, why: str) -> Promotion:
        """Undo the last promotion, of the composite and all its parts. `ValueError` if there is none to undo."""
        with self._alone(whole) as shelf:
            return _carried_out(shelf, rolled_back(shelf, whole, *_signature(), why))

    def candidate(self, whole: str) -> tuple[ModelVersion, Decision]:
        """The composite that was registered last, and what the gates said of it last."""
        with self._alone(whole) as shelf:
            found = self._at(shelf, CANDIDATE)
            if found is None:
                raise ValueError(f"{whole} has no candidate: `dvc repro register` makes one")
            return found, self.versions.decision(found)

    def champion(self, whole: str, folder: Path) -> Mapping[str, Any] | None:
        """What is known of the champion; its evidence is downloaded into `folder`. None: there is none.

        name, version, digest, parts (model -> digest), and its version's other tags.
        """
        with self._alone(whole) as shelf:
            found = self._champion(shelf)
            if found is None:
                return None
            import mlflow.artifacts

            version: Version = self.versions.client.get_model_version(whole, found.version)
            mlflow.artifacts.download_artifacts(
                artifact_uri=f"{version.source}/evidence",
                dst_path=str(folder),
                tracking_uri=self.versions.client.tracking_uri,
            )
            members = self.versions.members(whole, found.version)
            parts = {name: member.digest for name, member in sorted(members.items()) if name != whole}
            return {**version.tags, "name": whole, "version": found.version, "digest": found.digest, "parts": parts}

    def history(self, whole: str) -> list[Promotion]:
        """The moves of the champion, oldest first."""
        with self._alone(whole) as shelf:
            return [intent.promotion for intent in shelf.history()]

    def _champion(self, shelf: MlflowShelf) -> ModelVersion | None:
        return self._at(shelf, CHAMPION)

    def _at(self, shelf: MlflowShelf, alias: str) -> ModelVersion | None:
        number = shelf.alias(shelf.whole, alias)
        if number is None:
            return None
        tags = self.versions.client.get_model_version(shelf.whole, number).tags
        return ModelVersion(name=shelf.whole, version=number, digest=tags["digest"])

    @contextmanager
    def _alone(self, whole: str) -> Iterator[MlflowShelf]:
        """The aliases, nothing half done, and no other process of this machine at them."""
        with self._answering(), (private(self.home / ".mlflow") / "registry.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            shelf = MlflowShelf(self.versions.client, whole)
            settle(shelf)
            yield shelf

    @contextmanager
    def _answering(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            where, reason = redacted(self.versions.client.tracking_uri), redacted(" ".join(str(error).split()))
            raise ValueError(f"the registry at {where} refuses: {reason[:300]}") from error


def _carried_out(shelf: MlflowShelf, intent: Intent) -> Promotion:
    carry_out(shelf, intent)
    return intent.promotion


def _signature() -> tuple[str, str]:
    """Who, and when."""
    who = os.environ.get("MLFLOW_TRACKING_USERNAME")
    try:
        who = who or getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        who = who or "unknown"
    return who, datetime.now(UTC).isoformat(timespec="seconds")
