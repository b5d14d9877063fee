"""Stages of the generator as one rank of many: `-m tests.components.ranked_stages JOBS` under torchrun.

A job: `root`, `stage`, `changes` (of the stage's section in profile tiny). Each rank writes models and reports below
`root/rank-<number>`; they read the models in `root/inputs`, and share `root/artifacts` and `root/scratch`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from tests.components.generator_stages import run


def trained(**values: Any) -> dict[str, Any]:
    """Changes of a stage's section: shared values of training that differ."""
    return {"train": {"override": values}}


def main(jobs: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    for job in jobs:
        run(job["stage"], place_of(Path(job["root"]), int(os.environ["RANK"])), **job["changes"])


def place_of(root: Path, rank: int) -> Path:
    """Where `rank` writes, with what all ranks share."""
    place = root / f"rank-{rank}"
    if place.exists():
        return place  # of an earlier job
    (place / "models").mkdir(parents=True)
    (root / "scratch").mkdir(exist_ok=True)
    for name in ("artifacts", "scratch"):
        (place / name).symlink_to(root / name)
    for model in (root / "inputs").iterdir():
        (place / "models" / model.name).symlink_to(model)
    return place


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
