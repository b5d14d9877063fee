from __future__ import annotations

import numpy as np
import pytest

from canvas.inference.product import Product
from evaluation.generator.background_scores import (
    BackgroundScore,
    compute_background_metrics,
    compute_scene_accuracies,
    measure_growth,
    measure_seam_gradients,
)
from evaluation.statistics.intervals import bootstrap_mean


def square(top: int, left: int, side: int = 4) -> np.ndarray:
    mask = np.zeros((12, 12), bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.mark.parametrize(
    ("after", "extension", "erosion"),
    [
        (square(2, 2), 0, 0),
        (square(2, 4), 0.5, 0.5),  # moved by half its side
        (square(1, 1, 6), 20 / 16, 0),
        (square(3, 3, 2), 0, 12 / 16),
        (np.zeros((12, 12), bool), 0, 1),
    ],
)
def test_growth(after, extension, erosion):
    assert measure_growth(square(2, 2), after) == (extension, erosion)


def test_growth_of_nothing():
    with pytest.raises(ValueError, match="the product's mask is empty"):
        measure_growth(np.zeros((2, 2), bool), np.ones((2, 2), bool))


def score(
    scene: str | None,
    seen: str | None,
    sharp: str | None,
    extension: float = 0.0,
    core: int = 0,
    product: str = "mug",
) -> BackgroundScore:
    return BackgroundScore(
        product=product,
        scene=scene,
        seen=seen,
        seen_sharp=sharp,
        extension=extension,
        erosion=0.5,
        seam=1.0,
        core_difference=core,
    )


def test_metrics():
    scores = [
        score("forest", "forest", "lobby", 0.2),
        score("forest", "lobby", "lobby", 0.4, product="cup"),
        score("lobby", "lobby", "lobby", 0.6, core=3),
        score(None, "lobby", "lobby"),  # no judge knows what was asked for
    ]
    metrics = compute_background_metrics(scores)
    assert metrics["pictures"] == 4
    assert metrics["scene_accuracy"] == pytest.approx(2 / 3)
    assert metrics["scene_accuracy_sharp"] == pytest.approx(1 / 3)
    assert metrics["extension_mean"] == pytest.approx(0.3)
    assert metrics["extension_mean_low"] < 0.3 < metrics["extension_mean_high"]
    assert metrics["erosion_mean"] == 0.5
    assert metrics["core_max_abs_diff"] == 3
    assert compute_scene_accuracies(scores) == {"forest": 0.5, "lobby": 1.0}


def test_images_of_one_product_are_not_independent():
    """All 20 of a product are alike: there are 8 products, not 160 images."""
    scores = [
        score("forest", seen, seen, group / 10, product=f"{group}")
        for group, seen in enumerate(["forest", "lobby"] * 4)
        for _ in range(20)
    ]
    metrics = compute_background_metrics(scores)
    for name, values in {
        "scene_accuracy": [float(score.seen == score.scene) for score in scores],
        "scene_accuracy_sharp": [float(score.seen_sharp == score.scene) for score in scores],
        "extension_mean": [score.extension for score in scores],
    }.items():
        independent = bootstrap_mean(values)
        assert metrics[name] == pytest.approx(independent.mean)
        assert metrics[f"{name}_high"] - metrics[f"{name}_low"] > 3 * (independent.high - independent.low)
    assert metrics["erosion_mean_low"] == metrics["erosion_mean_high"] == 0.5


def test_metrics_without_judges():
    assert not [name for name in compute_background_metrics([score(None, None, None)]) if name.startswith("scene")]


SIDE = 32


def build_product(top: int, left: int, side: int = 12) -> Product:
    alpha = np.zeros((SIDE, SIDE), np.float32)
    alpha[top : top + side, left : left + side] = 1
    return Product(np.zeros((SIDE, SIDE, 3), np.uint8), alpha, "mask")


def test_a_visible_seam_has_a_larger_gradient():
    smooth = np.tile(np.linspace(60, 120, SIDE).astype(np.uint8)[None, :, None], (SIDE, 1, 3))
    pasted = smooth.copy()
    pasted[10:22, 10:22] = 250
    plain, seam = measure_seam_gradients([smooth, pasted], [build_product(10, 10)] * 2, side=SIDE, reach=2)
    assert seam > 5 * plain > 0


def test_no_edge_no_seam():
    nothing = Product(np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((SIDE, SIDE), np.float32), "mask")
    assert measure_seam_gradients([nothing.pixels], [nothing], side=SIDE, reach=2) == [None]
