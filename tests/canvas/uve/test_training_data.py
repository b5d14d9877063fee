from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from canvas.pins import tables
from canvas.pins.fallbacks import Notes
from canvas.pins.frames import CropSpec
from canvas.uve.training import MISSING, BalancedCrops, read_labels, select_classes


def write(path, schema, *rows):
    full = [dict.fromkeys(schema.names) | row for row in rows]
    tables.write(path, [pa.Table.from_pylist(full, schema)], schema)


@pytest.fixture
def labels(tmp_path):
    write(
        tmp_path / "pins",
        tables.PINS,
        {"pin_id": "a", "product_id": "mug-1", "category": "Mugs", "board": "Cosy"},
        {"pin_id": "b", "category": "Places"},
        {"pin_id": "c", "board": "Cosy", "product_id": ""},
        {"pin_id": "dropped", "board": "Cosy"},
    )
    write(tmp_path / "truth", tables.TRUTH, {"pin_id": "a", "scene": "forest"}, {"pin_id": "b", "scene": None})
    write(
        tmp_path / "captions",
        tables.CAPTIONS,
        {"pin_id": "a", "source": "generated", "caption": "red mug, in a lobby"},
        {"pin_id": "b", "source": "generated", "caption": "on a white background"},
        {"pin_id": "c", "source": "generated", "caption": "blue mug, in a lobby"},
        {"pin_id": "c", "source": "title", "caption": "blue mug, in a cave"},
    )
    return read_labels(tmp_path / "pins", tmp_path / "truth", tmp_path / "captions", {"a", "b", "c"})


def test_scenes_are_truths_and_captions_where_truth_knows_nothing_of_a_pin(labels):
    assert labels["scene"] == {"a": "forest", "c": "in a lobby"}
    assert labels["product"] == {"a": "mug-1"}
    assert labels["category"] == {"a": "Mugs", "b": "Places"}
    assert labels["board"] == {"a": "Cosy", "c": "Cosy"}


def test_classes_need_pins_and_tasks_need_classes(labels):
    notes = Notes()
    assert select_classes(labels, ["scene", "category"], 1, notes) == {
        "scene": ["forest", "in a lobby"],
        "category": ["Mugs", "Places"],
    }
    assert notes.to_metrics() == {}
    assert select_classes(labels, ["board"], 2, notes) == {}
    assert notes.to_metrics() == {"notes": ["task board has 1 classes of 2 pins or more, so it was not trained"]}


def crops(batch_size: int) -> BalancedCrops:
    """Crops of 20 pins of scene x and 2 of y; only the first has a product of a class."""
    ids = [f"p{at}" for at in range(22)]
    labels = {
        "scene": {pin: "x" if at < 20 else "y" for at, pin in enumerate(ids)},
        "product": {"p0": "mug", "p1": "jug", "p2": "rare"},
    }
    images = [np.full((40, 40, 3), at, np.uint8) for at in range(22)]
    spec = CropSpec(zoom=1.25, mirror=True)
    classes = {"scene": ["x", "y"], "product": ["jug", "mug"]}
    return BalancedCrops(ids, images, 32, spec, batch_size, 0, labels=labels, classes=classes)


def test_rare_classes_come_as_often_as_frequent_ones():
    batches = crops(20)
    counts: Counter[int] = Counter()
    for step in range(40):
        rows = batches.select_rows(step, 0, 1)
        counts.update((rows[0::2] >= 20).tolist())  # every other sample is drawn for its scene
        assert set(rows[1::2]) <= {0, 1}  # the others for their product
    assert 0.4 < counts[True] / counts.total() < 0.6


def test_labels_go_with_their_images_and_unknown_ones_are_missing():
    batch = crops(20)(3, 0, 1)
    assert batch["images"].shape == (20, 3, 32, 32)
    for pin, image, (scene, product) in zip(batch["pin_id"], batch["images"], batch["labels"], strict=True):
        number = int(pin[1:])
        assert (image == number).all()
        assert scene == (0 if number < 20 else 1)
        assert product == {0: 1, 1: 0}.get(number, MISSING)


def test_the_slices_of_two_ranks_are_the_batch_of_one():
    whole = crops(8)(5, 0, 1)
    halves = [crops(8)(5, rank, 2) for rank in (0, 1)]
    assert whole["pin_id"] == halves[0]["pin_id"] + halves[1]["pin_id"]
    assert (whole["images"][4:] == halves[1]["images"]).all()
    with pytest.raises(ValueError, match="batch_size is 8: it must be a multiple of the 3 processes"):
        crops(8)(5, 0, 3)
