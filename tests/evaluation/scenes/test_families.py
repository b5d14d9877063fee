"""Families of requests: slices differ in one thing, and what a generator lacks is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from canvas.pins.fallbacks import Notes
from evaluation.scenes.families import MODES, NO_UPSCALER, build_families
from evaluation.scenes.subjects import Subjects, choose_distinct, cut_out
from tests.evaluation.scenes.conftest import SPEC, build_pin


def test_slices_have_the_same_products_prompts_and_seeds(subjects: Subjects) -> None:
    families = build_families(subjects, SPEC, 64, notes := Notes())
    assert list(families) == ["mode", "size", "format", "products"]
    assert notes.to_metrics() == {}
    assert list(families["mode"]) == list(MODES)
    assert list(families["format"]) == ["square", "banner"]
    for name in ("mode", "size", "format"):
        for first, *others in zip(*families[name].values(), strict=True):
            assert {(other.seed, other.prompt, other.group) for other in others} == {
                (first.seed, first.prompt, first.group)
            }
    assert [request.prompt for request in families["mode"]["hard"]] == ["mug, in a forest", "mug, in a lobby"] * 2
    assert [request.seed for request in families["mode"]["hard"]] == [5, 6, 7, 8]
    assert {len(requests) for requests in families["size"].values()} == {1}  # as the sheet shows


def test_scenes_gain_a_product_at_a_time(subjects: Subjects) -> None:
    family = build_families(subjects, SPEC, 64, Notes())["products"]
    assert [len(requests) for requests in family.values()] == [2, 2, 2]
    for one, two, three in zip(*family.values(), strict=True):
        assert one.prompt.startswith("mug, ")
        assert three.prompt.startswith("mug and mug and mug, ")
        assert one.group == two.group == three.group
        assert np.array_equal(np.asarray(one.images[0]), np.asarray(two.images[0]))
        assert np.array_equal(np.asarray(two.images[1]), np.asarray(three.images[1]))


def test_what_a_generator_lacks_is_noted(plain_subjects: Subjects) -> None:
    families = build_families(plain_subjects, SPEC, 64, notes := Notes())
    assert list(families["mode"]) == ["hard", "reflection"]
    assert families["size"] == {}
    assert notes.to_metrics()["notes"] == [
        "the generator has no network of light, so mode soft was not tried",
        "the generator has no network of shadow, so mode shadow was not tried",
        "the generator has no network of light and shadow, so mode soft_shadow was not tried",
        NO_UPSCALER,
    ]


@pytest.mark.parametrize("products", [1, 2])
def test_no_scene_has_a_product_twice(plain_subjects: Subjects, products: int) -> None:
    pins = [replace(build_pin(number), product_id=f"mug{number % products}") for number in range(4)]
    family = build_families(replace(plain_subjects, pins=pins), SPEC, 64, Notes())["products"]
    assert list(family) == ["1", "2"][:products]


def test_a_cut_out_is_the_product_and_little_more() -> None:
    pin = build_pin(0)
    product = cut_out(pin)
    assert product.mode == "RGBA"
    assert (np.asarray(product.getchannel("A")) > 0).sum() == pin.mask.sum()
    assert product.width < pin.image.width


def test_distinct_pins_are_of_different_products() -> None:
    pins = [replace(build_pin(number), product_id="mug") for number in range(3)] + [build_pin(3)]
    assert len(choose_distinct(pins, 4, np.random.default_rng(0))) == 2
