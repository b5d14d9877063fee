"""Samples of a denoiser in training: held-out pins, beside the originals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import SchedulerMixin
from PIL import Image

from canvas.denoiser.batch import MaskKind, read_batch
from canvas.denoiser.family import Denoiser
from canvas.denoiser.sampling import Condition, LatentSampler
from canvas.denoiser.spec import SheetSpec
from canvas.pins.images import draw_contact_sheet, encode_png, tensor_to_bytes
from canvas.shards.rows import ShardRow, ShardRows, group_by_bucket, spread_evenly
from canvas.vae.model import Vae, get_latent_scale, get_scale_factor

PIXELS_PER_PASS = 1024 * 1024
"""Pixels that are decoded at once, or one image where it has more: training holds its own memory meanwhile."""


class SampleSheet:
    """A sheet of held-out pins: the original, what the denoiser sees of it (inpainting), and a sample.

    The same pins, captions and noise in every call. Raises ValueError if there are no `rows` to choose them from.
    """

    def __init__(
        self,
        vae: Vae,
        scheduler: SchedulerMixin,
        shards: ShardRows,
        spec: SheetSpec,
        *,
        masks: MaskKind,
        rows: Sequence[ShardRow],
    ) -> None:
        if not rows:
            raise ValueError("there is no such pin: without products that have a good mask there is nothing to draw")
        largest = max(group_by_bucket(rows).values(), key=len)
        self.batch = read_batch(shards, spread_evenly(largest, spec.pins), masks)
        self.vae = vae
        self.scheduler = scheduler
        self.spec = spec

    @torch.no_grad()
    def draw(self, denoiser: Denoiser) -> Image.Image:
        """Return the sheet with samples of `denoiser`, to whose device the autoencoder moves."""
        vae, scale, batch = self.vae.to(denoiser.device), get_latent_scale(self.vae), self.batch
        original = batch["moments"].float().chunk(2, dim=1)[0]
        masked = batch["masked"][:, 0].float() if "masked" in batch else None
        condition = Condition(
            states=batch["text_states"][:, 0].float(),
            pooled=batch["text_pooled"][:, 0].float(),
            sizes=batch["sizes"].float(),
            hole=batch["holes"][:, 0].float() if "holes" in batch else None,
            masked_latents=None if masked is None else scale.normalize(masked),
            image_embeddings=batch["image"][:, None].float() if "image" in batch else None,
        )
        sampler = LatentSampler(
            denoiser=denoiser,
            scheduler=self.scheduler,
            scale=scale,
            steps=self.spec.steps,
            guidance_scale=self.spec.guidance_scale,
        )
        noise = torch.randn(original.shape, generator=torch.Generator().manual_seed(0)).to(denoiser.device)
        images, labels = [], []
        for label, raw in (("original", original), ("known", masked), ("sample", sampler.sample(noise, condition))):
            if raw is None:
                continue
            pixels = raw.shape[-2] * raw.shape[-1] * get_scale_factor(vae) ** 2
            for part in torch.split(raw.to(vae.device, vae.dtype), max(1, PIXELS_PER_PASS // pixels)):
                decoded = tensor_to_bytes(vae.decode(part).sample)
                images += [Image.fromarray(image) for image in decoded.permute(0, 2, 3, 1).cpu().numpy()]
            labels += [label] * len(raw)
        return draw_contact_sheet(images, labels, columns=len(original), cell=128)

    def draw_png(self, denoiser: Denoiser) -> bytes:
        """Return the sheet as PNG."""
        return encode_png(self.draw(denoiser))
