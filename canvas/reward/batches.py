"""Batches of comparisons for the objective of canvas.reward.objective: synthetic ones, people's, and both.

S is the side of the square that all images are resized to; Q are the HEADS of the reward model.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Generic, TypedDict, TypeVar

import numpy as np
import torch

from canvas.pins.captions import parse_caption
from canvas.pins.images import Pixels
from canvas.pins.masks import Mask
from canvas.reward.comparisons import Comparison, Labels, compute_absolute_labels, compute_preferences, render_variant
from canvas.reward.human_comparisons import HumanComparison
from canvas.reward.product_views import ProductView, SceneView
from canvas.train.data import select_batch_rows
from canvas.train.draws import mix_seed

C = TypeVar("C")
Tokenize = Callable[[Sequence[str]], torch.Tensor]
"""Backgrounds in words -> their tokens, int64 [N, L]; zeros: no words (canvas.reward.model.tokenize_backgrounds)."""

MAX_SOFTNESS = 1 / 64
"""Deviation of the strongest blur, in parts of the side, that both images of a comparison may have: a generator's are
softer than photographs, and how soft must not be all that counts."""


class ComparisonBatch(TypedDict):
    """B comparisons of two images of one product."""

    pin_id: list[str]
    first: torch.Tensor  # uint8 [B, 3, S, S]
    second: torch.Tensor  # likewise
    originals: torch.Tensor  # likewise
    masks: torch.Tensor  # bool [B, 1, S, S]
    words: torch.Tensor  # int64 [B, L], tokens of the background that was asked for
    first_background: torch.Tensor  # likewise, of the one that the first image shows; no words: unknown
    second_background: torch.Tensor
    preferred: torch.Tensor  # float32 [B, Q], how much the first image is preferred, 0..1; NaN unknown
    first_good: torch.Tensor  # likewise, how good the first image is
    second_good: torch.Tensor


@dataclass(frozen=True, slots=True)
class ComparisonSample:
    """One comparison of a batch."""

    pin_id: str
    images: tuple[Pixels, Pixels, Pixels]  # first, second, original: [S, S, 3]
    mask: Mask  # [S, S]
    backgrounds: tuple[str, str, str]  # asked for, shown by the first, shown by the second
    labels: tuple[Labels, Labels, Labels]  # preferred, goodness of the first, of the second


def collate_samples(samples: Sequence[ComparisonSample], tokenize: Tokenize) -> ComparisonBatch:
    """Return a batch of samples."""
    images = torch.from_numpy(np.stack([np.stack(sample.images) for sample in samples], axis=1))
    first, second, originals = images.permute(0, 1, 4, 2, 3).contiguous()
    labels = torch.from_numpy(np.stack([np.stack(sample.labels) for sample in samples], axis=1))
    backgrounds = zip(*(sample.backgrounds for sample in samples), strict=True)
    asked, first_background, second_background = (tokenize(texts) for texts in backgrounds)
    return {
        "pin_id": [sample.pin_id for sample in samples],
        "first": first,
        "second": second,
        "originals": originals,
        "masks": torch.from_numpy(np.stack([sample.mask for sample in samples]))[:, None],
        "words": asked,
        "first_background": first_background,
        "second_background": second_background,
        "preferred": labels[0],
        "first_good": labels[1],
        "second_good": labels[2],
    }


class ComparisonSource(ABC, Generic[C]):
    """Comparisons that can be rendered."""

    comparisons: Sequence[C]
    tokenize: Tokenize

    @abstractmethod
    def render(self, comparison: C, seed: int | None = None) -> ComparisonSample:
        """Render one comparison, varied by `seed`; None: as it is."""

    def batch(self, comparisons: Sequence[C]) -> ComparisonBatch:
        """Return a batch of comparisons as they are."""
        return collate_samples([self.render(comparison) for comparison in comparisons], self.tokenize)


@dataclass(frozen=True)
class ComparisonBatches(ComparisonSource[Comparison]):
    """Batches of synthetic comparisons, varied anew every epoch: mirrored or not, the backgrounds more or less soft,
    both images alike."""

    comparisons: Sequence[Comparison]
    views: Sequence[ProductView]
    scenes: Sequence[SceneView]
    _: KW_ONLY
    tokenize: Tokenize
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if not self.comparisons:
            raise ValueError("there is nothing to compare: no kept pin has an accepted mask")

    def __call__(self, step: int, rank: int, world: int) -> ComparisonBatch:
        rows = select_batch_rows(len(self.comparisons), self.batch_size, self.seed, step, rank, world)
        seeds = [mix_seed(self.seed, step, rank * len(rows) + place) for place in range(len(rows))]
        samples = [self.render(self.comparisons[row], seed) for row, seed in zip(rows, seeds, strict=True)]
        return collate_samples(samples, self.tokenize)

    def render(self, comparison: Comparison, seed: int | None = None) -> ComparisonSample:
        view, first, second = self.views[comparison.view], comparison.first, comparison.second
        softness, way = 0.0, 1
        if seed is not None:
            rng = np.random.default_rng(seed)
            softness = max(0.0, rng.uniform(-1, 1)) * MAX_SOFTNESS * view.mask.shape[0]
            way = -1 if rng.random() < 0.5 else 1
        images = [render_variant(view, variant, self.scenes, softness)[:, ::way] for variant in (first, second)]
        backgrounds = [variant.get_background(view, self.scenes) for variant in (first, second)]
        good, other_good = (
            compute_absolute_labels(variant, view, self.scenes, comparison.prompt) for variant in (first, second)
        )
        return ComparisonSample(
            pin_id=view.pin_id,
            images=(images[0], images[1], view.pixels[:, ::way]),
            mask=view.mask[:, ::way],
            backgrounds=(comparison.prompt, backgrounds[0], backgrounds[1]),
            labels=(compute_preferences(comparison, good, other_good), good, other_good),
        )


@dataclass(frozen=True)
class HumanBatches(ComparisonSource[HumanComparison]):
    """People's comparisons, mirrored or not."""

    comparisons: Sequence[HumanComparison]
    _: KW_ONLY
    tokenize: Tokenize

    def __post_init__(self) -> None:
        assert self.comparisons, "there is nothing that people compared"

    def render(self, comparison: HumanComparison, seed: int | None = None) -> ComparisonSample:
        """Render one comparison; of an image that was judged alone the second is the first again."""
        way = -1 if seed is not None and np.random.default_rng(seed).random() < 0.5 else 1
        first = comparison.first[:, ::way]
        second = first if comparison.second is None else comparison.second[:, ::way]
        labels, unknown = comparison.labels, np.full_like(comparison.labels, math.nan)
        return ComparisonSample(
            pin_id=comparison.pin_id,
            images=(first, second, comparison.original[:, ::way]),
            mask=comparison.mask[:, ::way],
            backgrounds=(parse_caption(comparison.prompt)[1], "", ""),  # people do not say what they see
            labels=(unknown, labels, unknown) if comparison.second is None else (labels, unknown, unknown),
        )


