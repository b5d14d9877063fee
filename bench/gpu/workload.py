"""What is trained: the denoiser of a profile at its size, on synthetic samples that are made on the spot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from canvas.denoiser.dit.spec import DitSpec
from canvas.denoiser.family import Denoiser
from canvas.denoiser.loading import build_denoiser
from canvas.denoiser.objective import DenoisingObjective
from canvas.denoiser.spec import DenoiserSpec, DiffusionSpec
from canvas.denoiser.unet.spec import UNetSpec
from canvas.train.data import TensorBatches
from canvas.train.spec import TrainSpec, build_plain_spec
from canvas.vae.model import LatentScale
from lifecycle.declare.profiles import merge_sections
from pipelines.plan.activations import run_denoiser

if TYPE_CHECKING:  # it reads tables
    from canvas.denoiser.batch import DenoiserBatch

ROWS = 1024
"""Samples in memory, read again and again."""

TOKENS = 32

SIZES: dict[str, Any] = {"unet": UNetSpec, "dit": DitSpec}
"""Kind of denoiser -> dataclass of its sizes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """A denoiser's training: sizes, and the numbers of its run."""

    denoiser: DenoiserSpec
    diffusion: DiffusionSpec
    side: int  # latent cells
    channels: int  # of the latents
    text_width: int
    pooled_width: int
    batch_size: int
    learning_rate: float

    @classmethod
    def read(cls, *profiles: Path, demo: Path = Path("params.yaml")) -> Workload:
        """Return the base training of the demo with the overlays of `profiles`, of which a later one wins. Files are
        YAML of the safe kind: no params reader is needed."""
        sections: dict[str, Any] = {}
        for file in (demo, *profiles):
            sections = merge_sections(sections, yaml.safe_load(file.read_text(encoding="utf-8")))
        vae, text, train = sections["vae"], sections["text"], sections["train_base"]["train"]
        factor = (vae["patch"] or 1) * 2 ** (len(vae["channels"]) - 1)
        kind = sections["denoiser"]["kind"]
        sizes: dict[str, Any] = dict.fromkeys(SIZES)
        sizes[kind] = SIZES[kind](
            **{
                key: tuple(value) if isinstance(value, list) else value
                for key, value in sections["denoiser"][kind].items()
            }
        )
        side = sections["frames"]["side"] // factor
        return cls(
            denoiser=DenoiserSpec(kind=kind, init_from=None, **sizes),
            diffusion=DiffusionSpec(**sections["diffusion"]).resolve_shift(side**2),
            side=side,
            channels=vae["latent_channels"],
            text_width=text["first"]["text_width"] + text["second"]["text_width"],
            pooled_width=text["second"]["embed_dim"],
            batch_size=train["batch_size"],
            learning_rate=float(train["learning_rate"]),
        )

    def build_denoiser(self) -> Denoiser:
        """Return the denoiser with random weights."""
        torch.manual_seed(0)
        return build_denoiser(
            self.denoiser,
            latent_channels=self.channels,
            sample_size=self.side,
            text_width=self.text_width,
            pooled_width=self.pooled_width,
        )

    def build_samples(self, rows: int = ROWS) -> DenoiserBatch:
        """Return samples whose latents are a blob of a colour and at a place that their text tells, in float16."""
        draw = torch.Generator().manual_seed(0)
        kinds = torch.arange(rows) % 8
        grid = torch.linspace(-1, 1, self.side)
        angle = kinds * torch.pi / 4
        distance = (grid[None, :, None] - angle.sin()[:, None, None] / 2) ** 2
        distance = distance + (grid[None, None, :] - angle.cos()[:, None, None] / 2) ** 2
        colours = torch.randn(8, self.channels, generator=draw)[kinds]
        mean = (2 * torch.exp(-6 * distance)[:, None] - 0.5) * colours[:, :, None, None]
        words = torch.randn(8, TOKENS, self.text_width, generator=draw)[kinds][:, None]
        size = float(self.side * 8)
        return {
            "pin_id": [f"sample-{row}" for row in range(rows)],
            "moments": torch.cat([mean, torch.full_like(mean, -6.0)], dim=1).half(),
            "text_states": words.half(),
            "text_pooled": torch.randn(8, self.pooled_width, generator=draw)[kinds][:, None].half(),
            "sizes": torch.tensor([[size, size, 0.0, 0.0, size, size]]).repeat(rows, 1),
        }

    def build_batches(self) -> TensorBatches[DenoiserBatch]:
        return TensorBatches(self.build_samples(), self.batch_size, 0)

    def build_scale(self) -> LatentScale:
        return LatentScale(torch.zeros(self.channels), torch.ones(self.channels), 1.0)

    def build_objective(self) -> DenoisingObjective:
        return DenoisingObjective(self.diffusion, self.build_scale(), captions=1, caption_dropout=0.1, inpaint=False)

    def build_spec(self, steps: int, **changes: Any) -> TrainSpec:
        """Return a run of so many steps, without averages, as diffusers' script has none."""
        values: dict[str, Any] = {
            "warmup_steps": min(10, steps),
            "schedule": "constant",
            "precision": "bf16",
            "channels_last": True,
            "log_every": max(1, steps // 8),
        }
        return build_plain_spec(
            steps=steps, batch_size=self.batch_size, learning_rate=self.learning_rate, **values | changes
        )

    def count_forward_flops(self) -> int:
        """Return the operations of one image's forward pass, counted on the meta device."""
        with torch.device("meta"):
            denoiser = self.build_denoiser()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run_denoiser(denoiser, self.side)
        return int(counter.get_total_flops())
