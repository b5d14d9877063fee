"""Whether `verify` accepts the files of an image in mode soft."""

from __future__ import annotations

import numpy as np
from PIL import Image

from canvas.inference.pipeline import CanvasPipeline
from canvas.layout.spec import build_layout
from evaluation.measures.certificates import find_certificate_fault
from tests.canvas.inference.conftest import cutout, pipeline, split  # noqa: F401
from tests.canvas.light.test_model import build_moved


def build_lit(pipeline: CanvasPipeline) -> CanvasPipeline:  # noqa: F811
    made = CanvasPipeline(**pipeline.components | {"light": build_moved(1.0)}, max_aspect=2.0)
    made.set_progress_bar_config(disable=True)
    return made


def test_a_certificate_holds_for_its_image_alone(pipeline: CanvasPipeline) -> None:  # noqa: F811
    image, mask = split(cutout(64, 64))
    output = build_lit(pipeline)(image, "mug", mask=mask, mode="soft", seed=0, num_inference_steps=1)
    (certificate,) = output.certificates
    assert find_certificate_fault(output.images[0], certificate, [image], [mask]) is None
    changed = np.array(output.images[0])
    changed[0, 0] ^= 1
    fault = find_certificate_fault(Image.fromarray(changed), certificate, [image], [mask])
    assert fault is not None
    assert "law image is broken" in fault


def test_a_scene_of_cut_outs_needs_no_masks(pipeline: CanvasPipeline) -> None:  # noqa: F811
    products = [cutout(48, 40), cutout(40, 40)]
    layout = build_layout("128x64", layout="row")
    output = build_lit(pipeline)(products, "mugs", layout=layout, mode="soft", seed=0, num_inference_steps=1)
    (certificate,) = output.certificates
    assert find_certificate_fault(output.images[0], certificate, products, [None, None]) is None
    fault = find_certificate_fault(output.images[0], certificate, products[::-1], [None, None])
    assert fault is not None
    assert "law original is broken" in fault
