"""Products on one canvas, pixel by pixel."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from canvas.layout.compose import Cutout, compose_products, fade_border
from canvas.layout.formats import Rectangle
from canvas.layout.spec import Layout, build_layout
from canvas.layout.windows import MAX_WINDOWS, plan_windows
from tests.canvas.inference.conftest import cutout


def read(image: Image.Image) -> Cutout:
    values = np.asarray(image)
    return Cutout(values[..., :3], values[..., 3].astype(np.float32) / np.float32(255))


def block(height: int, width: int, colour: int) -> Cutout:
    """A product without a soft edge."""
    return Cutout(np.full((height, width, 3), colour, np.uint8), np.ones((height, width), np.float32))


def at(*products: tuple[int, int], canvas: str = "60x40") -> Layout:
    text = json.dumps({"canvas": canvas, "products": [{"left": left, "top": top} for left, top in products]})
    return build_layout(layout=text)


@pytest.mark.parametrize("soft", [False, True])
def test_pixels_that_are_not_resized_are_the_images(soft: bool) -> None:
    product = read(cutout(64, 48, soft=soft))
    made = compose_products([product], build_layout("200x150", place="bottom"))
    (box,) = made.boxes
    rows, columns = np.nonzero(product.alpha > 0.02)
    inside = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    core = product.alpha[inside] == 1
    assert made.factors == [1.0]
    assert np.array_equal(made.pixels[box.region][core], product.pixels[inside][core])
    assert np.array_equal(made.owners[box.region] == 0, core)
    kept = product.alpha[inside] > 0.02
    assert np.array_equal(made.alpha[box.region][kept], product.alpha[inside][kept])
    assert made.alpha.sum() == pytest.approx(product.alpha[inside][kept].sum(), rel=1e-5)


@pytest.mark.parametrize("scale", [0.3, 0.9])
def test_resized_pixels_are_the_stated_resampling(scale: float) -> None:
    image = cutout(64, 48)
    made = compose_products([read(image)], build_layout("100x100", scale=scale))
    (box,) = made.boxes
    cropped = image.crop(image.getchannel("A").getbbox())
    stated = np.asarray(cropped.resize((box.width, box.height), Image.Resampling.LANCZOS))
    core = stated[..., 3] == 255
    assert core.any()
    assert np.array_equal(made.owners[box.region] == 0, core)
    assert np.array_equal(made.pixels[box.region][core], stated[core][:, :3])


def test_later_products_lie_over_earlier_ones() -> None:
    made = compose_products([block(10, 10, 50), block(10, 10, 200)], at((5, 5), (10, 10)))
    assert made.pixels[5, 5, 0] == 50
    assert made.pixels[12, 12, 0] == 200
    assert (made.owners == 0).sum() == 75
    assert (made.owners == 1).sum() == 100
    assert (made.alpha > 0).sum() == 175


def test_a_soft_edge_mixes_with_the_product_beneath_and_all_of_that_is_kept() -> None:
    over = Cutout(np.full((6, 6, 3), 200, np.uint8), np.full((6, 6), 0.25, np.float32))
    over.alpha[0, 0], over.alpha[5, 5] = 1, 0.01  # less than any product
    made = compose_products([block(10, 10, 100), over], at((5, 5), (7, 7)))
    assert made.pixels[8, 8, 0] == 125
    assert made.alpha[8, 8] == 1
    assert made.owners[8, 8] == -1
    assert (made.pixels[12, 12, 0], made.owners[12, 12]) == (100, 0)


def test_holes_of_a_product_stay_holes() -> None:
    ring = block(20, 20, 90)
    ring.alpha[5:15, 5:15] = 0
    made = compose_products([ring], at((3, 3)))
    assert not made.alpha[8:18, 8:18].any()
    assert (made.owners == 0).sum() == 300


@pytest.mark.parametrize(
    ("products", "places", "message"),
    [
        ([block(4, 4, 9), block(10, 10, 9)], [(6, 6), (5, 5)], "product 1 is hidden by those given after it"),
        ([block(40, 60, 9)], [(0, 0)], "the products cover the canvas: nothing to generate"),
    ],
)
def test_what_nobody_would_see_is_refused(products: list[Cutout], places: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compose_products(products, at(*places))


def test_a_product_that_is_scaled_to_nothing_is_refused() -> None:
    thin = Cutout(np.zeros((300, 300, 3), np.uint8), np.eye(300, dtype=np.float32))
    with pytest.raises(ValueError, match=r"product 1 has no opaque pixel left at \d+ x \d+: give it more room"):
        compose_products([thin], build_layout("100x100", scale=0.3))


def test_a_photograph_is_kept_but_for_a_band_at_its_new_borders() -> None:
    photograph = Cutout(
        np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8), np.zeros((64, 96), np.float32)
    )
    made = compose_products([photograph], build_layout("96x128", place="keep-bottom"))
    assert made.boxes == [Rectangle(64, 0, 64, 96)]
    assert np.array_equal(made.pixels[64:], photograph.pixels)
    assert np.array_equal(made.alpha[64:, 0], np.minimum(np.arange(1, 65, dtype=np.float32) / 3, 1))
    assert np.array_equal(made.owners[66:], np.zeros((62, 96)))
    assert not made.alpha[:64].any()


def test_the_product_of_a_kept_photograph_is_exact_up_to_its_border() -> None:
    photograph = Cutout(np.full((64, 64, 3), 9, np.uint8), np.zeros((64, 64), np.float32))
    photograph.alpha[:, 20:30] = 1  # from border to border
    for scale in (None, 0.5):
        made = compose_products([photograph], build_layout("64x128", place="keep", scale=scale))
        (box,) = made.boxes
        middle = box.left + round(25 * box.width / 64)
        assert (made.alpha[box.region[0], middle] == 1).all()
        assert made.alpha[box.top, box.left] < 1


def test_the_band_is_where_the_canvas_goes_on() -> None:
    alpha = fade_border(Rectangle(0, 10, 64, 64), (64, 100))
    assert (alpha[:, 32] == 1).all()
    assert 0 < alpha[5, 0] < alpha[5, 1] < 1 == alpha[5, 2]
    assert alpha[5, -1] < 1


@pytest.mark.parametrize(
    ("canvas", "aspect", "count"),
    [((100, 100), 1.0, 1), ((192, 108), 1.43, 1), ((50, 150), 1.43, 4), ((450, 100), 1.0, 8)],
)
def test_windows_cover_a_canvas_with_overlap(canvas: tuple[int, int], aspect: float, count: int) -> None:
    windows = plan_windows(canvas, aspect)
    assert len(windows) == count
    covered = np.zeros(canvas, int)
    for window in windows:
        covered[window.region] += 1
        assert max(window.height, window.width) <= round(1.25 * aspect * min(canvas))
    assert covered.min() == 1
    axis = 0 if canvas[0] > canvas[1] else 1
    starts = [(window.top, window.left)[axis] for window in windows]
    assert all(after - before <= aspect * min(canvas) / 2 + 1 for before, after in itertools.pairwise(starts))


@pytest.mark.parametrize("canvas", [(1000, 20_000), (20_000, 1000)])
def test_a_canvas_of_too_many_windows_is_refused(canvas: tuple[int, int]) -> None:
    with pytest.raises(
        ValueError, match=r"is too long for this model: its longer side may have 6\.4 times the shorter"
    ):
        plan_windows(canvas, 80 / 56)
    assert len(plan_windows((100, 640), 80 / 56)) == MAX_WINDOWS
