from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from canvas.upscaler.model import FILTER_SIDE, Upscaler, fill_product, paste_small
from canvas.upscaler.spec import FACTORS
from canvas.upscaler.tiles import enlarge, iterate_tiles


def build_moved(width: int = 8, blocks: int = 2) -> Upscaler:
    """An upscaler whose heads say something."""
    torch.manual_seed(0)
    upscaler = Upscaler(width, blocks).eval()
    for head in upscaler.heads.values():
        torch.nn.init.normal_(head.weight, std=0.1)
    return upscaler


def draw(factor: int, height: int = 12, width: int = 10, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """A small image, a product and its soft alpha."""
    drawn = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 3, height, width, generator=drawn) * 2 - 1
    product = torch.rand(1, 3, factor * height, factor * width, generator=drawn) * 2 - 1
    alpha = torch.zeros(1, 1, factor * height, factor * width)
    alpha[..., factor * 3 + 1 : factor * 8, factor * 2 : factor * 7 + 1] = 1
    return small, product, F.avg_pool2d(alpha, 3, stride=1, padding=1)


@pytest.mark.parametrize("factor", FACTORS)
def test_untrained_it_is_a_cubic_filter_of_the_background(factor: int) -> None:
    small, product, alpha = draw(factor)
    background = fill_product(small, alpha, factor)
    cubic = F.interpolate(background, scale_factor=float(factor), mode="bicubic", align_corners=False)
    with torch.no_grad():
        torch.testing.assert_close(Upscaler(8, 1)(small, product, alpha), cubic, atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", FACTORS)
def test_the_small_product_lies_where_the_large_one_does(factor: int) -> None:
    """A black background and a white product: the centre of the light is the same to a hundredth of a small pixel."""
    small, _, alpha = draw(factor)
    pasted = paste_small(torch.zeros_like(small), alpha.expand(-1, 3, -1, -1), alpha, factor)[0, 0]
    for axis in (0, 1):
        large = (alpha[0, 0].sum(1 - axis) * (torch.arange(alpha.shape[2 + axis]) + 0.5)).sum() / alpha.sum() / factor
        fine = (pasted.sum(1 - axis) * (torch.arange(pasted.shape[axis]) + 0.5)).sum() / pasted.sum()
        assert abs(float(large - fine)) < 0.01
    torch.testing.assert_close(F.avg_pool2d(alpha, factor)[0, 0], pasted)


@pytest.mark.parametrize("factor", FACTORS)
def test_no_colour_of_the_product_spreads_over_its_edge(factor: int) -> None:
    """A white product on grey: of what the filter reads outside of it, all is grey, and as far in as it reads."""
    alpha = torch.zeros(1, 1, factor * 14, factor * 14)
    alpha[..., factor * 3 + 1 : factor * 9, factor * 4 : factor * 11 - 1] = 1
    share = F.avg_pool2d(alpha, factor)
    filled = fill_product((share >= 0.1).float().expand(-1, 3, -1, -1), alpha, factor)
    read = F.max_pool2d((share < 0.1).float(), FILTER_SIDE, stride=1, padding=FILTER_SIDE // 2)
    assert read.mean() > share.lt(0.1).float().mean()
    assert (filled * read).abs().max() == 0


def test_least_squares_undo_a_blur() -> None:
    drawn = torch.Generator().manual_seed(1)
    coarse = torch.rand(6, 3, 24, 24, generator=drawn) * 2 - 1
    large = F.interpolate(coarse, scale_factor=2.0, mode="bicubic").clamp(-1, 1)
    small = F.avg_pool2d(F.avg_pool2d(large, 3, stride=1, padding=1, count_include_pad=False), 2)
    nothing = torch.zeros(6, 1, 48, 48)
    upscaler = Upscaler(8, 1)
    with torch.no_grad():
        before = (upscaler(small, large, nothing) - large).square().mean()
        upscaler.fit_filter([(small, nothing, large)])
        after = (upscaler(small, large, nothing) - large).square().mean()
    assert after < 0.5 * before


@pytest.mark.parametrize("factor", FACTORS)
def test_tiles_give_what_the_whole_gives(factor: int) -> None:
    """Up to one level of 255, where two sums round differently."""
    upscaler, random = build_moved(), np.random.default_rng(0)
    small = random.integers(0, 256, (41, 30, 3), np.uint8)
    product = random.integers(0, 256, (factor * 41, factor * 30, 3), np.uint8)
    alpha = random.integers(0, 256, (factor * 41, factor * 30), np.uint8)
    whole = enlarge(upscaler, small, product, alpha, tile=64).astype(int)
    tiled = enlarge(upscaler, small, product, alpha, tile=11).astype(int)
    assert whole.shape == product.shape
    assert np.abs(whole - tiled).max() <= 1
    assert (whole != tiled).mean() < 1e-3


def test_what_is_computed_at_once_does_not_grow_with_the_image() -> None:
    upscaler, sizes = build_moved(blocks=1), []
    upscaler.register_forward_pre_hook(lambda _, arguments: sizes.append(tuple(arguments[0].shape[-2:])))
    for length in (64, 256):
        enlarge(
            upscaler,
            np.zeros((16, length, 3), np.uint8),
            np.zeros((64, 4 * length, 3), np.uint8),
            np.zeros((64, 4 * length), np.uint8),
            tile=16,
        )
    assert len(sizes) == 4 + 16
    assert max(height * width for height, width in sizes[4:]) == max(height * width for height, width in sizes[:4])


def test_tiles_cover_a_side_once() -> None:
    filled = [place for place, _ in iterate_tiles(50, 16, 5)]
    assert [index for place in filled for index in range(place.start, place.stop)] == list(range(50))
    assert [(read.start, read.stop) for _, read in iterate_tiles(50, 16, 5)] == [(0, 21), (11, 37), (27, 50), (43, 50)]


def test_saves_and_loads(tmp_path) -> None:
    upscaler = build_moved()
    upscaler.save_pretrained(tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}
    again = Upscaler.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(*draw(2)), upscaler(*draw(2)))


def test_a_size_that_no_factor_leads_to_is_refused() -> None:
    small, product, alpha = draw(2)
    with pytest.raises(ValueError, match="no factor of"):
        Upscaler(8, 1)(small[..., :7], product, alpha)
