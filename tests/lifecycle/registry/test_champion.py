"""What the command line does with the registry and the pinned inputs, in a real repository of another product."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest

from components.artifacts import Champion
from lifecycle.record.tracking import format_sqlite_uri
from lifecycle.registry.pinned import restore_empty
from lifecycle.workspace.digest import digest, read_pin
from tests.lifecycle.conftest import NOBODY, ODD, ROOT, Project
from tests.lifecycle.judging import add_judge
from tests.lifecycle.registering import WHOLE, register_trained


@pytest.fixture
def repository(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project and its store in a folder whose name addresses, patterns and shells take for their own."""
    project = Project(project.root.rename(project.root.with_name(ODD)))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for command in (("git", "init", "-q"), ("dvc", "init", "-q")):
        assert project.run(*command).returncode == 0
    add_judge(project)
    for name in ("best", "votes", "lessons"):
        shutil.rmtree(project.root / name)
    return project


def test_pinned_inputs_are_found_by_kind(repository: Project) -> None:
    assert repository.lifecycle("inputs").stdout.splitlines() == [
        "best/ is written: there is no champion yet",
        "lessons/ is written: nothing is learnt",
        "votes/ is written: nobody has rated yet",
    ]
    assert repository.lifecycle("inputs").stdout.splitlines() == [
        "best/ is there",
        "lessons/ is there",
        "votes/ is there",
    ]
    for stage in ("fetch", "train", "judge"):
        done = repository.lifecycle("run", stage, MLFLOW_TRACKING_URI=NOBODY)
        assert done.returncode == 0, done.stderr
    assert json.loads(repository.read("artifacts/judgement.json"))["reasons"] == ["0 votes"]
    refused = repository.lifecycle("ratings", "learn")
    assert (refused.returncode, refused.stderr) == (1, "nobody has voted\n")
    (repository.root / "votes" / "votes.txt").write_text("yes no")
    assert repository.lifecycle("ratings", "learn").stdout == "lessons/ holds 2 votes about 3 numbers\n"
    assert read_pin("lessons", repository.root) == digest(repository.root / "lessons")
    nothing = repository.lifecycle("rate", "ada")
    assert nothing.stderr == "the stages must have one RatingPacket, and have none\n"


def test_a_candidate_becomes_champion_and_is_pinned(repository: Project) -> None:
    root = repository.root
    refused = repository.lifecycle("promote", "--why", "too early")
    assert (refused.returncode, refused.stderr) == (
        1,
        "test-weights has no candidate: `dvc repro register` makes one\n",
    )
    empty = repository.lifecycle("champion", "pull")
    assert empty.stdout == "best/ holds no champion of test-weights; commit best.dvc with what you make from it\n"
    assert json.loads(repository.read("best/champion.json")) == {"version": None}

    versions = register_trained(root, root, "first", None, steps=3)  # its tag says `pass`
    refused = repository.lifecycle("promote", "--why", "the tag says so")
    assert refused.stderr == "test-weights version 1 is not promoted: the verdict is pending: 0 votes\n"
    (root / "votes" / "votes.txt").write_text("yes no")
    refused = repository.lifecycle("promote", "--why", "it is the first")
    assert refused.stderr.startswith("votes/ is not what votes.dvc pins")
    assert repository.run("dvc", "add", "-q", "votes").returncode == 0
    done = repository.lifecycle("promote", "--why", "it is the first", MLFLOW_TRACKING_USERNAME="ada")
    assert done.stdout == "test-weights version 1 is champion, version none was; ada: it is the first\n", done.stderr
    pulled = repository.lifecycle("champion", "pull")
    assert pulled.stdout.startswith("best/ holds version 1 of test-weights"), pulled.stderr
    facts = json.loads(repository.read("best/champion.json"))
    assert facts["version"] == "1"
    assert facts["digest"] == versions[WHOLE].digest
    assert facts["parts"]["test-base"] == versions["test-base"].digest
    assert facts["params"]["train_base.steps"] == "3"
    assert facts["metrics"] == {"scene.right": 0.75}
    for table in ("evaluation", "training_statistics"):
        assert repository.read(f"best/{table}/part-00000.parquet") == f"rows of {table}"
    assert read_pin("best", root) == digest(root / "best")
    first = repository.read("best.dvc")
    repository.lifecycle("champion", "pull")
    assert repository.read("best.dvc") == first

    assert [place.name for place in root.parent.iterdir()] == [ODD]  # nothing beside it
    client = repository.client()
    files = Path(unquote(client.get_model_version("test-weights", "1").source.removeprefix("file://")))
    assert files.is_relative_to(root)
    table = files / "evidence" / "evaluation" / "part-00000.parquet"
    table.write_text(table.read_text().replace("rows", "rowS"))
    refused = repository.lifecycle("champion", "pull")
    assert "the evidence of test-weights version 1 is damaged: evaluation/part-00000.parquet" in refused.stderr
    assert repository.read("best.dvc") == first
    empty_store = root / "elsewhere" / "mlflow.db"
    empty_store.parent.mkdir()
    refused = repository.lifecycle("champion", "pull", MLFLOW_TRACKING_URI=format_sqlite_uri(empty_store))
    assert "this registry has no champion of test-weights, but best.dvc pins one, which stays" in refused.stderr
    assert repository.read("best.dvc") == first

    history = repository.lifecycle("champion", "history").stdout
    assert history.endswith("promote   None -> 1  ada: it is the first\n")
    back = repository.lifecycle("rollback", "--why", "no")
    assert "version 1 is the first champion: there is no previous one" in back.stderr


def test_the_committed_pin_is_that_of_no_champion(bare_project: Project) -> None:
    Champion.write_empty(bare_project.root / "champion")
    assert digest(bare_project.root / "champion") == read_pin("champion", ROOT)


def test_only_the_empty_form_is_restored(bare_project: Project) -> None:
    with pytest.raises(ValueError, match=r"champion\.dvc is missing: `git checkout champion\.dvc` brings it back"):
        restore_empty(Champion, bare_project.root)
    pin = (ROOT / "champion.dvc").read_text()
    (bare_project.root / "champion.dvc").write_text(pin.replace("f8c5541", "0000000"))
    assert not restore_empty(Champion, bare_project.root)
    assert not (bare_project.root / "champion").exists()
