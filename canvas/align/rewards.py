"""The rewards of a round's images: of the reward model, the segmenter, and of a prompt's images as a distribution.

All of them score batches of images where they lie. N: images, prompt by prompt; E: an embedding's width; V: values of
an attribute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import open_clip
import torch
from torch.nn import functional as F

from canvas.align.advantages import compute_nearest_distances, compute_parity_credits
from canvas.align.prompts import PromptGroup, decode_images
from canvas.align.spec import GROUP_REWARDS, MODEL_REWARDS, AlignParams, RewardKind
from canvas.clip.model import load_clip
from canvas.features.perceptual import compute_image_embeddings
from canvas.masks.composite import dilate_mask
from canvas.pins.captions import parse_caption
from canvas.pins.images import bytes_to_tensor
from canvas.reward.model import ProductImages
from canvas.reward.preference import Reward, fetch_reward
from canvas.segmenter.model import Segmenter, load_segmenter
from canvas.vae.model import Vae

CONFIG_FILE = "config.json"
"""In the directory of every reward model."""

GROWTH_REACH = 1
"""Pixels round a product that count as its edge, not as growth."""

ATTRIBUTE_SHARPNESS = 100.0
"""Factor of cosines before the softmax over an attribute's values: CLIP's logit scale (Radford et al. 2021)."""


class ImageReward(Protocol):
    """Scores images under one or more kinds."""

    def score(
        self, images: torch.Tensor, products: ProductImages | None, prompts: Sequence[str], group: int
    ) -> Mapping[str, torch.Tensor]:
        """Return rewards (N,) by kind, higher is better.

        Args:
            images: uint8 (N, 3, H, W).
            products: What the images must keep, of N; None: nothing.
            prompts: What was asked for, of N.
            group: Images of each prompt, one after the other.
        """


@dataclass(frozen=True, slots=True)
class ModelReward:
    """What the reward model says: aesthetics, freedom from defects, overall, or that the prompt is followed."""

    model: Reward
    kinds: tuple[RewardKind, ...]
    batch_size: int

    def score(
        self, images: torch.Tensor, products: ProductImages | None, prompts: Sequence[str], group: int
    ) -> Mapping[str, torch.Tensor]:
        if products is None:
            size = images.shape[-2:]
            products = ProductImages(torch.zeros_like(images[:1]), torch.zeros(1, 1, *size, device=images.device))
        scores = self.model.score(images, products, prompts, batch_size=self.batch_size)
        by_kind = {"prompt": _select_agreement(scores, prompts), **scores}
        if missing := [kind for kind in self.kinds if kind not in by_kind]:
            raise ValueError(
                f"the reward model answers {', '.join(sorted(scores))}, align.rewards asks for {', '.join(missing)}: "
                "take what it answers"
            )
        return {kind: by_kind[kind].to(images.device) for kind in self.kinds}


def _select_agreement(scores: Mapping[str, torch.Tensor], prompts: Sequence[str]) -> torch.Tensor:
    """Return how well each image (N,) follows its prompt, whatever the others of its batch were asked for: "overall"
    where a prompt names no background, and of a reward model that has no answer of its own."""
    overall = scores["overall"]
    if "background" not in scores:
        return scores.get("agreement", overall)
    names_background = torch.tensor([bool(parse_caption(prompt)[1]) for prompt in prompts])
    return torch.where(names_background, scores["background"], overall)


@dataclass(frozen=True, slots=True)
class GrowthReward:
    """Minus the area, in parts of the product's, that the segmenter sees as product beyond its edge: soft, so that less
    growth is better before it is none."""

    segmenter: Segmenter
    batch_size: int

    @torch.no_grad()
    def score(
        self, images: torch.Tensor, products: ProductImages | None, prompts: Sequence[str], group: int
    ) -> Mapping[str, torch.Tensor]:
        assert products is not None, "without products none grows"
        size = (self.segmenter.size,) * 2
        masks = products.masks.float().expand(len(images), -1, -1, -1)
        outside = (~dilate_mask(masks, GROWTH_REACH)).float()
        growth = []
        for part, beyond, mask in zip(
            *(torch.split(x, self.batch_size) for x in (images, outside, masks)), strict=True
        ):
            pixels = F.interpolate(part.float(), size=size, mode="bilinear", antialias=True, align_corners=False)
            chances = self.segmenter(pixels.clamp(0, 255) / 255).sigmoid()
            chances = F.interpolate(chances, size=part.shape[-2:], mode="bilinear", align_corners=False)
            growth.append((chances * beyond).flatten(1).sum(dim=1) / mask.flatten(1).sum(dim=1).clamp(min=1))
        return {"growth": -torch.cat(growth)}


@dataclass(frozen=True, slots=True)
class DistributionReward:
    """How far an image is from the nearest one of its prompt, and what it adds to an attribute's parity there, by a
    text-image encoder that no loss uses."""

    clip: open_clip.CLIP
    kinds: tuple[RewardKind, ...]
    attribute: tuple[str, ...]
    batch_size: int

    @torch.no_grad()
    def score(
        self, images: torch.Tensor, products: ProductImages | None, prompts: Sequence[str], group: int
    ) -> Mapping[str, torch.Tensor]:
        parts = torch.split(images, self.batch_size)
        embeddings = torch.cat([compute_image_embeddings(self.clip, bytes_to_tensor(part)) for part in parts]).float()
        rewards = {}
        if "diversity" in self.kinds:
            rewards["diversity"] = compute_nearest_distances(embeddings, group)
        if "parity" in self.kinds:
            texts = self._embed_attribute(images.device)
            chances = (ATTRIBUTE_SHARPNESS * embeddings @ texts.T).softmax(dim=1)
            rewards["parity"] = compute_parity_credits(chances, group)
        return rewards

    def _embed_attribute(self, device: torch.device) -> torch.Tensor:
        """Return unit vectors (V, E)."""
        tokens = open_clip.SimpleTokenizer()(list(self.attribute), context_length=self.clip.context_length)
        embeddings: torch.Tensor = self.clip.encode_text(tokens.to(device), normalize=True)
        return embeddings.float()


@dataclass(frozen=True, slots=True)
class RewardSet:
    """All rewards of a run, of images that are still latents."""

    vae: Vae
    rewards: tuple[ImageReward, ...]
    kinds: tuple[RewardKind, ...]  # their order in params
    batch_size: int

    def score(self, latents: torch.Tensor, group: PromptGroup, images: int) -> Mapping[str, torch.Tensor]:
        """Decode raw latents (N, C, h, w) and score them, as `canvas.align.rollouts.LatentReward`."""
        return self.score_images(self.decode(latents, group), group, images)

    def decode(self, latents: torch.Tensor, group: PromptGroup) -> torch.Tensor:
        """Decode raw latents (N, C, h, w) with their products: uint8 (N, 3, H, W)."""
        self.vae.to(latents.device)
        starts = range(0, len(latents), self.batch_size)
        rows = [slice(first, first + self.batch_size) for first in starts]
        return torch.cat([decode_images(self.vae, latents[row], group.select(row)) for row in rows])

    def score_images(self, pixels: torch.Tensor, group: PromptGroup, images: int) -> Mapping[str, torch.Tensor]:
        """Score images, uint8 (N, 3, H, W)."""
        scores: dict[str, torch.Tensor] = {}
        for reward in self.rewards:
            scores |= reward.score(pixels, group.products, group.prompts, images)
        return {kind: scores[kind] for kind in self.kinds}


def load_rewards(
    params: AlignParams, vae: Vae, *, reward: Path, segmenter: Path, clip: Path, device: torch.device
) -> RewardSet:
    """Load the networks that the rewards of params need, onto a device.

    Raises:
        ValueError: A reward needs a model that no stage made.
    """
    kinds, batch_size = params.kinds, params.rollouts.batch_size
    rewards: list[ImageReward] = []
    if model_kinds := tuple(kind for kind in kinds if kind in MODEL_REWARDS):
        if not (reward / CONFIG_FILE).is_file():
            raise ValueError(
                f"align.rewards asks for {', '.join(model_kinds)}, but there is no reward model: give "
                "train_reward.train, or take other rewards"
            )
        rewards.append(ModelReward(fetch_reward(reward).to(device), model_kinds, batch_size))
    if "growth" in kinds:
        rewards.append(GrowthReward(load_segmenter(segmenter).to(device), batch_size))
    if group_kinds := tuple(kind for kind in kinds if kind in GROUP_REWARDS):
        encoder = load_clip(clip / params.encoder).eval().to(device)
        rewards.append(DistributionReward(encoder, group_kinds, params.attribute, batch_size))
    return RewardSet(vae.to(device), tuple(rewards), kinds, batch_size)
