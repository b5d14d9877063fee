"""Tiny denoisers of both families trained as the stages do; `-m tests.canvas.denoiser.subject FOLDER` under torchrun
trains them sharded."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from canvas.denoiser.family import Denoiser
from canvas.denoiser.loading import add_inpaint_channels, get_family, save_denoiser
from canvas.denoiser.lora import add_lora
from canvas.denoiser.objective import DenoisingObjective
from canvas.train.data import TensorBatches
from canvas.train.ema import load_best
from canvas.train.loop import fit
from canvas.vae.model import LatentScale
from tests.canvas import tiny
from tests.canvas.denoiser.test_process import FLOW
from tests.canvas.train.subject import SPEC

ROWS = 24
LENGTHS = (0.05, 0.1)
LORA = {"inpaint": False, "backdrop": True, "transformer": False}
"""Trainings, and whether they train a LoRA on all layers of a frozen base."""
CELL = 8


def build(stage: str) -> Denoiser:
    """The denoiser that a training starts from."""
    torch.manual_seed(0)
    return add_inpaint_channels(tiny.transformer() if stage == "transformer" else tiny.denoiser(), CELL)


def columns(hole_channels: int) -> dict[str, torch.Tensor | list[str]]:
    draw = torch.Generator().manual_seed(0)
    return {
        "pin_id": [f"pin{row}" for row in range(ROWS)],
        "moments": torch.randn(ROWS, 8, 8, 8, generator=draw),
        "text_states": torch.randn(ROWS, 3, 7, tiny.TEXT_WIDTH, generator=draw),
        "text_pooled": torch.randn(ROWS, 3, tiny.POOLED_WIDTH, generator=draw),
        "sizes": torch.tensor([[64, 64, 0, 0, 64, 64]]).repeat(ROWS, 1),
        "masked": torch.randn(ROWS, 2, 4, 8, 8, generator=draw),
        "holes": torch.randint(0, 2, (ROWS, 2, hole_channels, 8, 8), generator=draw, dtype=torch.uint8),
    }


def trained(stage: str, parallel: str, folder: Path) -> tuple[Denoiser, list[float]]:
    """The denoiser with its chosen average, and the losses."""
    model = build(stage)
    if LORA[stage]:
        model = add_lora(model, rank=2, alpha=2)
    spec = replace(SPEC, steps=6, parallel=parallel, ema=LENGTHS, learning_rate=1e-3)
    scale = LatentScale(torch.zeros(4), torch.ones(4), 1.0)
    objective = DenoisingObjective(FLOW, scale, captions=3, caption_dropout=0.2, inpaint=True)
    fitted = fit(
        model,
        objective,
        TensorBatches(columns(get_family(model).count_hole_channels(CELL)), spec.batch_size, spec.seed),
        spec,
        checkpoints=folder / stage / "checkpoints",
        log=lambda *_: None,
    )
    assert fitted.snapshots is not None
    load_best(model, fitted.snapshots, LENGTHS, lambda model: 0.0)
    return model, [loss for _, loss in fitted.losses]


def main(folder: Path) -> None:
    from canvas.denoiser.lora import save_lora

    torch.set_num_threads(1)
    for stage in LORA:
        model, losses = trained(stage, "fsdp", folder)
        if torch.distributed.get_rank() == 0:
            if LORA[stage]:
                save_lora(model, folder / stage / "lora")
            else:
                save_denoiser(model, folder / stage)
            (folder / stage / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
