"""The smallest real subjects: noise pins, and a pipeline with a segmenter and a light that have learnt something."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from canvas.denoiser.spec import DEFAULT_SAMPLING
from canvas.inference.pipeline import CanvasPipeline
from canvas.light.shadow.model import build_shadow
from canvas.light.shadow.spec import ShadowSpec
from canvas.pins.products import ProductPin
from canvas.upscaler.model import Upscaler
from evaluation.scenes.spec import SceneEvaluationSpec
from evaluation.scenes.subjects import Subjects
from tests.canvas.inference.conftest import cutout, pipeline, segmenting_pipeline  # noqa: F401
from tests.canvas.light.test_model import build_moved

SPEC = SceneEvaluationSpec(
    splits=("unseen_product",),
    products=2,
    scenes=2,
    canvas="96x64",
    formats={"square": "64x64", "banner": "256x64"},
    real_pins=4,
    sheet_rows=1,
    seed=5,
)
BACKGROUNDS = ["in a forest", "in a lobby"]


def build_pin(number: int) -> ProductPin:
    """A pin of noise: an ellipse is its product."""
    product = cutout(64, 64 + 8 * number)
    mask = np.asarray(product.getchannel("A")) > 127
    draw = np.random.default_rng(number).integers(0, 255, (*mask.shape, 3), np.uint8)
    pixels = np.where(mask[..., None], np.asarray(product.convert("RGB")), draw)
    return ProductPin(f"pin{number}", Image.fromarray(pixels), mask, "mug", f"mug{number}", "cups", "in a forest")


def build_subjects(pipeline: CanvasPipeline, count: int = 4) -> Subjects:  # noqa: F811
    """Pins of noise, and a pipeline whose images take one step."""
    sampling = asdict(replace(DEFAULT_SAMPLING, steps=1, guidance_scale=1.0))
    made = CanvasPipeline(**pipeline.components, max_aspect=2.0, sampling=sampling)
    return Subjects.of_pipeline(made, [build_pin(number) for number in range(count)], BACKGROUNDS)


@pytest.fixture
def subjects(segmenting_pipeline: CanvasPipeline) -> Subjects:  # noqa: F811
    """Subjects of a generator with all networks that modes and sizes need."""
    shadow = build_shadow(ShadowSpec(image_size=16, channels=(8, 8, 8, 8)))
    parts = {"light": build_moved(1.0), "shadow": shadow.eval(), "upscaler": Upscaler(8, 1).eval()}
    return build_subjects(CanvasPipeline(**segmenting_pipeline.components | parts))


@pytest.fixture
def plain_subjects(segmenting_pipeline: CanvasPipeline) -> Subjects:  # noqa: F811
    """Subjects of a generator with neither light, shadow nor upscaler."""
    return build_subjects(segmenting_pipeline)
