from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from canvas.masks.simulation import dilate_by_disk, erode_by_disk
from canvas.pins.images import Pixels
from canvas.pins.products import ProductPin
from canvas.pins.scene_views import stack_views
from canvas.reward.corruptions import corrupt_image
from evaluation.judges.defects import KINDS, build_example, fit_defect_judge
from evaluation.judges.judges import blur_views

SIDE = 64


def build_pins(count: int, seed: int) -> list[ProductPin]:
    """Discs and squares before noise of many colours."""
    random, pins = np.random.default_rng(seed), []
    y, x = np.indices((SIDE, SIDE))
    for number in range(count):
        place, size = random.integers(24, 40, 2), random.integers(10, 18)
        distance = np.stack([np.abs(y - place[0]), np.abs(x - place[1])])
        mask = (np.hypot(*distance) if number % 2 else distance.max(axis=0)) < size
        image = random.uniform(40, 215, 3) + random.normal(0, 8, (SIDE, SIDE, 3))
        image[mask] = random.uniform(0, 255, 3)
        pins.append(ProductPin(f"p{number}", Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)), mask, "thing"))
    return pins


def test_defects_are_seen_and_sound_images_pass_soft_ones_too() -> None:
    judge = fit_defect_judge(build_pins(120, 0), build_pins(40, 1), side=SIDE, seed=0)
    assert judge.accuracy["recall"] > 0.5
    unseen = build_pins(40, 2)
    real = stack_views([pin.image for pin in unseen], SIDE)
    for views in (real, blur_views(real, 5)):
        assert np.mean(judge.find_defects(views)) < 0.25
    kinds = [KINDS[number % len(KINDS)] for number in range(len(unseen))]
    bad = [
        corrupt_image(view, pin.mask, kind, 1.0, number)
        for number, (view, pin, kind) in enumerate(zip(real, unseen, kinds, strict=True))
    ]
    assert np.mean(judge.find_defects(np.stack(bad))) > 0.5


def test_the_same_pins_give_the_same_judge() -> None:
    first, second = (fit_defect_judge(build_pins(8, 0), build_pins(8, 1), side=SIDE, seed=3) for _ in range(2))
    assert first.threshold == second.threshold
    weights, again = first.network.state_dict(), second.network.state_dict()
    assert all((weights[name] == again[name]).all() for name in weights)


@pytest.mark.parametrize("number", range(4))
def test_an_example_differs_where_it_was_corrupted(number: int) -> None:
    (pin,) = build_pins(1, number)
    view = np.asarray(pin.image)
    example, again = (build_example(view, pin.mask, number) for _ in range(2))
    assert (example.corrupted == again.corrupted).all()
    assert 0 < example.changed.mean() < 0.5
    difference = np.abs(example.corrupted.astype(int) - example.real).max(axis=2)
    assert difference[example.changed].mean() > 5 * difference[~example.changed].mean()


def test_examples_are_sharp_soft_and_sharp_before_a_soft_background() -> None:
    (pin,) = build_pins(1, 0)
    view, core, outside = np.asarray(pin.image), erode_by_disk(pin.mask, 3), ~dilate_by_disk(pin.mask, 6)
    sharp, soft, background = (build_example(view, pin.mask, number).real for number in (8, 1, 2))

    def measure_detail(image: Pixels) -> float:
        return float(np.abs(np.diff(image.astype(int), axis=1))[outside[:, 1:]].mean())

    assert (sharp == view).all()
    assert measure_detail(soft) < 0.8 * measure_detail(view)
    assert measure_detail(background) < 0.8 * measure_detail(view)
    assert np.abs(background[core].astype(int) - view[core]).max() <= 1


def test_a_view_without_its_product_has_a_defect_all_the_same() -> None:
    view = np.full((SIDE, SIDE, 3), 128, np.uint8)
    assert build_example(view, np.zeros((SIDE, SIDE), bool), 0).changed.any()
