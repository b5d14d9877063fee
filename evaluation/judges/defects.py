"""A judge of defects that needs neither the original nor people: does an image show what corrupted images show?

It is fitted to real pins and their corruptions, on a network that no loss of the generator uses, so that no challenger
brings its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from canvas.device import default_device
from canvas.pins.images import Pixels
from canvas.pins.masks import Mask
from canvas.pins.products import ProductPin
from canvas.pins.scene_views import Views, stack_views
from canvas.reward.corruptions import CORRUPTIONS, DEFECTS, corrupt_image
from evaluation.judges.defect_network import DefectNetwork, DefectPairs, pool_logits, train_defect_network
from evaluation.judges.features import extract_defect_maps
from evaluation.judges.judges import MAX_BLUR
from evaluation.statistics.intervals import compute_mean_metrics

KINDS = tuple(kind for kind, corruption in CORRUPTIONS.items() if DEFECTS in corruption.hurts)

FALSE_ALARMS = 0.05
"""Share of real held-out images, sharp and soft, that the judge calls defective."""

VISIBLE = 10
"""Levels of 255 from which a pixel counts as changed."""

BATCH_SIZE = 64


@dataclass(frozen=True, slots=True)
class DefectJudge:
    """A detector of defects, and the score from which it calls an image defective."""

    network: DefectNetwork
    threshold: float
    accuracy: Mapping[str, float]  # of corrupted held-out images the share that it calls defective

    def find_defects(self, views: Views) -> list[float]:
        """Return 1 for each view [N, h, w, 3] that is defective, else 0."""
        scores = _compute_scores(self.network, torch.from_numpy(extract_defect_maps(views)))
        return (scores > self.threshold).astype(float).tolist()


@dataclass(frozen=True, slots=True)
class Example:
    """A view of a real pin and the same under a corruption, [h, w, 3], and the pixels [h, w] that it changed."""

    real: Pixels
    corrupted: Pixels
    changed: Mask


def fit_defect_judge(
    train: Sequence[ProductPin], held_out: Sequence[ProductPin], *, side: int, seed: int
) -> DefectJudge:
    """Fit the judge to pins of the train split, and set its threshold on held-out ones.

    Softness alone is no defect: images are sharp, soft, or sharp before a soft background, as generated ones are. Both
    sets need a pin.
    """
    network = train_defect_network(_extract_pairs(train, side, seed), seed, default_device())
    pairs = _extract_pairs(held_out, side, seed + 1)
    real, corrupted = (_compute_scores(network, maps) for maps in (pairs["real"], pairs["corrupted"]))
    threshold = float(np.quantile(real, 1 - FALSE_ALARMS))
    return DefectJudge(
        network, threshold, compute_mean_metrics("recall", (corrupted > threshold).astype(float).tolist())
    )


def build_example(view: Pixels, mask: Mask, number: int) -> Example:
    """Return a view as it is and under a defect: kind, strength and softness are functions of `number`.

    Every fourth is sharp, soft before it is corrupted, soft but for its product, or soft after it was corrupted.
    """
    rng = np.random.default_rng(number)
    if not mask.any():  # the product is cut off: what has no product has no place for a defect of it
        mask = np.zeros_like(mask)
        mask[len(view) // 4 : -len(view) // 4, len(view) // 4 : -len(view) // 4] = True
    sigma, strength = max(0.05, rng.uniform(0, MAX_BLUR) * len(view) / 64), float(rng.uniform())
    softness = number % 4
    if softness in (1, 2):
        view = _blur_view(view, sigma) if softness == 1 else _blur_background(view, mask, sigma)
    corrupted = corrupt_image(view, mask, KINDS[number % len(KINDS)], strength, number)
    changed = np.abs(corrupted.astype(int) - view).max(axis=2) > VISIBLE
    if softness == 3:
        view, corrupted = (_blur_view(image, sigma) for image in (view, corrupted))
    return Example(view, corrupted, changed)


def _extract_pairs(pins: Sequence[ProductPin], side: int, seed: int) -> DefectPairs:
    views = stack_views([pin.image for pin in pins], side)
    masks = stack_views([Image.fromarray(pin.mask.astype(np.uint8) * 255) for pin in pins], side) >= 128
    examples = [build_example(view, mask, seed + at) for at, (view, mask) in enumerate(zip(views, masks, strict=True))]
    real, corrupted = (
        torch.from_numpy(extract_defect_maps(np.stack([getattr(example, name) for example in examples])))
        for name in ("real", "corrupted")
    )
    changed = torch.from_numpy(np.stack([example.changed for example in examples]))[:, None].float()
    return DefectPairs(
        pin_id=[pin.pin_id for pin in pins],
        real=real,
        corrupted=corrupted,
        changed=torch.nn.functional.adaptive_avg_pool2d(changed, real.shape[-1])[:, 0],
    )


def _blur_view(view: Pixels, sigma: float) -> Pixels:
    return np.asarray(cv2.GaussianBlur(view, (0, 0), sigma), np.uint8)


def _blur_background(view: Pixels, mask: Mask, sigma: float) -> Pixels:
    """Blur what is not the product, none of whose colour runs into it: a halo would be a defect."""
    outside = (~mask).astype(np.float32)
    weight = np.maximum(cv2.GaussianBlur(outside, (0, 0), sigma), 1e-3)[..., None]
    blurred = cv2.GaussianBlur(view * outside[..., None], (0, 0), sigma) / weight
    product = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.5)[..., None]
    return np.clip(np.rint(blurred + product * (view - blurred)), 0, 255).astype(np.uint8)


def _compute_scores(network: DefectNetwork, maps: torch.Tensor) -> NDArray[np.float64]:
    with torch.no_grad():
        scores = [pool_logits(network(part.to(network.mean.device))).cpu() for part in torch.split(maps, BATCH_SIZE)]
    return torch.cat(scores).double().numpy()
