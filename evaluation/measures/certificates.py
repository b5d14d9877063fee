"""Does `verify` accept an image in mode soft, from its files alone?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from canvas.inference.files import NO_MASK, save_lossless
from canvas.light.scene import ImageCertificate
from canvas.verification import verify_file


def find_certificate_fault(
    image: Image.Image,
    certificate: ImageCertificate,
    originals: Sequence[Image.Image],
    masks: Sequence[Image.Image | None],
) -> str | None:
    """Return why `verify` refuses the files of an image in mode soft, in a sentence; None: it does not.

    Args:
        image: As it was generated.
        certificate: Its own.
        originals: The product images as they were handed in.
        masks: Of each, white = product; None: it is a cut-out.
    """
    with TemporaryDirectory() as name:
        image_file, original_files, mask_files = Path(name) / "image.png", [], []
        for number, (original, mask) in enumerate(zip(originals, masks, strict=True)):
            original_files.append(Path(name) / f"product-{number}.png")
            mask_files.append(NO_MASK if mask is None else Path(name) / f"mask-{number}.png")
            original.save(original_files[-1])
            if mask is not None:
                mask.save(mask_files[-1])
        save_lossless(image, image_file, None, certificate)
        try:
            verify_file(image_file, original_files, mask=mask_files)
        except ValueError as error:
            return str(error)
    return None
