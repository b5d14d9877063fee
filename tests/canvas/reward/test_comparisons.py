from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from canvas.masks.simulation import dilate_by_disk
from canvas.reward.batches import ComparisonBatches
from canvas.reward.comparisons import (
    Comparison,
    Variant,
    compute_absolute_labels,
    compute_preferences,
    render_variant,
    sample_background_comparisons,
    sample_comparisons,
    sample_real_comparisons,
)
from canvas.reward.corruptions import CORRUPTIONS
from canvas.reward.model import tokenize_backgrounds
from canvas.reward.product_views import ProductView, SceneView
from canvas.reward.spec import HEADS
from tests.canvas.reward.test_corruptions import scene
from tests.canvas.reward.test_model import build_tower

FOREST, LOBBY = "in a forest", "in a lobby"
KINDS = list(CORRUPTIONS)
TOKENIZE = partial(tokenize_backgrounds, build_tower())


def views(count: int = 4) -> list[ProductView]:
    pixels, mask = scene()
    return [ProductView(f"p{index}", "mug", "train", pixels, mask, FOREST) for index in range(count)]


def scenes() -> list[SceneView]:
    return [SceneView(np.full((64, 64, 3), 200, np.uint8), words) for words in (FOREST, LOBBY)]


def known(comparison: Comparison) -> dict[str, float]:
    """What is preferred, by head; without those that nothing is known of."""
    first, second = (
        compute_absolute_labels(one, views()[0], scenes(), comparison.prompt)
        for one in (comparison.first, comparison.second)
    )
    preferences = compute_preferences(comparison, first, second)
    return {head: float(value) for head, value in zip(HEADS, preferences, strict=True) if not np.isnan(value)}


def test_a_real_image_beats_a_corrupted_one_in_what_was_hurt():
    seam = Variant("seam", 0.5, 1)
    assert known(Comparison(0, Variant(), seam, "")) == {"defects": 1, "overall": 1}
    assert known(Comparison(0, seam, Variant(), FOREST)) == {"defects": 0, "overall": 0, "prompted": 0}
    assert known(Comparison(0, Variant(), Variant("cut", 0.5, 1), "")) == {"defects": 1, "fidelity": 1, "overall": 1}


def test_of_one_kind_the_milder_is_preferred():
    mild, strong = Variant("recoloured", 0.1, 1), Variant("recoloured", 0.6, 1)
    assert known(Comparison(0, mild, strong, "")) == {"fidelity": 1, "overall": 1}
    assert known(Comparison(0, strong, mild, "")) == {"fidelity": 0, "overall": 0}


def test_of_two_kinds_each_is_better_where_it_hurts_nothing_and_overall_nobody_knows():
    assert known(Comparison(0, Variant("recoloured", 0.5, 1), Variant("seam", 0.5, 1), "")) == {
        "defects": 1,
        "fidelity": 0,
    }
    assert known(Comparison(0, Variant("cut", 0.5, 1), Variant("extended", 0.5, 1), "")) == {}


def test_which_scene_is_better_depends_on_the_prompt_alone():
    own, other = Variant(), Variant(scene=1)
    assert known(Comparison(0, own, other, FOREST)) == {"prompted": 1}
    assert known(Comparison(0, own, other, LOBBY)) == {"prompted": 0}
    assert known(Comparison(0, own, other, "")) == {}


def test_how_good_a_single_image_is():
    def of(variant: Variant, prompt: str = "") -> dict[str, float]:
        return dict(zip(HEADS, compute_absolute_labels(variant, views()[0], scenes(), prompt).tolist(), strict=True))

    assert of(Variant(), FOREST) == dict.fromkeys(HEADS, 1.0)
    assert of(Variant(), LOBBY)["prompted"] == 0
    assert np.isnan(of(Variant())["prompted"])
    eroded = of(Variant("eroded", 0.5, 0))
    assert eroded["fidelity"] == eroded["overall"] == 0
    assert np.isnan(eroded["defects"])
    pasted = of(Variant(scene=1), LOBBY)
    assert (pasted["fidelity"], pasted["prompted"]) == (1, 1)
    assert np.isnan([pasted["defects"], pasted["overall"]]).all()


def test_a_variant_in_another_scene_shows_it_behind_the_product():
    view = views()[0]
    image = render_variant(view, Variant(scene=1), scenes())
    assert (image[~dilate_by_disk(view.mask, 3)] == 200).all()
    assert np.array_equal(render_variant(view, Variant(), scenes()), view.pixels)


