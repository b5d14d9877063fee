"""Products of a scene are counted by a segmenter, and compared by an embedding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from canvas.inference.scene.build import Scene, build_scene
from canvas.layout.spec import build_layout
from evaluation.scenes.products import ProductCounter, SceneCount, compute_threshold, summarize_counts
from evaluation.scenes.subjects import Subjects, cut_out
from tests.canvas.inference.conftest import small_uve
from tests.evaluation.scenes.conftest import build_pin

PRODUCTS = [cut_out(build_pin(number)) for number in range(2)]


@pytest.fixture
def counter(plain_subjects: Subjects, tmp_path: Path) -> ProductCounter:
    small_uve().save_pretrained(tmp_path / "uve")
    return ProductCounter.load(tmp_path / "uve", plain_subjects, plain_subjects.pins)


@pytest.fixture
def scene() -> Scene:
    return build_scene(PRODUCTS, layout=build_layout("320x96", layout="row"))


@pytest.fixture
def lean(plain_subjects: Subjects) -> Iterator[Callable[[float], None]]:
    """Make the segmenter take everything for product, or nothing."""
    bias = plain_subjects.pipeline.segmenter.decode_head.classifier.bias
    before = bias.detach().clone()

    def add(value: float) -> None:
        bias.data = before + torch.tensor([0.0, value])

    yield add
    bias.data = before


def test_products_that_are_not_recognized_are_omitted(
    counter: ProductCounter, scene: Scene, lean: Callable[[float], None]
) -> None:
    lean(-1e6)
    assert counter.count(scene.product.pixels, scene, PRODUCTS) == SceneCount(omitted=2, extra=0, duplicated=0)


def test_what_is_too_much_is_compared_with_the_products(
    counter: ProductCounter, scene: Scene, lean: Callable[[float], None]
) -> None:
    lean(1e6)
    for threshold, duplicated in ((-1.0, True), (1.0, False)):
        count = replace(counter, threshold=threshold).count(scene.product.pixels, scene, PRODUCTS)
        assert count.omitted == 0
        assert count.extra > 0
        assert count.duplicated == count.extra * duplicated


def test_different_products_set_the_threshold(counter: ProductCounter) -> None:
    assert -1 <= counter.threshold < 1
    assert compute_threshold(counter.uve, [build_pin(0)]) == 1.0


def test_counts_are_added() -> None:
    counts = [SceneCount(1, 2, 1), SceneCount(0, 1, 0)]
    assert summarize_counts(counts) == {"omitted": 1, "extra": 3, "duplicated": 1}
    assert summarize_counts([]) == {"omitted": 0, "extra": 0, "duplicated": 0}
