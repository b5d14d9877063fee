from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from canvas.segmenter.spec import AugmentSpec
from canvas.segmenter.training import SegmentationObjective, augment_batch, segmentation_loss
from canvas.train.draws import Draws
from lifecycle.declare.params import read_section

STILL = AugmentSpec(paste=0.0, zoom=1.0, shift=0.0, turn=0.0, colour=0.0)
LIVELY = AugmentSpec(paste=0.5, zoom=1.3, shift=0.15, turn=15.0, colour=0.3)


def batch(rows: int = 4) -> dict[str, torch.Tensor | list[str]]:
    """A red square on blue; scenes are green."""
    pixels = torch.zeros(rows, 3, 32, 32, dtype=torch.uint8)
    pixels[:, 2] = 255
    alpha = torch.zeros(rows, 1, 32, 32, dtype=torch.uint8)
    alpha[:, :, 10:20, 8:20] = 255
    pixels[:, :, 10:20, 8:20] = torch.tensor([255, 0, 0]).view(3, 1, 1)
    scene = torch.zeros(rows, 3, 32, 32, dtype=torch.uint8)
    scene[:, 1] = 255
    return {"pin_id": [str(row) for row in range(rows)], "pixels": pixels, "alpha": alpha, "scene": scene}


def test_without_variation_only_mirror_images_come_out():
    pixels, alpha = augment_batch(batch(), Draws(0, 0, 0, 4), STILL)
    original = batch()["pixels"] / 255
    for image, mask, true in zip(pixels, alpha, original, strict=True):
        same = torch.allclose(image, true, atol=1e-4)
        assert same or torch.allclose(image, true.flip(-1), atol=1e-4)
        assert torch.allclose(image[0:1], mask, atol=1e-4)


def test_a_pasted_product_lies_in_the_scene_and_its_alpha_goes_with_it():
    always = replace(STILL, paste=1.0, shift=0.1, turn=15.0)
    pixels, alpha = augment_batch(batch(8), Draws(0, 0, 0, 8), always)
    inside, outside = alpha[:, 0] > 0.99, alpha[:, 0] < 0.01
    assert (pixels[:, 0][inside] > 0.9).all()
    assert pixels[:, 2][outside].max() < 0.01  # nothing of its old, blue background
    assert (pixels[:, 1][outside] > 0.35).all()  # shadows leave some of the green
    assert inside.flatten(1).sum(1).min() > 40


def test_variation_is_a_function_of_the_sample_and_not_of_the_batch():
    whole = augment_batch(batch(4), Draws(3, 7, 0, 4), LIVELY)[0]
    rows = {name: column[2:] for name, column in batch(4).items()}
    part = augment_batch(rows, Draws(3, 7, 2, 2), LIVELY)[0]
    assert torch.allclose(whole[2:], part, atol=1e-6)
    assert not torch.allclose(whole, augment_batch(batch(4), Draws(3, 8, 0, 4), LIVELY)[0])


def test_images_stay_in_range():
    pixels, alpha = augment_batch(batch(), Draws(0, 0, 0, 4), LIVELY)
    for values in (pixels, alpha):
        assert values.min() >= 0
        assert values.max() <= 1 + 1e-5


def test_the_loss_wants_the_true_alpha_and_no_product_in_an_empty_image():
    alpha = torch.zeros(2, 1, 16, 16)
    alpha[0, 0, 4:12, 4:12] = 1
    right = segmentation_loss(20 * (2 * alpha - 1), alpha)
    assert right < 1e-3
    flipped = segmentation_loss(20 * (1 - 2 * alpha), alpha)
    everything = segmentation_loss(torch.full_like(alpha, 20.0), alpha)
    assert right < everything < flipped
    logits = torch.zeros(2, 1, 16, 16, requires_grad=True)
    segmentation_loss(logits, alpha).backward()
    assert (logits.grad[1] > 0).all()


class Painter(nn.Module):
    """Says product where red exceeds blue and green."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return 40 * (pixels[:, :1] - pixels[:, 1:].amax(1, keepdim=True) - 0.2)


def test_the_objective_reports_the_iou_of_what_it_trains_on():
    loss, metrics = SegmentationObjective(STILL)(Painter(), batch(), Draws(0, 0, 0, 4))
    assert metrics["iou"] == 1
    assert loss < 0.01


def test_a_wrong_variation_is_refused():
    with pytest.raises(ValueError, match=r"'zoom' .* is 0\.5"):
        read_section(AugmentSpec, "augment", {"augment": asdict(STILL) | {"zoom": 0.5}})