def test_comparisons_are_drawn_of_every_sort_and_again_the_same():
    drawn = sample_comparisons(views(), scenes(), KINDS, 400, seed=1)
    assert drawn == sample_comparisons(views(), scenes(), KINDS, 400, seed=1)
    assert drawn[:50] == sample_comparisons(views(), scenes(), KINDS, 50, seed=1)
    assert drawn != sample_comparisons(views(), scenes(), KINDS, 400, seed=2)
    assert {kind for one in drawn for kind in one.kinds} == {*KINDS, "scene"}
    assert {one.view for one in drawn} == {0, 1, 2, 3}
    sides = [one.first.kind is None for one in drawn if (one.first.kind is None) != (one.second.kind is None)]
    assert 0.35 < np.mean(sides) < 0.65
    assert any(one.first.kind == one.second.kind is not None for one in drawn)
    assert {one.prompt for one in drawn} == {"", FOREST, LOBBY}


def test_without_other_scenes_nothing_is_asked_about_them():
    drawn = sample_comparisons(views(), scenes()[:1], KINDS, 100, seed=1)
    assert not any("scene" in one.kinds for one in drawn)


def test_a_plain_background_is_not_corrupted_in_ways_that_do_not_show():
    pixels, mask = scene()
    plain = ProductView("p", None, "train", np.where(mask[..., None], pixels, 255).astype(np.uint8), mask, "")
    drawn = sample_comparisons([plain], [], KINDS, 200, seed=1)
    assert not {kind for one in drawn for kind in one.kinds} & {
        kind for kind in KINDS if CORRUPTIONS[kind].needs_texture
    }
    assert sample_real_comparisons([plain], "blurred", 10, seed=0) == []


def test_one_kind_against_real_images_of_different_views():
    drawn = sample_real_comparisons(views(), "cut", 3, seed=0)
    assert [one.kinds for one in drawn] == [frozenset({"cut"})] * 3
    assert len({one.view for one in drawn}) == 3
    assert len(sample_real_comparisons(views(), "cut", 10, seed=0)) == 4


def test_of_a_product_in_two_scenes_either_is_asked_for():
    drawn = sample_background_comparisons(views(), scenes(), 20, seed=0)
    assert len(drawn) == 20
    assert {one.prompt for one in drawn} == {FOREST, LOBBY}
    for one in drawn:
        assert {one.first.scene, one.second.scene} == {None, 1}  # the other scene has the view's own words
        assert known(one)["prompted"] == float((one.first.scene == 1) == (one.prompt == LOBBY))
    assert sample_background_comparisons(views(), scenes()[:1], 20, seed=0) == []


def test_batches_are_functions_of_the_step_and_two_ranks_share_one():
    drawn = sample_comparisons(views(), scenes(), KINDS, 30, seed=1)
    batches = ComparisonBatches(drawn, views(), scenes(), tokenize=TOKENIZE, batch_size=8, seed=0)
    whole, parts = batches(3, 0, 1), [batches(3, rank, 2) for rank in range(2)]
    for name, column in whole.items():
        if isinstance(column, torch.Tensor):
            assert torch.equal(column.nan_to_num(9), torch.cat([part[name] for part in parts]).nan_to_num(9)), name
    assert whole["first"].shape == whole["originals"].shape == (8, 3, 64, 64)
    assert whole["masks"].shape == (8, 1, 64, 64)
    assert whole["preferred"].shape == (8, len(HEADS))


def test_both_images_and_the_original_are_varied_alike():
    """A real image is its original on the product, mirrored or not."""
    drawn = [Comparison(0, Variant(), Variant("seam", 0.5, 1), "")] * 12
    batch = ComparisonBatches(drawn, views(), scenes(), tokenize=TOKENIZE, batch_size=12, seed=0)(0, 0, 1)
    inside = batch["masks"].expand(-1, 3, -1, -1)
    away = (batch["first"].int() - batch["originals"].int()).abs()
    assert (away * inside).float().mean() < 1
    assert len({column.numpy().tobytes() for column in batch["first"]}) > 2


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match="nothing to compare"):
        ComparisonBatches([], views(), scenes(), tokenize=TOKENIZE, batch_size=8, seed=0)
