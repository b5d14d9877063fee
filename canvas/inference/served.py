"""The assembled generator as a model server loads and calls it: a table of products and prompts in, images out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canvas.inference.provenance import compute_model_digest, describe_generation, encode_generated
from canvas.layout.spec import Layout, build_layout
from canvas.pins.images import DEFAULT_LIMITS, decode_image
from canvas.styles.table import CENTRE_PULL

if TYPE_CHECKING:
    import pandas as pd

    from canvas.inference.pipeline import CanvasPipeline
    from canvas.inference.style import StylePrompt

INPUTS: Mapping[str, str] = {
    "product": "binary",
    "seed": "long",
    "prompt": "string?",
    "styles": "binary[]?",
    "more_products": "binary[]?",
}
"""product: an encoded image, a cut-out with alpha or a plain one, which is cut out. styles: encoded style images, for a
model that was assembled with an adapter. A row needs a prompt, styles or both. more_products: further ones of the same
scene, with the option `layout`."""

OUTPUTS: Mapping[str, str] = {"image": "binary"}
"""image: a PNG of the product's size, or the canvas's, which says that it was generated and by what
(canvas.inference.provenance)."""

OPTIONS: Mapping[str, tuple[str, Any]] = {
    "steps": ("long", None),
    "guidance_scale": ("double", None),
    "guidance_stop": ("double", None),
    "autoguidance_scale": ("double", None),
    "upscale": ("long", None),
    "seed_by_product": ("boolean", False),
    "style_strength": ("double", None),
    "style_typical": ("double", CENTRE_PULL),
    "canvas": ("string", None),
    "place": ("string", None),
    "scale": ("double", None),
    "layout": ("string", None),
    "mode": ("string", "hard"),
    "shadow": ("double", 0.0),
    "reflection": ("double", 0.0),
}
"""None: what the model recommends. canvas, place, scale and layout: as `canvas.layout.spec.build_layout` takes them.
mode soft: the product in the scene's light, with a certificate in the image. shadow and reflection: strength of the
product's on the background, 0 to 1."""

TRUST = "CANVAS_TRUST_REMOTE_CODE"
"""Variable of the environment: "1" where Python code that a public segmenter brought with it may run."""


class ServedPipeline:
    """The model that MLflow's pyfunc calls."""

    def __init__(self, pipeline: CanvasPipeline, model_digest: str | None = None) -> None:
        self._pipeline, self._model_digest = pipeline, model_digest

    def predict(self, rows: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Generate an image a row, the same for the same row; ValueError for what cannot be used."""
        import pandas as pd

        options = {name: default for name, (_, default) in OPTIONS.items()} | dict(params or {})
        return pd.DataFrame({"image": [self._generate(row, options) for row in rows.to_dict("records")]})

    def _generate(self, row: Mapping[str, Any], options: Mapping[str, Any]) -> bytes:
        prompt = row["prompt"] if isinstance(row.get("prompt"), str) else None  # a missing text is NaN to pandas
        more = row.get("more_products")
        encoded = [row["product"], *([] if more is None or isinstance(more, float) else more)]  # NaN to pandas
        layout = _build_layout(options)
        output = self._pipeline(
            [decode_image(data, DEFAULT_LIMITS) for data in encoded],
            prompt,
            layout=layout,
            style=self._encode_style(row.get("styles"), options["style_strength"], options["style_typical"]),
            seed=int(row["seed"]),
            seed_by_product=options["seed_by_product"],
            mode=options["mode"],
            shadow=options["shadow"],
            reflection=options["reflection"],
            num_inference_steps=options["steps"],
            guidance_scale=options["guidance_scale"],
            guidance_stop=options["guidance_stop"],
            autoguidance_scale=options["autoguidance_scale"],
            upscale=options["upscale"],
        )
        provenance = describe_generation(
            self._model_digest,
            seed=int(row["seed"]),
            seed_by_product=bool(options["seed_by_product"]),
            prompt=prompt,
            safety=self._pipeline.safety.describe(prompt),
            layout=None if layout is None else layout.words,
            shadow=options["shadow"],
            reflection=options["reflection"],
        )
        return encode_generated(output.images[0], provenance, next(iter(output.certificates), None))

    def _encode_style(
        self, images: Sequence[bytes] | float | None, strength: float | None, centre_pull: float
    ) -> StylePrompt | None:
        from canvas.inference.style import check_image_count, encode_style_images

        if images is None or isinstance(images, float):  # a missing list is NaN to pandas
            return None
        check_image_count(len(images))
        decoded = [decode_image(data, DEFAULT_LIMITS) for data in images]
        return encode_style_images(self._pipeline, decoded, strength=strength, centre_pull=centre_pull)


def _build_layout(options: Mapping[str, Any]) -> Layout | None:
    """Return the layout that the options describe; None: they describe none."""
    words = {name: options[name] for name in ("canvas", "place", "scale", "layout")}
    return build_layout(**words) if any(value is not None for value in words.values()) else None


def _load_pyfunc(path: str) -> ServedPipeline:
    """Load the pipeline; the function's name is MLflow's. ValueError for a model with code that TRUST does not allow:
    who serves it need not be who made it."""
    from canvas.device import default_device
    from canvas.inference.pipeline import CanvasPipeline

    is_trusted = os.environ.get(TRUST) == "1"
    pipeline = CanvasPipeline.from_pretrained(Path(path), trust_remote_code=is_trusted).to(default_device())
    pipeline.set_precision("auto")
    pipeline.set_progress_bar_config(disable=True)
    return ServedPipeline(pipeline, compute_model_digest(Path(path)))
