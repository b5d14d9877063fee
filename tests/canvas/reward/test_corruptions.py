from __future__ import annotations

import numpy as np
import pytest

from canvas.masks.simulation import dilate_by_disk, erode_by_disk
from canvas.reward.corruptions import (
    AESTHETICS,
    CORRUPTIONS,
    DEFECTS,
    FIDELITY,
    corrupt_image,
    has_texture,
    replace_background,
    soften_background,
)

SIDE = 64
REPLACES_PRODUCT = [kind for kind, one in CORRUPTIONS.items() if FIDELITY in one.hurts]
LEAVES_PRODUCT = [kind for kind, one in CORRUPTIONS.items() if FIDELITY not in one.hurts]


def scene(height: int = SIDE, width: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """A textured background, a plain red ellipse before it, its mask."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    pixels = np.clip(90 + 40 * np.sin(rows / 5)[..., None] + rng.normal(0, 20, (height, width, 3)), 0, 255)
    mask = np.hypot((rows - height / 2) / (height / 4), (columns - width / 2) / (width / 5)) < 1
    pixels[mask] = (180, 60, 50)
    return pixels.astype(np.uint8), mask


def change(before: np.ndarray, after: np.ndarray, where: np.ndarray) -> float:
    return float(np.abs(before.astype(int) - after)[where].mean())


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_every_kind_shows_at_any_strength_and_is_the_same_for_the_same_seed(kind, size):
    pixels, mask = scene(*size)
    where = mask if kind in REPLACES_PRODUCT and kind != "extended" else ~mask
    for strength in (0.0, 1.0):
        spoilt = corrupt_image(pixels, mask, kind, strength, seed=3)
        assert spoilt.shape == pixels.shape
        assert spoilt.dtype == np.uint8
        assert change(pixels, spoilt, where) > 0.25
        assert np.array_equal(spoilt, corrupt_image(pixels, mask, kind, strength, seed=3))


def _draw_odd_masks() -> dict[str, np.ndarray]:
    masks = {name: np.zeros((SIDE, SIDE), bool) for name in ("pixel", "row", "column", "diagonal", "islands")}
    masks["pixel"][20, 30] = True
    masks["row"][20, 4:60] = True
    masks["column"][4:60, 20] = True
    np.fill_diagonal(masks["diagonal"], True)
    masks["islands"][2:6, 2:6] = masks["islands"][50:54, 50:60] = masks["islands"][30, 58] = True
    return masks | {"checkerboard": np.indices((SIDE, SIDE)).sum(0) % 2 == 0, "all": np.ones((SIDE, SIDE), bool)}


@pytest.mark.parametrize("shape", _draw_odd_masks())
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_products_of_any_shape_come_to_an_end(kind, shape):
    pixels, mask = scene()[0], _draw_odd_masks()[shape]
    for strength in (0.0, 1.0):
        for seed in range(5):
            assert corrupt_image(pixels, mask, kind, strength, seed=seed).shape == pixels.shape


def test_a_cut_goes_on_in_the_nearest_part():
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[28:36, 20:22] = mask[28:36, 30:44] = True
    for seed in range(20):
        lost = (corrupt_image(pixels, mask, "cut", 1.0, seed=seed) != pixels).any(axis=2) & mask
        assert lost.sum() >= 0.3 * mask.sum()


@pytest.mark.parametrize("kind", LEAVES_PRODUCT)
def test_what_leaves_the_product_alone_does_so_to_the_bit(kind):
    pixels, mask = scene()
    spoilt = corrupt_image(pixels, mask, kind, 1.0, seed=1)
    assert np.array_equal(spoilt[erode_by_disk(mask, 1)], pixels[erode_by_disk(mask, 1)])


@pytest.mark.parametrize("kind", REPLACES_PRODUCT)
def test_what_changes_the_product_leaves_the_far_background_alone(kind):
    pixels, mask = scene()
    far = ~dilate_by_disk(mask, SIDE / 3)
    assert far.any()
    assert change(pixels, corrupt_image(pixels, mask, kind, 1.0, seed=1), far) == 0


@pytest.mark.parametrize(
    "kind", sorted(CORRUPTIONS.keys() - {"warped", "scratched", "artefacts", "blotched", "patched"})
)
def test_stronger_is_further_from_the_truth(kind):
    pixels, mask = scene()
    everywhere = np.ones_like(mask)
    weak, strong = (
        np.mean([change(pixels, corrupt_image(pixels, mask, kind, strength, seed), everywhere) for seed in range(5)])
        for strength in (0.0, 1.0)
    )
    assert strong > weak


def test_every_question_is_hurt_by_several_kinds_and_none_is_both_hurt_and_unclear():
    for question in (DEFECTS, FIDELITY, AESTHETICS):
        assert sum(question in one.hurts for one in CORRUPTIONS.values()) >= 4
    for one in CORRUPTIONS.values():
        assert one.hurts
        assert not one.hurts & one.unclear
        assert one.hurts | one.unclear <= {DEFECTS, FIDELITY, AESTHETICS}


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_products_at_the_images_edge_are_corrupted_too(kind):
    pixels, _ = scene()
    for rows in (slice(0, 20), slice(0, SIDE)):
        mask = np.zeros((SIDE, SIDE), bool)
        mask[rows, :30] = True
        assert corrupt_image(pixels, mask, kind, 0.5, seed=0).shape == pixels.shape


def test_a_placed_product_is_itself_and_the_rest_is_the_scene():
    pixels, mask = scene()
    other = np.full_like(pixels, 77)
    placed = replace_background(pixels, mask, other)
    assert np.array_equal(placed[erode_by_disk(mask, 1)], pixels[erode_by_disk(mask, 1)])
    assert (placed[~dilate_by_disk(mask, 3)] == 77).all()


def test_softening_spares_the_product():
    pixels, mask = scene()
    softened = soften_background(pixels, mask, 1.5)
    assert np.array_equal(softened[erode_by_disk(mask, 1)], pixels[erode_by_disk(mask, 1)])
    assert softened[~mask].std() < pixels[~mask].std()


def test_a_plain_background_is_not_textured():
    pixels, mask = scene()
    assert has_texture(pixels, mask)
    assert not has_texture(np.where(mask[..., None], pixels, 255), mask)
    assert not has_texture(pixels, np.ones_like(mask))
