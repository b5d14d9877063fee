"""Stages that are skipped: who says so, and what they leave.

A skipped stage makes nothing and computes nothing. Its metrics hold the reason as the one text beside numbers; a model
that it did not make is a directory with that notice alone, so that both graphs find every output.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lifecycle.declare.stage import Losses, Metrics, Model, Output, Plot, Sheet, Stage

SKIPPED = "skipped"
"""Key of the reason, in metrics and notices."""

NOTICE_FILE = "skipped.json"


def is_skipped(stage: Stage[Any], sections: Mapping[str, Any]) -> bool:
    """Whether params skip the stage: it can be skipped, and `train` of its own section is null."""
    return stage.skips and sections[stage.name]["train"] is None


def write_skipped(
    reason: str,
    metrics: Output[Metrics],
    curve: Output[Plot],
    sheet: Output[Sheet] | None = None,
    model: Output[Model] | None = None,
    *,
    plot: type[Plot] = Losses,
    figures: Mapping[str, float] | None = None,
) -> None:
    """Write what a skipped stage leaves.

    Args:
        reason: What is null or missing, and what that means.
        curve: The stage's plot, which gets no rows.
        sheet: The stage's sheet, one white pixel; None: it has none.
        model: The model that is not made; None: the stage makes none, or wrote what passes through.
        plot: Kind of the curve.
        figures: Numbers beside the reason.
    """
    from PIL import Image

    metrics.write({SKIPPED: reason, **(figures or {})})
    curve.write(",".join([plot.x, *([plot.y] if isinstance(plot.y, str) else plot.y)]) + "\n")
    if sheet is not None:
        Image.new("L", (1, 1), "white").save(sheet.path, "PNG")  # reports leave it out
    if model is not None:
        write_notice(reason, model)


def write_notice(reason: str, model: Output[Model]) -> None:
    """Write into a model's directory why there is none, and nothing else."""
    model.path.mkdir()
    (model.path / NOTICE_FILE).write_text(json.dumps({SKIPPED: reason}, indent=1) + "\n", encoding="utf-8")


def is_made(model: Path) -> bool:
    """Whether the directory holds a model, and no notice that none was made."""
    return not (model / NOTICE_FILE).exists()


def read_skip_reason(path: Path) -> str | None:
    """Return why a stage made nothing, by its metrics or by the directory of a model; None: it did."""
    file = path / NOTICE_FILE if path.is_dir() else path
    if not file.is_file():
        return None
    reason = json.loads(file.read_text(encoding="utf-8")).get(SKIPPED)
    return reason if isinstance(reason, str) else None
