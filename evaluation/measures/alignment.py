"""How well pictures agree with what was asked for, on embeddings float32 [pictures, dimensions]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from canvas.features.vectors import normalize_vectors
from evaluation.measures.distances import Features

Values = NDArray[np.float32]


def text_agreement(pictures: Features, texts: Features) -> Values:
    """Cosine of each picture's embedding and that of its own text by the same encoder, [pictures] in -1..1 (CLIPScore
    without its factor and its cut at 0; Hessel et al. 2021, section 3). ValueError if there is not one text each."""
    if pictures.shape != texts.shape:
        raise ValueError(f"{len(texts)} texts for {len(pictures)} pictures, {texts.shape} and {pictures.shape}")
    found: Values = (normalize_vectors(pictures) * normalize_vectors(texts)).sum(axis=1)
    return found
