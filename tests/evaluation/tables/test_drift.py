"""Drift between sets of pins: none between halves of one, detected where one was planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from canvas.pins import tables
from evaluation.tables.drift import (
    CATEGORICAL,
    NUMERICAL,
    measure_drift,
    read_pin_statistics,
    write_training_statistics,
)
from evaluation.tables.spec import DriftLimits

LIMITS = DriftLimits(numerical=0.3, categorical=0.3, max_share=0.2)


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Any:
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("drift")
    pins, kept = [], []
    for index in range(600):
        impressions = int(rng.integers(100, 1000))
        pins.append(
            dict.fromkeys(tables.PINS.names, None)
            | {
                "pin_id": str(index),
                "split": "train" if index < 300 else "unseen_view",
                "category": str(rng.choice(["Mugs", "Shoes"])),
                "board": "One",
                "promoted": bool(rng.random() < 0.3),
                "source": "test",
                "impressions": impressions,
                "saves": impressions // 10,
                "clicks": impressions // 20,
            }
        )
        kept.append(
            dict.fromkeys(tables.KEPT.names, None)
            | {"pin_id": str(index), "kept": True, "short_side": int(rng.integers(100, 200))}
            | {name: float(rng.random()) for name in ("aspect", "sharpness", "brightness", "clipped", "entropy")}
            | {"text_length": int(rng.integers(10, 90))}
        )
    for name, rows, schema in (("pins", pins, tables.PINS), ("kept", kept, tables.KEPT)):
        tables.write(folder / name, [pa.Table.from_pylist(rows, schema)], schema)
    return read_pin_statistics(folder / "pins", folder / "kept")


def test_no_drift_between_halves_of_the_same_pins(frame: Any) -> None:
    drift = measure_drift(frame[frame.split == "train"], frame[frame.split == "unseen_view"], LIMITS)
    assert drift.drifted == ()
    assert not drift.verdict
    assert set(drift.distances) == {*NUMERICAL, *CATEGORICAL}
    # the last digits are those of the order in which a process has the categories
    assert all(distance == round(distance, 12) for distance in drift.distances.values())
    assert "<html" in drift.page


def test_planted_drift_is_detected_and_named(frame: Any) -> None:
    moved = frame.assign(brightness=frame.brightness + 1, category="Hats", entropy=frame.entropy * 3)
    drift = measure_drift(frame, moved, LIMITS)
    assert set(drift.drifted) == {"brightness", "category", "entropy"}
    assert drift.verdict
    assert drift.distances["brightness"] > drift.distances["aspect"]


def test_few_drifted_columns_are_named_but_no_verdict(frame: Any) -> None:
    drift = measure_drift(frame, frame.assign(brightness=frame.brightness + 1), LIMITS)
    assert drift.drifted == ("brightness",)
    assert not drift.verdict


def test_page_fetches_nothing(frame: Any) -> None:
    page = measure_drift(frame, frame, LIMITS).page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


def test_page_shows_how_both_sides_are_distributed(frame: Any) -> None:
    moved = frame.assign(brightness=frame.brightness + 1, category="Hats")
    page = measure_drift(frame, moved, LIMITS).page
    assert "2 of 14 columns drifted: " in page
    assert page.index("brightness: share of rows") < page.index("aspect: share of rows")
    shares = page[page.index("category: share of rows") :]
    assert "<td>Hats</td><td class=number>0</td><td class=number>1</td>" in shares


def test_page_escapes_and_shortens_texts_of_the_catalogue(frame: Any) -> None:
    hostile = "<script>alert(1)</script>" + "x" * 10_000
    page = measure_drift(frame, frame.assign(board=hostile, category="</table><img src=http://x>"), LIMITS).page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;xxx" in page
    assert "&lt;img src=http://x&gt;" in page
    assert "<script" not in page
    assert "x" * 100 not in page


def test_page_of_columns_without_spread(frame: Any) -> None:
    flat = frame[["brightness", "entropy"]].assign(brightness=0.5, entropy=np.nan)
    flat.loc[flat.index[:3], "entropy"] = [1.0, np.inf, 2.0]
    assert "brightness: share of rows" in measure_drift(flat, flat, LIMITS).page


def test_side_without_pins_is_one_sentence(frame: Any) -> None:
    with pytest.raises(ValueError, match="current side of the drift comparison has no images"):
        measure_drift(frame, frame[frame.split == "nowhere"], LIMITS)


def test_nothing_in_common_is_one_sentence(frame: Any) -> None:
    with pytest.raises(ValueError, match="no column has values on both sides"):
        measure_drift(frame[["brightness"]], frame[["aspect"]], LIMITS)


def test_statistics_of_training_images_alone(tmp_path: Path) -> None:
    pins, kept = [], []
    for index, split in enumerate(["train", "train", "unseen_view"]):
        pins.append(dict.fromkeys(tables.PINS.names) | {"pin_id": str(index), "split": split})
        kept.append(dict.fromkeys(tables.KEPT.names) | {"pin_id": str(index), "kept": index != 1, "entropy": 1.0})
    for name, rows, schema in (("pins", pins, tables.PINS), ("kept", kept, tables.KEPT)):
        tables.write(tmp_path / name, [pa.Table.from_pylist(rows, schema)], schema)
    statistics = write_training_statistics(tmp_path / "statistics", tmp_path / "pins", tmp_path / "kept")
    assert statistics["pin_id"].tolist() == tables.read(tmp_path / "statistics")["pin_id"].to_pylist() == ["0"]
    assert list(statistics.columns) == tables.TRAINING_STATISTICS.names


def test_version_without_tables_says_how_to_get_them(tmp_path: Path) -> None:
    from components.monitor import _read_version

    with pytest.raises(ValueError, match=r"has no pins/: fetch one with `dvc get"):
        _read_version(tmp_path)
