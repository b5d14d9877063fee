"""Near-duplicates: a perceptual hash proposes pairs of pins, image features confirm them.

The hash alone is cheap but takes one layout for another; features alone take two pictures of one product for
copies. Features are asked only of pins that the hash has paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from canvas.pins.images import composite_on_white, decode_image

if TYPE_CHECKING:
    import torch

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

    max_hash_distance: int  # bits of HASH_BITS
    min_similarity: float  # cosine of image features, -1..1

    def __post_init__(self) -> None:
        if not 0 <= self.max_hash_distance < HASH_BITS // 2:
            raise ValueError(f"max_hash_distance is {self.max_hash_distance}: give 0 to {HASH_BITS // 2 - 1} bits")


def compute_perceptual_hash(image: Image.Image) -> str:
    """HASH_BITS bits in hex: where the picture over white, 12 x 12, gets brighter to the right, and downwards (dHash).

    Both directions and not the customary cosine transform (pHash), whose bits are noise on a plain backdrop: of 282
    copies, cropped and brightened, all were within 50 bits here, and one was 22 of 64 away there.
    """
    from imagehash import dhash, dhash_vertical

    picture = composite_on_white(image)
    bits = [direction(picture, HASH_SIDE).hash.flatten() for direction in (dhash, dhash_vertical)]
    return np.packbits(np.concatenate(bits)).tobytes().hex()


def find_close_pairs(hashes: Sequence[str], max_distance: int) -> Pairs:
    """The pairs of hashes (HASH_BITS bits in hex) that differ in at most `max_distance` bits.

    Compares every pair, a block at a time: 10,000 pins take a second, a catalogue of many millions must be
    partitioned first.
    """
    bits = _unpack_signs(hashes)
    nearest = HASH_BITS - 2 * max_distance  # the product of two sign vectors is HASH_BITS - 2 * Hamming distance
    found = [np.empty((0, 2), dtype=np.int64)]
    for later in range(0, len(bits), _BLOCK):
        for earlier in range(0, later + 1, _BLOCK):
            near = bits[later : later + _BLOCK] @ bits[earlier : earlier + _BLOCK].T >= nearest
            if later == earlier:
                near = np.tril(near, -1)
            found.append(np.argwhere(near) + np.array([later, earlier]))
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def select_originals(pairs: Pairs, similarities: Sequence[float], min_similarity: float) -> dict[int, int]:
    """Row -> the row kept in its stead, for each row that repeats an earlier one.

    In order, a row repeats the most similar of its earlier partners that are kept themselves (the first of equals),
    if that one reaches `min_similarity`. So a dropped row is close to a kept one, and the first of a group stays.
    """
    kept_instead: dict[int, int] = {}
    best: dict[int, float] = {}
    for (later, earlier), similarity in zip(pairs.tolist(), similarities, strict=True):
        good = similarity >= min_similarity and earlier not in kept_instead
        if good and similarity > best.get(later, -np.inf):
            kept_instead[later], best[later] = earlier, similarity
    return kept_instead


class ImageFeatureScorer:
    """Scorer: unit-length features of EfficientNet-Lite0 (ImageNet)."""

    reads = ("image",)
    scores = pa.schema([("features", pa.list_(pa.float32()))])  # FEATURES of them

    def __init__(self) -> None:
        from canvas.features.imagenet import load_pretrained_trunk

        self._trunk = load_pretrained_trunk()

    def __call__(self, images: Sequence[bytes]) -> Iterator[dict[str, Any]]:
        import torch

        torch.set_num_threads(1)  # holds for the calling thread only: each worker must say so, or they fight for cores
        for image in images:  # one at a time: batches are slower on a CPU, and memory stays flat
            features = self._trunk(_prepare_pixels(decode_image(image))).last_hidden_state.flatten().numpy()
            yield {"features": features / np.linalg.norm(features)}


def _prepare_pixels(image: Image.Image) -> torch.Tensor:
    """[1, 3, S, S] as the trunk wants it."""
    import torch

    from canvas.features.imagenet import MEAN, STD

    square = composite_on_white(image).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    values = (torch.from_numpy(np.array(square)).float() / 255 - MEAN) / STD
    return values.permute(2, 0, 1)[None]


def _unpack_signs(hashes: Sequence[str]) -> NDArray[np.float32]:
    raw = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint8).reshape(len(hashes), HASH_BITS // 8)
    return np.unpackbits(raw, axis=1).astype(np.float32) * 2 - 1
