from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from canvas.pins import tables
from canvas.uve.pin_embeddings import PinEmbeddings, average_embeddings, concatenate_embeddings

ROWS = [
    {"pin_id": pin, "uve": [float(at), 1.0], "uve_code": b"\x00", "clip": [0.0, float(-at), 2.0]}
    for at, pin in enumerate(("a", "b", "c"))
]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    tables.write(path, [pa.Table.from_pylist(rows, tables.EMBEDDINGS)], tables.EMBEDDINGS)
    return path


@pytest.mark.parametrize(
    ("source", "wanted"), [("uve", [[2, 1], [0, 1]]), ("clip", [[0, -2, 2], [0, 0, 2]]), ("uve+clip", None)]
)
def test_rows_by_pin_and_source(tmp_path: Path, source, wanted):
    embeddings = PinEmbeddings(write(tmp_path / "table", ROWS), source)
    vectors = embeddings.read(["c", "a"])
    assert vectors.shape == (2, embeddings.width)
    assert vectors.tolist() == (wanted or [[2, 1, 0, -2, 2], [0, 1, 0, 0, 2]])
    assert embeddings.read(["b", "b"]).tolist() == [embeddings.read(["b"])[0].tolist()] * 2


def test_what_is_not_there_is_said(tmp_path: Path):
    embeddings = PinEmbeddings(write(tmp_path / "table", ROWS), "uve")
    with pytest.raises(ValueError, match=r"2 pins have no embedding \(x, \.\.\.\)"):
        embeddings.read(["a", "x", "y"])
    with pytest.raises(ValueError, match="holds no embedding"):
        PinEmbeddings(write(tmp_path / "empty", []), "clip")
    with pytest.raises(ValueError, match=r"'clip\+dino' is unknown \(dino\): use uve"):
        concatenate_embeddings({"clip": np.zeros((1, 2), np.float32)}, "clip+dino")


def test_the_mean_of_unit_vectors_is_one():
    parts = {"uve": np.eye(2, dtype=np.float32), "clip": np.array([[1, 0], [1, 0]], np.float32)}
    means = average_embeddings(parts, [0.2, 0.8])
    assert {name: np.linalg.norm(part) for name, part in means.items()} == pytest.approx({"uve": 1, "clip": 1})
    assert means["uve"][0, 1] == pytest.approx(4 * means["uve"][0, 0])
