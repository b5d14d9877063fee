"""The denoising loss, for text-to-image and for inpainting, on precomputed latents and text states.

Columns of a batch (B samples; K captions and M masks of each, one of which is drawn a step; raw latents are as the
autoencoder gives them):

    moments       (B, 2C, h, w)     mean and log-variance of the raw latents
    text_states   (B, K, L, D)      hidden states of the text towers
    text_pooled   (B, K, P)         pooled text
    sizes         (B, 6)            canvas.pins.frames.build_size_ids
    masked        (B, M, C, h, w)   raw latents (means) of the masked picture; inpainting only
    holes         (B, M, 1, h, w)   1 = paint; inpainting only
    image         (B, E)            embedding of the picture itself; image prompts only
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import nn

from canvas.denoiser.process import build_process
from canvas.denoiser.spec import DiffusionSpec, ImageDropout
from canvas.denoiser.unet import build_inpaint_input
from canvas.vae.latents import LatentScale

if TYPE_CHECKING:
    from canvas.train.data import Batch
    from canvas.train.draws import Draws

TEXT_TO_IMAGE_COLUMNS = ("moments", "text_states", "text_pooled", "sizes")
INPAINT_COLUMNS = (*TEXT_TO_IMAGE_COLUMNS, "masked", "holes")

MaskKind = Literal["none", "random", "product"]
"""Which masks a denoiser is trained with; none: text-to-image."""


def map_columns(masks: MaskKind) -> dict[str, str]:
    """Map the objective's columns to the shards'."""
    if masks == "none":
        return {name: name for name in TEXT_TO_IMAGE_COLUMNS}
    stored = {"masked": f"masked_{masks}", "holes": f"holes_{masks}"}
    return {name: stored.get(name, name) for name in INPAINT_COLUMNS}


class DenoisingObjective:
    """Weighted squared error of the denoiser's prediction; `inpaint` tells which of the two denoisers it is.

    `captions`: of the K of a sample, the first ones, of which one is drawn a step. `image_dropout`: of a denoiser with
    image prompts (canvas.denoiser.image_prompt), which sees the picture that it is to paint; None: it has none.
    """

    def __init__(
        self,
        spec: DiffusionSpec,
        scale: LatentScale,
        *,
        captions: int,
        caption_dropout: float,
        inpaint: bool,
        image_dropout: ImageDropout | None = None,
    ) -> None:
        if not 0 <= caption_dropout < 1:
            raise ValueError(f"caption_dropout is {caption_dropout}: it must be from 0 to below 1")
        if image_dropout is not None and caption_dropout + image_dropout.image + image_dropout.both >= 1:
            raise ValueError(
                f"caption_dropout {caption_dropout} and image_dropout {image_dropout} leave nothing to learn from: "
                "they must be below 1 together"
            )
        self.process = build_process(spec)
        self.scale = scale
        self.captions = captions
        self.caption_dropout = caption_dropout
        self.inpaint = inpaint
        self.image_dropout = image_dropout

    def __call__(
        self, denoiser: nn.Module, batch: Batch, draws: Draws
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        columns = self._columns(batch)
        posterior = DiagonalGaussianDistribution(columns["moments"].float())
        raw = posterior.mean + posterior.std * draws.normal(*posterior.mean.shape)
        clean = self.scale.normalize(raw)
        noise = draws.normal(*clean.shape)
        times = self.process.times(draws)
        sample = self.process.noisy(clean, noise, times)
        caption = draws.integers(min(self.captions, columns["text_states"].shape[1]), len(draws))
        added: dict[str, Any] = {"time_ids": columns["sizes"].float()}
        if self.image_dropout is None:
            keep = draw_kept_captions(draws, self.caption_dropout)
        else:
            drops = self.image_dropout
            keep, keep_image = draw_kept_prompts(draws, self.caption_dropout, drops.image, drops.both)
            added["image_embeds"] = [drop_embeddings(columns["image"].float(), keep_image)[:, None]]
        if self.inpaint:
            choice = draws.integers(columns["holes"].shape[1], len(draws))
            masked = self.scale.normalize(select_choice(columns["masked"], choice).float())
            sample = build_inpaint_input(sample, select_choice(columns["holes"], choice).float(), masked)
        prediction = denoiser(
            sample,
            times,
            encoder_hidden_states=drop_embeddings(select_choice(columns["text_states"], caption).float(), keep),
            added_cond_kwargs=added
            | {"text_embeds": drop_embeddings(select_choice(columns["text_pooled"], caption).float(), keep)},
            return_dict=False,
        )[0]
        target = self.process.target(clean, noise, times)
        error = (prediction.float() - target).square().flatten(1).mean(dim=1)
        return (self.process.weights(times) * error).mean(), {"mse": error.mean()}

    def _columns(self, batch: Batch) -> dict[str, torch.Tensor]:
        wanted = INPAINT_COLUMNS if self.inpaint else TEXT_TO_IMAGE_COLUMNS
        if self.image_dropout is not None:
            wanted = (*wanted, "image")
        columns = {name: column for name in wanted if isinstance(column := batch.get(name), torch.Tensor)}
        assert len(columns) == len(wanted), f"a batch needs {wanted}, not {sorted(batch)}"
        return columns


def select_choice(column: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
    """column[b, choice[b]] of (B, K, ...)."""
    return column[torch.arange(len(column), device=column.device), choice.to(column.device)]


def draw_kept_captions(draws: Draws, dropout: float) -> torch.Tensor:
    """Bool (B,): False where the caption is dropped, so that the denoiser learns guidance's unconditional side."""
    return draws.uniform(len(draws)) >= dropout


def draw_kept_prompts(draws: Draws, caption: float, image: float, both: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Bool (B,) of captions and of pictures: False where dropped. Shares of samples without their caption alone, their
    picture alone, and both (Ye et al. 2023, section 4.1: 0.05 each)."""
    draw = draws.uniform(len(draws))
    without_caption, without_image = draw < caption, (draw >= caption) & (draw < caption + image)
    without_both = (draw >= caption + image) & (draw < caption + image + both)
    return ~(without_caption | without_both), ~(without_image | without_both)


def drop_embeddings(embedding: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Embeddings (B, ...) with zeros where `keep` is False.

    Zeros are SDXL's empty negative prompt (`force_zeros_for_empty_prompt`), so stock pipelines guide against what was
    trained.
    """
    return embedding * keep.to(embedding).view(-1, *[1] * (embedding.ndim - 1))
