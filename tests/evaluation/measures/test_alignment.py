from __future__ import annotations

import numpy as np
import pytest

from evaluation.measures.alignment import text_agreement

EAST, NORTH = [1.0, 0.0], [0.0, 1.0]


def rows(*vectors: list[float]) -> np.ndarray:
    return np.array(vectors, np.float32)


def test_text_agreement_is_the_cosine_of_each_pair() -> None:
    found = text_agreement(rows([2, 0], [0, 3], [1, 1]), rows(EAST, EAST, [-1, -1]))
    assert found.tolist() == pytest.approx([1, 0, -1])


def test_a_text_each() -> None:
    with pytest.raises(ValueError, match="1 texts for 2 pictures"):
        text_agreement(rows(EAST, NORTH), rows(EAST))
