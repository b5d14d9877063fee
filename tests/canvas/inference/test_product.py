from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from canvas.inference import product as product_module
from canvas.inference.product import (
    build_product,
    composite_pixels,
    compute_frame,
    derive_seed,
    feather_mask,
    frame_product,
    lay_product,
    select_band,
)
from canvas.masks.composite import ALPHA_FLOOR, composite_product
from canvas.pins import images as images_module
from canvas.pins import masks as masks_module
from canvas.pins.masks import apply_guided_filter
from tests.canvas.inference.conftest import cutout, split


def test_cut_out_keeps_its_opaque_pixels():
    image = cutout(40, 60, soft=True)
    product = build_product(image)
    assert product.origin == "alpha channel"
    assert np.array_equal(product.core, np.array(image)[..., 3] == 255)
    assert ((product.alpha > 0) & ~product.core).any()


def test_hard_mask_is_feathered_inwards():
    rgb, mask = split(cutout(400, 600))
    product = build_product(rgb, mask)
    inside = np.array(mask) > 0
    assert not product.alpha[~inside].any()
    assert product.core.sum() > 0.95 * inside.sum()
    assert product.core.sum() < inside.sum()
    assert product.origin == "mask"


def test_soft_mask_is_taken_as_it_is():
    rgb, mask = split(cutout(40, 60, soft=True))
    assert np.array_equal(build_product(rgb, mask).alpha, build_product(cutout(40, 60, soft=True)).alpha)


@pytest.mark.parametrize("grey", [0, 255])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_a_mask_of_one_colour_has_its_shape_in_its_alpha(grey, soft):
    rgb, mask = split(cutout(40, 60, soft=soft))
    plain = Image.new("L", mask.size, grey)
    product = build_product(rgb, Image.merge("RGBA", [plain, plain, plain, mask]))
    assert np.array_equal(product.alpha, build_product(rgb, mask).alpha)
    assert product.origin == "mask"


def test_a_mask_with_a_drawn_shape_is_not_read_by_its_alpha():
    rgb, mask = split(cutout(40, 60))
    other = Image.new("L", mask.size, 255)
    other.paste(0, (0, 0, 30, 40))
    product = build_product(rgb, Image.merge("RGBA", [mask, mask, mask, other]))
    assert np.array_equal(product.alpha, build_product(rgb, mask).alpha)


def test_segmenter_is_asked_when_nothing_else_is_there():
    rgb, mask = split(cutout(40, 60))
    product = build_product(rgb, segment=lambda image: np.array(mask, np.float32) / 255)
    assert product.origin == "segmenter"
    assert np.array_equal(product.alpha, build_product(rgb, mask).alpha)


def test_feather_leaves_thin_masks_and_the_images_edge():
    line = np.zeros((20, 20), bool)
    line[10] = True
    assert np.array_equal(feather_mask(line), line.astype(np.float32))
    half = np.zeros((20, 20), bool)
    half[:, 10:] = True
    assert (feather_mask(half)[:, -1] == 1).all()
    assert (feather_mask(half)[:, 10] < 1).all()


def _opaque(value: int = 255) -> tuple[Image.Image, Image.Image]:
    return Image.new("RGB", (8, 8)), Image.new("L", (8, 8), value)


