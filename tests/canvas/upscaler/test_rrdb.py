from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from canvas.upscaler.model import FILL_SIDE
from canvas.upscaler.rrdb import OVERLAP, SCALE, RrdbUpscaler
from canvas.upscaler.spec import FACTORS
from canvas.upscaler.tiles import enlarge
from tests.canvas.upscaler.test_model import draw


def build_rrdb(features: int = 8, blocks: int = 1, growth: int = 4) -> RrdbUpscaler:
    """A random network whose images are neither black nor white."""
    torch.manual_seed(0)
    network = RrdbUpscaler(features, blocks, growth).eval()
    torch.nn.init.constant_(network.conv_last.bias, 0.5)
    torch.nn.init.normal_(network.conv_last.weight, std=0.3)
    return network


def test_it_is_the_public_network() -> None:
    """The size and the names of RealESRGAN_x4plus.pth, which has 702 tensors of 16,697,987 numbers."""
    with torch.device("meta"):
        weights = RrdbUpscaler().state_dict()
    assert len(weights) == 702
    assert sum(value.numel() for value in weights.values()) == 16_697_987
    assert weights["body.22.rdb3.conv5.weight"].shape == (64, 192, 3, 3)
    assert {name.split(".")[0] for name in weights} == {
        "conv_first",
        "body",
        "conv_body",
        "conv_up1",
        "conv_up2",
        "conv_hr",
        "conv_last",
    }


@pytest.mark.parametrize("factor", FACTORS)
def test_2_times_is_4_times_averaged_down(factor: int) -> None:
    network, (small, product, alpha) = build_rrdb(), draw(factor)
    alpha = torch.zeros_like(alpha)
    with torch.no_grad():
        large = network.enlarge_images((small + 1) / 2) * 2 - 1
        enlarged = network(small, product, alpha)
    assert enlarged.shape == product.shape
    assert large.shape[-1] == SCALE * small.shape[-1]
    torch.testing.assert_close(enlarged, F.avg_pool2d(large, SCALE // factor))


@pytest.mark.parametrize("factor", FACTORS)
def test_it_reads_background_in_the_products_place(factor: int) -> None:
    """A product as narrow as what is filled: neither its colours nor what was generated in its place count."""
    network, small = build_rrdb(), draw(factor)[0]
    alpha = torch.zeros(1, 1, factor * small.shape[-2], factor * small.shape[-1])
    alpha[..., factor * 3 : factor * (FILL_SIDE // 2 + 3), factor * 2 : factor * 7] = 1
    red = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    other = torch.where(F.avg_pool2d(alpha, factor) > 0, red, small)
    with torch.no_grad():
        before = network(small, -red.expand(1, 3, *alpha.shape[-2:]), alpha)
        after = network(other, red.expand(1, 3, *alpha.shape[-2:]), alpha)
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize("factor", FACTORS)
def test_tiles_give_what_the_whole_gives(factor: int) -> None:
    """To one level of 255: what lies beyond the overlap does not show."""
    network, random = build_rrdb(blocks=2), np.random.default_rng(0)
    small = random.integers(0, 256, (60, 50, 3), np.uint8)
    product = random.integers(0, 256, (factor * 60, factor * 50, 3), np.uint8)
    alpha = np.zeros((factor * 60, factor * 50), np.uint8)
    alpha[factor * 20 : factor * 40, factor * 10 : factor * 30] = 255
    whole = enlarge(network, small, product, alpha, tile=64).astype(int)
    tiled = enlarge(network, small, product, alpha, tile=20).astype(int)
    assert whole.shape == product.shape
    assert whole.std() > 5
    assert np.abs(whole - tiled).max() <= 1


def test_what_is_computed_at_once_does_not_grow_with_the_image() -> None:
    network, sizes = build_rrdb(), []
    network.register_forward_pre_hook(lambda _, arguments: sizes.append(max(arguments[0].shape[-2:])))
    enlarge(network, *(np.zeros(shape, np.uint8) for shape in ((16, 128, 3), (64, 512, 3), (64, 512))), tile=16)
    assert len(sizes) == 8
    assert max(sizes) == 16 + 2 * OVERLAP


def test_a_size_that_no_factor_leads_to_is_refused() -> None:
    small, product, alpha = draw(2)
    with pytest.raises(ValueError, match="no factor of"):
        build_rrdb()(small[..., :7], product, alpha)
