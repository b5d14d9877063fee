"""Stage `report`: one page of what the project's stages leave, the verdict and a few figures first."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from canvas.pins.images import encode_png
from lifecycle.declare.graph import load_stage
from lifecycle.declare.stage import Artifact, Collected, Exhibit, Input, Losses, Metrics, Output, Sheet

REPORT = load_stage("report")
FIGURES: dict[str, dict[str, Any]] = {
    "filter": {"kept": 2077},
    "mask": {"rejected": {"empty": 1, "too small": 2}},
    "evaluate_backdrop": {"scene_accuracy": 0.7},
    "evaluate": {"challenger": {"core_max_abs_diff_worst": 0.0}},
}


def write(stage: str, kind: type[Artifact], path: Path) -> None:
    """What the stage could have written."""
    if issubclass(kind, Metrics):
        path.write_text(json.dumps(FIGURES.get(stage, {"a": {"b": 0.25}})))
    elif issubclass(kind, Sheet):
        path.write_bytes(encode_png(Image.new("RGB", (4, 4), "red")))
    elif issubclass(kind, Losses):
        path.write_text("step,loss,encoder\n0,1.5,first\n10,0.5,first\n0,2,second\n")
    elif stage == "align":
        path.write_text("step,reward,gold\n0,,0.5\n8,0.25,0.75\n")
    elif stage == "filter":
        path.write_text("filter,pins\nall pins,2500\nquality,2263\n")
    else:
        path.write_text(
            "strength,scene_follows,style_agreement,leakage,diversity,prompt_scene,text_agreement\n0,1,1,1,1,1,\n"
        )


def index(folder: Path, outcome: str) -> tuple[str, dict[str, float]]:
    """The page and its headline."""
    exhibits = []
    for argument, (writer, out) in REPORT.collected.items():
        path = folder / argument
        if writer.outputs[out].suffix in (".json", ".png", ".csv"):
            write(writer.name, writer.outputs[out], path)
        exhibits.append(Exhibit(writer.name, writer.description, out, writer.outputs[out], path))
    (folder / "verdict.json").write_text(json.dumps({"outcome": outcome, "reasons": ["nobody has rated"]}))
    REPORT(
        collected=Collected(tuple(exhibits)),
        verdict=Input(folder / "verdict.json"),
        index=Output(folder / "index.html"),
        headline=Output(folder / "metrics.json"),
    )
    return (folder / "index.html").read_text(), json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize(("outcome", "mood"), [("pass", "good"), ("pending", "warn"), ("fail", "bad")])
def test_verdict_and_headline_come_first(tmp_path: Path, outcome: str, mood: str) -> None:
    page, headline = index(tmp_path, outcome)
    top = page[page.index("<main>") : page.index("<section")]
    assert f'class="verdict {mood}">The gates say: {outcome}<' in top
    assert "nobody has rated" in top
    for figure in ("2,077 pins", "3 pins", "0.7 (goal: at least 0.75, missed)", "0 of 255 (limit: at most 0)"):
        assert f"<dd>{figure}</dd>" in top
    assert headline == {"pins_kept": 2077, "mask_rejects": 3, "scene_accuracy": 0.7, "core_difference": 0.0}


def test_a_skipped_stage_says_why_and_shows_nothing_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FIGURES, "train_backdrop", {"skipped": "train_backdrop.train is null, no LoRA is made"})
    page, headline = index(tmp_path, "pending")
    section = page[page.index("<h2>train_backdrop</h2>") :].partition("</section>")[0]
    assert "Skipped: train_backdrop.train is null, no LoRA is made." in section
    assert "data:image/png" not in section
    assert "<svg" not in section
    assert "backdrop_loss" not in headline


def test_notes_stand_above_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FIGURES, "train_clip", {"pins": 3, "notes": ["no pin has an <alt> text", "none is held out"]})
    section = index(tmp_path, "pending")[0].partition("<h2>train_clip</h2>")[2].partition("</section>")[0]
    assert "Note: no pin has an &lt;alt&gt; text." in section
    assert section.index("Note: none is held out.") < section.index("1 metrics")


def test_every_stage_shows_all_it_left(tmp_path: Path) -> None:
    page, _ = index(tmp_path, "pending")
    sections = dict(re.findall(r'<section id="[^"]+"><h2>(\w+)</h2>(.*?)</section>', page, re.DOTALL))
    assert list(sections) == list(dict.fromkeys(writer.name for writer, _ in REPORT.collected.values()))
    assert page.count("data:image/png") == sum(issubclass(kind, Sheet) for kind in REPORT.inputs.values())
    assert "The sheet shows held-out pins above their reconstructions." in sections["train_vae"]
    assert re.search(r"first</li>.*second</li>", sections["train_clip"])
    assert "quality" in sections["filter"]
    assert 'href="evaluate/drift.html"' in sections["evaluate"]
    assert 'href="validate/docs/index.html"' in sections["validate"]
    assert not re.search(r'src="(?!data:)|(href|src)="(https?:)?//', page)
