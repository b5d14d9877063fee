"""A tiny text-image encoder trained as `train_clip` does; `-m tests.canvas.clip.contrastive FOLDER` under torchrun
does so in many processes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import open_clip
import torch

from canvas.clip.model import build_clip
from canvas.clip.training import contrastive_objective
from canvas.train.data import TensorBatches
from canvas.train.loop import fit
from tests.canvas import tiny
from tests.canvas.train.subject import SPEC

ROWS, TEXTS = 24, 10  # so that other ranks hold the same texts
TINY = replace(tiny.OTHER_CLIP, embed_dim=8, vision_width=16, vision_head_width=8, context_length=6)


def trained(parallel: str, folder: Path) -> tuple[open_clip.CLIP, list[float]]:
    """The encoder, and the loss and the gradient's norm (AdamW does not feel its scale) of every step."""
    torch.manual_seed(0)
    clip = build_clip(TINY)
    tokens = torch.randint(1, 1000, (TEXTS, TINY.context_length))
    columns = {
        "pin_id": [f"pin{row}" for row in range(ROWS)],
        "pixels": torch.randn(ROWS, 3, 16, 16),
        "tokens": tokens[torch.randint(0, TEXTS, (ROWS,))],
    }
    spec = replace(SPEC, steps=6, parallel=parallel, learning_rate=1e-3)
    figures: list[float] = []
    fit(
        clip,
        contrastive_objective,
        TensorBatches(columns, spec.batch_size, spec.seed),
        spec,
        checkpoints=folder / "checkpoints",
        log=lambda values, step: figures.extend((values["loss"], values["grad_norm"])),
    )
    return clip, figures


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    clip, figures = trained("ddp", folder)
    if torch.distributed.get_rank() == 0:
        torch.save(clip.state_dict(), folder / "clip.pt")
        (folder / "figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
