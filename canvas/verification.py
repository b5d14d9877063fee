"""What `python -m canvas verify` proves of an image and its original, from the files alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from canvas.inference.files import name_certificate, read_image_file, read_mask_files
from canvas.inference.product import Product, build_product, needs_segmenter
from canvas.inference.provenance import read_provenance
from canvas.inference.scene.build import SEGMENTER, asks_for_segmenter, build_scene, pair_masks
from canvas.inference.scene.lighting import check_product
from canvas.layout.compose import NO_PRODUCT
from canvas.layout.spec import rebuild_layout
from canvas.light.band import check_band
from canvas.light.certificate import (
    Certificate,
    digest_image,
    parse_certificate,
    read_certificate,
    read_embedded_certificate,
)
from canvas.light.laws import LIMITS, Check, check_exact, check_grid, check_pixels
from canvas.light.relight import check_recorded_shadow, place_core
from canvas.light.scene import SceneCertificate, is_scene_certificate, parse_scene_certificate
from canvas.light.shadow.laws import SHADOW_LIMITS
from canvas.light.shadow.record import ShadowRecord
from canvas.pins.images import DEFAULT_LIMITS, ImageLimits, Pixels
from canvas.pins.masks import Mask, compute_box


class BrokenLawError(ValueError):
    """An image that is not what it should be; `law` names the first law that it breaks."""

    def __init__(self, law: str, sentence: str) -> None:
        super().__init__(f"law {law} is broken: {sentence}")
        self.law = law


@dataclass(frozen=True, slots=True)
class Verification:
    """What holds of an image."""

    mode: str  # "hard": the core is the original's, byte for byte; "soft": it is original x a lawful gain
    checks: tuple[Check, ...]
    core_pixels: int
    core_source: str
    numbers: tuple[int, ...] = ()  # of several products: that of each check, from 1

    def describe(self) -> list[str]:
        """Return a line for people, and one about each law."""
        kept = "the original's, byte for byte" if self.mode == "hard" else "original x a gain within all laws"
        return [
            f"pass ({self.mode}): {self.core_pixels} pixels of the product, by its {self.core_source}, are {kept}",
            *(
                f"  {whose}{check.law}: {check.describe()}"
                for whose, check in zip(self._name(), self.checks, strict=True)
            ),
        ]

    def _name(self) -> list[str]:
        return [f"product {number}, " for number in self.numbers] or [""] * len(self.checks)


def verify_file(
    image: Path,
    original: Path | Sequence[Path],
    *,
    mask: Path | Sequence[Path] | None = None,
    certificate: Path | None = None,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Verification:
    """Prove that an image file shows the product of `original`, exactly or under a lawful gain.

    The certificate is taken from `certificate`, else from the file beside the image, else from a PNG's metadata. Where
    there is none, the core must be exact. Of a certificate nothing is believed that can be computed.

    Args:
        image: As `generate` wrote it.
        original: The product image that was handed in; of several in one scene each, in their order.
        mask: The mask that was handed in with it; likewise.
        certificate: A file.
        limits: What the images may cost.

    Raises:
        BrokenLawError: For the first law that is broken.
        ValueError: In one sentence, for files that cannot be read or do not say where the product is.
    """
    output_image = read_image_file(image, limits).image
    originals = [original] if isinstance(original, Path) else list(original)
    masks = None if mask is None else [mask] if isinstance(mask, Path) else list(mask)
    images = [read_image_file(path, limits).image for path in originals]
    mask_images: list[Image.Image | None] | None = None
    if masks is not None:
        mask_images = [None if decoded is None else decoded.image for decoded in read_mask_files(masks, limits)]
    words = (read_provenance(image.read_bytes()) or {}).get("layout")
    original, handed_in = originals[0], images[0]
    text, source = _find_certificate(image, certificate)
    if text is not None and is_scene_certificate(text):
        sizes = [each.size for each in images]
        return _verify_scene(output_image, images, mask_images, parse_scene_certificate(text, source, sizes), limits)
    image_certificate = None if text is None else parse_certificate(text, source, handed_in.size)
    if words is not None and image_certificate is None:
        layout = rebuild_layout(words, limits.max_pixels)
        if asks_for_segmenter(images, mask_images, layout):
            raise ValueError(
                f"{image} has no certificate and a product image no alpha channel, so nothing says where that product "
                "is: give the masks of the products with --mask"
            )
        scene = build_scene(images, mask_images, layout)
        assert scene.owners is not None
        return _verify_hard(output_image, scene.product, scene.owners != NO_PRODUCT)
    if len(images) > 1 or (mask_images is not None and len(mask_images) > 1):
        raise ValueError(f"{len(images)} products were given, but {image} does not say how they stand in it: give one")
    product = _read_product(handed_in, None if mask_images is None else mask_images[0])
    if image_certificate is None:
        if product is None:
            raise ValueError(
                f"{image} has no certificate and {original} no alpha channel, so nothing says where the product is: "
                "give the product's mask with --mask, or the certificate with --certificate"
            )
        return _verify_hard(output_image, product, product.core)
    return _verify_soft(output_image, handed_in, product, image_certificate)


def _verify_hard(output_image: Image.Image, product: Product, core: Mask) -> Verification:
    """Prove that the core is the product's own pixels; on a layout's canvas it ends where a later product lies."""
    exact = check_exact(_cut_window(output_image, 0, 0, product.size), product.pixels, core)
    _require(exact)
    return Verification("hard", (exact,), int(core.sum()), product.origin)


def _verify_soft(
    output_image: Image.Image, original: Image.Image, product: Product | None, certificate: Certificate
) -> Verification:
    _check_statement(certificate, original)
    core = _get_core(product, certificate)
    shape = core.shape[0], core.shape[1]
    pixels, window = _cut_window(output_image, certificate.left, certificate.top, shape), compute_box(core)
    checks = check_grid(certificate.grid)
    for check in checks:
        _require(check)
    for check in check_pixels(pixels, np.asarray(original.convert("RGB")), core, certificate.grid, window):
        _require(check)
        checks.append(check)
    if certificate.band is not None:
        for check in check_band(core, certificate.band & ~core, None if product is None else product.alpha):
            _require(check)
            checks.append(check)
    if certificate.shadow is not None:
        checks += _verify_shadow(
            output_image, certificate.shadow, place_core(core, output_image.size, certificate.left, certificate.top)
        )
    _check_image(certificate, output_image)
    return Verification("soft", tuple(checks), int(core.sum()), certificate.core_source)


def _verify_shadow(output_image: Image.Image, record: ShadowRecord, core: Mask) -> list[Check]:
    """Prove that the shadow lies on the background alone, and that what is left without it is what it was cast on."""
    _, _, right, bottom = record.shadow.window
    if right > output_image.width or bottom > output_image.height:
        raise BrokenLawError(
            "window",
            f"the shadow reaches to {right}, {bottom} in an image of "
            f"{output_image.width} x {output_image.height} pixels",
        )
    checks, before = check_recorded_shadow(np.asarray(output_image.convert("RGB")), record, core)
    for check in checks:
        _require(check)
    if record.before != digest_image(Image.fromarray(before)):
        raise BrokenLawError("before", "what the image is without its shadow is not what the certificate says it was")
    return checks


def _check_statement(certificate: Certificate, original: Image.Image, whose: str = "") -> None:
    """Prove that a certificate states the laws' own limits, and is of the product image that was given."""
    for name, limit in (LIMITS if certificate.shadow is None else LIMITS | SHADOW_LIMITS).items():
        if (certified_limit := certificate.limits.get(name)) != limit:
            raise BrokenLawError(
                "limits", f"the certificate's limit of {name} is {certified_limit}, the law's is {limit:g}"
            )
    if certificate.original_digest != digest_image(original):
        raise BrokenLawError(
            "original", f"the certificate{whose} was made for another product image than the one given"
        )


