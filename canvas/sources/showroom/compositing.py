"""Putting a product into an image: size, place, light and shadow. All images are sRGB [h, w, 3] in 0..1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from canvas.light.gain import GRID, FloatPixels, GainGrid, linear_to_srgb, srgb_to_linear
from canvas.pins.masks import Box, compute_box
from canvas.sources.showroom.products import Cutout, resize_by_area


@dataclass(frozen=True, slots=True)
class Paste:
    """A cut-out laid on an empty canvas of the image's size; alphas in 0..1."""

    color: FloatPixels  # [h, w, 3], black where `soft` is 0
    matte: FloatPixels  # [h, w] the product
    soft: FloatPixels  # [h, w] the product with its baked shadow
    box: Box  # of the product


def place_cutout(
    cutout: Cutout,
    size: tuple[int, int],
    scale: float,
    widest: float,
    center: float,
    bottom: float,
    mirrored: bool,
    turn: float,
) -> Paste:
    """Place the cut-out on a canvas, its box wholly inside.

    Args:
        cutout: The product.
        size: Width and height of the canvas, pixels.
        scale: Height of the product over the canvas's; less where it would be wider than `widest`.
        widest: Its largest width over the canvas's.
        center: Middle of its box, over the canvas's width.
        bottom: Lower end of its box, over the canvas's height.
        mirrored: Whether left and right are swapped.
        turn: By how many degrees it is turned.
    """
    width, height = size
    left, top, right, below = cutout.box
    zoom = min(scale * height / (below - top), widest * width / (right - left))
    layers = np.dstack([cutout.color * cutout.soft[..., None], cutout.soft])  # premultiplied
    matte = cutout.matte
    rows, columns = matte.shape
    if mirrored:
        layers, matte = np.ascontiguousarray(layers[:, ::-1]), np.ascontiguousarray(matte[:, ::-1])
        left, right = columns - right, columns - left
    if turn:
        middle = ((left + right) / 2, (top + below) / 2)
        layers, matte = _rotate_layer(layers, middle, turn), _rotate_layer(matte, middle, turn)
    small = (max(1, round(columns * zoom)), max(1, round(rows * zoom)))
    half = (right - left) * zoom / 2
    x_middle = float(np.clip(center * width, half + 0.03 * width, width - half - 0.03 * width))
    x = round(x_middle - (left + right) / 2 * zoom)
    y = round(max(bottom * height - below * zoom, 0.03 * height - top * zoom))
    layers = _place_layer(resize_by_area(layers, small), size, x, y)
    matte = np.clip(_place_layer(resize_by_area(matte, small), size, x, y), 0, 1)
    soft = layers[..., 3]
    color = np.clip(layers[..., :3] / np.maximum(soft, 1e-4)[..., None], 0, 1)
    return Paste(color, matte, np.clip(soft, 0, 1), compute_box(matte > 0.5))


def _rotate_layer(layer: FloatPixels, middle: tuple[float, float], degrees: float) -> FloatPixels:
    matrix = cv2.getRotationMatrix2D(middle, degrees, 1.0)
    return np.asarray(cv2.warpAffine(layer, matrix, (layer.shape[1], layer.shape[0]), flags=cv2.INTER_LINEAR))


def _place_layer(layer: FloatPixels, size: tuple[int, int], x: int, y: int) -> FloatPixels:
    """Put the layer at (x, y) of an empty canvas; what sticks out is cut."""
    width, height = size
    canvas = np.zeros((height, width, *layer.shape[2:]), dtype=np.float32)
    inside = canvas[max(y, 0) : y + layer.shape[0], max(x, 0) : x + layer.shape[1]]
    inside[...] = layer[max(-y, 0) :, max(-x, 0) :][: inside.shape[0], : inside.shape[1]]
    return canvas


def composite_over(top: FloatPixels, alpha: FloatPixels, below: FloatPixels) -> FloatPixels:
    """Composite in sRGB, as browsers do."""
    return top * alpha[..., None] + below * (1 - alpha[..., None])


