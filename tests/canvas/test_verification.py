"""What `verify` finds in files: every way to tamper is caught by its own law."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from canvas.__main__ import main
from canvas.inference.files import save_certificate, save_lossless
from canvas.inference.product import build_product, composite_pixels
from canvas.light.certificate import SUFFIX, Certificate, digest_image
from canvas.light.gain import apply_gain
from canvas.light.relight import cast_recorded_shadow, certify, relight_pixels
from canvas.light.shadow.casting import ShadowMap
from canvas.pins.images import encode_png
from canvas.pins.masks import compute_box
from canvas.verification import BrokenLawError, verify_file
from tests.canvas.light import subject
from tests.canvas.light.shadow.test_casting import build_shadow_map
from tests.canvas.light.subject import build_background, build_slope

SLOPE = build_slope(-0.2, 0.1) + np.array([0.03, 0.0, -0.03])


def make_soft(
    original: Image.Image, mask: Image.Image | None = None, shadow: ShadowMap | None = None
) -> tuple[Image.Image, Certificate]:
    """A soft image before a random background, and its certificate."""
    product = build_product(original, mask)
    lit, grid = relight_pixels(product.pixels, product.alpha, SLOPE)
    pixels = composite_pixels(build_background(original.size), type(product)(lit, product.alpha, product.origin))
    record = None
    if shadow is not None:
        pixels, record = cast_recorded_shadow(pixels, shadow, lit, product.alpha, 0.8)
    image = Image.fromarray(pixels)
    return image, certify(image, original, product.core, product.origin, grid, shadow=record)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """mug.png, a cut-out; soft.png of it with a certificate beside and within; hard.png; rgb.png and mask.png, and
    masked.png of these."""
    original = subject.build_product()
    original.save(tmp_path / "mug.png")
    image, certificate = make_soft(original)
    save_lossless(image, tmp_path / "soft.png", None, certificate)
    save_certificate(certificate, tmp_path / "soft.png")
    Image.fromarray(composite_pixels(build_background(original.size), build_product(original))).save(
        tmp_path / "hard.png"
    )
    rgb, mask = original.convert("RGB"), original.getchannel("A").point(lambda value: 255 * (value > 127))
    rgb.save(tmp_path / "rgb.png")
    mask.save(tmp_path / "mask.png")
    masked = composite_pixels(build_background(original.size), build_product(rgb, mask))
    Image.fromarray(masked).save(tmp_path / "masked.png")
    return tmp_path


def find_broken(folder: Path, original: str = "mug.png", **options: Any) -> str:
    """The law that soft.png breaks."""
    with pytest.raises(BrokenLawError) as caught:
        verify_file(folder / "soft.png", folder / original, **options)
    assert str(caught.value).startswith(f"law {caught.value.law} is broken: ")
    return caught.value.law


def edit_image(folder: Path, change: Callable[[np.ndarray, np.ndarray], None]) -> None:
    """Change soft.png's pixels, given them and the core."""
    pixels = np.array(Image.open(folder / "soft.png").convert("RGB"))
    change(pixels, np.array(Image.open(folder / "mug.png"))[..., 3] == 255)
    Image.fromarray(pixels).save(folder / "soft.png")


