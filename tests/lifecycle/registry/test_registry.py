"""The registry on a real SQLite store: versions, aliases moved together or not at all, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow.artifacts
import pytest

from lifecycle.declare.registry import ModelVersion
from lifecycle.registry.lock import SUFFIX
from lifecycle.registry.registry import MlflowRegistry
from lifecycle.workspace.digest import digest
from tests.lifecycle.conftest import NOBODY, Project
from tests.lifecycle.registering import (
    WHOLE,
    Base,
    Inpaint,
    Weights,
    decision,
    item,
    open_registry,
    record,
    record_training,
    register,
    register_trained,
    write_models,
)

NAMES = ("test-base", "test-inpaint", WHOLE)
ALIASES = ("candidate", "champion", "previous")
Table = dict[str, dict[str, str]]


@pytest.fixture
def home(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    return project.root


def aliases(registry: MlflowRegistry) -> Table:
    """Registered model -> alias -> version, but for the lock that a killed process leaves."""
    client = registry.versions.client
    return {
        model.name: {str(alias): str(version) for alias, version in model.aliases.items()}
        for model in client.search_registered_models()
        if not model.name.endswith(SUFFIX)
    }


def alias_of_all(**versions: str) -> Table:
    return {name: dict(versions) for name in NAMES}


def promote(registry: MlflowRegistry, version: ModelVersion, champion: ModelVersion | None, why: str = "better") -> Any:
    return registry.promote(version, decision(version.digest, champion.digest if champion else None), why)


@pytest.fixture
def two(home: Path) -> tuple[MlflowRegistry, ModelVersion, ModelVersion]:
    """A champion and a candidate, of other content throughout."""
    registry = open_registry(home)
    old = register_trained(home, home, "old", None, steps=1)[WHOLE]
    promote(registry, old, None)
    new = register_trained(home, home, "new", old.digest, steps=2)[WHOLE]
    return registry, old, new


def test_versions_say_what_they_are(home: Path) -> None:
    versions = register_trained(home, home, "a", None)
    registry = open_registry(home)
    client = registry.versions.client
    assert aliases(registry) == alias_of_all(candidate="1")
    version = client.get_model_version("test-inpaint", "1")
    assert version.tags["path"] == "models/inpaint"
    assert version.tags["digest"] == digest(home / "models/inpaint") == versions["test-inpaint"].digest
    assert version.tags["git_sha"] == "5" * 40
    assert version.tags["release"] == "1.2"
    assert version.tags["data_digest"] == "d" * 32 + ".dir"
    assert json.loads(version.tags["parents"]) == {"test-base": versions["test-base"].digest}
    assert json.loads(version.tags["metrics"]) == {"loss": 0.5}
    run = client.get_run(version.run_id)
    assert run.data.tags["canvas.stage"] == "train_inpaint"

    whole = client.get_model_version(WHOLE, "1")
    assert json.loads(whole.tags["parts"]) == {"test-base": "1", "test-inpaint": "1"}
    assert json.loads(whole.tags["metrics"]) == {"scene.right": 0.75}
    assert whole.tags["verdict"] == "pass"
    assert whole.description.startswith("**pass**\n\nRead [evidence/review.html](http://127.0.0.1:5000/#/experiments/")
    assert whole.description.endswith(f"/models/{whole.tags['model_id']}/artifacts).\n\n- as it happens")
    assert whole.tags["evidence.review.html"] == f"{whole.source}/evidence/review.html"
    address, uri = whole.tags["evidence.review.html"], client.tracking_uri
    page = mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(home), tracking_uri=uri)
    assert Path(page).read_text() == "<title>Review</title>"


def test_versions_name_public_weights_and_what_was_skipped(home: Path) -> None:
    models = write_models(home, "a")
    source = {"repository": "tiny/model", "commit": "0" * 40, "licence": "openrail++"}
    (models[Base] / "source.json").write_text(json.dumps(source))
    (models[Inpaint] / "skipped.json").write_text('{"skipped": "train is null, no LoRA is made"}')
    record_training(home, home, 1)
    registry = open_registry(home)
    register(registry, home, models, None)
    base, inpaint, whole = (registry.versions.client.get_model_version(name, "1").tags for name in NAMES)
    assert json.loads(base["sources"]) == {"base": source}
    assert inpaint["skipped"] == "train is null, no LoRA is made"
    assert not {"sources", "skipped"} & (whole.keys() | (inpaint.keys() - {"skipped"}) | (base.keys() - {"sources"}))


def test_the_same_content_is_the_same_version(home: Path) -> None:
    register_trained(home, home, "a", None)
    registry = open_registry(home)
    models = write_models(home, "a")
    again = register(registry, home, models, None, outcome="pending")
    assert {version.version for version in again.values()} == {"1"}
    candidate = registry.read_candidate(WHOLE)
    assert registry.versions.client.get_model_version(WHOLE, candidate.version).tags["verdict"] == "pending"

    (home / "models/base/model.safetensors").write_text("another base, the same composite")
    other = register(registry, home, models, None)
    assert {name: version.version for name, version in other.items()} == {
        "test-base": "2",
        "test-inpaint": "1",
        WHOLE: "2",
    }


def test_origin_is_the_whole_way_back(home: Path) -> None:
    register_trained(home, home, "a", None, steps=7)
    origin = open_registry(home).trace_origin(Weights, digest(home / "models/weights"))
    assert origin.artifacts["data"] == "d" * 32 + ".dir"
    assert set(origin.artifacts) == {"data", "models/base", "models/inpaint", "models/weights"}
    assert origin.params == {"train_base.steps": "7", "train_inpaint.steps": "2"}
    assert origin.runs["models/base"].startswith("http://127.0.0.1:5000/#/experiments/")
    assert origin.tree[0].startswith("models/weights  ")
    assert len(origin.tree) == 4


def test_promotion_moves_all_and_is_written_down(two: tuple[MlflowRegistry, ModelVersion, ModelVersion]) -> None:
    registry, old, new = two
    done = promote(registry, new, old, "people prefer it")
    assert aliases(registry) == alias_of_all(champion="2", previous="1")
    assert (done.kind, done.before, done.after, done.who, done.why) == (
        "promote", "1", "2", "ada", "people prefer it",
    )  # fmt: skip
    assert done.when.endswith("+00:00")
    assert promote(registry, new, old, "again") == done
    assert [move.why for move in registry.read_history(WHOLE)] == ["better", "people prefer it"]


def test_rollback_restores_what_was(two: tuple[MlflowRegistry, ModelVersion, ModelVersion]) -> None:
    registry, old, new = two
    promote(registry, new, old)
    back = registry.rollback(WHOLE, "complaints")
    assert (back.kind, back.before, back.after) == ("rollback", "2", "1")
    assert aliases(registry) == alias_of_all(champion="1")
    with pytest.raises(ValueError, match="test-weights version 1 is the first champion"):
        registry.rollback(WHOLE, "more complaints")
    with pytest.raises(ValueError, match=r"version 2 is not promoted: ada rolled it back \(complaints\)"):
        promote(registry, new, old, "the pipeline again")
    registry.promote(new, decision(new.digest, old.digest), "they were wrong", again=True)
    registry.versions.client.set_registered_model_alias("test-base", "champion", "1")
    with pytest.raises(ValueError, match="champion of test-base is version 1, not 2 as promotion 4 left it"):
        registry.rollback(WHOLE, "complaints")


def test_what_is_refused(two: tuple[MlflowRegistry, ModelVersion, ModelVersion]) -> None:
    registry, old, new = two
    before = aliases(registry)
    refused: list[tuple[Any, str]] = [
        (decision(new.digest, old.digest, "fail", "scene_right lost 0.2"), "the verdict is fail: scene_right lost 0.2"),
        (decision(new.digest, old.digest, "pending", "3 of 20 ratings"), "the verdict is pending: 3 of 20 ratings"),
        (decision(old.digest, old.digest), "the verdict is about another model"),
        (decision(new.digest, None), "compares it with no champion, but the champion is"),
    ]
    for verdict, reason in refused:
        with pytest.raises(ValueError, match=reason):
            registry.promote(new, verdict, "because")
    for why in ("", "  ", "x" * 1001):
        with pytest.raises(ValueError, match="why: say it in 1 to 1000 characters"):
            promote(registry, new, old, why)
    assert aliases(registry) == before
    assert len(registry.read_history(WHOLE)) == 1


def test_a_part_of_another_parent_is_refused(home: Path) -> None:
    registry = open_registry(home)
    models = write_models(home, "a")
    record_training(home, home, 1)
    (home / "models/base/model.safetensors").write_text("trained since")
    record(home, "train_base", [], item(Base, home))
    registry = open_registry(home)
    whole = register(registry, home, models, None)[WHOLE]
    with pytest.raises(ValueError, match="test-inpaint version 1 is not promoted: it was made from test-base"):
        promote(registry, whole, None)
    assert aliases(registry) == alias_of_all(candidate="1")


def test_a_part_that_nobody_recorded_is_refused(home: Path) -> None:
    registry = open_registry(home)
    whole = register(registry, home, write_models(home, "a"), None)[WHOLE]
    with pytest.raises(ValueError, match="no run is recorded that made it"):
        promote(registry, whole, None)


def test_a_registry_that_is_down_is_one_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    with pytest.raises(ValueError, match=r"the registry is needed: tracking at http://127\.0\.0\.1:9 does not answer"):
        open_registry(home)


WRITES = (
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "set_registered_model_tag",
    "delete_registered_model_tag",
    "set_model_version_tag",
    "update_model_version",
)


def run_and_kill(write: int, act: Callable[[], object]) -> bool:
    """Do `act` in a process that is killed by SIGKILL just before its write number `write`; whether it got there."""
    child = os.fork()
    if child == 0:
        try:
            _kill_at(write)
            act()
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(2)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), f"write {write}: status {status}"
    return status == signal.SIGKILL


def _kill_at(write: int) -> None:
    from mlflow import MlflowClient

    done = 0

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(MlflowClient, name)

        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal done
            done += 1
            if done == write:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return call

    for name in WRITES:
        setattr(MlflowClient, name, counted(name))


def test_a_kill_while_files_go_up_leaves_no_copy_for_long(home: Path) -> None:
    models = write_models(home, "a")
    record_training(home, home, 1)
    registry = open_registry(home)
    child = os.fork()
    if child == 0:
        from mlflow import MlflowClient

        MlflowClient.log_model_artifacts = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        register(registry, home, models, None)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    (home / ".mlflow" / "tmp1234" / "model").mkdir(parents=True)  # as versions before left it
    assert (home / ".mlflow" / "packing" / "model" / "data").is_dir()
    assert register(open_registry(home), home, models, None)[WHOLE].version == "1"
    assert {entry.name for entry in (home / ".mlflow").iterdir() if entry.is_dir()} == {"artifacts"}


def kill_at_each_write(home: Path, place: Path, act: Callable[[MlflowRegistry], object]) -> Iterator[MlflowRegistry]:
    """The registry after `act` was killed at each of its writes in turn, on a copy of the store each time."""
    write, reached = 0, True
    while reached:
        write += 1
        copy = place / str(write)
        shutil.copytree(home / ".mlflow", copy / ".mlflow")
        reached = run_and_kill(write, lambda copy=copy: act(open_registry(copy)))
        if reached:
            yield open_registry(copy)
    assert write > 8, "every alias of three models is a write"


def test_a_promotion_killed_anywhere_is_whole_or_nothing(
    two: tuple[MlflowRegistry, ModelVersion, ModelVersion], tmp_path: Path
) -> None:
    registry, old, new = two
    before, done = alias_of_all(candidate="2", champion="1"), alias_of_all(champion="2", previous="1")
    seen = []
    for left in kill_at_each_write(
        registry.home, tmp_path / "copies", lambda registry: promote(registry, new, old, "better")
    ):
        moves = left.read_history(WHOLE)  # any call settles
        seen.append(aliases(left))
        assert len(moves) == (1 if seen[-1] == before else 2)
        assert promote(left, new, old).after == "2"
        assert aliases(left) == done
        assert [move.kind for move in left.read_history(WHOLE)] == ["promote", "promote"]
    assert all(state in (before, done) for state in seen)
    assert before in seen
    assert done in seen


def test_a_rollback_killed_anywhere_is_whole_or_nothing(
    two: tuple[MlflowRegistry, ModelVersion, ModelVersion], tmp_path: Path
) -> None:
    registry, old, new = two
    promote(registry, new, old)
    before, done = alias_of_all(champion="2", previous="1"), alias_of_all(champion="1")
    for left in kill_at_each_write(
        registry.home, tmp_path / "copies", lambda registry: registry.rollback(WHOLE, "complaints")
    ):
        moves = left.read_history(WHOLE)
        assert aliases(left) == (before if len(moves) == 2 else done)


def test_what_can_not_be_completed_is_undone(
    two: tuple[MlflowRegistry, ModelVersion, ModelVersion], tmp_path: Path
) -> None:
    """Killed half-way, and then a version that it moved to is deleted."""
    registry, old, new = two
    copy = tmp_path / "copy"
    shutil.copytree(registry.home / ".mlflow", copy / ".mlflow")
    assert run_and_kill(9, lambda: promote(open_registry(copy), new, old))
    left = open_registry(copy)
    assert left.versions.client.get_model_version_by_alias("test-base", "champion").version == 2
    left.versions.client.delete_model_version(WHOLE, "2")
    assert len(left.read_history(WHOLE)) == 1
    assert {name: holders.get("champion") for name, holders in aliases(left).items()} == dict.fromkeys(NAMES, "1")
    assert {name: holders.get("previous") for name, holders in aliases(left).items()} == dict.fromkeys(NAMES)
