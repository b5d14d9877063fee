"""Pins as training samples of the denoiser: latents, text states, masked latents and holes, image embeddings.

Columns of a sample (C: latent channels; h, w: latent size; K captions; M random and N product masks):

    pin_id, split, bucket         str; bucket is the frame, "HxW" in pixels
    view                          its number; 0: the pin as it is
    kind                          "product": it has a mask that was not rejected; else "scene"
    promoted                      "1" or "0"
    engagement        (3,)        impressions, saves, clicks
    moments           (2C, h, w)  mean and log-variance of the raw latents
    text_states       (K, L, D)   hidden states of the text towers
    text_pooled       (K, P)      pooled text
    sizes             (6,)        canvas.pins.frames.build_size_ids
    masked_random     (M, C, h, w)  raw latents (means) of the picture without its holes
    holes_random      (M, 1, h, w)  1 = paint
    masked_product    (N, C, h, w)  likewise of product masks, drawn as a fallible segmenter would
    holes_product     (N, 1, h, w)  of a scene: all is to be painted, its masked latents are those of an empty picture
    clip_image        (E,)        image embeddings of both encoders, each normalised, side by side

Floats are float16. What is random is a function of the seed, the pin and the view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import open_clip
import torch
from PIL import Image
from tqdm import tqdm

from canvas.clip.model import TextTower, encode_prompts, load_clip
from canvas.clip.spec import TextSpec
from canvas.device import default_device
from canvas.features.perceptual import compute_image_embeddings
from canvas.masks.composite import compute_hole, mask_images
from canvas.masks.errors import simulate_errors
from canvas.masks.holes import sample_mask
from canvas.pins import tables
from canvas.pins.frames import FrameSpec, View, compute_view, extract_view
from canvas.pins.image_batches import select_evenly
from canvas.pins.images import bytes_to_tensor, composite_on_white, decode_image
from canvas.pins.masks import Mask, decode_alpha
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
    towers: tuple[TextTower, TextTower]

    @classmethod
    def load(cls, clip: Path, vae: Path, text: TextSpec) -> Encoders:
        """Load the autoencoder and both text-image encoders, in eval mode on this process's device."""
        device = default_device()
        first, second = (load_clip(clip / name).eval().to(device) for name in ("first", "second"))
        towers = TextTower.from_clip(first, text.first).to(device), TextTower.from_clip(second, text.second).to(device)
        return cls(load_vae(vae).eval().to(device), (first, second), towers)


@dataclass(frozen=True, slots=True)
class FramedView:
    """One view of a pin in its frame."""

    row: Mapping[str, Any]
    number: int  # of the view
    view: View
    pixels: np.ndarray  # uint8 (H, W, 3)
    product: Mask | None
    random_masks: np.ndarray  # bool (M, H, W), True = keep
    product_masks: np.ndarray  # bool (N, H, W)


