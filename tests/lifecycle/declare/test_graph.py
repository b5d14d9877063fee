"""Stages as a graph: order, and what no graph may hold."""

from __future__ import annotations

import pytest

from lifecycle.declare.graph import load_stage, load_stages, ordered, producers, stage_names
from lifecycle.declare.stage import Dataset, Input, Output, stage


class Raw(Dataset):
    """Raw."""

    path = "data"
    pinned = True


class A(Dataset):
    """A."""

    path = "artifacts/a"


class AlsoA(Dataset):
    """The same place as A."""

    path = "artifacts/a"


class InsideA(Dataset):
    """A place within A."""

    path = "artifacts/a/part"


class B(Dataset):
    """B."""

    path = "artifacts/b"


@stage()
def make_a(raw: Input[Raw], a: Output[A]) -> None:
    """Raw to A."""


@stage()
def again_a(raw: Input[Raw], a: Output[AlsoA]) -> None:
    """Raw to A once more."""


@stage()
def inside_a(raw: Input[Raw], a: Output[InsideA]) -> None:
    """Raw to a part of A."""


@stage()
def a_to_b(a: Input[A], b: Output[B]) -> None:
    """A to B."""


@stage()
def b_to_a(b: Input[B], a: Output[A]) -> None:
    """B to A."""


def test_producers_come_before_consumers() -> None:
    assert [stage.name for stage in ordered([a_to_b, make_a])] == ["make_a", "a_to_b"]


def test_producers() -> None:
    assert producers([a_to_b, make_a]) == {A: make_a, B: a_to_b}


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ([make_a, again_a], "artifacts/a has two producers: again_a and make_a"),
        ([make_a, inside_a], "artifacts/a/part of inside_a lies in artifacts/a of make_a"),
        ([a_to_b], r"stage a_to_b reads artifacts/a \(a\), which no stage writes"),
        ([a_to_b, b_to_a], "the stages form a cycle: .*a_to_b"),
    ],
)
def test_rejected(stages: list[object], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        ordered(stages)  # type: ignore[arg-type]


def test_the_project_holds_together() -> None:
    assert sorted(stage.name for stage in load_stages()) == stage_names()


def test_unknown_stage() -> None:
    with pytest.raises(ValueError, match="no stage 'nonsense': components/ has "):
        load_stage("nonsense")


def test_a_module_without_its_stage(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "wrong_parts").mkdir()
    (tmp_path / "wrong_parts" / "__init__.py").touch()
    (tmp_path / "wrong_parts" / "empty.py").write_text("def empty(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TypeError, match=r"wrong_parts/empty.py must declare its stage as `@stage\(\) def empty"):
        load_stage("empty", "wrong_parts")
