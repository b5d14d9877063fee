"""Stages of the generator as one rank of many: `-m tests.components.ranked_stages JOBS` under torchrun.

A job: `root`, `stage`, `train` (values other than profile tiny's). Each rank writes below `root/rank-<number>`; they
read `root/artifacts` and the models in `root/inputs`, and share `root/scratch`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from lifecycle.params import load_sections
from tests.components.generator_stages import TINY, Log, run


def run_trained(stage: str, root: Path, train: dict[str, Any]) -> Log:
    """The stage with some of its training's values changed."""
    return run(stage, root, train=load_sections(TINY)[stage]["train"] | train)


def main(jobs: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    for job in jobs:
        place = place_of(Path(job["root"]), int(os.environ["RANK"]))
        run_trained(job["stage"], place, job["train"])


def place_of(root: Path, rank: int) -> Path:
    """Where `rank` writes, with what all ranks share."""
    place = root / f"rank-{rank}"
    (place / "models").mkdir(parents=True)
    (root / "scratch").mkdir(exist_ok=True)
    for name in ("artifacts", "scratch"):
        (place / name).symlink_to(root / name)
    for model in (root / "inputs").iterdir():
        (place / "models" / model.name).symlink_to(model)
    return place


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
