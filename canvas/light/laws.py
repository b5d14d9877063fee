"""What a gain may do to a product, measured; and the nearest gain that is allowed.

Each law is one number and its limit. A limit is part of this file, never of a certificate: whoever edits a certificate
cannot raise it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canvas.light.gain import GainGrid, brighten, interpolate_grid, iterate_windows, linear_to_srgb, srgb_to_linear
from canvas.pins.images import Pixels, iterate_strips
from canvas.pins.masks import Box, Mask

LIMITS = {
    "gain": 1.35,  # factor in linear light, and one over it
    "gradient": 0.06,  # change of the log gain from a node to the next: a seventh of the product's box
    "hue": 1.15,  # gain of one channel over another's
    "clipped": 0.001,  # share of the core's pixels that the gain would take above white
    "residual": 1.0,  # levels of 255 between the image and original x gain
}
"""By law."""

DECIMALS = 4
"""Decimals of the log gains: a grid as it is written is the grid that was applied."""
MARGIN = 2 * 10.0**-DECIMALS
"""By which `make_lawful` stays within its limits, so that rounding cannot leave them."""

BRIGHTEST = float(srgb_to_linear(np.array(255.5 / 255)))
"""Linear light that still rounds to white."""
BIN = 5 * 10.0**-DECIMALS
"""Steps of log gain by which a gain that clips is lowered."""


@dataclass(frozen=True, slots=True)
class Check:
    """One law, what was measured, and what is allowed."""

    law: str
    measured: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the law is kept; NaN keeps none."""
        return self.measured <= self.limit

    def describe(self) -> str:
        """Return what the law says, with both numbers."""
        return SENTENCES[self.law].format(measured=self.measured, limit=self.limit)


SENTENCES = {  # those of shadows (canvas.light.shadow.laws), too
    "gain": "the largest gain on the product is {measured:.4f}, {limit:g} is allowed",
    "gradient": "the log gain changes by {measured:.4f} between two nodes of the grid, {limit:g} is allowed",
    "hue": "one channel is raised {measured:.4f} times as much as another, {limit:g} is allowed",
    "clipped": "{measured:.2%} of the product's pixels are driven beyond white, {limit:.2%} are allowed",
    "residual": "a pixel of the product is {measured:g} levels off original x gain, {limit:g} is allowed",
    "band": "a blended pixel lies {measured:.1f} pixels from the background, {limit:g} are allowed",
    "mended": "the matte was mended {measured:.1f} pixels from the edge of the product's, {limit:g} are allowed",
    "shadow": "the shadow takes {measured:.2f} of the background's light at its darkest, {limit:g} is allowed",
    "darkening": "a pixel is {measured:.2f} levels outside of what the shadow's map gives, {limit:g} is allowed",
    "exact": "{measured:g} pixels of the product's core are not the original's, {limit:g} are allowed",
}


def check_grid(grid: GainGrid) -> list[Check]:
    """Measure the laws of the grid alone."""
    steps = max(float(np.abs(np.diff(grid, axis=axis)).max()) for axis in (0, 1))
    spread = float((grid.max(-1) - grid.min(-1)).max())
    measured = {"gain": float(np.exp(np.abs(grid).max())), "gradient": steps, "hue": float(np.exp(spread))}
    return [Check(law, value, LIMITS[law]) for law, value in measured.items()]


def check_pixels(image: Pixels, original: Pixels, core: Mask, grid: GainGrid, box: Box) -> list[Check]:
    """Measure what the gain of `grid` over `box` does to the original's core, and how far the image is from that."""
    clipped, residual = 0, 0
    for window, rows in iterate_windows(core):
        inside = core[rows]
        linear = brighten(original[rows], interpolate_grid(grid, box, window))[inside]
        clipped += int((linear > BRIGHTEST).any(-1).sum())
        expected = np.rint(linear_to_srgb(np.minimum(linear, 1)) * 255)
        if expected.size:
            residual = max(residual, int(np.abs(image[rows][inside] - expected).max()))
    share = clipped / np.count_nonzero(core)
    return [Check("clipped", share, LIMITS["clipped"]), Check("residual", residual, LIMITS["residual"])]


def check_exact(image: Pixels, original: Pixels, core: Mask) -> Check:
    """Count the core's pixels that differ from the original's: none may."""
    changed = sum(
        int(((image[rows] != original[rows]).any(-1) & core[rows]).sum()) for rows in iterate_strips(*core.shape)
    )
    return Check("exact", changed, 0)


def make_lawful(grid: NDArray[np.floating]) -> GainGrid:
    """Return the grid drawn to within the limits of gain, hue and gradient, in that order; each step keeps the one
    before."""
    most, steepest = np.log(LIMITS["gain"]) - MARGIN, LIMITS["gradient"] - MARGIN
    lawful = np.clip(grid.astype(np.float64), -most, most)
    middle, spread = lawful.mean(-1, keepdims=True), np.ptp(lawful, axis=-1)[..., None]
    lawful = middle + (lawful - middle) * np.minimum(1, (np.log(LIMITS["hue"]) - MARGIN) / np.maximum(spread, 1e-9))
    step = max(float(np.abs(np.diff(lawful, axis=axis)).max()) for axis in (0, 1))
    mean = lawful.mean((0, 1), keepdims=True)
    lawful = mean + (lawful - mean) * min(1, steepest / max(step, 1e-9))
    return np.asarray(np.round(lawful, DECIMALS))


def limit_clipping(grid: GainGrid, original: Pixels, core: Mask, box: Box) -> GainGrid:
    """Return the grid lowered evenly until the law of clipped pixels holds; unchanged where it does.

    Nodes stop at the darkest gain allowed, where nothing clips. Differences between nodes and channels only shrink.
    """
    bins = int(np.log(LIMITS["gain"]) / BIN) + 2
    counts = np.zeros(bins, np.int64)  # pixels by the log gain that is too much for them
    for window, rows in iterate_windows(core):
        brightest = brighten(original[rows], interpolate_grid(grid, box, window))[core[rows]].max(-1)
        excess = np.log(brightest[brightest > BRIGHTEST] / BRIGHTEST)
        counts += np.bincount(np.minimum((excess / BIN).astype(np.int64), bins - 1), minlength=bins)
    allowed = int(LIMITS["clipped"] * np.count_nonzero(core))
    if counts.sum() <= allowed:
        return grid
    beyond = np.cumsum(counts[::-1])[::-1]  # pixels of each bin and those above it
    lowered = grid - BIN * (int(np.argmax(beyond <= allowed)) + 1 if (beyond <= allowed).any() else bins)
    return np.asarray(np.round(np.maximum(lowered, MARGIN - np.log(LIMITS["gain"])), DECIMALS))
