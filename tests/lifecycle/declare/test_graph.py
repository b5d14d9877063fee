"""Stages as a graph: order, and what no graph may hold."""

from __future__ import annotations

import pytest

from lifecycle.declare.graph import (
    find_artifact,
    find_artifacts,
    find_composite,
    list_pinned_paths,
    list_stage_names,
    load_stage,
    load_stages,
    map_producers,
    order_stages,
)
from lifecycle.declare.pinned import Pinned
from lifecycle.declare.stage import (
    Collected,
    CollectedModels,
    Dataset,
    Input,
    Metrics,
    Model,
    Output,
    Report,
    Sheet,
    stage,
)


class Raw(Pinned, path="data"):
    """Raw."""


class A(Dataset, path="artifacts/a"):
    """A."""


class AlsoA(Dataset, path="artifacts/a"):
    """The same place as A."""


class InsideA(Dataset, path="artifacts/a/part"):
    """A place within A."""


class B(Dataset, path="artifacts/b"):
    """B."""


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


class Whole(Model, path="models/whole"):
    """Made of all."""

    composite = True


class Page(Report, path="reports/index.html"):
    """A page about all others."""


@stage()
def b_to_whole(b: Input[B], whole: Output[Whole], metrics: Output[Metrics], sheet: Output[Sheet]) -> None:
    """B to the whole."""


@stage()
def show(collected: Collected, metrics: Output[Metrics], page: Output[Page]) -> None:
    """Show it all."""


@stage()
def publish(page: Input[Page], metrics: Output[Metrics]) -> None:
    """Publish the page."""


@stage(pipeline="promote")
def promote(whole: Input[Whole], metrics: Output[Metrics]) -> None:
    """Promote the whole."""


ALL = [make_a, a_to_b, b_to_whole, show, publish, promote]


def test_a_collector_reads_what_people_read_of_the_stages_before_it() -> None:
    stages = order_stages(ALL)
    assert [stage.name for stage in stages][-2:] == ["show", "publish"]
    (collector,) = [stage for stage in stages if stage.collector]
    assert {argument: artifact.path for argument, artifact in collector.inputs.items()} == {
        "b_to_whole__metrics": "reports/b_to_whole/metrics.json",
        "b_to_whole__sheet": "reports/b_to_whole/sheet.png",
    }
    assert collector.collected == {
        "b_to_whole__metrics": (b_to_whole, "metrics"),
        "b_to_whole__sheet": (b_to_whole, "sheet"),
    }


class Part(Model, path="models/part", registered="part"):
    """A part."""


@stage()
def b_to_part(b: Input[B], part: Output[Part], metrics: Output[Metrics]) -> None:
    """B to a part."""


@stage()
def register(models: CollectedModels, metrics: Output[Metrics]) -> None:
    """Register the models."""


def test_models_are_collected_that_have_a_registered_name() -> None:
    (collector,) = (stage for stage in order_stages([*ALL, b_to_part, register]) if stage.name == "register")
    assert collector.collected == {"b_to_part__part": (b_to_part, "part")}
    assert collector.inputs == {"b_to_part__part": Part}


def test_artifacts_are_found_by_kind() -> None:
    assert find_composite(ALL) is Whole
    assert list_pinned_paths(ALL) == ("data",)
    assert find_artifacts(ALL, Dataset) == [A, B, Raw]
    assert find_artifact(ALL, Pinned) is Raw
    with pytest.raises(ValueError, match="must have one Sheet, and have none"):
        find_artifact([make_a], Sheet)
    with pytest.raises(ValueError, match="must have one Dataset, and have artifacts/a, artifacts/b, data"):
        find_artifact(ALL, Dataset)
    with pytest.raises(ValueError, match="must have one Model with `composite = True`, and have none"):
        find_composite([make_a])


def test_producers_come_before_consumers() -> None:
    assert [stage.name for stage in order_stages([a_to_b, make_a])] == ["make_a", "a_to_b"]


def test_producers() -> None:
    assert map_producers([a_to_b, make_a]) == {A: make_a, B: a_to_b}


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
        order_stages(stages)  # type: ignore[arg-type]


def test_the_project_holds_together() -> None:
    assert sorted(stage.name for stage in load_stages()) == list_stage_names()


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
