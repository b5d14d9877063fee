"""The one dial of a run: how long its trainings last."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lifecycle.declare.stage import Stage
from pipelines.project import load_checked_sections

LINE = re.compile(r"(?m)^(training:[^\n]*\n(?:[ #][^\n]*\n)*?  effort: *)([^\s#]+)")


def set_effort(root: Path, stages: Sequence[Stage[Any]], effort: float) -> str:
    """Set `training.effort` in params.yaml, comments kept, and say in a sentence what changed.

    Raises:
        ValueError: No training can be as long, or params.yaml has no such line; the file is as it was.
    """
    file = root / "params.yaml"
    before = file.read_text(encoding="utf-8")
    if (line := LINE.search(before)) is None:
        raise ValueError(f"{file} has no line `  effort: 1.0` in section training: add it")
    file.write_text(LINE.sub(rf"\g<1>{effort}", before), encoding="utf-8")
    try:
        load_checked_sections(root, "demo", stages)
    except ValueError:
        file.write_text(before, encoding="utf-8")
        raise
    return f"params.yaml: training.effort is {effort:g} (it was {line[2]}), so trainings take {effort:g} x their steps"
