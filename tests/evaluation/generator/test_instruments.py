from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from canvas.pins import tables
from canvas.pins.masks import encode_mask
from canvas.pins.products import ProductPin
from canvas.reward.preference import Reward, fetch_reward
from canvas.segmenter.model import Segmenter, build_segmenter
from canvas.segmenter.spec import EdgeSpec, UNetSpec
from evaluation.generator.instruments import measure_reward_accuracy, measure_segmenter_quality
from tests.canvas.public_models import write_clip
from tests.canvas.reward.test_model import build_tiny_reward

EDGES = EdgeSpec(radius=0, epsilon=0.001)


def build_pins(count: int = 4) -> list[ProductPin]:
    random, pins = np.random.default_rng(0), []
    for number in range(count):
        image = random.integers(0, 255, (48, 40, 3), dtype=np.uint8)
        mask = np.zeros((48, 40), bool)
        mask[10:34, 8 + number : 28 + number] = True
        image[mask] = (220, 40, 40)
        pins.append(ProductPin(f"p{number}", Image.fromarray(image), mask, "mug"))
    return pins


def write_truth(folder: Path, pins: list[ProductPin]) -> Path:
    rows = [dict.fromkeys(tables.TRUTH.names) | {"pin_id": p.pin_id, "alpha": encode_mask(p.mask)} for p in pins]
    tables.write_rows(folder, rows, tables.TRUTH)
    return folder


def measure(reward: Reward, pins: list[ProductPin]) -> dict[str, float]:
    return measure_reward_accuracy(reward, pins, side=32, each=2, seed=0, batch_size=16)


def test_a_reward_that_says_the_same_of_all_is_right_half_the_time() -> None:
    reward = build_tiny_reward()
    torch.nn.init.zeros_(reward.answers[-1].weight)
    metrics = measure(reward, build_pins())
    assert metrics["pairs"] == 40  # two of each of 20 kinds
    for question in ("overall", "defects", "fidelity", "aesthetics"):
        assert metrics[f"{question}_accuracy"] == metrics[f"{question}_accuracy_high"] == 0.5


def test_the_opposite_reward_is_right_where_the_first_was_wrong() -> None:
    reward, pins = build_tiny_reward(), build_pins()
    metrics = measure(reward, pins)
    assert metrics == measure(reward, pins)
    torch.nn.init.zeros_(reward.answers[-1].bias)
    with torch.no_grad():
        reward.answers[-1].weight.neg_()
    assert measure(reward, pins)["overall_accuracy"] == pytest.approx(1 - metrics["overall_accuracy"])


def place_pins(pins: list[ProductPin]) -> list[ProductPin]:
    """Two in a forest, two in the city."""
    places = ("in the forest", "in the city")
    return [replace(pin, background=places[number % 2]) for number, pin in enumerate(pins)]


def test_any_reward_is_asked_for_the_background_that_is_shown(tmp_path: Path) -> None:
    pins = place_pins(build_pins())
    metrics = measure(build_tiny_reward(), pins)
    assert metrics["pairs"] == 40
    assert 0 <= metrics["prompt_accuracy_low"] <= metrics["prompt_accuracy"] <= metrics["prompt_accuracy_high"] <= 1
    write_clip(tmp_path / "clip")
    reward = fetch_reward(tmp_path / "clip")
    metrics = measure(reward, pins)
    assert (metrics["pairs"], metrics["overall_accuracy"]) == (4, metrics["prompt_accuracy"])
    swapped = [replace(pin, background=pins[number - 1].background) for number, pin in enumerate(pins)]
    assert measure(reward, swapped)["overall_accuracy"] == pytest.approx(1 - metrics["overall_accuracy"])
    torch.nn.init.zeros_(reward.network.visual_projection.weight)
    assert measure(reward, pins)["overall_accuracy"] == 0.5
    assert measure(reward, build_pins()) == {"pairs": 0}


def build_tiny_segmenter(bias: float) -> Segmenter:
    """The same network, which says product (a high bias) or nothing (a low one) everywhere."""
    segmenter = build_segmenter(UNetSpec(image_size=64, channels=(8, 8, 8, 16))).eval()
    with torch.no_grad():
        segmenter.network.head.bias.fill_(bias)
        segmenter.network.head.weight.zero_()
    return segmenter


def test_masks_are_compared_with_the_truth_where_there_is_one(tmp_path: Path) -> None:
    pins, truth = build_pins(), write_truth(tmp_path / "truth", build_pins()[:3])
    everything, nothing = build_tiny_segmenter(9.0), build_tiny_segmenter(-9.0)
    quality = measure_segmenter_quality(everything, EDGES, pins, truth, nothing, batch_size=2)
    assert quality["iou"] == pytest.approx(24 * 20 / (48 * 40))
    assert measure_segmenter_quality(nothing, EDGES, pins, truth, None, batch_size=2)["iou"] == 0


def test_without_truth_the_reference_is_the_measure(tmp_path: Path) -> None:
    pins, truth = build_pins(), write_truth(tmp_path / "truth", [])
    everything, nothing = build_tiny_segmenter(9.0), build_tiny_segmenter(-9.0)
    assert measure_segmenter_quality(everything, EDGES, pins, truth, None, batch_size=2) == {}
    cut = measure_segmenter_quality(nothing, EDGES, pins, truth, everything, batch_size=2)
    assert (cut["extension"], cut["erosion"]) == (0, 1)
    same = measure_segmenter_quality(everything, EDGES, pins, truth, everything, batch_size=2)
    assert (same["extension"], same["erosion"]) == (0, 0)
    assert measure_segmenter_quality(everything, EDGES, pins, truth, nothing, batch_size=2) == {}
