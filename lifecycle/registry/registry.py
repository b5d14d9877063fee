"""The registry of models in MLflow: what a stage knows as `Registry`, and what the command line asks of it."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from lifecycle.declare.registry import Decision, Facts, ModelVersion, Origin, Promotion
from lifecycle.declare.stage import Artifact, Model
from lifecycle.record.lineage import trace_lineage
from lifecycle.record.privacy import redact, summarize_error
from lifecycle.record.sender import send_kept_records
from lifecycle.record.tracking import TrackingDownError, open_tracking
from lifecycle.registry import promotion
from lifecycle.registry.aliases import CANDIDATE, CHAMPION, Aliases
from lifecycle.registry.evidence import verify_evidence
from lifecycle.registry.lock import hold_store_lock
from lifecycle.registry.versions import Versions, require_name
from lifecycle.workspace.staging import hold_lock, make_private

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as Version


@dataclass(frozen=True, slots=True)
class MlflowRegistry:
    """The registry of the project at `home`. Every call first brings a move of the champion that a killed process
    left half done to an end. Raises `ValueError` in one sentence for what the registry refuses."""

    home: Path
    versions: Versions

    @classmethod
    def open(cls, home: Path, pinned: Iterable[str], *, need_lineage: bool = False) -> MlflowRegistry:
        """Open the project's registry, once it has the records of all runs so far; `pinned`: paths of what no stage
        writes. `ValueError` if it does not answer; with `need_lineage`, as who registers does, also if it refuses a
        record."""
        try:
            send_kept_records(home, need_all=need_lineage)
            tracking = open_tracking(home)
        except TrackingDownError as error:
            raise ValueError(f"the registry is needed: {error}") from error
        find_producer = cache(tracking.find_producer)
        return cls(home, Versions(tracking, find_producer, tuple(pinned), make_private(home / ".mlflow")))

    def trace_origin(self, artifact: type[Artifact], digest: str) -> Origin:
        with self._explain_refusal():
            return self.versions.describe_origin(trace_lineage(artifact.path, digest, self.versions.find_producer))

    def register(
        self, composite: type[Model], models: Mapping[type[Model], Path], **facts: Unpack[Facts]
    ) -> Mapping[str, ModelVersion]:
        names = {kind.path: require_name(kind) for kind in models}
        with self._explain_refusal(), self._lock_home():  # files of many GB go up: the store's lock is not for that
            versions = {
                names[kind.path]: self.versions.register_part(kind, path, names)
                for kind, path in models.items()
                if kind != composite
            }
            versions[names[composite.path]] = self.versions.register_composite(
                composite, models[composite], names, versions, **facts
            )
        with self._lock_aliases(names[composite.path]) as aliases:
            for version in versions.values():
                aliases.set(version.name, CANDIDATE, version.version)
        return versions

    def promote(
        self,
        version: ModelVersion,
        decision: Decision,
        why: str,
        *,
        evidence: Mapping[str, str] | None = None,
        again: bool = False,
    ) -> Promotion:
        """As `Registry` says. What was rolled back is refused, so that no pipeline brings it back by itself; `again`
        is for a person who wants that."""
        with self._lock_aliases(version.name) as aliases:
            champion, history = self._find_version(aliases, CHAMPION), aliases.read_history()
            if champion is not None and champion.version == version.version and history:
                return history[-1].promotion  # done before, by whoever was killed since
            label = f"{version.name} version {version.version}"
            if not again:
                promotion.check_not_rolled_back(history, version.version, label)
            if decision.challenger == version.digest:
                self.versions.write_decision(version, decision)
            promotion.check_decision(decision, version.digest, champion.digest if champion else None, label)
            members = self.versions.read_members(version.name, version.version)
            promotion.check_parents(members)
            promotion.check_evidence(members, self._find_inputs(evidence or {}), label)
            numbers = {name: member.version for name, member in members.items()}
            return promotion.carry_out(aliases, promotion.plan_promotion(aliases, numbers, *_sign(), why))

    def _find_inputs(self, evidence: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
        """Return path -> what the run that wrote this content of it read, where one is recorded."""
        runs = {path: self.versions.find_producer(path, content) for path, content in evidence.items()}
        return {path: run.inputs for path, run in runs.items() if run}

    def rollback(self, composite: str, why: str) -> Promotion:
        """Undo the last promotion, of the composite and all its parts. `ValueError` if there is none to undo."""
        with self._lock_aliases(composite) as aliases:
            return promotion.carry_out(aliases, promotion.plan_rollback(aliases, *_sign(), why))

    def read_candidate(self, composite: str) -> ModelVersion:
        """Return the composite that was registered last. `ValueError` if none was."""
        with self._read_aliases(composite) as aliases:
            candidate = self._find_version(aliases, CANDIDATE)
            if candidate is None:
                raise ValueError(f"{composite} has no candidate: `dvc repro register` makes one")
            return candidate

    def read_champion(self, composite: str, folder: Path) -> Mapping[str, Any] | None:
        """Return what is known of the champion; download its evidence into `folder`. None: there is none.

        name, version, digest, parts (model -> digest), and its version's other tags. `ValueError` if the evidence is
        not what was registered.
        """
        with self._read_aliases(composite) as aliases:
            champion = self._find_version(aliases, CHAMPION)
            if champion is None:
                return None
            import mlflow.artifacts

            version: Version = self.versions.client.get_model_version(composite, champion.version)
            address, uri = f"{version.source}/evidence", self.versions.client.tracking_uri
            mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(folder), tracking_uri=uri)
            verify_evidence(folder / "evidence", version.tags, f"{composite} version {champion.version}")
            members = self.versions.read_members(composite, champion.version)
            parts = {name: member.digest for name, member in sorted(members.items()) if name != composite}
            return {**version.tags, **asdict(champion), "parts": parts}

    def read_history(self, composite: str) -> list[Promotion]:
        """Return the moves of the champion, oldest first."""
        with self._read_aliases(composite) as aliases:
            return [intent.promotion for intent in aliases.read_history()]

    def _find_version(self, aliases: Aliases, alias: str) -> ModelVersion | None:
        number = aliases.read(aliases.composite, alias)
        if number is None:
            return None
        tags = self.versions.client.get_model_version(aliases.composite, number).tags
        return ModelVersion(name=aliases.composite, version=number, digest=tags["digest"])

    @contextmanager
    def _lock_aliases(self, composite: str) -> Iterator[Aliases]:
        """Give the aliases, nothing half done, and no other process at them, of this checkout or another one."""
        client = self.versions.client
        with self._explain_refusal(), self._lock_home(), hold_store_lock(client, composite):
            aliases = Aliases(client, composite)
            promotion.settle(aliases)
            yield aliases

    def _lock_home(self) -> AbstractContextManager[None]:
        return hold_lock(make_private(self.home / ".mlflow") / "registry.lock")

    @contextmanager
    def _read_aliases(self, composite: str) -> Iterator[Aliases]:
        """Give the aliases, nothing half done, to who only reads them."""
        with self._explain_refusal():
            aliases = Aliases(self.versions.client, composite)
            if aliases.read_intent() is not None:
                with self._lock_aliases(composite):
                    pass
            yield aliases

    @contextmanager
    def _explain_refusal(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            where = redact(self.versions.client.tracking_uri)
            raise ValueError(f"the registry at {where} refuses: {summarize_error(error)}") from error


def _sign() -> tuple[str, str]:
    """Return who acts, and when."""
    who = os.environ.get("MLFLOW_TRACKING_USERNAME")
    try:
        who = who or getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        who = "unknown"
    return who, datetime.now(UTC).isoformat(timespec="seconds")