@dataclass(frozen=True, slots=True)
class SceneLight:
    """What a scene's light does to a product in it: the truth that a gain is learnt from."""

    tint: FloatPixels  # factor of each channel
    brightness: np.float64
    from_right: float  # -1..1: the side that most light comes from

    def compute_slope(self, columns: NDArray[Any], box: Box) -> FloatPixels:
        """Compute the factor at `columns` of a product in `box`: 1 in its middle, more towards the light."""
        x0, _, x1, _ = box
        across = np.clip((columns - (x0 + x1) / 2) / max(x1 - x0, 1), -0.5, 0.5)
        return np.asarray(1 + 0.3 * self.from_right * across)

    def compute_log_gain(self, box: Box) -> GainGrid:
        """Compute the log gain at the nodes of a grid over `box`."""
        slope = self.compute_slope(np.linspace(box[0], box[2], GRID), box)
        return np.asarray(np.log(np.broadcast_to(self.tint * self.brightness * slope[None, :, None], (GRID, GRID, 3))))


def measure_light(background: FloatPixels, from_right: float) -> SceneLight:
    """Measure the light of a scene, mildly: its tint, and its brightness against a well-lit one."""
    ambient = srgb_to_linear(background).mean((0, 1))
    luminance = float(ambient @ np.array([0.2126, 0.7152, 0.0722]))
    tint = (ambient / max(luminance, 1e-3)) ** 0.3
    return SceneLight(tint, np.clip((luminance / 0.25) ** 0.25, 0.6, 1.12), from_right)


def relight_product(paste: Paste, light: SceneLight) -> FloatPixels:
    """Give the product the scene's tint and brightness, with a slope towards the light."""
    slope = light.compute_slope(np.arange(paste.color.shape[1]), paste.box)
    linear = srgb_to_linear(paste.color) * light.tint * light.brightness * slope[None, :, None]
    return linear_to_srgb(np.clip(linear, 0, 1))


def render_standing_shadow(
    paste: Paste, light_from_right: float, light_from_behind: float, darkness: float
) -> FloatPixels:
    """Render the opacity [h, w] of a standing product's shadow: dark at the contact, cast away from the light."""
    x0, y0, x1, y1 = paste.box
    height, width = paste.matte.shape
    wide = x1 - x0
    contact = np.zeros((height, width), dtype=np.float32)
    axes = (max(2, round(0.48 * wide)), max(2, round(0.045 * wide)))
    cv2.ellipse(contact, ((x0 + x1) // 2, min(height - 1, y1 - axes[1] // 2)), axes, 0, 0, 360, 1.0, -1)
    contact = _blur_plane(contact, 0.03 * wide + 0.8)
    # A point t above the base falls at (x - shear t, base + length t) on the ground.
    shear, length = 0.9 * light_from_right, 0.28 * light_from_behind
    matrix = np.array([[1, shear, -shear * y1], [0, -length, y1 * (1 + length)]], dtype=np.float64)
    cast = _blur_plane(cv2.warpAffine(paste.matte, matrix, (width, height)), 0.035 * (y1 - y0) + 0.8)
    return np.asarray(np.clip(darkness * (contact + 0.45 * cast * (1 - contact)), 0, 0.85))


def render_hanging_shadow(paste: Paste, light_from_right: float, darkness: float) -> FloatPixels:
    """Render the opacity [h, w] of the soft shadow of a garment that floats before its background."""
    reach = 0.045 * (paste.box[3] - paste.box[1])
    matrix = np.array([[1, 0, -reach * light_from_right], [0, 1, reach]], dtype=np.float64)
    moved = cv2.warpAffine(paste.matte, matrix, paste.matte.shape[::-1])
    return np.asarray(0.6 * darkness * _blur_plane(moved, reach * 0.8 + 0.8))


def _blur_plane(plane: Any, sigma: float) -> FloatPixels:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), dtype=np.float32)
