"""The dial of `make demo EFFORT=...`."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifecycle.declare.graph import load_stages
from lifecycle.declare.params import load_sections
from pipelines.project import set_effort
from tests.graph.conftest import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    return tmp_path


def test_one_line_changes_and_changes_back(project: Path) -> None:
    before = (project / "params.yaml").read_text().splitlines()
    assert "training.effort is 0.5 (it was 1.0)" in set_effort(project, load_stages(), 0.5)
    after = (project / "params.yaml").read_text().splitlines()
    (changed,) = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert changed == (changed[0], changed[0].replace("effort: 1.0", "effort: 0.5"))
    assert load_sections(root=project)["training"]["effort"] == 0.5
    set_effort(project, load_stages(), 1.0)
    assert (project / "params.yaml").read_text().splitlines() == before


@pytest.mark.parametrize("effort", [0.0, -1.0, float("nan"), float("inf")])
def test_an_effort_that_cannot_be_leaves_the_file_as_it_is(project: Path, effort: float) -> None:
    before = (project / "params.yaml").read_text()
    with pytest.raises(ValueError, match="effort"):
        set_effort(project, load_stages(), effort)
    assert (project / "params.yaml").read_text() == before


def test_params_without_the_line_are_named(project: Path) -> None:
    (project / "params.yaml").write_text("training:\n  seed: 0\n")
    with pytest.raises(ValueError, match=r"has no line `  effort: 1.0` in section training: add it"):
        set_effort(project, load_stages(), 2.0)
