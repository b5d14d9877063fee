"""A soft image whose mask was mended: what its certificate says of the band, and what `verify` finds in it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from canvas.inference.files import save_certificate, save_lossless
from canvas.inference.product import Product, build_product, composite_pixels, mend_product
from canvas.light.band import check_band, compute_reach
from canvas.light.certificate import SUFFIX, digest_image
from canvas.light.relight import certify, relight_pixels
from canvas.pins.images import encode_png
from canvas.pins.masks import Mask
from canvas.verification import BrokenLawError, Verification, verify_file
from tests.canvas.light.subject import build_background, build_slope
from tests.canvas.masks.test_repair import RADIUS, SIDE, draw_disc, measure_radius


def build_mask(off: float) -> Image.Image:
    return Image.fromarray(measure_radius() < RADIUS + off)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """mug.png, a photograph on white; mask.png, three pixels too large; soft.png, whose mask was mended."""
    pixels, alpha, _ = draw_disc()
    original, mask = Image.fromarray(pixels), build_mask(3)
    cut = build_product(original, mask)
    mended = mend_product(cut, [alpha])
    lit, grid = relight_pixels(mended.pixels, mended.alpha, build_slope(-0.2, 0.1))
    image = Image.fromarray(composite_pixels(build_background(original.size), replace(mended, pixels=lit)))
    stated = certify(image, original, mended.core, "mask", grid, band=mended.band, handed_in=cut.alpha)
    original.save(tmp_path / "mug.png")
    mask.save(tmp_path / "mask.png")
    save_lossless(image, tmp_path / "soft.png", None, stated)
    save_certificate(stated, tmp_path / "soft.png")
    return tmp_path


def verify(folder: Path, mask: str | None = "mask.png") -> Verification:
    return verify_file(folder / "soft.png", folder / "mug.png", mask=None if mask is None else folder / mask)


def find_broken(folder: Path, mask: str | None = "mask.png") -> str:
    with pytest.raises(BrokenLawError) as caught:
        verify(folder, mask)
    return caught.value.law


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / ("soft" + SUFFIX)
    stated = json.loads(path.read_text())
    change(stated)
    path.write_text(json.dumps(stated))


def encode(mask: Mask) -> str:
    return base64.b64encode(encode_png(Image.fromarray(mask))).decode()


def decode(encoded: str) -> Mask:
    return np.array(Image.open(io.BytesIO(base64.b64decode(encoded))))


def test_a_mended_image_passes_with_its_mask_and_without(folder: Path):
    with_mask, without = verify(folder), verify(folder, None)
    assert [check.law for check in with_mask.checks][-2:] == ["band", "mended"]
    assert [check.law for check in without.checks][-1] == "band"
    reach = compute_reach((SIDE, SIDE))
    assert 0 < with_mask.checks[-1].measured <= reach + 1
    assert 0 < with_mask.checks[-2].measured <= 2 * reach + 1


def test_text_in_a_band_drawn_across_the_product_is_found(folder: Path):
    """A forger redraws a line, calls it band, and takes it out of the core."""
    pixels = np.array(Image.open(folder / "soft.png").convert("RGB"))
    line = np.zeros((SIDE, SIDE), bool)
    line[58:61, 45:75] = True
    pixels[line] = 255
    Image.fromarray(pixels).save(folder / "soft.png")

    def forge(stated: dict[str, Any]) -> None:
        stated["core"]["mask"] = encode(decode(stated["core"]["mask"]) & ~line)
        stated["band"] = encode(decode(stated["band"]) | line)
        stated["image"] = digest_image(Image.fromarray(pixels))

    edit(folder, forge)
    assert find_broken(folder) == "band"
    assert find_broken(folder, None) == "band"


@pytest.mark.parametrize("hole", [False, True])
def test_product_that_is_called_background_is_found_by_the_mask(folder: Path, hole: bool):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    lost = measure_radius() < 8 if hole else (measure_radius() > 15) & (abs(rows - columns) < 6) & (rows > SIDE / 2)

    def forge(stated: dict[str, Any]) -> None:
        stated["core"]["mask"] = encode(decode(stated["core"]["mask"]) & ~lost)
        stated["band"] = encode(decode(stated["band"]) & ~lost)

    edit(folder, forge)
    assert find_broken(folder) == "mended"


def test_a_changed_pixel_of_the_band_is_found(folder: Path):
    pixels = np.array(Image.open(folder / "soft.png").convert("RGB"))
    row, column = np.argwhere(abs(measure_radius() - RADIUS) < 0.5)[0]
    pixels[row, column] ^= 1
    Image.fromarray(pixels).save(folder / "soft.png")
    assert find_broken(folder) == "image"


def test_a_mended_core_is_the_originals_times_the_gain(folder: Path):
    pixels = np.array(Image.open(folder / "soft.png").convert("RGB"))
    pixels[60, 60, 0] += 3
    Image.fromarray(pixels).save(folder / "soft.png")
    assert find_broken(folder) == "residual"


@pytest.mark.parametrize(
    ("band", "reason"),
    [
        ("not base64!", "the mask of its band is no base64"),
        (encode(np.ones((5, 4), bool)), "its band is 4 x 5 pixels, the original 120 x 120"),
        (7, "band is missing or no str"),
    ],
)
def test_a_band_that_cannot_be_read_is_refused_in_a_sentence(folder: Path, band: object, reason: str):
    edit(folder, lambda stated: stated.update(band=band))
    with pytest.raises(ValueError, match=f"is no certificate: {reason}"):
        verify(folder)


def test_a_core_without_a_band_must_be_the_masks(folder: Path):
    edit(folder, lambda stated: stated.pop("band"))
    assert find_broken(folder) == "core"


def test_a_band_without_any_background_is_infinitely_wide():
    whole = np.ones((20, 20), bool)
    assert not check_band(~whole, whole, None)[0].holds
    assert check_band(whole, ~whole, None)[0].measured == 0


def test_soft_masks_and_cut_outs_keep_their_alpha():
    """A soft mask's colours are freed of the white; a cut-out's are its own."""
    pixels, alpha, colours = draw_disc()
    levels = Image.fromarray(np.rint(alpha * 255).astype(np.uint8))
    soft = build_product(Image.fromarray(pixels), levels)
    made = mend_product(soft, [])
    assert np.array_equal(made.alpha, soft.alpha)
    band = soft.band
    assert np.abs(made.pixels - colours)[band].mean() < np.abs(pixels - colours)[band].mean() / 4
    assert np.array_equal(made.pixels[~band], pixels[~band])
    cutout = build_product(Image.merge("RGBA", [*Image.fromarray(pixels).split(), levels]))
    assert mend_product(cutout, []) is cutout


@pytest.mark.parametrize("size", [(3, 40), (64, 64), (33, 257)])
@pytest.mark.parametrize("origin", ["mask", "segmenter"])
def test_whatever_mattes_say_the_band_is_lawful(size: tuple[int, int], origin: str):
    """Noise for photograph and mattes, and a mask with parts, holes and a side of the image."""
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    mask = np.zeros(size, bool)
    mask[: size[0] * 2 // 3, size[1] // 4 : size[1] * 3 // 4] = True
    mask[::9, ::7] ^= True
    cut = build_product(Image.fromarray(pixels), Image.fromarray(mask))
    mended = mend_product(
        Product(cut.pixels, cut.alpha, origin), [random.uniform(size=size).astype(np.float32) for _ in range(3)]
    )
    assert mended.core.any()
    assert all(check.holds for check in check_band(mended.core, mended.band, cut.alpha))
