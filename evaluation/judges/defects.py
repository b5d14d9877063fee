"""A judge of defects that needs neither the original nor people: does an image show what corrupted images show?

It is fitted to real pins and their corruptions, on a network that no loss of the generator uses, so that no challenger
brings its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from canvas.pins.images import Pixels
from canvas.pins.products import ProductPin
from canvas.pins.scene_views import Views, crop_center_square, stack_views
from canvas.reward.corruptions import CORRUPTIONS, DEFECTS, corrupt_image
from evaluation.judges.features import extract_defect_features
from evaluation.judges.judges import SceneJudge, blur_views
from evaluation.measures.distances import Features
from evaluation.statistics.intervals import compute_mean_metrics

SOUND, DEFECTIVE = "sound", "defective"
KINDS = tuple(kind for kind, corruption in CORRUPTIONS.items() if DEFECTS in corruption.hurts)

FALSE_ALARMS = 0.05
"""Share of real held-out images, sharp and blurred, that the judge calls defective."""


@dataclass(frozen=True, slots=True)
class DefectJudge:
    """A classifier of images as sound or defective, and the chance from which it says the latter."""

    judge: SceneJudge
    threshold: float
    accuracy: Mapping[str, float]  # of corrupted held-out images the share that it calls defective

    def find_defects(self, views: Views) -> list[float]:
        """Return 1 for each view [N, h, w, 3] that is defective, else 0."""
        chances = _compute_chances(self.judge, extract_defect_features(views))
        return (chances > self.threshold).astype(float).tolist()


def fit_defect_judge(
    train: Sequence[ProductPin], held_out: Sequence[ProductPin], *, side: int, seed: int
) -> DefectJudge:
    """Fit the judge to pins of the train split, and set its threshold on held-out ones.

    Half of the images are blurred: softness alone is no defect. Both sets need a pin.
    """
    real, corrupted = _extract_features(train, side, seed)
    judge = SceneJudge.fit(np.concatenate([real, corrupted]), [SOUND] * len(real) + [DEFECTIVE] * len(corrupted))
    chances, corrupted_chances = (_compute_chances(judge, part) for part in _extract_features(held_out, side, seed + 1))
    threshold = float(np.quantile(chances, 1 - FALSE_ALARMS))
    return DefectJudge(
        judge, threshold, compute_mean_metrics("recall", (corrupted_chances > threshold).astype(float).tolist())
    )


def _extract_features(pins: Sequence[ProductPin], side: int, seed: int) -> tuple[Features, Features]:
    """Return the features of real images and of their corruptions, both sharp and then blurred."""
    real = stack_views([pin.image for pin in pins], side)
    corrupted = np.stack(
        [_corrupt_view(view, pin, seed + at) for at, (view, pin) in enumerate(zip(real, pins, strict=True))]
    )
    first, second = (
        extract_defect_features(np.concatenate([views, blur_views(views, seed)])) for views in (real, corrupted)
    )
    return first, second


def _corrupt_view(view: Pixels, pin: ProductPin, seed: int) -> Pixels:
    """Return the view under a defect, of any kind and strength."""
    mask = crop_center_square(Image.fromarray(pin.mask.astype(np.uint8) * 255), len(view)) >= 128
    rng = np.random.default_rng(seed)
    if not mask.any():  # the product is cut off: what has no product has no place for a defect of it
        mask[len(view) // 4 : -len(view) // 4, len(view) // 4 : -len(view) // 4] = True
    return corrupt_image(view, mask, KINDS[seed % len(KINDS)], float(rng.uniform()), seed)


def _compute_chances(judge: SceneJudge, features: Features) -> NDArray[np.float64]:
    return judge.compute_probabilities(features)[:, judge.scenes.index(DEFECTIVE)]
