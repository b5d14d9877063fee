"""Text laid over an image: slogans, prices, addresses.

A small text detector looks at every image, reduced; a line that spans enough of the width is then read at full
resolution. Print on a product is narrower, and strokes that only look like text are read with low confidence or as
one or two signs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from canvas.filters.chain import Scorer
from canvas.pins import tables
from canvas.pins.images import Pixels, composite_on_white, decode_image
from canvas.ranges import Natural, NetworkSide, NonNegative, Share


@dataclass(frozen=True, kw_only=True, slots=True)
class OverlayLimits:
    """What counts as text laid over an image."""

    detector_side: NetworkSide  # pixels of the long side at which text is looked for; never enlarged
    max_width: NonNegative  # fraction of the image's width; a wider line is an overlay
    min_confidence: Share  # of the reading, 0..1; below 0.9 the reader sees signs in shadows
    min_letters: Natural  # letters and digits of a line; fewer are no text


class TextOverlayScorer(Scorer):
    """Scorer: width of the widest line read, as a fraction of the image's; 0 if none is wider than the limit.

    Models: PP-OCRv6 small, detection and recognition, as RapidOCR ships them.
    """

    reads = ("image",)
    scores = tables.select_fields(tables.KEPT, ["text_overlay", "overlay_text"])

    def __init__(self, limits: OverlayLimits) -> None:
        import cv2

        cv2.setNumThreads(1)
        self._limits = limits
        self._detect = _load_rapid_ocr(use_rec=False, detector_side=limits.detector_side)
        self._read = _load_rapid_ocr(use_det=False)

    def __call__(self, images: Sequence[bytes]) -> Iterator[dict[str, Any]]:
        for data in images:
            image = composite_on_white(decode_image(data))
            lines = ((width / image.width, self._read_line(image.crop(box))) for box, width in self._find_lines(image))
            width, text = max(((width, text) for width, text in lines if text), default=(0.0, None))
            yield {"text_overlay": min(width, 1.0), "overlay_text": text}

    def _find_lines(self, image: Image.Image) -> Iterator[tuple[tuple[float, float, float, float], float]]:
        """Yield the upright box and the width, in pixels, of each line of text that is wider than the limit."""
        small = image.copy()
        small.thumbnail((self._limits.detector_side, self._limits.detector_side), Image.Resampling.BOX)
        boxes = self._detect(_convert_to_bgr(small)).boxes
        for corners in [] if boxes is None else np.asarray(boxes) * (image.width / small.width):
            (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
            if right - left > max(self._limits.max_width * image.width, bottom - top):
                yield (left, top, right, bottom), right - left

    def _read_line(self, line: Image.Image) -> str | None:
        """Return the text of the line, if it is read with confidence and long enough."""
        reading = self._read(_convert_to_bgr(line))
        if not reading.txts or reading.scores[0] < self._limits.min_confidence:
            return None
        text = str(reading.txts[0])
        return text if sum(character.isalnum() for character in text) >= self._limits.min_letters else None


def _load_rapid_ocr(*, use_det: bool = True, use_rec: bool = True, detector_side: int = 32) -> Any:
    from rapidocr import RapidOCR

    return RapidOCR(
        params={
            "Global.use_det": use_det,
            "Global.use_cls": False,
            "Global.use_rec": use_rec,
            "Global.text_score": 0.0,  # ours to judge
            "Global.min_side_len": 1,
            "Global.log_level": "critical",
            "Det.limit_type": "max",
            "Det.limit_side_len": detector_side,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )


def _convert_to_bgr(image: Image.Image) -> Pixels:
    return np.asarray(image)[:, :, ::-1]
