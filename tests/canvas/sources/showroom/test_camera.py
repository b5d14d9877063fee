from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from canvas.light.gain import linear_to_srgb, srgb_to_linear
from canvas.sources.showroom.camera import (
    CameraView,
    Panorama,
    compute_finest_fov,
    compute_yaw_reach,
    load_panorama,
    render_view,
)

WRAP = 8


@pytest.fixture(scope="module")
def compass() -> Panorama:
    """Red holds the yaw (cosine), green the yaw (sine), blue the pitch, all as (1 + value) / 2."""
    rows, columns = np.mgrid[0:512, 0:1024]
    yaw, pitch = (columns + 0.5) / 1024 * 2 * np.pi, (0.5 - (rows + 0.5) / 512) * np.pi
    linear = (np.stack([np.cos(yaw), np.sin(yaw), np.sin(pitch)], -1).astype(np.float32) + 1) / 2
    return Panorama(np.concatenate([linear[:, -WRAP:], linear, linear[:, :WRAP]], 1), 0.0)


@pytest.mark.parametrize("yaw", [0.0, 90.0, 200.0, 359.9])
@pytest.mark.parametrize("pitch", [-20.0, 0.0, 10.0])
def test_the_centre_shows_where_the_camera_looks(compass: Panorama, yaw: float, pitch: float) -> None:
    red, green, blue = 2 * render_view(compass, CameraView(yaw, pitch, 70, 65, 65))[32, 32] - 1
    seen = np.degrees(np.arctan2(green, red))
    assert (seen - yaw + 180) % 360 - 180 == pytest.approx(0, abs=0.5)
    assert np.degrees(np.arcsin(blue)) == pytest.approx(pitch, abs=0.5)


def test_the_field_of_view_spans_the_width(compass: Panorama) -> None:
    picture = 2 * render_view(compass, CameraView(180, 0, 90, 200, 100)) - 1
    yaws = np.degrees(np.arctan2(picture[50, :, 1], picture[50, :, 0])) % 360
    assert yaws[0] == pytest.approx(135, abs=0.6)
    assert yaws[-1] == pytest.approx(225, abs=0.6)
    assert picture[0, 100, 2] > 0.3 > picture[-1, 100, 2]  # up is up


@pytest.mark.parametrize("pitch", [-18.0, 0.0, 6.0])
def test_reach_bounds_every_pixel(compass: Panorama, pitch: float) -> None:
    view = CameraView(180, pitch, 80, 96, 120)
    picture = 2 * render_view(compass, view, supersampling=1) - 1
    yaws = np.degrees(np.arctan2(picture[..., 1], picture[..., 0])) % 360
    assert np.abs(yaws - 180).max() == pytest.approx(compute_yaw_reach(view), abs=1.0)


def test_the_finest_field_of_view_keeps_the_panorama_resolution() -> None:
    assert CameraView(0, 0, compute_finest_fov(192), 192, 192).focal == pytest.approx(1024 / (2 * np.pi))


def test_the_seam_leaves_no_trace(tmp_path: Path) -> None:
    Image.fromarray(np.full((512, 1024, 3), 120, dtype=np.uint8)).save(tmp_path / "flat.png")
    picture = render_view(load_panorama(tmp_path / "flat.png"), CameraView(0, 0, 60, 64, 64))
    assert np.ptp(picture) < 1e-4


def test_the_light_is_where_it_is_brightest(tmp_path: Path) -> None:
    pixels = np.full((64, 128, 3), 30, dtype=np.uint8)
    pixels[:20, 30:34] = 255
    Image.fromarray(pixels).save(tmp_path / "sun.png")
    assert load_panorama(tmp_path / "sun.png").light_yaw == pytest.approx(32 / 128 * 360, abs=3)


def test_bad_panoramas_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no\.jpg is missing: build the demo data with `make data`"):
        load_panorama(tmp_path / "no.jpg")
    Image.new("RGB", (64, 64)).save(tmp_path / "square.png")
    with pytest.raises(ValueError, match="is 64 x 64: an equirectangular panorama is twice as wide as high"):
        load_panorama(tmp_path / "square.png")


def test_srgb_and_linear_are_inverse() -> None:
    values = np.linspace(0, 1, 256, dtype=np.float32)
    assert np.allclose(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-5)
    assert srgb_to_linear(np.float32([0.5]))[0] == pytest.approx(0.21404, abs=1e-4)
