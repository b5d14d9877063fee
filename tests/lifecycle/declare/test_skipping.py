"""What a skipped stage leaves, and who reads it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from lifecycle.declare.skipping import is_made, is_skipped, read_skip_reason, write_skipped
from lifecycle.declare.stage import Model, Output, Plot, stage
from lifecycle.record.recording import read_metrics, read_notes
from lifecycle.run.ranks import JOB, RANKS, count_ranks


class Weights(Model, path="models/weights"):
    """What is trained."""


class Curve(Plot, path="reports/curve.csv"):
    """Two columns by strength."""

    x = "strength"
    y = ("agreement", "leakage")


@dataclass(frozen=True, kw_only=True)
class Params:
    train: str | None


@stage(machine="gpus", skips=True)
def skippable(skippable: Params, model: Output[Weights]) -> None:
    """Train weights."""


@stage(machine="gpus")
def scored(scored: Params, model: Output[Weights]) -> None:
    """Train weights, or score those that there are."""


def test_reason_numbers_and_empty_outputs(tmp_path: Path) -> None:
    metrics, sheet = Output(tmp_path / "metrics.json"), Output(tmp_path / "sheet.png")
    losses, curve = Output(tmp_path / "losses.csv"), Output(tmp_path / "curve.csv")
    model = Output(tmp_path / "weights")
    write_skipped("train is null", metrics, losses, sheet, model, figures={"linked_files": 2})
    assert json.loads(metrics.path.read_text()) == {"skipped": "train is null", "linked_files": 2}
    assert read_metrics(metrics.path) == {"linked_files": 2.0}
    assert read_skip_reason(metrics.path) == read_skip_reason(model.path) == "train is null"
    assert not is_made(model.path)
    assert losses.path.read_text() == "step,loss\n"
    with Image.open(sheet.path) as image:
        assert image.size == (1, 1)
    write_skipped("no adapter", metrics, curve, sheet, plot=Curve)
    assert curve.path.read_text() == "strength,agreement,leakage\n"


def test_what_was_made_has_no_reason(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    assert is_made(tmp_path / "weights")
    assert read_skip_reason(tmp_path / "weights") is None
    (tmp_path / "metrics.json").write_text('{"skipped": 3}')
    assert read_skip_reason(tmp_path / "metrics.json") is None
    assert read_metrics(tmp_path / "metrics.json") == {"skipped": 3.0}


@pytest.mark.parametrize(("notes", "sentences"), [("[]", []), ('["no board", "no truth"]', ["no board", "no truth"])])
def test_notes_are_no_numbers(tmp_path: Path, notes: str, sentences: list[str]) -> None:
    (tmp_path / "metrics.json").write_text(f'{{"loss": 1, "notes": {notes}}}')
    assert read_metrics(tmp_path / "metrics.json") == {"loss": 1.0}
    assert read_notes(tmp_path / "metrics.json") == sentences


def test_what_is_no_list_of_sentences_are_no_notes(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"notes": [1]}')
    with pytest.raises(ValueError, match=r"notes is \[1\]"):
        read_metrics(tmp_path / "metrics.json")
    (tmp_path / "metrics.json").write_text('{"notes": 3}')
    assert read_metrics(tmp_path / "metrics.json") == {"notes": 3.0}
    assert read_notes(tmp_path / "metrics.json") == []


def test_a_text_elsewhere_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"skipped": "train is null", "loss": {"skipped": "why"}}')
    with pytest.raises(ValueError, match=r"loss\.skipped is 'why'"):
        read_metrics(tmp_path / "metrics.json")


def test_a_stage_without_training_cannot_be_skipped() -> None:
    def untrained(skippable: Params, model: Output[Weights]) -> None:
        """Weigh."""

    with pytest.raises(TypeError, match="it has no section 'untrained' with a key `train`"):
        stage(skips=True)(untrained)


def test_params_skip_what_can_be_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RANKS, "8")
    monkeypatch.delenv(JOB, raising=False)
    for declared, train, skips in ((skippable, None, True), (skippable, "long", False), (scored, None, False)):
        settings = {declared.name: {"train": train}, "training": {"parallel": "fsdp"}}
        assert is_skipped(declared, settings) == skips
        assert count_ranks(declared, settings) == (1 if skips else 8)