def _check_image(certificate: Certificate, output_image: Image.Image) -> None:
    """Prove that the image is the certified one, its background, too."""
    if certificate.image_digest != digest_image(output_image):
        raise BrokenLawError("image", "pixels outside of the product's core were changed after the image was certified")


def _verify_scene(
    output_image: Image.Image,
    images: list[Image.Image],
    masks: list[Image.Image | None] | None,
    certificate: SceneCertificate,
    limits: ImageLimits,
) -> Verification:
    """Prove every law on what is seen of each product, where the layout puts it."""
    layout = rebuild_layout(dict(certificate.layout), limits.max_pixels)
    for number, (product, image) in enumerate(zip(certificate.products, images, strict=True), start=1):
        _check_statement(product, image, f" of product {number}")
    scene = build_scene(images, _complete_masks(images, masks, certificate), layout)
    assert scene.owners is not None
    if (output_image.height, output_image.width) != layout.canvas:
        raise BrokenLawError(
            "placement",
            f"the image has {output_image.width} x {output_image.height} pixels, "
            f"its layout {layout.canvas[1]} x {layout.canvas[0]}",
        )
    pixels, checks, numbers = np.asarray(output_image.convert("RGB")), [], []
    for number, product in enumerate(certificate.products):
        for check in check_product(pixels, scene, number, product.grid):
            _require(check, f"product {number + 1}: ")
            checks.append(check)
            numbers.append(number + 1)
    for product in certificate.products:
        _check_image(product, output_image)
    core = scene.owners != NO_PRODUCT
    sources = " and ".join(dict.fromkeys(product.core_source for product in certificate.products))
    return Verification("soft", tuple(checks), int(core.sum()), sources, tuple(numbers))


