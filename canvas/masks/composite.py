"""The product's pixels put back: exact on its core, blended in a band, absent elsewhere.

Masks and alphas are (B, 1, H, W); 1 = product, keep. The *core* is the mask eroded by some pixels; the *band* is
what is left of the mask, and wherever alpha is above ALPHA_FLOOR.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

ALPHA_EDGE = 1e-3  # alphas are kept this far from 0 and 1 before their logit
ALPHA_FLOOR = 0.02
"""Alpha up to here is no product: a guided filter leaves traces all over the picture."""
MAX_SHIFT = 2.0
"""Of a blend, in logits. Without bounds a decoder learns to lay the picture that it is trained on over all it paints,
wherever alpha has a trace: PSNR 99 dB, and no background of its own."""


def erode_mask(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """The core, bool: pixels whose square neighbourhood of `pixels` on each side is all mask. What lies outside of
    the picture counts as mask, so a product cut off by the edge keeps its pixels there."""
    return max_pool_mask((mask < 0.5).float(), pixels) < 0.5


def dilate_mask(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """Bool: pixels with some mask within `pixels` on each side."""
    return max_pool_mask((mask >= 0.5).float(), pixels) >= 0.5


def max_pool_mask(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """The largest value of masks (B, 1, H, W) within `pixels` on each side: `max_pool2d` with stride 1, but one axis
    after the other, as a CPU has no quick pooling of both."""
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
    """`product` (B, 3, H, W) over `generated`; on the core its values are returned untouched, bit by bit.

    In the band the product's weight is sigmoid(logit(alpha) + shift), `shift` (B, 1, H, W) `bounded`; without it,
    alpha.
    """
    weight = alpha
    if shift is not None:
        weight = torch.sigmoid(torch.logit(alpha.clamp(ALPHA_EDGE, 1 - ALPHA_EDGE)) + shift)
    weight = weight * ((mask >= 0.5) | (alpha > ALPHA_FLOOR))
    return torch.where(core, product, weight * product + (1 - weight) * generated)


def bound_shift(shift: torch.Tensor) -> torch.Tensor:
    """A blend's shift bent to stay within MAX_SHIFT."""
    return MAX_SHIFT * torch.tanh(shift / MAX_SHIFT)


def compute_seam_gradient(images: torch.Tensor, mask: torch.Tensor, reach: int) -> torch.Tensor:
    """Mean size of the image gradient within `reach` pixels of the mask's edge, (B,): a visible seam raises it above
    the same band's in a real picture. NaN where the mask has no edge."""
    band = (dilate_mask(mask, reach) & ~erode_mask(mask, reach)).to(images.dtype)
    across = (images[..., :, 1:] - images[..., :, :-1]).abs().mean(dim=1, keepdim=True)
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean(dim=1, keepdim=True)
    counted_across, counted_down = band[..., :, 1:] * band[..., :, :-1], band[..., 1:, :] * band[..., :-1, :]
    total = (across * counted_across).sum(dim=(1, 2, 3)) + (down * counted_down).sum(dim=(1, 2, 3))
    return total / (counted_across.sum(dim=(1, 2, 3)) + counted_down.sum(dim=(1, 2, 3)))


def compute_hole(mask: torch.Tensor, cell: int, inflate: int = 0) -> torch.Tensor:
    """Product masks (B, 1, H, W), 1 = keep, as holes (B, 1, H / cell, W / cell), float, 1 = paint.

    A cell with any pixel to paint is painted; `inflate` grows the hole by so many cells on every side, for seams come
    from edges off the cell.
    """
    return max_pool_mask(F.max_pool2d((mask < 0.5).float(), cell), inflate)


def mask_images(images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Images (B, 3, H, W) in [-1, 1] with 0, mid-grey, where the mask (B, 1, H, W) does not keep, as diffusers does."""
    return images * (mask >= 0.5)
