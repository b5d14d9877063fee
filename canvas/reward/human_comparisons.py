"""What people said of painted pictures, in the form of the comparisons that the reward model is trained on.

S is the side of the square that all are squeezed into; Q are the HEADS of the reward model.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from canvas.pins import tables
from canvas.pins.captions import parse_caption
from canvas.pins.images import Pixels, decode_image
from canvas.pins.masks import Mask, decode_mask
from canvas.reward.comparisons import ComparisonBatches
from canvas.reward.model import hash_words
from canvas.reward.product_views import resize_bilinear
from canvas.reward.spec import HEADS
from canvas.train.data import Batch, select_batch_rows
from canvas.train.draws import mix_seed

QUESTION_BY_HEAD = dict(zip(HEADS, (*tables.QUESTIONS, "preference"), strict=True))
"""Head -> what people were asked. They saw the prompt, but its two pictures were painted after the same one."""


@dataclass(frozen=True, slots=True)
class HumanComparison:
    """Two pictures of one product and what people prefer, or one picture and how good they find it."""

    pin_id: str
    product: str  # its id, or the pin's
    prompt: str
    original: Pixels  # [S, S, 3]
    mask: Mask  # [S, S]
    first: Pixels
    second: Pixels | None  # None: `first` was judged alone
    said: NDArray[np.float32]  # (Q,) for `first`, mean over judgments, 0..1, NaN not asked
    judgments: int

    @property
    def kinds(self) -> frozenset[str]:
        """Corruptions in it: none."""
        return frozenset()


@dataclass(frozen=True, slots=True)
class HumanComparisons:
    """`learnt`: to train on; `held_out`: of products that nobody trains on."""

    learnt: Sequence[HumanComparison]
    held_out: Sequence[HumanComparison]

    @property
    def products(self) -> frozenset[str]:
        """Products that are trained on."""
        return frozenset(pair.product for pair in self.learnt)

    @property
    def train_judgments(self) -> int:
        """Judgments that may be trained on."""
        return sum(pair.judgments for pair in self.learnt)


def read_human_comparisons(preferences: Path, pins: Path, *, held_out: Collection[str], side: int) -> HumanComparisons:
    """The rows of `preferences` (tables.PREFERENCES), in their order.

    Those of products of the splits `held_out` are held out, half of the products: people rate the generator on products
    that it was not trained on, so that little would be left to learn from. Pins that `pins` no longer has are left out.
    """
    splits = dict(zip(*tables.read(pins, ["pin_id", "split"]).to_pydict().values(), strict=True))
    found: tuple[list[HumanComparison], list[HumanComparison]] = ([], [])
    for batch in tables.read_batches(preferences):
        for row in batch.to_pylist():
            if row["pin_id"] in splits:
                one = _build_comparison(row, side)
                aside = splits[one.pin_id] in held_out and crc32(one.product.encode()) % 2 == 1
                found[aside].append(one)
    return HumanComparisons(*found)


class HumanBatches:
    """Human comparisons as batches have them (canvas.reward.objective)."""

    def __init__(self, comparisons: Sequence[HumanComparison], *, words: int) -> None:
        assert comparisons, "there is nothing that people compared"
        self.comparisons, self.words = comparisons, words

    def batch(self, comparisons: Sequence[HumanComparison], seeds: Sequence[int] | None = None) -> Batch:
        """Those comparisons; `seeds`: by which they are mirrored or not, all pictures of one alike."""
        shown = [
            _mirror_images(one, seeds is not None and bool(np.random.default_rng(seeds[place]).random() < 0.5))
            for place, one in enumerate(comparisons)
        ]
        pictures = torch.from_numpy(np.stack([np.stack(pair[:3]) for pair in shown])).permute(0, 1, 4, 2, 3)
        said = torch.from_numpy(np.stack([one.said for one in comparisons]))
        paired = torch.tensor([one.second is not None for one in comparisons])[:, None]
        unknown = torch.full_like(said, math.nan)
        return {
            "pin_id": [one.pin_id for one in comparisons],
            "first": pictures[:, 0].contiguous(),
            "second": pictures[:, 1].contiguous(),
            "originals": pictures[:, 2].contiguous(),
            "masks": torch.from_numpy(np.stack([pair[3] for pair in shown]))[:, None],
            "words": hash_words([parse_caption(one.prompt)[1] for one in comparisons], self.words),
            "first_shown": hash_words([""] * len(comparisons), self.words),  # people do not say what they see
            "second_shown": hash_words([""] * len(comparisons), self.words),
            "preferred": torch.where(paired, said, unknown),
            "first_good": torch.where(paired, unknown, said),
            "second_good": unknown,
        }


class MixedBatches:
    """Synthetic comparisons, of which a share of every batch gives place to human ones, each as often as the others."""

    def __init__(self, synthetic: ComparisonBatches, human: HumanBatches, share: float) -> None:
        assert 1 <= share * synthetic.batch_size <= synthetic.batch_size, share
        self.synthetic, self.human, self.share = synthetic, human, share

    def __call__(self, step: int, rank: int, world: int) -> Batch:
        size, seed = self.synthetic.batch_size, self.synthetic.seed
        rows = select_batch_rows(len(self.synthetic.comparisons), size, seed, step, rank, world)
        places = rank * len(rows) + np.arange(len(rows))  # in the global batch
        seeds = [mix_seed(seed, step, int(place)) for place in places]
        # Spread over the batch, so that all ranks get the same number of them, give or take one.
        before = np.floor(places * self.share).astype(int)
        is_human = np.floor((places + 1) * self.share).astype(int) > before
        each = int(np.floor(size * self.share))
        order = select_batch_rows(len(self.human.comparisons), each, seed, step, 0, 1)
        ours, theirs = np.flatnonzero(~is_human), np.flatnonzero(is_human)
        parts: list[Batch] = []
        if ours.size:
            chosen = [self.synthetic.comparisons[rows[place]] for place in ours]
            parts.append(self.synthetic.batch(chosen, [seeds[place] for place in ours]))
        if theirs.size:
            said = [self.human.comparisons[order[before[place]]] for place in theirs]
            parts.append(self.human.batch(said, [seeds[place] for place in theirs]))
        return _concatenate_batches(parts, np.argsort(np.concatenate([ours, theirs])))


def _build_comparison(row: Mapping[str, Any], side: int) -> HumanComparison:
    mask = Image.fromarray(decode_mask(row["mask"]).astype(np.uint8) * 255)
    second = row["second_image"]
    said = [row[QUESTION_BY_HEAD[head]] for head in HEADS]
    return HumanComparison(
        pin_id=row["pin_id"],
        product=row["product_id"] or row["pin_id"],
        prompt=row["prompt"],
        original=resize_bilinear(decode_image(row["product"]), side),
        mask=resize_bilinear(mask, side) >= 128,
        first=resize_bilinear(decode_image(row["first_image"]), side),
        second=None if second is None else resize_bilinear(decode_image(second), side),
        said=np.array([math.nan if value is None else value for value in said], np.float32),
        judgments=row["judgments"],
    )


def _mirror_images(one: HumanComparison, mirror: bool) -> tuple[Pixels, Pixels, Pixels, Mask]:
    """First and second picture (of one alone the first again), original, mask."""
    way = slice(None, None, -1 if mirror else 1)
    second = one.first if one.second is None else one.second
    return one.first[:, way], second[:, way], one.original[:, way], one.mask[:, way]


def _concatenate_batches(parts: Sequence[Batch], order: NDArray[np.intp]) -> Batch:
    """The rows of the parts, one after the other, in `order`."""
    found: dict[str, torch.Tensor | list[str]] = {}
    for name in parts[0]:
        columns = [part[name] for part in parts]
        if isinstance(columns[0], torch.Tensor):
            found[name] = torch.cat([torch.as_tensor(column) for column in columns])[torch.from_numpy(order)]
        else:
            words = [word for column in columns for word in column]
            found[name] = [str(words[place]) for place in order]
    return found
