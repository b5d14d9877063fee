from __future__ import annotations

from dataclasses import asdict

import pytest
from PIL import Image, ImageDraw, ImageFont

from canvas.filters.text_overlay import OverlayLimits, TextOverlayScorer
from canvas.pins.images import encode_jpeg
from lifecycle.declare.params import read_section
from tests.canvas.filters.test_quality import noise

LIMITS = OverlayLimits(detector_side=192, max_width=0.6, min_confidence=0.9, min_letters=4)


@pytest.fixture(scope="module")
def scorer() -> TextOverlayScorer:
    return TextOverlayScorer(LIMITS)


def written(text: str, width: float, size: tuple[int, int] = (320, 240)) -> bytes:
    """A soft picture with `text` across `width` of it."""
    image = Image.eval(noise(40, 30).resize(size, Image.Resampling.BICUBIC), lambda value: 60 + value // 4)
    font = ImageFont.load_default(100)
    scale = width * size[0] / font.getlength(text)
    font = ImageFont.load_default(100 * scale)
    ImageDraw.Draw(image).text(((1 - width) / 2 * size[0], 0.4 * size[1]), text, font=font, fill="white")
    return encode_jpeg(image)


@pytest.mark.parametrize("size", [(160, 240), (320, 240), (900, 700)])
def test_a_line_across_the_picture_is_measured_and_read(scorer: TextOverlayScorer, size: tuple[int, int]) -> None:
    (scores,) = scorer([written("BEST PRICE 2026", 0.85, size)])
    assert scores["text_overlay"] == pytest.approx(0.85, abs=0.1)
    assert "PRICE" in scores["overlay_text"]


@pytest.mark.parametrize(("text", "width"), [("GETSALEOR.COM", 0.4), ("—O—", 0.9), ("", 0.9)])
def test_print_on_a_product_signs_and_nothing_are_no_overlay(
    scorer: TextOverlayScorer, text: str, width: float
) -> None:
    data = written(text, width) if text else encode_jpeg(noise(320, 240))
    assert list(scorer([data])) == [{"text_overlay": 0.0, "overlay_text": None}]


def test_the_same_scorer_answers_alike_again(scorer: TextOverlayScorer) -> None:
    data = written("FOLLOW FOR MORE", 0.9)
    assert list(scorer([data, data])) == list(scorer([data])) * 2


@pytest.mark.parametrize("side", [0, 16, 100])
def test_a_detector_side_that_the_network_cannot_take_is_refused(side: int) -> None:
    with pytest.raises(ValueError, match=f"'detector_side' in section 'overlay' is {side}: it must be"):
        read_section(OverlayLimits, "overlay", {"overlay": asdict(LIMITS) | {"detector_side": side}})