def edit_certificate(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / ("soft" + SUFFIX)
    stated = json.loads(path.read_text())
    change(stated)
    path.write_text(json.dumps(stated))


def test_a_soft_image_passes_by_either_of_its_certificates(folder: Path):
    verification = verify_file(folder / "soft.png", folder / "mug.png")
    assert (verification.mode, verification.core_source) == ("soft", "alpha channel")
    assert [check.law for check in verification.checks] == ["gain", "gradient", "hue", "clipped", "residual"]
    (folder / ("soft" + SUFFIX)).rename(folder / "elsewhere.json")
    assert verify_file(folder / "soft.png", folder / "mug.png") == verification  # by its metadata
    Image.open(folder / "soft.png").convert("RGB").save(folder / "soft.webp", lossless=True)
    stated = folder / "elsewhere.json"
    assert verify_file(folder / "soft.webp", folder / "mug.png", certificate=stated) == verification


def test_without_its_certificate_a_soft_image_is_no_hard_one(folder: Path):
    (folder / ("soft" + SUFFIX)).unlink()
    edit_image(folder, lambda pixels, core: None)  # saved without metadata
    assert find_broken(folder) == "exact"


def test_a_hard_image_passes_and_a_moved_level_is_found(folder: Path):
    assert verify_file(folder / "hard.png", folder / "mug.png").mode == "hard"
    assert verify_file(folder / "masked.png", folder / "rgb.png", mask=folder / "mask.png").mode == "hard"
    with pytest.raises(ValueError, match="nothing says where the product is: give the product's mask with --mask"):
        verify_file(folder / "hard.png", folder / "rgb.png")
    pixels = np.array(Image.open(folder / "hard.png"))
    pixels[30, 24, 0] ^= 1
    Image.fromarray(pixels).save(folder / "hard.png")
    with pytest.raises(BrokenLawError, match="1 pixels of the product's core are not the original's"):
        verify_file(folder / "hard.png", folder / "mug.png")


@pytest.mark.parametrize("levels", [2, 40])
def test_one_pixel_of_the_product_that_moved_is_found(folder: Path, levels: int):
    def move(pixels: np.ndarray, core: np.ndarray) -> None:
        assert core[30, 24]
        level = int(pixels[30, 24, 1])
        pixels[30, 24, 1] = level + levels if level < 128 else level - levels

    edit_image(folder, move)
    assert find_broken(folder) == "residual"


def test_redrawn_text_is_found(folder: Path):
    def write(pixels: np.ndarray, core: np.ndarray) -> None:
        image = Image.fromarray(pixels)
        ImageDraw.Draw(image).text((20, 25), "NEW", fill=(250, 250, 250))
        pixels[:] = np.array(image)

    edit_image(folder, write)
    assert find_broken(folder) == "residual"


def refit(folder: Path, grid: np.ndarray) -> None:
    """Do what a careful forger does: put another gain on the product, and write it and its digest down."""
    original = Image.open(folder / "mug.png")
    core = np.array(original)[..., 3] == 255
    box = compute_box(core)

    def turn(pixels: np.ndarray, inside: np.ndarray) -> None:
        pixels[inside] = apply_gain(np.array(original.convert("RGB")), grid, box, core)[inside]

    edit_image(folder, turn)
    digest = digest_image(Image.open(folder / "soft.png"))
    edit_certificate(folder, lambda stated: stated.update(log_gain=grid.tolist(), image=digest))


@pytest.mark.parametrize(
    ("grid", "law"),
    [
        (build_slope(0.0, 0.0) + np.array([0.15, 0.0, -0.15]), "hue"),
        (build_slope(0.0, 0.0) - 0.5, "gain"),
        (build_slope(-0.28, 0.28), "gradient"),
    ],
)
def test_a_forger_who_writes_down_what_was_done_breaks_the_law_that_it_breaks(folder: Path, grid: np.ndarray, law: str):
    refit(folder, grid)
    assert find_broken(folder) == law


def test_a_turned_hue_without_a_grid_that_says_so_is_found(folder: Path):
    edit_image(folder, lambda pixels, core: pixels.__setitem__(core, pixels[core][:, ::-1]))
    assert find_broken(folder) == "residual"


def test_light_beyond_white_is_found(folder: Path):
    original = subject.build_product(brightest=256)
    original.save(folder / "mug.png")
    edit_certificate(folder, lambda stated: stated.update(original=digest_image(original)))
    refit(folder, build_slope(0.25, 0.25))
    assert find_broken(folder) == "clipped"


def test_an_edited_grid_is_found(folder: Path):
    edit_certificate(folder, lambda stated: stated["log_gain"][3][3].__setitem__(0, stated["log_gain"][3][3][0] + 0.05))
    assert find_broken(folder) in ("residual", "hue", "gradient")
    edit_certificate(folder, lambda stated: stated.update(log_gain=(build_slope(-0.05, 0.05)).tolist()))
    assert find_broken(folder) == "residual"


def test_raised_limits_are_found(folder: Path):
    edit_certificate(folder, lambda stated: stated["limits"].update(gain=9.0))
    assert find_broken(folder) == "limits"
    edit_certificate(folder, lambda stated: stated["limits"].clear())
    assert find_broken(folder) == "limits"


def test_an_image_of_another_product_is_found(folder: Path):
    subject.build_product(brightest=100).save(folder / "cup.png")
    assert find_broken(folder, "cup.png") == "original"


def test_a_changed_background_is_found(folder: Path):
    edit_image(folder, lambda pixels, core: pixels.__setitem__((0, 0), 255 - pixels[0, 0]))
    assert find_broken(folder) == "image"


def test_a_product_beyond_the_image_is_found(folder: Path):
    edit_certificate(folder, lambda stated: stated["placement"].update(left=1))
    assert find_broken(folder) == "placement"


def test_a_truncated_certificate_is_refused_in_a_sentence(folder: Path):
    path = folder / ("soft" + SUFFIX)
    path.write_text(path.read_text()[:200])
    with pytest.raises(ValueError, match=r"soft\.certificate\.json is no certificate: it is no JSON"):
        verify_file(folder / "soft.png", folder / "mug.png")


def test_the_core_of_a_mask_is_the_certificates_and_must_be_the_masks(folder: Path):
    rgb, mask = Image.open(folder / "rgb.png"), Image.open(folder / "mask.png")
    image, certificate = make_soft(rgb, mask)
    save_lossless(image, folder / "soft.png")
    save_certificate(certificate, folder / "soft.png")
    assert verify_file(folder / "soft.png", folder / "rgb.png").core_source == "mask"
    assert verify_file(folder / "soft.png", folder / "rgb.png", mask=folder / "mask.png").core_source == "mask"
    Image.fromarray(np.roll(np.array(mask), 3, axis=0)).save(folder / "mask.png")
    assert find_broken(folder, "rgb.png", mask=folder / "mask.png") == "core"
    edit_certificate(folder, lambda stated: stated["core"].update(mask=None))
    assert find_broken(folder, "rgb.png") == "core"


def test_an_image_placed_in_a_larger_one_passes(folder: Path):
    original = Image.open(folder / "mug.png")
    image, certificate = make_soft(original)
    wide = Image.new("RGB", (100, 80), (9, 9, 9))
    wide.paste(image, (30, 15))
    core = np.array(original)[..., 3] == 255
    placed = certify(wide, original, core, "alpha channel", certificate.grid, left=30, top=15)
    save_lossless(wide, folder / "soft.png", None, placed)
    (folder / ("soft" + SUFFIX)).unlink()
    assert verify_file(folder / "soft.png", folder / "mug.png").mode == "soft"


@pytest.fixture
def shaded(folder: Path) -> Path:
    """The folder, whose soft.png has a shadow."""
    image, certificate = make_soft(Image.open(folder / "mug.png"), None, build_shadow_map())
    save_lossless(image, folder / "soft.png", None, certificate)
    save_certificate(certificate, folder / "soft.png")
    return folder


def encode(pixels: np.ndarray) -> str:
    return base64.b64encode(encode_png(Image.fromarray(pixels))).decode()


def test_a_shadow_passes_by_either_certificate_and_its_laws_are_measured(shaded: Path):
    verification = verify_file(shaded / "soft.png", shaded / "mug.png")
    assert [check.law for check in verification.checks] == [
        *("gain", "gradient", "hue", "clipped", "residual", "shadow", "darkening")
    ]
    measured = {check.law: check.measured for check in verification.checks}
    assert measured["shadow"] == pytest.approx(build_shadow_map().scale(0.8).levels.max() / 255)
    assert measured["darkening"] <= 0.5 + 1e-9
    (shaded / ("soft" + SUFFIX)).unlink()
    assert verify_file(shaded / "soft.png", shaded / "mug.png") == verification
    rgb, mask = Image.open(shaded / "rgb.png"), Image.open(shaded / "mask.png")
    image, certificate = make_soft(rgb, mask, build_shadow_map())  # a core that the certificate states
    save_lossless(image, shaded / "masked.png", None, certificate)
    assert verify_file(shaded / "masked.png", shaded / "rgb.png").checks[-1].holds


def test_a_shadow_of_an_image_that_lies_in_a_larger_one_passes(shaded: Path):
    original, small = Image.open(shaded / "mug.png"), make_soft(Image.open(shaded / "mug.png"))[0]
    product = build_product(original)
    before = np.full((80, 100, 3), 200, np.uint8)
    before[15:75, 30:78] = np.array(small)
    alpha = np.zeros((80, 100), np.float32)
    alpha[15:75, 30:78] = product.alpha
    core_pixels = np.zeros_like(before)
    core_pixels[15:75, 30:78] = product.pixels
    cast, record = cast_recorded_shadow(before, build_shadow_map(1, (0, 5, 100, 80)), core_pixels, alpha, 1.0)
    grid = make_soft(original)[1].grid
    image = Image.fromarray(cast)
    placed = certify(image, original, product.core, "alpha channel", grid, left=30, top=15, shadow=record)
    save_lossless(image, shaded / "soft.png", None, placed)
    (shaded / ("soft" + SUFFIX)).unlink()
    assert verify_file(shaded / "soft.png", shaded / "mug.png").checks[-1].law == "darkening"
    assert cast[2, 2, 0] == 200 > cast[60, 10, 0]


def edit_shadow(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda stated: stated["shadow"].update(changes)


BLACK = np.full((8, 8), 255, np.uint8)


@pytest.mark.parametrize(
    ("change", "law"),
    [
        (edit_shadow(opacity=encode(BLACK)), "shadow"),
        (edit_shadow(opacity=encode(BLACK // 5)), "darkening"),
        (edit_shadow(before="0" * 64), "before"),
        (edit_shadow(window=[4, 10, 49, 58], remainder=encode(np.zeros((48, 45, 3), np.uint8))), "window"),
        (edit_shadow(remainder=encode(np.zeros((48, 40, 3), np.uint8))), "before"),
        (lambda stated: stated["limits"].update(shadow=0.9), "limits"),
        (lambda stated: stated["limits"].pop("darkening"), "limits"),
    ],
)
def test_an_edited_shadow_breaks_its_law(shaded: Path, change: Callable[[dict[str, Any]], None], law: str):
    edit_certificate(shaded, change)
    assert find_broken(shaded) == law


def test_a_shadow_on_the_core_is_found(shaded: Path):
    edit_image(shaded, lambda pixels, core: pixels.__setitem__((30, 24), pixels[30, 24] // 2))
    assert find_broken(shaded) == "residual"


def test_a_background_that_is_changed_after_its_shadow_is_found(shaded: Path):
    edit_image(shaded, lambda pixels, core: pixels.__setitem__((50, 8), 255 - pixels[50, 8]))
    assert find_broken(shaded) in ("darkening", "before")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": [0, 0, 4]}, "the window of its shadow must be 4 whole numbers of pixels"),
        ({"window": [0, 0, 4.0, 4]}, "the window of its shadow must be 4 whole numbers"),
        ({"window": [4, 0, 4, 9]}, "has no pixels"),
        ({"window": [0, 0, 10**5, 10**5]}, "has no pixels or more than 64000000"),
        ({"strength": "much"}, "its shadow has no strength"),
        ({"before": None}, "its shadow has no strength, or no digest"),
        ({"opacity": "!"}, "the opacity of its shadow is no base64"),
        ({"opacity": None}, "the opacity of its shadow is no base64"),
        ({"opacity": "AAAA"}, "not a JPEG, PNG or WEBP image"),
        ({"opacity": encode(np.zeros((8, 4), np.uint8))}, "has 4 x 8 nodes: it must be square"),
        ({"opacity": encode(np.zeros((400, 400), np.uint8))}, "exceed the limit of 65536"),
        ({"remainder": encode(np.zeros((9, 9, 3), np.uint8))}, "has 9 x 9 pixels, not its window's"),
    ],
)
def test_what_is_no_shadow_is_refused_in_a_sentence(shaded: Path, changes: dict[str, Any], message: str):
    edit_certificate(shaded, edit_shadow(**changes))
    with pytest.raises(ValueError, match=rf"soft\.certificate\.json is no certificate: .*{message}"):
        verify_file(shaded / "soft.png", shaded / "mug.png")


def test_the_command_prints_pass_or_the_law(folder: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    assert main(["verify", "soft.png", "--product", "mug.png"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("pass (soft): ")
    assert len(printed) == 6
    assert main(["verify", "masked.png", "--product", "rgb.png", "--mask", "mask.png"]) == 0
    shutil.copy("hard.png", "soft.png")
    capsys.readouterr()
    assert main(["verify", "soft.png", "--product", "mug.png", "--certificate", "soft.certificate.json"]) == 1
    assert capsys.readouterr().err.startswith("canvas verify: law residual is broken: a pixel of the product is ")
    assert main(["verify", "none.png", "--product", "mug.png"]) == 1
    assert "cannot read none.png" in capsys.readouterr().err
