"""The product's pixels put back: exact on its core, blended in a band, absent elsewhere.

Masks and alphas are (B, 1, H, W). The *core* is the mask eroded by some pixels; the *band* is what is left of the
mask, and wherever alpha is above ALPHA_FLOOR.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

ALPHA_EDGE = 1e-3  # alphas are kept this far from 0 and 1 before their logit
ALPHA_FLOOR = 0.02
"""Alpha up to here is no product: a guided filter leaves traces all over the image."""
MAX_SHIFT = 2.0
"""Largest shift of a blend, in logits. Without bounds a decoder learns to lay its training image over all it generates,
wherever alpha has a trace: PSNR 99 dB, and no background of its own."""


def erode_mask(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """Return the core, bool: pixels with only mask within `pixels` on each side; beyond the image all is mask."""
    return max_pool_mask((mask < 0.5).float(), pixels) < 0.5


def dilate_mask(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """Return bool: pixels with some mask within `pixels` on each side."""
    return max_pool_mask((mask >= 0.5).float(), pixels) >= 0.5


def max_pool_mask(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """Return the largest value within `pixels` on each side, one axis after the other: CPUs are slow at both."""
    size = 2 * pixels + 1
    across = F.max_pool1d(mask[:, 0], size, stride=1, padding=pixels)
    return F.max_pool1d(across.mT, size, stride=1, padding=pixels).mT[:, None].contiguous()


def composite_product(
    generated: torch.Tensor,
    product: torch.Tensor,
    core: torch.Tensor,
    mask: torch.Tensor,
    alpha: torch.Tensor,
    shift: torch.Tensor | None = None,
) -> torch.Tensor:
    """Lay `product` (B, 3, H, W) over `generated`; on the core its values are returned untouched, bit by bit.

    In the band the product's weight is sigmoid(logit(alpha) + shift).

    Args:
        generated: (B, 3, H, W), any range that `product` has, too.
        product: (B, 3, H, W).
        core: Bool, of `erode_mask`.
        mask: 1 = product.
        alpha: 0 to 1.
        shift: (B, 1, H, W) from `bound_shift`; None: the product's weight is alpha.
    """
    weight = alpha
    if shift is not None:
        weight = torch.sigmoid(torch.logit(alpha.clamp(ALPHA_EDGE, 1 - ALPHA_EDGE)) + shift)
    weight = weight * ((mask >= 0.5) | (alpha > ALPHA_FLOOR))
    return torch.where(core, product, weight * product + (1 - weight) * generated)


def bound_shift(shift: torch.Tensor) -> torch.Tensor:
    """Bend a blend's shift to stay within MAX_SHIFT."""
    return MAX_SHIFT * torch.tanh(shift / MAX_SHIFT)


def compute_seam_gradient(images: torch.Tensor, mask: torch.Tensor, reach: int) -> torch.Tensor:
    """Compute the mean size of the image gradient within `reach` pixels of the mask's edge, (B,).

    A visible seam raises it above the same band's in a real image. NaN where the mask has no edge.
    """
    band = (dilate_mask(mask, reach) & ~erode_mask(mask, reach)).to(images.dtype)
    across = (images[..., :, 1:] - images[..., :, :-1]).abs().mean(dim=1, keepdim=True)
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean(dim=1, keepdim=True)
    counted_across, counted_down = band[..., :, 1:] * band[..., :, :-1], band[..., 1:, :] * band[..., :-1, :]
    total = (across * counted_across).sum(dim=(1, 2, 3)) + (down * counted_down).sum(dim=(1, 2, 3))
    return total / (counted_across.sum(dim=(1, 2, 3)) + counted_down.sum(dim=(1, 2, 3)))


def compute_hole(mask: torch.Tensor, cell: int, inflate: int = 0) -> torch.Tensor:
    """Return masks (B, 1, H, W), 1 = keep, as holes (B, 1, H / cell, W / cell), float, 1 = generate.

    A cell with any pixel to generate is hole; `inflate` grows the hole by so many cells on every side, for seams come
    from edges off the cell.
    """
    return max_pool_mask(F.max_pool2d((mask < 0.5).float(), cell), inflate)


def compute_pixel_hole(mask: torch.Tensor, cell: int, inflate: int = 0) -> torch.Tensor:
    """Return masks as `compute_hole` does, with all pixels of a cell: (B, cell * cell, H / cell, W / cell), a row of
    the cell after the other, as diffusers' `FluxFillPipeline` has them."""
    return F.pixel_unshuffle(max_pool_mask((mask < 0.5).float(), inflate * cell), cell)


def mask_images(images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Set images (B, 3, H, W) in [-1, 1] to 0, mid-grey, where the mask does not keep them, as diffusers does."""
    return images * (mask >= 0.5)
