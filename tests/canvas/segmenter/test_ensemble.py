from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, SegformerImageProcessor
from transformers.modeling_outputs import SemanticSegmenterOutput

from canvas.segmenter.ensemble import predict_mattes
from canvas.segmenter.model import Segmenter, build_segmenter
from tests.canvas.segmenter.test_model import PLAIN, SPEC


class Threshold(PreTrainedModel):
    """What is brighter than the middle is product."""

    config_class = PreTrainedConfig

    def __init__(self) -> None:
        super().__init__(PreTrainedConfig(num_labels=1))
        self.sharpness = nn.Parameter(torch.tensor(20.0))

    def forward(self, pixel_values: torch.Tensor) -> SemanticSegmenterOutput:
        return SemanticSegmenterOutput(logits=self.sharpness * (pixel_values.mean(1, keepdim=True) - 0.5))


def test_views_come_back_in_the_images_own_place():
    segmenter = build_segmenter(SPEC).eval()
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (50, 70, 3), dtype=np.uint8))
    mattes = predict_mattes(segmenter, image, PLAIN)
    assert len(mattes) in (2, 4)
    assert {matte.shape for matte in mattes} == {(50, 70)}
    assert np.array_equal(mattes[0], segmenter.predict_alphas([image], PLAIN)[0])
    turned = predict_mattes(segmenter, ImageOps.mirror(image), PLAIN)
    assert np.array_equal(turned[0][:, ::-1], mattes[1])
    assert np.abs(mattes[0] - mattes[1]).max() > 0


def test_a_small_product_is_seen_closer():
    """The closer views change the matte round the product alone."""
    size = {"height": 32, "width": 32}
    processor = SegformerImageProcessor(size=size, image_mean=[0.0] * 3, image_std=[1.0] * 3)
    segmenter = Segmenter(Threshold(), processor).eval()
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[20:34, 24:40] = 255
    mattes = predict_mattes(segmenter, Image.fromarray(pixels), PLAIN)
    assert len(mattes) == 4
    for matte in mattes[2:]:
        assert np.array_equal(matte >= 0.5, pixels[..., 0] > 0)
        assert np.array_equal(matte[:10], mattes[0][:10])
    assert not np.array_equal(mattes[2], mattes[0])
    dark = predict_mattes(segmenter, Image.new("RGB", (64, 64)), PLAIN)
    assert len(dark) == 2  # no product, nothing to look at closer
