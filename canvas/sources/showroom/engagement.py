"""Synthetic engagement with a real cause: people save pins whose scene suits the product and whose image is sound.

So a model tuned on engaged pins has something to learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from canvas.sources.showroom.spec import DEFECTS

# How well a scene (by words) suits a category, 0..1; what is not named is indifferent.
SCENE_FIT = {
    "Paints": {"apartment": 1.0, "warehouse": 0.9, "photo studio": 0.7, "savanna at night": 0.1, "forest": 0.2},
    "Juices": {"park meadow": 1.0, "apartment": 0.8, "waterfront at sunset": 0.8, "warehouse": 0.1},
    "Alcohol": {"waterfront at sunset": 1.0, "lobby": 0.7, "savanna at night": 0.7, "photo studio": 0.3, "forest": 0.2},
    "Homewares": {"apartment": 1.0, "lobby": 0.9, "photo studio": 0.6, "desert at dawn": 0.1, "city square": 0.2},
    "Footwear": {"city square": 1.0, "park meadow": 0.8, "forest": 0.6, "apartment": 0.3, "savanna at night": 0.2},
    "T-shirts": {"city square": 0.9, "desert at dawn": 0.9, "photo studio": 0.8, "lobby": 0.3},
    "Polo Shirts": {"park meadow": 0.9, "lobby": 0.8, "waterfront at sunset": 0.8, "savanna at night": 0.1},
    "Hoodies": {"forest": 1.0, "city square": 0.9, "warehouse": 0.7, "lobby": 0.2},
}
INDIFFERENT_FIT = 0.5


@dataclass(frozen=True, slots=True)
class Engagement:
    """Columns of tables.PINS."""

    promoted: bool
    impressions: int
    saves: int
    clicks: int


def compute_fit(category: str, scene: str | None) -> float:
    """Return how well the scene suits the category, 0..1; on white: a little below indifferent."""
    return 0.4 if scene is None else SCENE_FIT.get(category, {}).get(scene, INDIFFERENT_FIT)


def sample_engagement(category: str, scene: str | None, defect: str | None, rng: np.random.Generator) -> Engagement:
    """Draw log-normal impressions, binomial saves and clicks; rates grow fourfold from the worst fit to the best."""
    is_product = category in SCENE_FIT
    promoted = bool(is_product and rng.random() < 0.3)
    impressions = int(rng.lognormal(7.5 if promoted else 6.3, 0.8)) + 20
    quality = DEFECTS.get(defect or "", 1.0) * float(np.exp(rng.normal(0, 0.25)))
    interest = quality * 4 ** (compute_fit(category, scene) - INDIFFERENT_FIT)
    saves = int(rng.binomial(impressions, min(0.5, 0.03 * interest)))
    clicks = int(rng.binomial(impressions, min(0.5, (0.02 if is_product else 0.005) * interest)))
    return Engagement(promoted, impressions, saves, clicks)
