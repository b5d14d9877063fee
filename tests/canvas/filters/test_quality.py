from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from canvas.filters.criteria import SafetyScorer
from canvas.filters.quality import (
    QualityScorer,
    compute_clipped_share,
    compute_entropy,
    compute_sharpness,
    measure_quality,
)
from canvas.pins.images import encode_jpeg, encode_png


def noise(width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def test_size_and_aspect_are_those_of_the_whole_picture() -> None:
    quality = measure_quality(noise(1200, 300))
    assert (quality.short_side, quality.aspect) == (300, 4.0)


@pytest.mark.parametrize("radius", [2.5, 4.5])
def test_blur_lowers_sharpness_more_than_contrast_does(radius: float) -> None:
    picture = noise(24, 16).resize((96, 64), Image.Resampling.NEAREST)
    faint = Image.eval(picture, lambda value: 96 + value // 4)
    blurred = measure_quality(picture.filter(ImageFilter.GaussianBlur(radius))).sharpness
    assert blurred < 0.6 * measure_quality(picture).sharpness
    assert measure_quality(faint).sharpness == pytest.approx(measure_quality(picture).sharpness, rel=0.1)


def test_blur_along_one_axis_counts() -> None:
    luma = np.random.default_rng(0).random((8, 8)).astype(np.float32).repeat(16, 0).repeat(16, 1)
    moved = np.mean([np.roll(luma, shift, axis=1) for shift in range(-6, 7)], axis=0, dtype=np.float32)
    assert compute_sharpness(moved) < 0.5 * compute_sharpness(luma)


def test_flat_picture_has_no_sharpness_and_no_entropy() -> None:
    quality = measure_quality(Image.new("RGB", (50, 40), (120, 120, 120)))
    assert (quality.sharpness, quality.entropy, quality.clipped) == (0.0, 0.0, 0.0)
    assert quality.brightness == pytest.approx(120 / 255, abs=1e-6)


def test_entropy_of_every_value_equally_often_is_eight_bits() -> None:
    assert compute_entropy(np.arange(256, dtype=np.uint8).reshape(16, 16)) == pytest.approx(8.0)


def test_a_burnt_channel_is_clipped_and_paper_white_is_not() -> None:
    pixels = np.array([[[255, 90, 90], [0, 90, 90]], [[255, 255, 252], [251, 249, 251]]], dtype=np.uint8)
    assert compute_clipped_share(pixels) == pytest.approx(1 / 3)
    assert compute_clipped_share(np.full((4, 4, 3), 255, dtype=np.uint8)) == 0


def test_transparent_pixels_are_white() -> None:
    assert measure_quality(Image.new("RGBA", (40, 40), (0, 0, 0, 0))).brightness == pytest.approx(1.0)


def test_bytes_that_are_no_picture_have_no_scores() -> None:
    picture = noise()
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG")
    rows = list(QualityScorer()([encode_png(picture), b"", b"<html>", jpeg.getvalue()[:300]]))
    assert rows[0]["short_side"] == 64
    assert len(rows[0]["phash"]) == 72
    assert all(set(row.values()) == {None} for row in rows[1:])
    assert all(list(row) == QualityScorer.scores.names for row in rows)


def test_plain_images_are_safe_whatever_their_size_and_mode() -> None:
    images = [encode_jpeg(noise()), encode_png(Image.new("RGBA", (30, 90), (0, 0, 0, 0)))]
    scores = [row["nsfw"] for row in SafetyScorer()(images)]
    assert all(0 <= score < 0.2 for score in scores)
    assert scores[0] != scores[1]
