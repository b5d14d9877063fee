"""People's judgments of generated images, as comparisons that the reward model is trained on and scored with.

S is the side of the square that all images are resized to; Q are the HEADS of the reward model.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from canvas.pins import tables
from canvas.pins.captions import parse_caption
from canvas.pins.images import Pixels, decode_image
from canvas.pins.masks import Mask
from canvas.reward.comparisons import QUESTION_BY_HEAD, Labels
from canvas.reward.product_views import UNSEEN_PRODUCT_SPLITS, decode_square_mask, resize_bilinear
from canvas.reward.spec import HEADS


@dataclass(frozen=True, slots=True)
class HumanComparison:
    """Two images of one product and what people prefer, or one image and how good they find it."""

    pin_id: str
    product: str  # its id, or the pin's
    prompt: str
    original: Pixels  # [S, S, 3]
    mask: Mask  # [S, S]
    first: Pixels
    second: Pixels | None  # None: `first` was judged alone
    labels: Labels  # (Q,) of `first`, mean over judgments, 0..1, NaN not asked
    judgments: int

    @property
    def kinds(self) -> frozenset[str]:
        """Corruptions in it: none."""
        return frozenset()


@dataclass(frozen=True, slots=True)
class HumanComparisons:
    """What people compared: comparisons to train on, and those of products that nobody trains on."""

    train: Sequence[HumanComparison]
    held_out: Sequence[HumanComparison]

    @property
    def products(self) -> frozenset[str]:
        """Products that are trained on."""
        return frozenset(comparison.product for comparison in self.train)

    @property
    def rank_images(self) -> bool:
        """Whether people said which image they would take, of those that are trained on."""
        place = HEADS.index("overall")
        return any(not math.isnan(comparison.labels[place]) for comparison in self.train)

    @property
    def train_judgments(self) -> int:
        """Judgments that may be trained on."""
        return sum(comparison.judgments for comparison in self.train)


def read_human_comparisons(
    preferences: Path, pins: Path, held_out_backgrounds: Collection[str], *, side: int
) -> HumanComparisons:
    """Read the rows of `preferences` (tables.PREFERENCES), in their order.

    Those of products of UNSEEN_PRODUCT_SPLITS are held out, half of the products: people rate the generator on products
    that it was not trained on, so that little would be left to learn from. Pins that `pins` no longer has are left out,
    and from training the prompts of `held_out_backgrounds`.
    """
    splits = dict(zip(*tables.read(pins, ["pin_id", "split"]).to_pydict().values(), strict=True))
    columns = [name for name in tables.PREFERENCES.names if name != "pin_id"]
    sides: tuple[list[HumanComparison], list[HumanComparison]] = ([], [])
    for row in tables.iterate_rows(preferences, columns, splits):
        comparison = _build_comparison(row, side)
        is_held_out = splits[comparison.pin_id] in UNSEEN_PRODUCT_SPLITS and crc32(comparison.product.encode()) % 2 == 1
        if is_held_out or parse_caption(comparison.prompt)[1] not in held_out_backgrounds:
            sides[is_held_out].append(comparison)
    return HumanComparisons(*sides)


def _build_comparison(row: Mapping[str, Any], side: int) -> HumanComparison:
    second = row["second_image"]
    labels = [row[QUESTION_BY_HEAD[head]] for head in HEADS]
    return HumanComparison(
        pin_id=row["pin_id"],
        product=row["product_id"] or row["pin_id"],
        prompt=row["prompt"],
        original=resize_bilinear(decode_image(row["product"]), side),
        mask=decode_square_mask(row["mask"], side),
        first=resize_bilinear(decode_image(row["first_image"]), side),
        second=None if second is None else resize_bilinear(decode_image(second), side),
        labels=np.array([math.nan if value is None else value for value in labels], np.float32),
        judgments=row["judgments"],
    )
