"""Feature maps of frozen networks come on the grid that is asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from canvas.clip.model import build_clip
from canvas.clip.spec import TextSpec
from canvas.features.maps import load_feature_maps
from canvas.shards.spec import FeatureSpec
from lifecycle.declare.params import load_sections, read_section
from tests.graph.conftest import ROOT

CPU = torch.device("cpu")


def build_images() -> torch.Tensor:
    """The left half dark and the right half a pattern."""
    images = torch.full((2, 3, 48, 80), -0.8)
    images[..., 40:] = torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return images


@pytest.mark.parametrize(("layer", "width"), [(2, 256), (3, 512)])
def test_photographs_have_a_feature_at_every_place(layer: int, width: int) -> None:
    maps = load_feature_maps("photographs", layer, (), CPU)(build_images(), (3, 5))
    assert maps.shape == (2, width, 3, 5)
    left, right = maps[..., 0], maps[..., 4]
    assert (left[0] - left[1]).abs().mean() < 0.5 * (right[0] - right[1]).abs().mean()  # flat in both images


def test_a_tower_sees_frames_as_squares() -> None:
    text = read_section(TextSpec, "text", load_sections("tiny", ROOT))
    torch.manual_seed(0)
    clips = build_clip(text.first).eval(), build_clip(replace(text.second, vision_width=48)).eval()
    with torch.no_grad():
        first, second = (load_feature_maps(name, 1, clips, CPU)(build_images(), (3, 5)) for name in ("first", "second"))
    assert first.shape == (2, 32, 3, 5)
    assert second.shape == (2, 48, 3, 5)
    with pytest.raises(ValueError, match=r"layer is 2: the first image tower has blocks 0 to 1"):
        load_feature_maps("first", 2, clips, CPU)


def test_layers_that_are_not_there_are_refused() -> None:
    FeatureSpec(network="first", layer=31, cells=1)
    with pytest.raises(ValueError, match=r"encode\.features\.layer is 5: photographs has layers 0 to 4"):
        FeatureSpec(network="photographs", layer=5, cells=2)
