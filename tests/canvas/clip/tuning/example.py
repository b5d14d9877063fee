"""A tiny text tower tuned as `train_text` does; `-m tests.canvas.clip.tuning.example FOLDER` under torchrun does so in
many processes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from canvas.clip.model import build_clip
from canvas.clip.tuning.neighbours import PinBoardGraph
from canvas.clip.tuning.spec import NeighbourSpec, TrainTextParams
from canvas.clip.tuning.training import TextBatches, TextObjective, TextTuner
from canvas.pins.frames import CropSpec
from canvas.train.loop import fit
from tests.canvas.clip.contrastive import TINY
from tests.canvas.train.subject import SPEC

PINS = 24
BOARDS = 6
PARAMS = TrainTextParams(
    init_from=None,
    towers=("second",),
    sources=("generated",),
    scored_source="alt",
    crops=CropSpec(zoom=1.2, mirror=False),
    views=2,
    halvings=2,
    mix_weight=0.5,
    score_batch=8,
    neighbours=NeighbourSpec(weight=0.5, hops=2, max_pins=10, saves=None),
    train=None,
)


def build_batches(batch_size: int, params: TrainTextParams = PARAMS) -> TextBatches:
    """Two texts of every pin, whose first token names its board; images that are near those of the same board."""
    draw = torch.Generator().manual_seed(0)
    ids = [f"pin{row}" for row in range(PINS)]
    boards = [row % BOARDS for row in range(PINS)]
    words = torch.randint(100, 1000, (PINS, 2, TINY.context_length), generator=draw)
    words[:, :, 0] = torch.tensor(boards)[:, None] + 1
    centres = torch.randn(BOARDS, TINY.embed_dim, generator=draw)
    images = centres[boards][:, None] + 0.3 * torch.randn(PINS, 2, TINY.embed_dim, generator=draw)
    graph = PinBoardGraph(ids, [(pin, str(board)) for pin, board in zip(ids, boards, strict=True)], max_pins=10)
    near = graph if params.neighbours else None
    return TextBatches(ids, list(words), F.normalize(images, dim=-1), near, hops=2, batch_size=batch_size, seed=0)


def tune(
    parallel: str, folder: Path, params: TrainTextParams = PARAMS, **changes: Any
) -> tuple[TextTuner, list[float]]:
    """The tuner, and the loss and the gradient's norm of every step."""
    torch.manual_seed(0)
    spec = replace(SPEC, steps=6, parallel=parallel, learning_rate=1e-3) if not changes else replace(SPEC, **changes)
    tuner = TextTuner(build_clip(TINY), TINY, params, spec.batch_size)
    objective = TextObjective(params.compute_widths(TINY.embed_dim), params.mix_weight, 0.5)
    figures: list[float] = []
    fit(
        tuner,
        objective,
        build_batches(spec.batch_size, params),
        spec,
        checkpoints=folder / "checkpoints",
        log=lambda values, step: figures.extend((values["loss"], values["grad_norm"])),
    )
    return tuner, figures


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    _, figures = tune("ddp", folder)
    if torch.distributed.get_rank() == 0:
        (folder / "figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