def _complete_masks(
    images: list[Image.Image], masks: list[Image.Image | None] | None, certificate: SceneCertificate
) -> list[Image.Image | None]:
    """Return the mask of each product: that which was given, or of a segmenter's the certificate's; a cut-out's is
    None."""
    complete: list[Image.Image | None] = []
    pairs = zip(pair_masks(images, masks), certificate.products, strict=True)
    for number, ((image, given), product) in enumerate(pairs, start=1):
        if not needs_segmenter(image, given):
            complete.append(given)
        elif product.core_source == SEGMENTER and product.core is not None:
            complete.append(Image.fromarray(product.core))
        else:
            raise ValueError(f"product {number} was cut out by a mask: give it with --mask")
    return complete


def _find_certificate(image: Path, given: Path | None) -> tuple[str | None, str]:
    """Return the JSON of the image's certificate, None where it has none, and what to call it."""
    beside = name_certificate(image)
    if given is not None or beside.is_file():
        return read_certificate(given or beside), str(given or beside)
    return read_embedded_certificate(image.read_bytes()), f"what {image} says of itself"


def _read_product(image: Image.Image, mask: Image.Image | None) -> Product | None:
    """Return the product where its image or the mask says what it is; None where only a segmenter could."""
    return None if needs_segmenter(image, mask) else build_product(image, mask)


def _get_core(product: Product | None, certificate: Certificate) -> Mask:
    """Return the core that the original or its mask gives; the certificate's where nothing else says it, or where it
    was mended."""
    if product is not None and certificate.band is None:
        if certificate.core is not None and not np.array_equal(certificate.core, product.core):
            raise BrokenLawError("core", f"the certificate's core is not that of the product's {product.origin}")
        return product.core
    if certificate.core is None:
        raise BrokenLawError("core", "the certificate names an alpha channel that the product image does not have")
    if not certificate.core.any():
        raise BrokenLawError("core", "the certificate's core is empty")
    return certificate.core


def _cut_window(output_image: Image.Image, left: int, top: int, size: tuple[int, int]) -> Pixels:
    """Return the pixels of the image where the original lies."""
    height, width = size
    if not (0 <= left <= output_image.width - width and 0 <= top <= output_image.height - height):
        raise BrokenLawError(
            "placement",
            f"the product image of {width} x {height} pixels at {left}, {top} does not lie within the image of "
            f"{output_image.width} x {output_image.height}",
        )
    return np.asarray(output_image.convert("RGB").crop((left, top, left + width, top + height)))


def _require(check: Check, whose: str = "") -> None:
    if not check.holds:
        raise BrokenLawError(check.law, whose + check.describe())
