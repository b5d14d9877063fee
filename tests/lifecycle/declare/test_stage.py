"""Declarations: those that are accepted, and as many that fail where they are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lifecycle.declare.stage import (
    Artifact,
    Dataset,
    Input,
    Losses,
    Metrics,
    Model,
    Output,
    Plot,
    Report,
    Scratch,
    Sheet,
    Site,
    StepLog,
    stage,
)


class Pins(Dataset, path="artifacts/pins"):
    """Pins."""


class Segmenter(Model, path="models/segmenter"):
    """A model."""


class Count(Metrics, path="reports/count.json"):
    """A count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    width: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Nested:
    size: Size
    sizes: tuple[Size, ...]


@dataclass(frozen=True, kw_only=True)
class WithDefault:
    width: int = 3


@dataclass(frozen=True, kw_only=True)
class WithFactory:
    widths: list[int] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class NestedDefault:
    inner: WithDefault


@dataclass
class Thawed:
    width: int


class NoPlace(Dataset):
    """Has no path."""


def test_the_signature_is_the_declaration() -> None:
    @stage(machine="gpu", pipeline="promote")
    def fit(
        nested: Nested, size: Size, pins: Input[Pins], model: Output[Segmenter], log: StepLog, room: Scratch
    ) -> None:
        """Fit it.

        At length.
        """

    assert fit.name == "fit"
    assert fit.module == __name__
    assert fit.summary == "Fit it."
    assert dict(fit.params) == {"nested": Nested, "size": Size}
    assert dict(fit.inputs) == {"pins": Pins}
    assert dict(fit.outputs) == {"model": Segmenter}
    assert (fit.log, fit.scratch, fit.machine, fit.pipeline) == ("log", "room", "gpu", "promote")


def test_what_only_people_read_needs_no_class() -> None:
    @stage()
    def fit(metrics: Output[Metrics], losses: Output[Losses], sheet: Output[Sheet], docs: Output[Site]) -> None:
        """Fit."""

    assert {argument: artifact.path for argument, artifact in fit.outputs.items()} == {
        "metrics": "reports/fit/metrics.json",
        "losses": "reports/fit/losses.csv",
        "sheet": "reports/fit/sheet.png",
        "docs": "reports/fit/docs",
    }
    losses = fit.outputs["losses"]
    assert issubclass(losses, Losses)
    assert (losses.x, losses.y) == ("step", "loss")


def test_calling_a_stage_calls_its_function(tmp_path: Path) -> None:
    @stage()
    def count(size: Size, out: Output[Count]) -> None:
        """Count."""
        out.path.write_text(str(size.width))

    count(size=Size(width=4), out=Output(tmp_path / "count.json"))
    assert (tmp_path / "count.json").read_text() == "4"


def only_output(out: Output[Count]) -> None:
    """Write."""


def two_outputs(pins: Input[Pins], model: Output[Segmenter], count: Output[Count]) -> None:
    """Write two."""


def params_and_scratch(nested: Nested, scratch: Scratch, out: Output[Count]) -> None:
    """Resume."""


def several_inputs(pins: Input[Pins], model: Input[Segmenter], out: Output[Count]) -> None:
    """Read two."""


@pytest.mark.parametrize("function", [only_output, two_outputs, params_and_scratch, several_inputs])
def test_accepted(function: Callable[..., None]) -> None:
    assert stage()(function).name == function.__name__


def no_output(pins: Input[Pins]) -> None:
    """Nothing."""


def no_annotation(pins, out: Output[Count]) -> None:  # type: ignore[no-untyped-def]
    """Untyped."""


def plain_number(steps: int, out: Output[Count]) -> None:
    """A number."""


def plain_path(pins: Path, out: Output[Count]) -> None:
    """A path."""


def no_docstring(out: Output[Count]) -> None: ...


def not_an_artifact(pins: Input[Path], out: Output[Count]) -> None:  # type: ignore[type-var]
    """Not an artifact."""


def no_place(pins: Input[NoPlace], out: Output[Count]) -> None:
    """No path."""


def bare_dataset(pins: Output[Dataset]) -> None:
    """What others read needs a class."""


def read_by_kind(metrics: Input[Metrics], out: Output[Count]) -> None:
    """Whose metrics?"""


def no_axes(curve: Output[Plot]) -> None:
    """A plot of what?"""


def itself(pins: Input[Pins], out: Output[Pins]) -> None:
    """In place."""


def thawed(thawed: Thawed, out: Output[Count]) -> None:
    """Not frozen."""


def with_default(params: WithDefault, out: Output[Count]) -> None:
    """A default."""


def with_factory(params: WithFactory, out: Output[Count]) -> None:
    """A default factory."""


def nested_default(params: NestedDefault, out: Output[Count]) -> None:
    """A default further in."""


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (no_output, "writes nothing: give it an Output"),
        (no_annotation, r"annotate \['pins'\]"),
        (plain_number, "argument 'steps' must be a params dataclass"),
        (plain_path, "argument 'pins' must be a params dataclass"),
        (no_docstring, "needs a docstring"),
        (not_an_artifact, "'pins' needs an Artifact with a path"),
        (no_place, "'pins' needs an Artifact with a path"),
        (bare_dataset, "'pins' needs an Artifact with a path"),
        (read_by_kind, "'metrics' needs an Artifact with a path"),
        (no_axes, "'curve' is a Plot without axes: subclass it with `x` and `y`"),
        (itself, "reads and writes .*artifacts/pins.*a cycle of one"),
        (thawed, "must be declared @dataclass"),
        (with_default, "WithDefault.width has a default: remove it"),
        (with_factory, "WithFactory.widths has a default: remove it"),
        (nested_default, "WithDefault.width has a default: remove it"),
    ],
)
def test_rejected(function: Callable[..., None], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        stage()(function)


@pytest.mark.parametrize("path", ["/tmp/pins", "../pins", "artifacts/../../pins", 3])
def test_an_artifact_lies_in_the_project(path: object) -> None:
    with pytest.raises(TypeError, match="must be a path relative to the project's root"):
        type("Elsewhere", (Dataset,), {"__doc__": "Elsewhere."}, path=path)


def test_an_artifact_says_what_it_holds() -> None:
    with pytest.raises(TypeError, match="needs a docstring that says what artifacts/mute holds"):
        type("Mute", (Artifact,), {}, path="artifacts/mute")


def test_an_output_writes_documents_curves_texts_and_images(tmp_path: Path) -> None:
    metrics: Output[Metrics] = Output(tmp_path / "metrics.json")
    losses: Output[Losses] = Output(tmp_path / "losses.csv")
    none: Output[Losses] = Output(tmp_path / "none.csv")
    report: Output[Report] = Output(tmp_path / "report.html")
    sheet: Output[Sheet] = Output(tmp_path / "sheet.png")
    metrics.write({"accuracy": 0.5, "seconds": {"train": 1}})
    losses.write([(1, 0.123456789), (10, 2.0)])
    none.write([])
    report.write("<title>é</title>\n")
    sheet.write(b"\x89PNG")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        "metrics.json": b'{\n "accuracy": 0.5,\n "seconds": {\n  "train": 1\n }\n}\n',
        "losses.csv": b"step,loss\n1,0.123457\n10,2\n",
        "none.csv": b"step,loss\n",
        "report.html": "<title>é</title>\n".encode(),
        "sheet.png": b"\x89PNG",
    }
