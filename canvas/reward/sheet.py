"""Pictures under every corruption, with what a reward model says of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from canvas.pins.images import draw_contact_sheet
from canvas.reward.comparisons import Variant, render_variant
from canvas.reward.corruptions import CORRUPTIONS
from canvas.reward.model import RewardModel, predict_scores
from canvas.reward.product_views import ProductView
from canvas.reward.spec import HEADS


def draw_reward_sheet(network: RewardModel, views: Sequence[ProductView], count: int, seed: int) -> Image.Image:
    """`count` pins in rows: as they are, and under each corruption, with what the model says: defects, fidelity,
    aesthetics in hundredths."""
    variants = [Variant(), *(Variant(kind, 0.6, seed) for kind in CORRUPTIONS)]
    shown, labels = [], []
    for view in views[:: max(1, len(views) // count)][:count]:
        pictures = np.stack([render_variant(view, variant, ()) for variant in variants])
        said = predict_scores(
            network,
            torch.from_numpy(pictures).permute(0, 3, 1, 2),
            torch.from_numpy(view.pixels.copy()).permute(2, 0, 1)[None],
            torch.from_numpy(view.mask)[None, None],
        )
        shown += [Image.fromarray(picture) for picture in pictures]
        for place, variant in enumerate(variants):
            numbers = " ".join(f"{100 * float(said[head][place]):.0f}" for head in HEADS[:3])
            labels.append(f"{variant.kind or 'real'} {numbers}")
    return draw_contact_sheet(shown, labels, columns=len(variants), cell=128)
