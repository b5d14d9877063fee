"""`python -m lifecycle ratings learn`: from ratings to what the reward model may learn, pinned."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from canvas.pins import tables
from lifecycle.workspace.digest import digest, read_pin
from tests.evaluation.ratings.test_agreement import row
from tests.evaluation.ratings.test_preferences import candidate, learnable
from tests.lifecycle.conftest import ROOT, Project


@pytest.fixture
def rated(tmp_path: Path) -> Project:
    """A repository with candidates, ratings of them, and nothing learnt."""
    made = Project(tmp_path / "project")
    learnable(made.root, [row(pair, rater, 1.0) for pair in (0, 1) for rater in "ab"])
    (made.root / "artifacts").mkdir()
    for table in ("candidates", "pins"):
        (made.root / table).rename(made.root / "artifacts" / table)
    for command in (("git", "init", "-q"), ("dvc", "init", "-q")):
        assert made.run(*command).returncode == 0
    shutil.copy(ROOT / "preferences.dvc", made.root)
    return made


def test_ratings_are_learnt_once_and_again(rated: Project) -> None:
    done = rated.lifecycle("ratings", "learn")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("preferences/ holds 4 judgments of 2 pairs or images, 2 of these candidates; ")
    assert digest(rated.root / "preferences") == read_pin("preferences", rated.root)
    before = rated.read("preferences.dvc")
    assert rated.lifecycle("ratings", "learn").returncode == 0
    assert rated.read("preferences.dvc") == before

    shutil.rmtree(rated.root / "artifacts" / "candidates")  # the next challenger's, of which nothing was said
    later = pa.Table.from_pylist([candidate("later-0", 9)], tables.CANDIDATES)
    tables.write(rated.root / "artifacts" / "candidates", [later], tables.CANDIDATES)
    refused = rated.lifecycle("ratings", "learn")
    assert refused.returncode == 1
    assert "no judgment that counts is about the images in artifacts/candidates" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert len(tables.read(rated.root / "preferences").to_pylist()) == 2


def test_nothing_is_learnt_of_what_is_not_there(rated: Project) -> None:
    shutil.rmtree(rated.root / "ratings")
    tables.write_rows(rated.root / "ratings", [], tables.JUDGMENTS)
    assert "no judgment that counts" in rated.lifecycle("ratings", "learn").stderr
    shutil.rmtree(rated.root / "artifacts" / "pins")
    assert rated.lifecycle("ratings", "learn").stderr == "artifacts/pins is missing: `dvc checkout` brings it back\n"


def test_a_fresh_checkout_writes_the_empty_form(rated: Project) -> None:
    done = rated.lifecycle("inputs")
    assert done.stdout == "preferences/ is written: the reward model learns from corruptions alone\n"
    assert tables.read(rated.root / "preferences").to_pylist() == []
