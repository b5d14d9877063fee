"""Stage `report`: one page with the verdict first, from every stage's own kind of file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from canvas.pins.images import encode_png
from components.report import report
from lifecycle.declare.stage import Input, Metrics, Output, Picture

FIGURES: dict[str, dict[str, Any]] = {
    "ingest": {"pins": 2500},
    "validation": {"pins": {"met": 17, "warnings": 0, "critical": 0}},
    "tables_validation": {"masks": {"met": 7, "warnings": 0, "critical": 0}},
    "drift": {"verdict": {"drift": 0, "drifted_columns": 1}, "distance": {"category": 0.41}},
    "masks": {"pins": 2077},
    "captions": {"rows": 8191},
    "gate": {"passed": 0, "failed": 0, "pending": 1, "reasons": 2},
}


def index(folder: Path, **changed: dict[str, Any]) -> str:
    """The page, of files that the stages could have written; `changed` figures by argument."""
    inputs: dict[str, Input[Any]] = {}
    for argument, artifact in report.inputs.items():
        path = folder / Path(artifact.path).name
        if issubclass(artifact, Metrics):
            path.write_text(json.dumps((FIGURES | changed).get(argument, {"a": {"b": 0.25}})))
        elif issubclass(artifact, Picture):
            path.write_bytes(encode_png(Image.new("RGB", (4, 4), "red")))
        elif argument == "style_curve":
            path.write_text("strength,scene_follows,text_agreement\n0,0.1,\n1,0.7,0.25\n")
        elif argument == "filter_funnel":
            path.write_text("filter,pins\nall pins,2500\nquality,2263\n")
        else:
            path.write_text("step,loss\n0,1.5\n10,0.5\n")
        inputs[argument] = Input(path)
    report(**inputs, index=Output(folder / "index.html"))
    return (folder / "index.html").read_text()


def test_verdict_and_key_figures_come_first(tmp_path: Path) -> None:
    page = index(tmp_path)
    top = page[page.index("<main>") : page.index("<section")]
    assert "The generator: pending; 0 warnings of the tables; 1 columns drifted" in top
    assert 'class="verdict good"' in top
    for figure in ("2,500", "2,263", "2,077", "8,191"):
        assert f"<dd>{figure}</dd>" in top
    assert page.count("data:image/png") == 10
    assert not re.search(r'src="(?!data:)|(href|src)="(https?:)?//', page)


@pytest.mark.parametrize(
    "changed",
    [
        {"tables_validation": {"masks": {"met": 6, "warnings": 1, "critical": 0}}},
        {"drift": {"verdict": {"drift": 1, "drifted_columns": 9}}},
    ],
)
def test_warnings_and_drift_colour_the_verdict(tmp_path: Path, changed: dict[str, dict[str, Any]]) -> None:
    assert 'class="verdict warn"' in index(tmp_path, **changed)
