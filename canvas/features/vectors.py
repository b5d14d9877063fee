"""Vectors of pictures: embeddings, descriptors, features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]  # [N, E], unit length


def normalize_vectors(vectors: Vectors) -> Vectors:
    """Each row at unit length; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)
