"""Samples of a denoiser in training: held-out pins, beside the originals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from diffusers import SchedulerMixin, UNet2DConditionModel
from PIL import Image

from canvas.denoiser.objective import MaskKind, map_columns
from canvas.denoiser.sampling import Condition, LatentSampler
from canvas.denoiser.spec import SheetSpec
from canvas.pins.images import draw_contact_sheet, encode_png, tensor_to_bytes
from canvas.shards.rows import ShardRow, ShardRows, group_by_bucket
from canvas.vae.latents import get_latent_scale
from canvas.vae.model import Vae, get_scale_factor

PIXELS_PER_PASS = 1024 * 1024
"""Pixels that are decoded at once, or one image where it has more: training holds its own memory meanwhile."""


class SampleSheet:
    """A sheet of held-out pins: the original, what is known of it (inpainting), and a sample.

    The same pins, captions and noise in every call. Raises ValueError if no pin is held out.
    """

    def __init__(
        self,
        vae: Vae,
        scheduler: SchedulerMixin,
        shards: ShardRows,
        spec: SheetSpec,
        *,
        masks: MaskKind,
        selects: Callable[[ShardRow], bool],
    ) -> None:
        held_out = [row for row in shards.index if selects(row) and row.split != "train"]
        if not held_out:
            raise ValueError("no such pin is held out: without products that have a good mask there is nothing to draw")
        rows = max(group_by_bucket(held_out).values(), key=len)
        places = np.unique(np.linspace(0, len(rows) - 1, min(spec.pins, len(rows))).round().astype(int))
        batch = shards.read_batch([rows[place] for place in places], map_columns(masks))
        self.columns = {name: column.float() for name, column in batch.items() if isinstance(column, torch.Tensor)}
        self.is_inpainting = masks != "none"
        self.vae = vae
        self.scheduler = scheduler
        self.spec = spec

    @torch.no_grad()
    def draw(self, denoiser: UNet2DConditionModel) -> Image.Image:
        """Return the sheet with samples of `denoiser`, to whose device the autoencoder moves."""
        vae = self.vae.to(denoiser.device)
        latents = {"original": self.columns["moments"].chunk(2, dim=1)[0]}
        if self.is_inpainting:
            latents["known"] = self.columns["masked"][:, 0]
        latents["sample"] = self._sample(denoiser)
        images, labels = [], []
        for label, raw in latents.items():
            pixels = raw.shape[-2] * raw.shape[-1] * get_scale_factor(vae) ** 2
            for part in raw.to(vae.device, vae.dtype).split(max(1, PIXELS_PER_PASS // pixels)):
                decoded = tensor_to_bytes(vae.decode(part).sample)
                images += [Image.fromarray(image) for image in decoded.permute(0, 2, 3, 1).cpu().numpy()]
            labels += [label] * len(raw)
        return draw_contact_sheet(images, labels, columns=len(raw), cell=128)

    def draw_png(self, denoiser: UNet2DConditionModel) -> bytes:
        """Return the sheet as PNG."""
        return encode_png(self.draw(denoiser))

    def _sample(self, denoiser: UNet2DConditionModel) -> torch.Tensor:
        columns, scale = self.columns, get_latent_scale(self.vae)
        shape = columns["moments"].chunk(2, dim=1)[0].shape
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(denoiser.device)
        condition = Condition(
            states=columns["text_states"][:, 0],
            pooled=columns["text_pooled"][:, 0],
            sizes=columns["sizes"],
            hole=columns["holes"][:, 0] if self.is_inpainting else None,
            masked_latents=scale.normalize(columns["masked"][:, 0]) if self.is_inpainting else None,
            image_embeddings=columns["image"][:, None] if "image" in columns else None,
        )
        sampler = LatentSampler(
            unet=denoiser,
            scheduler=self.scheduler,
            scale=scale,
            steps=self.spec.steps,
            guidance_scale=self.spec.guidance_scale,
        )
        return sampler.sample(noise, condition)
