"""What a generated image says of itself: plain metadata, in the words of C2PA and IPTC.

It is not signed, and whoever edits the file can remove it. It tells honest readers that the background was generated,
by which model, from which seed and prompt, and which safety models let it pass.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from canvas.checksums import FILE
from canvas.light.certificate import KEY as CERTIFICATE_KEY
from canvas.light.scene import ImageCertificate

KEY = "canvas.provenance"
"""PNG's text chunk with the JSON; WebP has it in Exif's image description."""
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC: a photograph (the product) composed with what a trained model made (the background)."""
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/></rdf:RDF></x:xmpmeta>'
)
XMP_KEY = "XML:com.adobe.xmp"
DESCRIPTION = 0x010E  # Exif's tag ImageDescription

Provenance = Mapping[str, Any]


def compute_model_digest(model: Path) -> str | None:
    """Return the SHA-256 of a model's list of checksums, as `sha256sum MODEL/checksums.json` gives it; None for a model
    that has none."""
    file = model / FILE
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def describe_generation(
    model_digest: str | None,
    *,
    seed: int,
    seed_by_product: bool,
    prompt: str | None,
    safety: Sequence[Mapping[str, Any]] = (),
    layout: Mapping[str, Any] | None = None,
    shadow: float = 0.0,
    reflection: float = 0.0,
) -> Provenance:
    """Return what the image of one seed says of itself.

    Args:
        model_digest: Of `compute_model_digest`.
        seed: The candidate's own.
        seed_by_product: Whether the noise depends on the product, too.
        prompt: None: a style alone.
        safety: The models that judged it and its prompt (canvas.safety.guard).
        layout: Its words (canvas.layout.spec.Layout).
        shadow: Its strength.
        reflection: Likewise.
    """
    action = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, "softwareAgent": "canvas"}
    how = {"seed": seed, "seed_by_product": seed_by_product, "prompt": prompt, "safety": list(safety)}
    placed = {} if layout is None else {"layout": dict(layout)}
    cast = {name: strength for name, strength in {"shadow": shadow, "reflection": reflection}.items() if strength != 0}
    return {"c2pa.actions": [action], "model": model_digest, **how, **placed, **cast}


def build_save_options(
    file_format: str, provenance: Provenance | None, certificate: ImageCertificate | None = None
) -> dict[str, Any]:
    """Return the options of Pillow's `save` that put `provenance` into a "PNG" or "WEBP", a certificate into a PNG."""
    text = json.dumps(provenance, sort_keys=True)
    if file_format == "PNG":
        info = PngInfo()
        if provenance is not None:
            info.add_itxt(KEY, text)
            info.add_itxt(XMP_KEY, XMP)
        if certificate is not None:
            info.add_itxt(CERTIFICATE_KEY, certificate.to_json())
        return {"pnginfo": info}
    if provenance is None:
        return {}
    exif = Image.Exif()
    exif[DESCRIPTION] = text  # JSON in ASCII
    return {"exif": exif, "xmp": XMP.encode()}


def encode_generated(image: Image.Image, provenance: Provenance, certificate: ImageCertificate | None = None) -> bytes:
    """Encode as PNG with `provenance` and a soft image's certificate; the same pixels and words give the same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=4, **build_save_options("PNG", provenance, certificate))
    return buffer.getvalue()


def read_provenance(data: bytes) -> Provenance | None:
    """Return what an encoded image says of itself; None if it says nothing."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()  # PNG's text may stand behind the pixels
        text = image.info.get(KEY) or image.getexif().get(DESCRIPTION)
    try:
        provenance = json.loads(text) if text else None
    except (ValueError, RecursionError):  # brackets without end
        return None
    return provenance if isinstance(provenance, dict) else None