class MixedBatches:
    """Synthetic comparisons, of which human ones replace a share in every batch, each as often as the others."""

    def __init__(self, synthetic: ComparisonBatches, human: HumanBatches, share: float) -> None:
        assert 1 <= share * synthetic.batch_size <= synthetic.batch_size, share
        self.synthetic, self.human, self.share = synthetic, human, share

    def __call__(self, step: int, rank: int, world: int) -> ComparisonBatch:
        synthetic, human = self.synthetic, self.human
        size, seed = synthetic.batch_size, synthetic.seed
        rows = select_batch_rows(len(synthetic.comparisons), size, seed, step, rank, world)
        order = select_batch_rows(len(human.comparisons), int(np.floor(size * self.share)), seed, step, 0, 1)
        samples = []
        for place, row in enumerate(rows, start=rank * len(rows)):  # in the global batch
            # Spread over the batch, so that all ranks get the same number of them, give or take one.
            before, after = (int(np.floor(end * self.share)) for end in (place, place + 1))
            sample_seed = mix_seed(seed, step, place)
            if after > before:
                samples.append(human.render(human.comparisons[order[before]], sample_seed))
            else:
                samples.append(synthetic.render(synthetic.comparisons[row], sample_seed))
        return collate_samples(samples, synthetic.tokenize)