def _faint(most: int) -> Image.Image:
    """A cut-out whose alpha is nowhere above `most`."""
    image = cutout(40, 60, soft=True)
    image.putalpha(image.getchannel("A").point(lambda value: min(value, most)))
    return image


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("not an image",), "must be a PIL image, not str"),
        (_opaque(0), "the mask is empty: nothing to keep"),
        (_opaque(255), "the mask covers the image: nothing to generate"),
        ((Image.new("RGB", (8, 8)), Image.new("RGBA", (8, 8), (0, 0, 0, 200))), "the mask is empty: nothing to keep"),
        ((Image.new("RGBA", (8, 8)),), "the alpha channel is empty"),
        ((Image.new("RGBA", (8, 8), (0, 0, 0, 200)),), "the alpha channel covers the image"),
        ((_faint(254),), "the alpha channel has no fully opaque pixel, the largest is 254 of 255"),
        (split(_faint(200)), "the mask has no fully opaque pixel, the largest is 200 of 255"),
        ((Image.new("RGB", (8, 8)), Image.new("L", (9, 8))), "the mask is 9 x 8, the product image 8 x 8"),
        ((cutout(8, 8), Image.new("L", (8, 8))), "alpha channel and a mask was given too"),
        ((Image.new("RGB", (8, 8)),), "neither alpha channel nor mask, and this model has no segmenter"),
        ((Image.new("RGBA", (8, 8), (0, 0, 0, 255)),), "neither alpha channel nor mask"),
        ((Image.new("RGB", (8, 8)), None, lambda image: np.zeros((8, 8), np.float32)), "found no product"),
        ((Image.new("RGB", (8, 8)), None, lambda image: np.ones((8, 8), np.float32)), "took the whole image"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        build_product(*arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("scale", [1, 255])
def test_masks_and_alpha_of_0_and_1_mean_0_and_255(scale):
    rgb, mask = split(cutout(40, 60))
    values = (np.array(mask) > 127).astype(np.uint8)
    assert np.array_equal(build_product(rgb, Image.fromarray(values * scale)).alpha, build_product(rgb, mask).alpha)
    cut = rgb.copy()
    cut.putalpha(Image.fromarray(values * scale))
    assert np.array_equal(build_product(cut).alpha, values)


def test_large_products_are_worked_on_in_strips_with_the_same_result(monkeypatch):
    images = cutout(90, 60, soft=True), cutout(61, 90)
    made = {}
    for strip in (4_000_000, 7 * 60):
        for module in (product_module, images_module, masks_module):
            monkeypatch.setattr(module, "STRIP_PIXELS", strip)
        made[strip] = []
        for image in images:
            product = build_product(image)
            background = np.random.default_rng(0).integers(0, 256, (*product.size, 3), dtype=np.uint8)
            shift = np.linspace(-2, 2, product.alpha.size, dtype=np.float32).reshape(product.size)
            framed = frame_product(product, compute_frame(*product.size, side=32, multiple=8, max_aspect=2.0))
            filtered = apply_guided_filter(product.alpha, image.convert("RGB"), 4, 1e-3)
            made[strip].append(
                (product.pixels, product.alpha, composite_pixels(background, product, shift), framed.pixels, filtered)
            )
    for whole, strips in zip(*made.values(), strict=True):
        for first, second in zip(whole[:-2], strips[:-2], strict=True):
            assert np.array_equal(first, second)
        assert torch.allclose(whole[-2], strips[-2], atol=1e-5)
        assert np.allclose(whole[-1], strips[-1], atol=1e-5)


def test_composite_is_exact_on_the_core_and_background_outside():
    product = build_product(cutout(40, 60, soft=True))
    background = np.full((40, 60, 3), 77, np.uint8)
    out = composite_pixels(background, product)
    assert np.array_equal(out[product.core], product.pixels[product.core])
    assert (out[product.alpha == 0] == 77).all()
    band = (product.alpha > ALPHA_FLOOR) & ~product.core
    wanted = product.alpha[band][:, None] * product.pixels[band] + (1 - product.alpha[band][:, None]) * 77
    assert np.abs(out[band] - wanted).max() <= 0.5 + 1e-3
    nearer = composite_pixels(background, product, np.full((40, 60), 3.0, np.float32))
    assert np.abs(nearer[band] - product.pixels[band]).mean() < np.abs(out[band] - product.pixels[band]).mean()
    assert np.array_equal(nearer[product.core], product.pixels[product.core])


def test_composite_in_bytes_is_the_one_that_the_decoder_was_trained_with():
    product = build_product(cutout(40, 60, soft=True))
    rng = np.random.default_rng(0)
    background = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    shift = (3 * rng.standard_normal((40, 60))).astype(np.float32)
    alpha = torch.from_numpy(product.alpha)[None, None]

    def channels(pixels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(pixels).permute(2, 0, 1)[None].float()

    for move in (None, shift):
        shift_tensor = None if move is None else torch.from_numpy(move)[None, None]
        core = torch.from_numpy(product.core)[None, None]
        wanted = composite_product(channels(background), channels(product.pixels), core, alpha, alpha, shift_tensor)
        composite = channels(composite_pixels(background, product, move))
        assert (composite - wanted).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 64), (64, 64, 64, 64)),
        ((1000, 2000), (48, 96, 48, 96)),
        ((3000, 100), (96, 48, 96, 3)),
        ((7, 500), (48, 96, 1, 96)),
        ((100, 130), (64, 80, 64, 80)),
    ],
)
def test_frames_fit_the_model_and_the_aspect(size, expected):
    frame = compute_frame(*size, side=64, multiple=16, max_aspect=2.0)
    assert (frame.height, frame.width, frame.inner_height, frame.inner_width) == expected
    assert 0 <= frame.top <= frame.height - frame.inner_height


def test_what_is_placed_comes_back():
    smooth = np.linspace(0, 1, 90, dtype=np.float32)[None, :, None] * np.ones((200, 1, 3), np.float32)
    frame = compute_frame(200, 90, side=64, multiple=16, max_aspect=1.5)
    framed = frame.insert_product(smooth)
    assert framed.shape == (frame.height, frame.width, 3)
    assert framed[:, : frame.left].max(initial=0) == 0
    assert np.abs(frame.extract_product(framed, 200, 90) - smooth).max() < 0.03


def test_a_products_own_seed():
    product, other = build_product(cutout(40, 60)), build_product(cutout(40, 64))
    assert derive_seed(3, product) == derive_seed(3, build_product(cutout(40, 60))) == derive_seed(2, product) + 1
    assert derive_seed(3, product) != derive_seed(3, other)
    assert derive_seed(3, product) != derive_seed(3, build_product(cutout(40, 60, soft=True)))
    hidden = np.array(cutout(40, 60))
    hidden[hidden[..., 3] == 0] = (1, 2, 3, 0)
    assert derive_seed(3, build_product(Image.fromarray(hidden, "RGBA"))) == derive_seed(3, product)
    assert 0 <= derive_seed(-(2**63), product) < 2**63
    assert 0 <= derive_seed(2**64 - 1, product) < 2**63


def test_a_composite_in_place_is_the_same_and_leaves_the_background_alone(monkeypatch):
    draw = np.random.default_rng(0)
    product = build_product(cutout(90, 130, soft=True))
    background, shift = draw.integers(0, 256, (90, 130, 3), dtype=np.uint8), draw.normal(size=(90, 130)).astype("f4")
    before, whole = background.copy(), composite_pixels(background, product, shift)
    assert np.array_equal(background, before)
    band = (product.alpha > ALPHA_FLOOR) & (product.alpha < 1)
    assert np.array_equal(select_band(product, shift), shift[band])
    for module in ("canvas.inference.product", "canvas.pins.images"):
        monkeypatch.setattr(f"{module}.STRIP_PIXELS", 130 * 7)
    lay_product(background, product, select_band(product, shift))
    assert np.array_equal(background, whole)
