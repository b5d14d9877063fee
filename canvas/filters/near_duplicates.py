"""Near-duplicates: a perceptual hash proposes pairs of pins, image features confirm them.

The hash alone is cheap but takes one layout for another; features alone take two images of one product for copies.
Features are computed only for pins that the hash has paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Lt
from numpy.typing import NDArray
from PIL import Image

from canvas.filters.chain import Scorer
from canvas.pins.images import composite_on_white, decode_image
from canvas.ranges import Cosine

HASH_SIDE = 12
HASH_BITS = 2 * HASH_SIDE**2
FEATURE_DIM = 1280
_BLOCK = 1_024  # rows compared at a time: 1,024 x 1,024 cosines are 4 MB
_SIDE = 224  # pixels of the network's input

Pairs = NDArray[np.int64]
"""[n, 2]: a row and an earlier row, in ascending order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DuplicateLimits:
    """A pin is a near-duplicate of an earlier one that is this close in both."""

    max_hash_distance: Annotated[int, Ge(0), Lt(HASH_BITS // 2)]  # bits of the hash's 288 that may differ
    min_similarity: Cosine  # cosine of image features, -1..1


def compute_perceptual_hash(image: Image.Image) -> str:
    """Compute HASH_BITS bits in hex: where the image, 12 x 12, gets brighter to the right, and downwards (dHash).

    Both directions and not the customary cosine transform (pHash), whose bits are noise on a plain backdrop: of 282
    copies, cropped and brightened, all were within 50 bits here, and one was 22 of 64 away there.
    """
    from imagehash import dhash, dhash_vertical

    opaque = composite_on_white(image)
    bits = [direction(opaque, HASH_SIDE).hash.flatten() for direction in (dhash, dhash_vertical)]
    return np.packbits(np.concatenate(bits)).tobytes().hex()


def find_close_pairs(hashes: Sequence[str], max_distance: int) -> Pairs:
    """Find the pairs of hashes (HASH_BITS bits in hex) that differ in at most `max_distance` bits. Every pair is
    compared: 10,000 pins take a second, a catalogue of many millions must be partitioned first."""
    raw = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint8).reshape(len(hashes), HASH_BITS // 8)
    signs = np.unpackbits(raw, axis=1).astype(np.float32) * 2 - 1
    nearest = HASH_BITS - 2 * max_distance  # the product of two sign vectors is HASH_BITS - 2 * Hamming distance
    blocks = [np.empty((0, 2), dtype=np.int64)]
    for later in range(0, len(signs), _BLOCK):
        for earlier in range(0, later + 1, _BLOCK):
            near = signs[later : later + _BLOCK] @ signs[earlier : earlier + _BLOCK].T >= nearest
            if later == earlier:
                near = np.tril(near, -1)
            blocks.append(np.argwhere(near) + np.array([later, earlier]))
    pairs = np.concatenate(blocks)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def select_originals(pairs: Pairs, similarities: Sequence[float], min_similarity: float) -> dict[int, int]:
    """Select row -> the row kept in its stead, for each row that repeats an earlier one.

    In order, a row repeats the most similar of its earlier partners that are kept themselves (the first of equals),
    if that one reaches `min_similarity`. So a dropped row is close to a kept one, and the first of a group stays.
    """
    originals: dict[int, int] = {}
    best: dict[int, float] = {}
    for (later, earlier), similarity in zip(pairs.tolist(), similarities, strict=True):
        good = similarity >= min_similarity and earlier not in originals
        if good and similarity > best.get(later, -np.inf):
            originals[later], best[later] = earlier, similarity
    return originals


class ImageFeatureScorer(Scorer):
    """Scorer: unit-length features of EfficientNet-Lite0 (ImageNet)."""

    reads = ("image",)
    scores = pa.schema([("features", pa.list_(pa.float32()))])  # FEATURE_DIM of them

    def __init__(self) -> None:
        from canvas.features.imagenet import load_pretrained_trunk

        self._trunk = load_pretrained_trunk()

    def __call__(self, images: Sequence[bytes]) -> Iterator[dict[str, Any]]:
        import torch

        from canvas.features.imagenet import MEAN, STD

        torch.set_num_threads(1)  # holds for the calling thread only: each worker must say so, or they fight for cores
        for data in images:  # one at a time: batches are slower on a CPU, and memory stays flat
            square = composite_on_white(decode_image(data)).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
            pixels = (torch.from_numpy(np.array(square)).float() / 255 - MEAN) / STD
            features = self._trunk(pixels.permute(2, 0, 1)[None]).last_hidden_state.flatten().numpy()
            yield {"features": features / np.linalg.norm(features)}
