"""Pins as training samples of the denoiser: latents, text states, masked latents and holes, image embeddings.

Columns of a sample (C: latent channels; h, w: latent size; K captions; M random and N product masks):

    pin_id, split, bucket         str; bucket is the frame, "HxW" in pixels
    view                          its number; 0: the pin as it is
    kind                          "product": it has a mask that was not rejected; else "scene"
    promoted                      "1" or "0"
    engagement        (3,)        impressions, saves, clicks
    moments           (2C, h, w)  mean and log-variance of the raw latents
    text_states       (K, L, D)   hidden states of the text towers, or of T5
    text_pooled       (K, P)      pooled text
    sizes             (6,)        canvas.pins.frames.build_size_ids
    masked_random     (M, C, h, w)  raw latents (means) of the image without its holes
    holes_random      (M, 1, h, w)  1 = generate
    masked_product    (N, C, h, w)  likewise of product masks, drawn as a fallible segmenter would
    holes_product     (N, 1, h, w)  of a scene: all is hole, its masked latents are those of an empty image
    features          (F, h/n, w/n)  a frozen network's, one for n x n latent cells; only where encode.features is given
    clip_image        (E,)        image embeddings of both encoders, each normalised, side by side

A collage (encode.collages) is a view after the first of a scene, with products of other pins laid on it: its kind is
"product", its masks are those of all products, its caption names them before the scene's place, and it is not promoted.

A share of the views after the first of products (encode.photographs) has masks that keep more than the product: a
photograph with it, of which the rest of the image is an extension.

Floats are float16. What is random is a function of the seed, the pin and the view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import open_clip
import torch
from PIL import Image
from tqdm import tqdm

from canvas.clip.model import Tower, encode_prompts, get_overflow, load_clip
from canvas.clip.spec import TextSpec
from canvas.clip.tuning.towers import load_towers
from canvas.device import default_device
from canvas.features.maps import load_feature_maps
from canvas.features.perceptual import compute_image_embeddings
from canvas.masks.composite import compute_hole, compute_pixel_hole, mask_images
from canvas.masks.simulation import sample_mask, sample_photograph, simulate_errors
from canvas.pins import tables
from canvas.pins.captions import fit_caption
from canvas.pins.frames import FrameSpec, Size, View, compute_view, extract_view
from canvas.pins.image_batches import select_evenly
from canvas.pins.images import bytes_to_tensor, composite_on_white, decode_image
from canvas.pins.masks import decode_alpha
from canvas.shards.collages import Collage, Collages, EncodedCutout
from canvas.shards.files import Sample
from canvas.shards.rows import ShardRows
from canvas.shards.spec import EncodingSpec
from canvas.train.precision import autocast, choose_autocast_dtype
from canvas.vae.model import Vae, compute_posterior, get_scale_factor, load_vae

EncodedText = tuple[torch.Tensor, torch.Tensor]
"""Hidden states (L, D) and pooled (P,)."""

PIN_COLUMNS = ("pin_id", "image", "split", "promoted", "impressions", "saves", "clicks")


@dataclass(frozen=True, slots=True)
class Encoders:
    """What turns pixels and texts into numbers; in eval mode, on one device."""

    vae: Vae
    clips: tuple[open_clip.CLIP, open_clip.CLIP]
    towers: tuple[Tower, Tower]

    @classmethod
    def load(cls, clip: Path, tower_folder: Path, vae: Path, text: TextSpec) -> Encoders:
        """Load the autoencoder, both text-image encoders, and the text towers that stage train_text wrote into
        `tower_folder`, in eval mode on this process's device."""
        device = default_device()
        first, second = (load_clip(clip / name).eval().to(device) for name in ("first", "second"))
        towers = load_towers(tower_folder, text)
        return cls(load_vae(vae).eval().to(device), (first, second), (towers[0].to(device), towers[1].to(device)))


@dataclass(frozen=True, slots=True)
class FramedView:
    """One view of a pin in its frame."""

    row: Mapping[str, Any]  # of the pin, PIN_COLUMNS without the image
    number: int  # of the view
    view: View
    pixels: np.ndarray  # uint8 (H, W, 3)
    has_product: bool
    random_masks: np.ndarray  # bool (M, H, W), True = keep
    product_masks: np.ndarray  # bool (N, H, W)
    captions: Sequence[str]  # K of them


