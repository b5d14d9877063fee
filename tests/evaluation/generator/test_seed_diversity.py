from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from canvas.pins import tables
from canvas.pins.products import ProductPin
from evaluation.generator.spec import BackgroundEvaluationSpec, SameSeedSpec
from evaluation.generator.stage_scores import (
    compute_background_distances,
    group_scene_pins,
    measure_scene_colours,
    measure_seed_diversity,
    select_one_a_product,
)
from tests.canvas.inference.conftest import pipeline, sampling  # noqa: F401 (a fixture)

SIDE = 96


def draw_background(seed: int) -> np.ndarray:
    """Stripes of random colours."""
    stripes = np.random.default_rng(seed).integers(0, 256, (SIDE // 8, 1, 3))
    return np.repeat(np.broadcast_to(stripes, (SIDE // 8, SIDE, 3)), 8, axis=0).astype(np.uint8)


def draw_mask(number: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[30 + number : 60, 20 + 3 * number : 50 + 3 * number] = True
    return mask


def make_pin(number: int, background: int, product: str | None = None) -> ProductPin:
    """A product of one colour before a background."""
    pixels, mask = draw_background(background), draw_mask(number)
    pixels[mask] = (40 * number, 255 - 40 * number, 128)
    return ProductPin(f"p{number}", Image.fromarray(pixels), mask, "mug", product_id=product or f"product {number}")


def test_products_do_not_count() -> None:
    pins = [make_pin(number, background) for number, background in enumerate((7, 7, 7, 8))]
    distances = compute_background_distances([pin.image for pin in pins], [pin.mask for pin in pins])
    assert np.isnan(np.diag(distances)).all()
    same, others = distances[:3, :3][np.triu_indices(3, 1)], distances[:3, 3]
    assert same.max() == pytest.approx(0, abs=1e-6)
    assert others.min() > 0.1
    assert np.array_equal(distances, distances.T, equal_nan=True)


def test_products_that_hide_all_have_no_distance() -> None:
    left = np.zeros((SIDE, SIDE), bool)
    left[:, : SIDE // 2] = True
    images = [Image.fromarray(draw_background(seed)) for seed in range(3)]
    distances = compute_background_distances(images, [left, ~left, left])
    assert np.isnan([distances[0, 1], distances[1, 2]]).all()
    assert distances[0, 2] > 0


def test_one_seed_beside_others_and_real_images(pipeline) -> None:  # noqa: F811
    pins = [make_pin(number, number) for number in range(3)]
    prompts = ["in a forest", "in a lobby", "on a meadow"]
    spec = BackgroundEvaluationSpec(
        splits=("train",),
        products=3,
        seed=5,
        real_pins=3,
        seam_reach=1,
        grid_products=1,
        same_seed=SameSeedSpec(products=3, prompts=2),
    )
    images = [np.array(make_pin(row, 10 * row + place).image) for row in range(3) for place in range(3)]
    metrics = measure_seed_diversity(pipeline, pins, prompts, images, [pins], spec, sampling(steps=1))
    assert (metrics["images"], metrics["real_scenes"]) == (6, 1)
    for name in ("distance", "distance_other_seeds", "distance_real", "of_other_seeds", "of_real"):
        assert 0 < metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
    assert metrics["of_real"] == pytest.approx(metrics["distance"] / metrics["distance_real"])
    chosen = [[images[3 * row + place] for row in range(3)] for place in (0, 2)]  # spread over the prompts
    expected = [
        compute_background_distances([Image.fromarray(image) for image in row], [pin.mask for pin in pins])
        for row in chosen
    ]
    assert metrics["distance_other_seeds"] == pytest.approx(np.nanmean(expected))
    assert measure_seed_diversity(pipeline, pins[:1], prompts, images[:3], [], spec, sampling(steps=1)) == {}
    without = measure_seed_diversity(pipeline, pins, prompts, images, [], spec, sampling(steps=1))
    assert without["distance"] == metrics["distance"]
    assert not any("real" in name for name in without if name != "real_scenes")
    twice, doubled = [pins[0], *pins], [*images[:3], *images]
    assert measure_seed_diversity(pipeline, twice, prompts, doubled, [], spec, sampling(steps=1)) == without
    left = np.zeros((SIDE, SIDE), bool)
    left[:, : SIDE // 2] = True
    halves = [replace(pin, mask=mask) for pin, mask in zip(pins, (left, ~left), strict=False)]
    assert measure_seed_diversity(pipeline, halves, prompts, images[:6], [], spec, sampling(steps=1)) == {}
    assert measure_seed_diversity(pipeline, pins, prompts, images, [halves], spec, sampling(steps=1)) == without


def test_real_pins_are_of_the_prompts_scene_and_of_different_products(tmp_path: Path) -> None:
    pins = [make_pin(0, 0, "a"), make_pin(1, 1, "a"), make_pin(2, 2, "b"), make_pin(3, 3, "c"), make_pin(4, 4, "d")]
    scenes = ("forest", "forest", "forest", "lobby", None)
    rows = [
        dict.fromkeys(tables.TRUTH.names) | {"pin_id": pin.pin_id, "scene": scene}
        for pin, scene in zip(pins, scenes, strict=True)
    ]
    tables.write_rows(tmp_path / "truth", rows, tables.TRUTH)
    prompts = ["in a forest", "in a lobby", "on the moon"]
    scenes = group_scene_pins(pins, tmp_path / "truth", prompts)
    assert [[pin.pin_id for pin in scene] for scene in scenes] == [["p0", "p1", "p2"], ["p3"], []]
    assert [pin.pin_id for pin in select_one_a_product(scenes[0], 2)] == ["p0", "p2"]
    assert [pin.pin_id for pin in select_one_a_product(scenes[0], 1)] == ["p0"]


def test_colours_of_a_scene_lie_in_the_range_of_its_real_images_or_not() -> None:
    pins = [make_pin(number, 0) for number in range(2)]

    def paint(grey: int) -> np.ndarray:
        pixels = np.full((SIDE, SIDE, 3), grey, np.uint8)
        pixels[draw_mask(0) | draw_mask(1)] = 255  # products do not count
        return pixels

    mask = draw_mask(0) | draw_mask(1)
    real = [replace(pins[0], image=Image.fromarray(paint(grey)), mask=mask) for grey in (90, 110)]
    prompts = ["in a forest", "in a lobby", "on the moon"]
    products = [replace(pin, mask=mask) for pin in pins]
    images = [paint(grey) for grey in (80, 255, 0, 120, 255, 0)]  # two products before three prompts
    colours = measure_scene_colours(products, prompts, images, [real, real, []])
    assert colours["scenes_in_range"] == 0.5
    forest, lobby = colours["by_prompt"]["in a forest"], colours["by_prompt"]["in a lobby"]
    assert (forest["red"], forest["red_low"], forest["red_high"], forest["clipped"]) == (100, 90, 110, 0)
    assert (lobby["blue"], lobby["clipped"], lobby["clipped_high"], lobby["in_range"]) == (255, 1, 0, 0)
    assert "on the moon" not in colours["by_prompt"]
    assert measure_scene_colours(products, prompts, images, [[], [], []]) == {}
