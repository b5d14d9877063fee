"""Text laid over a picture: slogans, prices, addresses.

A small text detector looks at every picture, reduced; a line that spans enough of the width is then read at full
resolution. Print on a product is narrower, and strokes that only look like text are read with low confidence or as
one or two signs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from canvas.pins.images import composite_on_white, decode_image


@dataclass(frozen=True, kw_only=True, slots=True)
class OverlayLimits:
    """What counts as text laid over a picture."""

    detector_side: int  # pixels of the long side at which text is looked for, a multiple of 32; never enlarged
    max_width: float  # of a line, fraction of the picture's width; wider is an overlay
    min_confidence: float  # of the reading; below 0.9 the reader sees signs in shadows
    min_letters: int  # letters and digits of a line

    def __post_init__(self) -> None:
        if self.detector_side < 32 or self.detector_side % 32:
            raise ValueError(f"detector_side is {self.detector_side}: give a multiple of 32")


class TextOverlayScorer:
    """Scorer: width of the widest line read, as a fraction of the picture's; 0 if none is wider than the limit.

    Models: PP-OCRv6 small, detection and recognition, as RapidOCR ships them.
    """

    reads = ("image",)
    scores = pa.schema([("text_overlay", pa.float32()), ("overlay_text", pa.string())])

    def __init__(self, limits: OverlayLimits) -> None:
        import cv2

        cv2.setNumThreads(1)
        self._limits = limits
        self._detect = _load_rapid_ocr(use_rec=False, detector_side=limits.detector_side)
        self._read = _load_rapid_ocr(use_det=False)

    def __call__(self, images: Sequence[bytes]) -> Iterator[dict[str, Any]]:
        for data in images:
            image = composite_on_white(decode_image(data))
            lines = [(line.width / image.width, self._text(image.crop(line.box))) for line in self._wide_lines(image)]
            width, text = max(((width, text) for width, text in lines if text), default=(0.0, None))
            yield {"text_overlay": min(width, 1.0), "overlay_text": text}

    def _wide_lines(self, image: Image.Image) -> Iterator[Line]:
        """The lines of text found whose width exceeds the limit."""
        small = image.copy()
        small.thumbnail((self._limits.detector_side, self._limits.detector_side), Image.Resampling.BOX)
        boxes = self._detect(_convert_to_bgr(small)).boxes
        for corners in [] if boxes is None else np.asarray(boxes) * (image.width / small.width):
            line = Line.around(corners)
            if line.width > self._limits.max_width * image.width and line.width > line.height:
                yield line

    def _text(self, line: Image.Image) -> str | None:
        """What the line says, if it is read with confidence and long enough."""
        found = self._read(_convert_to_bgr(line))
        if not found.txts or found.scores[0] < self._limits.min_confidence:
            return None
        text = str(found.txts[0])
        letters = sum(character.isalnum() for character in text)
        return text if letters >= self._limits.min_letters else None


@dataclass(frozen=True, slots=True)
class Line:
    """An upright box round a line of text, in pixels."""

    box: tuple[float, float, float, float]  # left, top, right, bottom

    @classmethod
    def around(cls, corners: NDArray[np.float32]) -> Line:
        """Of four corners [4, 2]."""
        (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
        return cls((left, top, right, bottom))

    @property
    def width(self) -> float:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]


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


def _convert_to_bgr(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image)[:, :, ::-1]
