"""A picture's product mask on the grid of its latents. 1 is product."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def latent_mask(mask: torch.Tensor, cell: int, inflate: int = 1) -> torch.Tensor:
    """Product mask [B, 1, H, W] in 0..1 on the latents' grid, [B, 1, H / cell, W / cell].

    A cell that any product pixel lies in is product (max-pooling), and so are its neighbours `inflate` cells round:
    a latent of the decoder depends on pixels beyond its cell, and seams come from product edges that lie off it.
    Raises `ValueError` for a picture that is not a whole number of cells.
    """
    if mask.shape[-2] % cell or mask.shape[-1] % cell:
        raise ValueError(
            f"a mask of {mask.shape[-1]} x {mask.shape[-2]} pixels is not a whole number of {cell}-pixel cells"
        )
    return F.max_pool2d(F.max_pool2d(mask, cell), 2 * inflate + 1, stride=1, padding=inflate)
