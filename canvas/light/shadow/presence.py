"""How much of a predicted shadow a scene shows already: denoisers draw shadows of their own.

A shadow of opacity o takes log(1 - o) from the logarithm of the background's light. So the share that is there is the
slope of the one over the other, by least squares, once the broad changes of light were taken from both.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from canvas.light.gain import FloatPixels

BROAD = 0.1
"""Changes of light that are broader are the scene's own: standard deviation of a Gaussian, in the product's height."""
DARKEST = 0.02
"""Added to light in 0..1 before its logarithm."""
CERTAIN = (0.3, 0.7)
"""Slopes up to the first are chance, from the second on the whole shadow is there: in 9 of 10 renders without a shadow
the slope is below 0.53, in 9 of 10 with their true one above 0.6, by the mean shadow of a category."""
CLEAR = 0.02
"""Alpha up to which a node shows background alone."""
FAINT = 1e-3
"""Weight of a shadow so faint that its slope says nothing."""


def measure_presence(layers: NDArray[np.uint8], opacity: NDArray[np.float32], height: float) -> float:
    """Return the share of a shadow that the scene shows already, 0 to 1.

    Args:
        layers: [7, S, S] as the network sees them.
        opacity: [S, S] that it predicts.
        height: Of the product's box in nodes.
    """
    alpha = layers[3] / np.float32(255)
    shows = np.where(alpha <= CLEAR, np.float32(1), np.float32(0))
    light = np.log(layers[4:].mean(0, dtype=np.float32) / 255 + np.float32(DARKEST))
    loss, sigma = -np.log1p(-opacity), max(BROAD * height, 0.5)
    light, loss = (_remove_broad(plane, shows, sigma) for plane in (light, loss))
    weight = float((shows * loss**2).sum())
    if weight < FAINT:
        return 0.0
    slope = -float((shows * light * loss).sum()) / weight
    return float(np.clip((slope - CERTAIN[0]) / (CERTAIN[1] - CERTAIN[0]), 0, 1))


def _remove_broad(plane: FloatPixels, shows: FloatPixels, sigma: float) -> FloatPixels:
    """Return a plane less its mean around each node, of nodes that show background."""
    around = cv2.GaussianBlur(shows, (0, 0), sigma) + 1e-4
    return np.asarray(plane - cv2.GaussianBlur(plane * shows, (0, 0), sigma) / around, np.float32)
