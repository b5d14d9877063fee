"""Prompts that the policy samples images after, and the products that the images must keep: rows of the shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from canvas.decoder.training import ConditionedPin
from canvas.denoiser.batch import MaskKind
from canvas.denoiser.sampling import Condition
from canvas.masks.composite import composite_product, erode_mask
from canvas.pins.images import bytes_to_tensor, tensor_to_bytes
from canvas.reward.model import ProductImages
from canvas.shards.rows import ShardRow, ShardRows
from canvas.vae.model import LatentScale, Vae, decode_latents

EROSION = 1
"""Pixels between a product's edge and the core that is pasted; the decoder that keeps products comes later."""


@dataclass(frozen=True, slots=True)
class PromptGroup:
    """Prompts of one frame, each as often as images are sampled after it. N: images."""

    pin_ids: list[str]
    prompts: list[str]
    condition: Condition  # of N
    products: ProductImages | None  # of N; None: text-to-image
    alphas: torch.Tensor | None  # (N, 1, H, W) of the products, 0..1
    latent_shape: tuple[int, int, int]  # C, h, w

    def select(self, rows: slice) -> PromptGroup:
        """Return some of the N."""
        condition, products = self.condition, self.products
        return PromptGroup(
            self.pin_ids[rows],
            self.prompts[rows],
            Condition(
                states=condition.states[rows],
                pooled=condition.pooled[rows],
                sizes=condition.sizes[rows],
                hole=None if condition.hole is None else condition.hole[rows],
                masked_latents=None if condition.masked_latents is None else condition.masked_latents[rows],
            ),
            None if products is None else ProductImages(products.pixels[rows], products.masks[rows]),
            None if self.alphas is None else self.alphas[rows],
            self.latent_shape,
        )


@dataclass(frozen=True, slots=True)
class PromptSource:
    """Where prompts come from: the first caption and product mask of rows of the shards."""

    shards: ShardRows
    scale: LatentScale
    rows: Sequence[ShardRow]
    captions: Mapping[str, str]  # by pin
    masks: MaskKind  # none: text-to-image
    pins: Mapping[int, ConditionedPin]  # products by row; none of text-to-image
    products: Mapping[str, str] = field(default_factory=dict)  # ids by pin, where they are known

    def read(self, rows: Sequence[int], images: int, device: torch.device) -> PromptGroup:
        """Read rows of one frame, on a device, each `images` times, one after the other."""
        masked_column, hole_column = f"masked_{self.masks}", f"holes_{self.masks}"
        names = [
            "moments",
            "text_states",
            "text_pooled",
            "sizes",
            *([] if self.masks == "none" else [masked_column, hole_column]),
        ]
        columns = self.shards.read_columns(rows, names)

        def repeat(values: torch.Tensor) -> torch.Tensor:
            return values.float().to(device).repeat_interleave(images, dim=0)

        hole = masked = products = alphas = None
        if self.masks != "none":
            hole = repeat(columns[hole_column][:, 0])
            masked = self.scale.normalize(repeat(columns[masked_column][:, 0]))
        if self.pins:
            samples = [self.pins[row].load_sample() for row in rows]
            pixels = torch.stack([sample.pixels for sample in samples]).to(device).repeat_interleave(images, dim=0)
            products = ProductImages(pixels, repeat(torch.stack([sample.mask for sample in samples])))
            alphas = repeat(torch.stack([sample.alpha for sample in samples]))
        ids = [self.shards.index[row].pin_id for row in rows for _ in range(images)]
        channels, height, width = columns["moments"].shape[1:]
        return PromptGroup(
            ids,
            [self.captions[pin_id] for pin_id in ids],
            Condition(
                states=repeat(columns["text_states"][:, 0]),
                pooled=repeat(columns["text_pooled"][:, 0]),
                sizes=repeat(columns["sizes"]),
                hole=hole,
                masked_latents=masked,
            ),
            products,
            alphas,
            (channels // 2, height, width),
        )


@torch.no_grad()
def decode_images(vae: Vae, latents: torch.Tensor, group: PromptGroup) -> torch.Tensor:
    """Decode raw latents (N, C, h, w) with the plain decoder and lay the products over them: uint8 (N, 3, H, W)."""
    decoded = decode_latents(vae, latents).float()
    if group.products is not None:
        assert group.alphas is not None
        masks, pixels = group.products.masks, bytes_to_tensor(group.products.pixels)
        decoded = composite_product(decoded, pixels, erode_mask(masks, EROSION), masks, group.alphas)
    return tensor_to_bytes(decoded)
