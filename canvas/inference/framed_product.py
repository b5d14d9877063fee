"""The product in the model's frame, as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from canvas.inference.frame import Frame
from canvas.inference.product import Product
from canvas.pins.images import bytes_to_tensor


@dataclass(frozen=True, slots=True)
class FramedProduct:
    """A product in the model's frame, as tensors with batch 1: pixels in [-1, 1], mask and alpha in 0..1."""

    frame: Frame
    pixels: torch.Tensor
    mask: torch.Tensor
    alpha: torch.Tensor

    def to(self, device: torch.device | str) -> FramedProduct:
        """The same on `device`."""
        return FramedProduct(self.frame, *(part.to(device) for part in (self.pixels, self.mask, self.alpha)))


def frame_product(product: Product, frame: Frame, device: torch.device) -> FramedProduct:
    """The product scaled into `frame`. Raises ValueError if nothing of it is left there.

    Colours are averaged by alpha, so what lies outside of the product does not bleed into its edge.
    """
    alpha = frame.placed(product.alpha)
    pixels = frame.placed(product.pixels * product.alpha[..., None]) / np.maximum(alpha, 1e-6)[..., None]
    mask = alpha >= 0.5
    if not mask.any():
        raise ValueError(
            f"the product is too small: nothing is left of it at the model's {frame.width} x {frame.height} pixels, "
            "crop the image closer"
        )
    colours = bytes_to_tensor(torch.from_numpy(pixels).permute(2, 0, 1)[None]).clamp(-1, 1)
    return FramedProduct(
        frame,
        colours.to(device),
        torch.from_numpy(mask)[None, None].float().to(device),
        torch.from_numpy(alpha)[None, None].to(device),
    )