@dataclass
class PinSamples:
    """Training samples of views of pins, in their order, made when asked for."""

    pins: Path
    masks: Path
    views: Sequence[tuple[str, int]]  # (pin_id, number of the view)
    captions: Mapping[str, Sequence[str]]
    encoders: Encoders
    spec: EncodingSpec
    frames: FrameSpec
    silent: bool = False  # without a progress bar
    collages: Collages | None = None

    def __post_init__(self) -> None:
        self.pin_rows, self.mask_rows = tables.RowsById(self.pins), tables.RowsById(self.masks)
        self.device = self.encoders.vae.device
        features = self.spec.features
        self.feature_maps = None
        if features is not None:
            self.feature_maps = load_feature_maps(features.network, features.layer, self.encoders.clips, self.device)
        self.dtype = choose_autocast_dtype(self.device, self.spec.precision)
        self.bar = tqdm(total=len(self.views), desc="encode", unit="view", disable=self.silent)

    @torch.no_grad()
    def __call__(self, rows: range) -> Iterator[Sample]:
        self.bar.update(rows.start - self.bar.n)
        views = self.views[rows.start : rows.stop]
        by_frame: dict[Size, list[FramedView]] = {}
        for framed in self._frame_views(views):
            by_frame.setdefault(framed.view.frame, []).append(framed)
        texts = self._encode_texts({text for group in by_frame.values() for view in group for text in view.captions})
        samples: dict[tuple[str, int], Sample] = {}
        for group in by_frame.values():
            for first in range(0, len(group), self.spec.batch_size):
                batch = group[first : first + self.spec.batch_size]
                with autocast(self.dtype, self.device):
                    for framed, sample in zip(batch, self._encode_batch(batch, texts), strict=True):
                        samples[framed.row["pin_id"], framed.number] = sample
                self.bar.update(len(batch))
        yield from (samples[view] for view in views)

    def _frame_views(self, views: Sequence[tuple[str, int]]) -> Iterator[FramedView]:
        numbers: dict[str, list[int]] = {}
        for pin_id, number in views:
            numbers.setdefault(pin_id, []).append(number)
        masks = self.mask_rows.read(numbers, ("pin_id", "mask", "box", "rejected"))
        mask_of = {row["pin_id"]: row for row in masks if row["rejected"] is None}
        cutouts = {} if self.collages is None else self.collages.read_cutouts(views, self.pin_rows, self.mask_rows)
        for row in self.pin_rows.read(numbers, PIN_COLUMNS):
            image, mask = composite_on_white(decode_image(row.pop("image"))), mask_of.get(row["pin_id"])
            alpha, box = None, None
            if mask is not None:
                alpha, box = Image.fromarray((decode_alpha(mask["mask"]) * 255).astype(np.uint8)), mask["box"]
            for number in numbers[row["pin_id"]]:
                yield self._frame_view(row, number, image, alpha, box, cutouts)

    def _frame_view(
        self,
        row: Mapping[str, Any],
        number: int,
        image: Image.Image,
        alpha: Image.Image | None,
        box: tuple[int, int, int, int] | None,
        cutouts: Mapping[str, EncodedCutout],
    ) -> FramedView:
        """Frame view `number` of a pin whose product, if it has one, is where `alpha` is white, within `box`; of a
        scene it may become a collage of `cutouts`."""
        spec = self.spec
        rng = np.random.default_rng([spec.seed, crc32(row["pin_id"].encode()), number])
        zoom = rng.uniform(1, spec.crops.zoom) if number > 0 else 1.0
        mirror = number > 0 and spec.crops.mirror and rng.random() < 0.5
        size = image.height, image.width
        view = compute_view(size, self.frames, rng if row["split"] == "train" else None, box, zoom)
        pixels = extract_view(image, view)
        product = np.zeros(view.frame, bool) if alpha is None else extract_view(alpha, view) >= 128
        if mirror:
            view, pixels, product = view.mirrored, pixels[:, ::-1], product[:, ::-1]
        captions = self._select_captions(row["pin_id"])
        collages = self.collages
        if collages is not None and (collage := collages.make_collage(row["pin_id"], number, pixels, cutouts)):
            pixels, product, row = collage.pixels, collage.mask, {**row, "promoted": False}
            captions = [self._write_caption(collages, row["pin_id"], collage)] * self.spec.captions
        random_masks = [sample_mask(rng, *view.frame, spec.masks) for _ in range(spec.random_masks)]
        product_masks = [self._mask_product(product, number, rng) for _ in range(spec.product_masks)]
        masks = np.stack(random_masks), np.stack(product_masks)
        return FramedView(row, number, view, pixels, bool(product.any()), *masks, captions)

    def _mask_product(self, product: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
        """Draw a mask of view `number`: the product as a segmenter cuts it out, or a photograph to be extended."""
        if number > 0 and product.any() and rng.random() < self.spec.photographs:
            photograph = sample_photograph(rng, product)
            if not photograph.all():
                return photograph
        return simulate_errors(product, self.spec.mask_errors, rng)

    def _encode_batch(self, views: Sequence[FramedView], texts: Mapping[str, EncodedText]) -> Iterator[Sample]:
        """Encode views of one frame."""
        pixels = torch.from_numpy(np.stack([framed.pixels for framed in views])).permute(0, 3, 1, 2)
        images = bytes_to_tensor(pixels.to(self.device))
        moments = compute_posterior(self.encoders.vae, images).parameters
        embeddings = torch.cat([compute_image_embeddings(clip, images) for clip in self.encoders.clips], dim=-1)
        masked = self._compute_features(images)
        masked["masked_random"], masked["holes_random"] = self._mask(images, [framed.random_masks for framed in views])
        masked["masked_product"], masked["holes_product"] = self._mask(
            images, [framed.product_masks for framed in views]
        )
        for at, framed in enumerate(views):
            row, captions = framed.row, [texts[text] for text in framed.captions]
            yield {
                "pin_id": row["pin_id"],
                "split": row["split"],
                "view": str(framed.number),
                "bucket": "{}x{}".format(*framed.view.frame),
                "kind": "product" if framed.has_product else "scene",
                "promoted": "1" if row["promoted"] else "0",
                "engagement": torch.tensor([row[name] or 0 for name in ("impressions", "saves", "clicks")]),
                "moments": _to_float16(moments[at]),
                "text_states": _to_float16(torch.stack([states for states, _ in captions])),
                "text_pooled": _to_float16(torch.stack([pooled for _, pooled in captions])),
                "sizes": torch.tensor(framed.view.sizes, dtype=torch.float32),
                **{name: _to_float16(column[at]) for name, column in masked.items()},
                "clip_image": _to_float16(embeddings[at]),
            }

    def _compute_features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the column of the frozen network's maps; {} where none are kept."""
        if self.spec.features is None or self.feature_maps is None:
            return {}
        side = get_scale_factor(self.encoders.vae) * self.spec.features.cells
        height, width = images.shape[2:]
        if height % side or width % side:
            raise ValueError(
                f"encode.features.cells is {self.spec.features.cells}, {side} pixels, which do not divide frames of "
                f"{height} x {width}: change it, or frames.buckets"
            )
        return {"features": self.feature_maps(images, (height // side, width // side))}

    def _mask(self, images: torch.Tensor, masks: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return raw latents (B, M, C, h, w) of images under masks, B of (M, H, W), and the holes (B, M, K, h, w), K
        numbers a latent cell."""
        latents, holes = [], []
        compute = compute_hole if self.spec.holes == "cells" else compute_pixel_hole
        for mask in torch.from_numpy(np.stack(masks)).to(self.device).float().unbind(dim=1):
            keep = mask[:, None]
            latents.append(compute_posterior(self.encoders.vae, mask_images(images, keep)).mode())
            holes.append(compute(keep, get_scale_factor(self.encoders.vae), self.frames.hole_inflation))
        return torch.stack(latents, dim=1), torch.stack(holes, dim=1)

    def _select_captions(self, pin_id: str) -> list[str]:
        return list(islice(cycle(self.captions[pin_id]), self.spec.captions))

    def _write_caption(self, collages: Collages, pin_id: str, collage: Collage) -> str:
        """Write a collage's caption, with as much of the products' names as the text towers have room for."""
        parts = collages.get_caption_parts(pin_id, collage.products)
        return fit_caption(*parts, partial(get_overflow, self.encoders.towers))

    def _encode_texts(self, captions: Collection[str]) -> dict[str, EncodedText]:
        """Encode each of a shard's texts once. Those of other shards are not kept: a shard's bytes must not depend on
        what was encoded before it."""
        texts = sorted(captions)
        encoded: dict[str, EncodedText] = {}
        for first in range(0, len(texts), self.spec.batch_size):
            batch = texts[first : first + self.spec.batch_size]
            with autocast(self.dtype, self.device):
                states, pooled = encode_prompts(self.encoders.towers, batch)
            encoded |= zip(batch, zip(states.cpu(), pooled.cpu(), strict=True), strict=True)  # a shard's are many
        return encoded


def _to_float16(tensor: torch.Tensor) -> torch.Tensor:
    """Raises `ValueError` for what does not fit float16."""
    half = tensor.detach().to("cpu", torch.float16).contiguous()
    if not torch.isfinite(half).all():
        raise ValueError("an encoder's output does not fit float16: was it trained, with a KL weight above 0?")
    return half


MAX_CHECKED_CAPTIONS = 20_000
"""Captions, at most, that are checked for being cut off by a text tower."""


def compute_encoding_metrics(
    shards: Path, texts: Collection[str], towers: Sequence[Tower], *, pins: int
) -> dict[str, Any]:
    """Return what the shards hold by split, bucket and kind, how many of their views are collages, and the share of
    captions that a text tower cuts off."""
    rows = ShardRows(shards).index
    index = [row for row in rows if row.view == 0]
    scenes = {row.pin_id for row in index if row.kind == "scene"}
    checked = select_evenly(texts, MAX_CHECKED_CAPTIONS)
    return {
        "by_split": dict(Counter(row.split for row in index)),
        "by_bucket": dict(Counter(row.bucket for row in index)),
        "by_kind": dict(Counter(row.kind for row in index)),
        "collages": sum(row.kind == "product" and row.pin_id in scenes for row in rows),
        "captions": len(texts),
        "captions_cut_share": sum(get_overflow(towers, text) != "" for text in checked) / len(checked),
        "bytes_per_pin": sum(file.stat().st_size for file in shards.iterdir()) / pins,
    }
