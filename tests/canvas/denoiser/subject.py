"""A tiny SDXL-like denoiser trained as the stages train it; `-m tests.canvas.denoiser.subject FOLDER` under torchrun
does so sharded."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from canvas.denoiser.lora import add_lora
from canvas.denoiser.objective import DenoisingObjective
from canvas.denoiser.unet.model import add_inpaint_channels
from canvas.train.data import TensorBatches
from canvas.train.ema import load_best
from canvas.train.loop import fit
from canvas.vae.model import LatentScale
from tests.canvas import tiny
from tests.canvas.denoiser.test_process import FLOW
from tests.canvas.train.subject import SPEC

ROWS = 24
LENGTHS = (0.05, 0.1)
LORA = {"inpaint": False, "backdrop": True}
"""Stages, and whether they train a LoRA on all layers of a frozen base."""


def columns() -> dict[str, torch.Tensor | list[str]]:
    draw = torch.Generator().manual_seed(0)
    return {
        "pin_id": [f"pin{row}" for row in range(ROWS)],
        "moments": torch.randn(ROWS, 8, 8, 8, generator=draw),
        "text_states": torch.randn(ROWS, 3, 7, tiny.TEXT_WIDTH, generator=draw),
        "text_pooled": torch.randn(ROWS, 3, tiny.POOLED_WIDTH, generator=draw),
        "sizes": torch.tensor([[64, 64, 0, 0, 64, 64]]).repeat(ROWS, 1),
        "masked": torch.randn(ROWS, 2, 4, 8, 8, generator=draw),
        "holes": torch.randint(0, 2, (ROWS, 2, 1, 8, 8), generator=draw, dtype=torch.uint8),
    }


def trained(stage: str, parallel: str, folder: Path) -> tuple[UNet2DConditionModel, list[float]]:
    """The denoiser with its chosen average, and the losses."""
    torch.manual_seed(0)
    unet = add_inpaint_channels(tiny.denoiser())
    if LORA[stage]:
        unet = add_lora(unet, rank=2, alpha=2)
    spec = replace(SPEC, steps=6, parallel=parallel, ema=LENGTHS, learning_rate=1e-3)
    scale = LatentScale(torch.zeros(4), torch.ones(4), 1.0)
    objective = DenoisingObjective(FLOW, scale, captions=3, caption_dropout=0.2, inpaint=True)
    fitted = fit(
        unet,
        objective,
        TensorBatches(columns(), spec.batch_size, spec.seed),
        spec,
        checkpoints=folder / stage / "checkpoints",
        log=lambda *_: None,
    )
    assert fitted.snapshots is not None
    load_best(unet, fitted.snapshots, LENGTHS, lambda model: 0.0)
    return unet, [loss for _, loss in fitted.losses]


def main(folder: Path) -> None:
    from canvas.denoiser.lora import save_lora

    torch.set_num_threads(1)
    for stage in LORA:
        unet, losses = trained(stage, "fsdp", folder)
        if torch.distributed.get_rank() == 0:
            if LORA[stage]:
                save_lora(unet, folder / stage / "lora")
            else:
                unet.save_pretrained(folder / stage / "unet")
            (folder / stage / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
