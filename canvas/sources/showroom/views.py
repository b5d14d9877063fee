"""Where the camera of a pin looks: inside or outside the held-out sector, and at something worth an image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from canvas.light.gain import FloatPixels, linear_to_srgb
from canvas.sources.showroom.camera import (
    CameraView,
    Panorama,
    compute_finest_fov,
    compute_yaw_reach,
    render_view,
)
from canvas.sources.showroom.plan import PinPlan
from canvas.sources.showroom.spec import SECTOR

ATTEMPTS = 12
"""Views tried for one pin before the best of them is taken."""


def render_background(
    panorama: Panorama, plan: PinPlan, rng: np.random.Generator, attempts: int = ATTEMPTS
) -> tuple[FloatPixels, CameraView]:
    """Render a view of the plan's scene and split in sRGB: the first that is not blown out or bare, or the best of
    `attempts`."""
    best: tuple[float, CameraView] | None = None
    for attempt in range(attempts):
        view = _sample_view(plan, rng, plan.spread if attempt == 0 else float(rng.random()))
        if view is None:
            continue
        small = replace(view, width=view.width // 2, height=view.height // 2)  # enough to judge it
        score = _score_soundness(_auto_expose(render_view(panorama, small, supersampling=1)))
        if best is None or score > best[0]:
            best = (score, view)
        if score >= 1:
            break
    assert best is not None, f"no view of {plan.scene} fits the {plan.split} split"
    return _auto_expose(render_view(panorama, best[1])), best[1]


def _sample_view(plan: PinPlan, rng: np.random.Generator, spread: float) -> CameraView | None:
    """Draw a view outside the held-out sector (unseen views: inside it); None if the camera sees too much for that."""
    assert plan.scene is not None
    width, height = plan.size
    low, high = (-18, 10) if plan.product is None else (-10, 6) if plan.product.hangs else (-16, -4)
    pitch = float(rng.uniform(low, high))
    fov = compute_finest_fov(width) + float(rng.uniform(0, 24 if plan.seen_view else 8))
    reach = compute_yaw_reach(CameraView(0, pitch, fov, width, height))
    room = 180 - SECTOR / 2 - reach if plan.seen_view else SECTOR / 2 - reach
    if room < 0:
        return None
    middle = plan.scene.held_out_yaw + (180 if plan.seen_view else 0)
    return CameraView(float((middle + (2 * spread - 1) * room) % 360), pitch, fov, width, height)


def _auto_expose(linear: FloatPixels) -> FloatPixels:
    """Expose to sRGB, half way (in stops) to a mean of 0.2 in linear light, at most two stops up and none down."""
    gain = np.clip((0.2 / max(float(linear.mean()), 1e-4)) ** 0.5, 1, 4)
    return linear_to_srgb(np.clip(linear * np.float32(gain), 0, 1))


def _score_soundness(srgb: FloatPixels) -> float:
    """Score a background; 1 or more is one that a photographer keeps: not bare, not blown out, not black."""
    luma = srgb.mean(-1)
    detail = float(np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean())
    clipped = float(((luma > 0.98) | (luma < 0.02)).mean())
    return min(detail / 0.03, 0.35 / max(clipped, 1e-6))
