"""A judge of harmony learns from pairs which product is in its scene's light."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.judges.harmony import HarmonyJudge, extract_harmony_features


def build_pair(seed: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]:
    """A coloured scene with a box in its light, and the same box in white light."""
    rng = np.random.default_rng(seed)
    light, texture = rng.uniform(0.5, 1.0, 3), rng.integers(100, 255, (96, 96, 1))
    scene = (texture * light).astype(np.uint8)
    box = (24, 30, 70, 72)
    product = np.clip(rng.integers(120, 240, (42, 46, 1)), 0, 255)
    lit, unlit = scene.copy(), scene.copy()
    lit[30:72, 24:70], unlit[30:72, 24:70] = (product * light).astype(np.uint8), product
    return lit, unlit, box


def extract(seeds: range) -> tuple[np.ndarray, np.ndarray]:
    lit, unlit, boxes = zip(*(build_pair(seed) for seed in seeds), strict=True)
    return extract_harmony_features(lit, boxes), extract_harmony_features(unlit, boxes)


def test_it_prefers_light_that_it_has_not_seen() -> None:
    judge = HarmonyJudge.fit(*extract(range(40)))
    lit, unlit = extract(range(100, 120))
    preferred = judge.compare(lit, unlit)
    assert (preferred > 0.5).mean() >= 0.8
    assert judge.compare(unlit, lit) == pytest.approx(1 - preferred)
    assert (judge.compare(lit, lit) == 0.5).all()


def test_views_of_the_borders_are_cut_to_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 255, (50, 60, 3)).astype(np.uint8)
    features = extract_harmony_features([image, image], [(0, 0, 60, 50), (50, 40, 60, 50)])
    assert features.shape[0] == 2
    assert np.isfinite(features).all()
