"""What the command line does with the registry, in a real repository."""

from __future__ import annotations

import json
import shutil

import pytest

from lifecycle.registry.champion import restore, write_empty
from lifecycle.registry.pinned import pinned_digest
from lifecycle.workspace.digest import digest
from tests.lifecycle.conftest import ROOT, Project
from tests.lifecycle.registering import trained


@pytest.fixture
def repository(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for command in (("git", "init", "-q"), ("dvc", "init", "-q")):
        assert project.run(*command).returncode == 0
    shutil.copy(ROOT / "champion.dvc", project.root)
    return project


def test_a_candidate_becomes_champion_and_is_pinned(repository: Project) -> None:
    root = repository.root
    assert repository.lifecycle("inputs").stdout == "champion/ is written: there is no champion yet\n"
    assert repository.lifecycle("inputs").stdout == "champion/ is there\n"
    assert json.loads(repository.read("champion/champion.json")) == {"version": None}
    refused = repository.lifecycle("promote", "--why", "too early")
    assert (refused.returncode, refused.stderr) == (
        1,
        "canvas-background has no candidate: `dvc repro register` makes one\n",
    )

    found = trained(root, root, "first", None, steps=3)
    done = repository.lifecycle("promote", "--why", "it is the first", MLFLOW_TRACKING_USERNAME="ada")
    assert done.stdout == ("canvas-background version 1 is champion, version none was; ada: it is the first\n"), (
        done.stderr
    )
    pulled = repository.lifecycle("champion", "pull")
    assert pulled.stdout.startswith("champion/ holds version 1 of canvas-background"), pulled.stderr
    facts = json.loads(repository.read("champion/champion.json"))
    assert facts["version"] == "1"
    assert facts["digest"] == found["canvas-background"].digest
    assert facts["parts"]["canvas-base"] == found["canvas-base"].digest
    assert facts["params"]["train_base.steps"] == "3"
    assert facts["metrics"] == {"scene.right": 0.75}
    for table in ("evaluation", "training_statistics"):
        assert repository.read(f"champion/{table}/part-00000.parquet") == f"rows of {table}"
    assert pinned_digest("champion", root) == digest(root / "champion")
    first = repository.read("champion.dvc")
    repository.lifecycle("champion", "pull")
    assert repository.read("champion.dvc") == first

    history = repository.lifecycle("champion", "history").stdout
    assert history.endswith("promote   None -> 1  ada: it is the first\n")
    back = repository.lifecycle("rollback", "--why", "no")
    assert "version 1 is the first champion: there is no previous one" in back.stderr


def test_the_committed_pin_is_that_of_no_champion(bare_project: Project) -> None:
    write_empty(bare_project.root / "champion")
    assert digest(bare_project.root / "champion") == pinned_digest("champion", ROOT)


def test_only_the_empty_form_is_restored(bare_project: Project) -> None:
    with pytest.raises(ValueError, match=r"champion\.dvc is missing: `git checkout champion\.dvc` brings it back"):
        restore(bare_project.root)
    pin = (ROOT / "champion.dvc").read_text()
    (bare_project.root / "champion.dvc").write_text(pin.replace("f8c5541", "0000000"))
    assert not restore(bare_project.root)
    assert not (bare_project.root / "champion").exists()
