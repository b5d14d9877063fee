"""The denoising loss, for text-to-image and for inpainting, on precomputed latents and text states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import nn

from canvas.denoiser.family import DenoiserCondition
from canvas.denoiser.feature_alignment.head import compute_gap, set_active
from canvas.denoiser.loading import get_family
from canvas.denoiser.process import build_process
from canvas.denoiser.spec import DiffusionSpec, ImageDropout
from canvas.train.draws import Draws
from canvas.vae.model import LatentScale

if TYPE_CHECKING:  # it reads tables
    from canvas.denoiser.batch import DenoiserBatch


@dataclass
class DenoisingObjective:
    """Weighted squared error of the denoiser's prediction."""

    diffusion: DiffusionSpec
    scale: LatentScale
    _: KW_ONLY
    captions: int  # of the K of a sample, the first ones, of which one is drawn a step
    caption_dropout: float  # share of samples without a caption: guidance's unconditional side
    inpaint: bool  # conditioned on a hole and masked latents, of whose M pairs one is drawn a step
    image_dropout: ImageDropout | None = None  # of a denoiser with image prompts, which sees the target image
    alignment_weight: float = 0.0  # of the gap to the batch's features, of a denoiser in `align_denoiser`
    aligned_steps: int = 0  # the first ones; later steps do not see the features

    def __post_init__(self) -> None:
        drops = self.image_dropout
        if drops is not None and self.caption_dropout + drops.image + drops.both >= 1:
            raise ValueError(
                f"caption_dropout {self.caption_dropout} and image_dropout {drops} leave nothing to learn from: "
                "they must be below 1 together"
            )
        self.process = build_process(self.diffusion)

    def __call__(
        self, denoiser: nn.Module, batch: DenoiserBatch, draws: Draws
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        family = get_family(denoiser)
        posterior = DiagonalGaussianDistribution(batch["moments"].float())
        clean = self.scale.normalize(posterior.mean + posterior.std * draws.normal(*posterior.mean.shape))
        noise = draws.normal(*clean.shape)
        timesteps = self.process.sample_timesteps(draws)
        sample = self.process.add_noise(clean, noise, timesteps)
        caption = draws.integers(min(self.captions, batch["text_states"].shape[1]), len(draws))
        keep_caption, keep_image = draw_kept_prompts(draws, self.caption_dropout, self.image_dropout)
        if self.inpaint:
            choice = draws.integers(batch["holes"].shape[1], len(draws))
            masked = self.scale.normalize(select_choice(batch["masked"], choice).float())
            sample = family.build_inpaint_input(sample, select_choice(batch["holes"], choice).float(), masked)
        condition = DenoiserCondition(
            states=drop_embeddings(select_choice(batch["text_states"], caption).float(), keep_caption),
            pooled=drop_embeddings(select_choice(batch["text_pooled"], caption).float(), keep_caption),
            sizes=batch["sizes"].float(),
            images=None
            if self.image_dropout is None
            else [drop_embeddings(batch["image"].float(), keep_image)[:, None]],
        )
        is_aligned = self.alignment_weight > 0 and denoiser.training
        align = is_aligned and draws.step < self.aligned_steps
        if is_aligned:
            set_active(denoiser, align)
        prediction = family.predict(denoiser, sample, timesteps, condition)
        target = self.process.compute_target(clean, noise, timesteps)
        error = (prediction.float() - target).square().flatten(1).mean(dim=1)
        loss = (self.process.compute_weights(timesteps) * error).mean()
        if not align:
            return loss, {"mse": error.mean()}
        gap = compute_gap(denoiser, batch["features"]).mean()
        return loss + self.alignment_weight * gap, {"mse": error.mean(), "alignment": gap}


def select_choice(column: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
    """Select column[b, choice[b]] of (B, K, ...)."""
    return column[torch.arange(len(column), device=column.device), choice.to(column.device)]


def draw_kept_prompts(
    draws: Draws, caption_dropout: float, image_dropout: ImageDropout | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return bool (B,) of captions and of images: False where dropped, so that the denoiser learns guidance's other
    sides (Ye et al. 2023, section 4.1: 0.05 each of caption alone, image alone, both)."""
    image, both = (image_dropout.image, image_dropout.both) if image_dropout is not None else (0.0, 0.0)
    draw = draws.uniform(len(draws))
    without_caption, without_image = (
        draw < caption_dropout,
        (draw >= caption_dropout) & (draw < caption_dropout + image),
    )
    without_both = (draw >= caption_dropout + image) & (draw < caption_dropout + image + both)
    return ~(without_caption | without_both), ~(without_image | without_both)


def drop_embeddings(embedding: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Return embeddings (B, ...) with zeros where `keep` is False: SDXL's empty negative prompt
    (`force_zeros_for_empty_prompt`), so stock pipelines guide against what was trained."""
    return embedding * keep.to(embedding).view(-1, *[1] * (embedding.ndim - 1))