class PinSamples:
    """Training samples of `views`, (pin_id, number of the view), in their order, made when asked for."""

    def __init__(
        self,
        pins: Path,
        masks: Path,
        views: Sequence[tuple[str, int]],
        captions: Mapping[str, Sequence[str]],
        encoders: Encoders,
        spec: EncodingSpec,
        frames: FrameSpec,
        *,
        silent: bool = False,
    ) -> None:
        self.pins, self.masks = tables.RowsById(pins), tables.RowsById(masks)
        self.views = list(views)
        self.captions = captions
        self.encoders = encoders
        self.spec = spec
        self.frames = frames
        self.bar = tqdm(total=len(self.views), desc="encode", unit="view", disable=silent)

    @torch.no_grad()
    def __call__(self, rows: range) -> Iterator[Sample]:
        self.bar.update(rows.start - self.bar.n)
        wanted = self.views[rows.start : rows.stop]
        texts = self._texts({pin_id for pin_id, _ in wanted})
        samples: dict[tuple[str, int], Sample] = {}
        by_frame: dict[tuple[int, int], list[FramedView]] = {}
        for pin in self._framed(wanted):
            by_frame.setdefault(pin.view.frame, []).append(pin)
        for pins in by_frame.values():
            for first in range(0, len(pins), self.spec.batch_size):
                batch = pins[first : first + self.spec.batch_size]
                places = [(pin.row["pin_id"], pin.number) for pin in batch]
                with self._multiplying():
                    samples |= zip(places, self._samples(batch, texts), strict=True)
                self.bar.update(len(batch))
        for place in wanted:
            yield samples[place]

    def _multiplying(self) -> AbstractContextManager[None]:
        device = self.encoders.vae.device
        return autocast(choose_autocast_dtype(device, self.spec.precision), device)

    def _framed(self, views: Sequence[tuple[str, int]]) -> Iterator[FramedView]:
        """Views of pins, decoded and cropped."""
        numbers: dict[str, list[int]] = {}
        for pin_id, number in views:
            numbers.setdefault(pin_id, []).append(number)
        masks = self.masks.read(numbers, ("pin_id", "mask", "box", "rejected"))
        mask_of = {row["pin_id"]: row for row in masks if row["rejected"] is None}
        for row in self.pins.read(numbers, PIN_COLUMNS):
            image, mask = composite_on_white(decode_image(row.pop("image"))), mask_of.get(row["pin_id"])
            alpha, box = None, None
            if mask is not None:
                alpha, box = Image.fromarray((decode_alpha(mask["mask"]) * 255).astype(np.uint8)), mask["box"]
            for number in numbers[row["pin_id"]]:
                yield self._view(row, number, image, alpha, box)

    def _view(
        self,
        row: Mapping[str, Any],
        number: int,
        image: Image.Image,
        alpha: Image.Image | None,
        box: tuple[int, int, int, int] | None,
    ) -> FramedView:
        """View `number` of a pin whose product, if it has one, is where `alpha` is white, within `box`."""
        rng = np.random.default_rng([self.spec.seed, crc32(row["pin_id"].encode()), number])
        crops, varied = self.spec.crops, number > 0
        zoom = rng.uniform(1, crops.zoom) if varied else 1.0
        mirror = varied and crops.mirror and rng.random() < 0.5
        size = image.height, image.width
        view = compute_view(size, self.frames, rng if row["split"] == "train" else None, box, zoom)
        pixels, product = extract_view(image, view), None
        if alpha is not None:
            product = extract_view(alpha, view) >= 128
        if mirror:
            view, pixels = view.mirrored, pixels[:, ::-1]
            product = None if product is None else product[:, ::-1]
        if product is not None and not product.any():
            product = None
        random_masks = [sample_mask(rng, *view.frame, self.spec.masks) for _ in range(self.spec.random_masks)]
        product_masks = [
            np.zeros(view.frame, bool) if product is None else simulate_errors(product, self.spec.mask_errors, rng)
            for _ in range(self.spec.product_masks)
        ]
        return FramedView(row, number, view, pixels, product, np.stack(random_masks), np.stack(product_masks))

    def _samples(self, pins: Sequence[FramedView], texts: Mapping[str, EncodedText]) -> Iterator[Sample]:
        """Samples of pins of one frame."""
        device = self.encoders.vae.device
        images = bytes_to_tensor(
            torch.from_numpy(np.stack([pin.pixels for pin in pins])).permute(0, 3, 1, 2).to(device)
        )
        moments = compute_posterior(self.encoders.vae, images).parameters
        embeddings = torch.cat([compute_image_embeddings(clip, images) for clip in self.encoders.clips], dim=-1)
        random = self._masked(images, torch.from_numpy(np.stack([pin.random_masks for pin in pins])).to(device))
        product = self._masked(images, torch.from_numpy(np.stack([pin.product_masks for pin in pins])).to(device))
        for at, pin in enumerate(pins):
            said = [texts[text] for text in self._said(pin.row["pin_id"])]
            yield {
                "pin_id": pin.row["pin_id"],
                "split": pin.row["split"],
                "view": str(pin.number),
                "bucket": "{}x{}".format(*pin.view.frame),
                "kind": "scene" if pin.product is None else "product",
                "promoted": "1" if pin.row["promoted"] else "0",
                "engagement": torch.tensor([pin.row[name] or 0 for name in ("impressions", "saves", "clicks")]),
                "moments": _to_float16(moments[at]),
                "text_states": _to_float16(torch.stack([states for states, _ in said])),
                "text_pooled": _to_float16(torch.stack([pooled for _, pooled in said])),
                "sizes": torch.tensor(pin.view.sizes, dtype=torch.float32),
                "masked_random": _to_float16(random[0][at]),
                "holes_random": _to_float16(random[1][at]),
                "masked_product": _to_float16(product[0][at]),
                "holes_product": _to_float16(product[1][at]),
                "clip_image": _to_float16(embeddings[at]),
            }

    def _masked(self, images: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Raw latents (B, M, C, h, w) of images under masks (B, M, H, W), and the holes (B, M, 1, h, w)."""
        latents, holes = [], []
        for mask in masks.float().unbind(dim=1):
            keep = mask[:, None]
            latents.append(compute_posterior(self.encoders.vae, mask_images(images, keep)).mode())
            holes.append(compute_hole(keep, get_scale_factor(self.encoders.vae), self.frames.hole_inflation))
        return torch.stack(latents, dim=1), torch.stack(holes, dim=1)

    def _said(self, pin_id: str) -> list[str]:
        """K captions of a pin."""
        said = self.captions[pin_id]
        return [said[at % len(said)] for at in range(self.spec.captions)]

    def _texts(self, ids: Collection[str]) -> dict[str, EncodedText]:
        """Each text of these pins encoded once. Texts of other shards are not kept: a shard's bytes must not depend on
        what was encoded before it."""
        texts = sorted({text for pin_id in ids for text in self._said(pin_id)})
        found: dict[str, EncodedText] = {}
        for first in range(0, len(texts), self.spec.batch_size):
            batch = texts[first : first + self.spec.batch_size]
            with self._multiplying():
                states, pooled = (
                    half.cpu() for half in encode_prompts(self.encoders.towers, batch)
                )  # a shard's are many
            found |= zip(batch, zip(states, pooled, strict=True), strict=True)
        return found


def _to_float16(tensor: torch.Tensor) -> torch.Tensor:
    """float16; raises `ValueError` for what does not fit."""
    half = tensor.detach().to("cpu", torch.float16).contiguous()
    if not torch.isfinite(half).all():
        raise ValueError("an encoder's output does not fit float16: was it trained, with a KL weight above 0?")
    return half


MAX_CHECKED_CAPTIONS = 20_000
"""Captions that are asked whether a text tower cuts them off."""


def compute_encoding_metrics(
    shards: Path, texts: Collection[str], towers: Sequence[TextTower], *, pins: int
) -> dict[str, Any]:
    """Return what the shards hold by split, bucket and kind, and the share of captions that a text tower cuts off."""
    index = [row for row in ShardRows(shards).index if row.view == 0]
    checked = select_evenly(texts, MAX_CHECKED_CAPTIONS)
    return {
        "by_split": dict(Counter(row.split for row in index)),
        "by_bucket": dict(Counter(row.bucket for row in index)),
        "by_kind": dict(Counter(row.kind for row in index)),
        "captions": len(texts),
        "captions_cut_share": sum(any(tower.get_overflow(text) for tower in towers) for text in checked) / len(checked),
        "bytes_per_pin": sum(file.stat().st_size for file in shards.iterdir()) / pins,
    }
