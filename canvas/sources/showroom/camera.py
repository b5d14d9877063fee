"""A pinhole camera inside an equirectangular panorama.

Yaw runs clockwise from the panorama's left edge, pitch upwards from the horizon, both in degrees.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from canvas.light.gain import FloatPixels, srgb_to_linear
from canvas.sources.showroom.spec import require_file

WRAP = 8  # columns repeated at either edge, so that interpolation crosses the seam


@dataclass(frozen=True, slots=True)
class CameraView:
    """Where the camera looks: yaw, pitch and horizontal field of view in degrees; image size in pixels."""

    yaw: float
    pitch: float
    fov: float
    width: int
    height: int

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return self.width / 2 / float(np.tan(np.radians(self.fov / 2)))


@dataclass(frozen=True, slots=True)
class Panorama:
    """Linear light [h, WRAP + w + WRAP, 3] in 0..1, its ends repeated, and the yaw that most light comes from."""

    wrapped: FloatPixels
    light_yaw: float


def load_panorama(path: Path) -> Panorama:
    """Load a panorama file; `ValueError` if it is missing or not twice as wide as high."""
    with Image.open(require_file(path)) as image:
        linear = srgb_to_linear(np.asarray(image.convert("RGB"), dtype=np.float32) / 255)
    height, width = linear.shape[:2]
    if width != 2 * height:
        raise ValueError(f"{path} is {width} x {height}: an equirectangular panorama is twice as wide as high")
    luminance = linear[: height // 2].mean((0, 2)) ** 2  # squared: the sun, not the whole sky
    angles = (np.arange(width) + 0.5) / width * 2 * np.pi
    light = np.arctan2((luminance * np.sin(angles)).sum(), (luminance * np.cos(angles)).sum())
    wrapped = np.concatenate([linear[:, -WRAP:], linear, linear[:, :WRAP]], axis=1)
    return Panorama(wrapped, float(np.degrees(light)) % 360)


def compute_finest_fov(width: int, panorama_width: int = 1024) -> float:
    """Compute the narrowest horizontal field of view that does not magnify the panorama at the image's centre."""
    return float(np.degrees(2 * np.arctan(width / 2 / (panorama_width / (2 * np.pi)))))


def compute_yaw_reach(view: CameraView) -> float:
    """Compute the largest distance in yaw, degrees, from the view's centre to a pixel: the corners on the ground."""
    border = _compute_rays(view, 1)
    return float(np.degrees(np.abs(np.arctan2(border[..., 0], border[..., 2])).max()))


def render_view(panorama: Panorama, view: CameraView, supersampling: int = 2) -> FloatPixels:
    """Render [height, width, 3] in linear light, by inverse gnomonic projection and supersampling."""
    rays = _compute_rays(view, supersampling)
    right, up, forward = rays[..., 0], rays[..., 1], rays[..., 2]
    height, width = panorama.wrapped.shape[0], panorama.wrapped.shape[1] - 2 * WRAP
    turns = np.arctan2(right, forward) / np.float32(2 * np.pi) + np.float32(view.yaw / 360)
    pitch = np.arctan2(up, np.sqrt(right * right + forward * forward))
    columns = turns % 1 * width - 0.5 + WRAP
    rows = (0.5 - pitch / np.float32(np.pi)) * height - 0.5
    fine = cv2.remap(panorama.wrapped, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.clip(cv2.resize(fine, (view.width, view.height), interpolation=cv2.INTER_AREA), 0, 1)


def _compute_rays(view: CameraView, supersampling: int) -> FloatPixels:
    """Compute the unnormalised directions [h, w, 3] of the pixel centres: right, up, forward at yaw 0."""
    width, height = view.width * supersampling, view.height * supersampling
    right = ((np.arange(width) + 0.5) / supersampling - view.width / 2) / view.focal
    up = ((view.height / 2 - (np.arange(height) + 0.5) / supersampling) / view.focal)[:, None]
    sine, cosine = np.sin(np.radians(view.pitch)), np.cos(np.radians(view.pitch))
    rays = np.empty((height, width, 3), dtype=np.float32)
    rays[..., 0], rays[..., 1], rays[..., 2] = right, up * cosine + sine, cosine - up * sine
    return rays
