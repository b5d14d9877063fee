import numpy as np
import pytest

from canvas.features.vectors import normalize_vectors


def test_rows_of_unit_length_and_nothing_stays():
    vectors = normalize_vectors(np.array([[3, 4], [0, 0]], np.float32))
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]
