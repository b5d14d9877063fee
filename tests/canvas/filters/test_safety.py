from __future__ import annotations

from PIL import Image

from canvas.filters.safety import SafetyScorer
from canvas.pins.images import encode_jpeg, encode_png
from tests.canvas.filters.test_quality import noise


def test_plain_pictures_are_safe_whatever_their_size_and_mode() -> None:
    pictures = [encode_jpeg(noise()), encode_png(Image.new("RGBA", (30, 90), (0, 0, 0, 0)))]
    scores = [row["nsfw"] for row in SafetyScorer()(pictures)]
    assert all(0 <= score < 0.2 for score in scores)
    assert scores[0] != scores[1]
