from pathlib import Path

import pytest
import torch

from canvas.pins import tables
from canvas.pins.images import decode_image
from canvas.pins.masks import compute_box, decode_alpha, decode_mask
from canvas.segmenter.model import build_segmenter
from canvas.segmenter.spec import UNetSpec
from components.mask import mask
from tests.components.mugs import run_tiny, tiny, write_catalogue


@pytest.fixture(scope="module", params=[True, False], ids=["truth", "no truth"])
def data(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mugs")
    write_catalogue(folder, truth=request.param)
    torch.manual_seed(0)
    build_segmenter(UNetSpec(image_size=64, channels=(8, 8, 8, 16))).save(folder / "segmenter")
    return folder


def test_every_kept_pin_gets_a_row_of_its_own_size(data, tmp_path):
    figures = run_tiny(mask, data, tmp_path / "out", workers=None)
    rows = tables.read(tmp_path / "out" / "masks").to_pylist()
    assert [row["pin_id"] for row in rows] == [f"p{index:02d}" for index in range(17)]
    for index, row in enumerate(rows):
        inside, alpha = decode_mask(row["mask"]), decode_alpha(row["alpha"])
        assert inside.shape == alpha.shape == (60 + index, 70)
        assert 0 <= row["confidence"] <= 1
        assert (row["box"] is not None) == inside.any()
        assert row["box"] is None or tuple(row["box"]) == compute_box(inside)
    assert figures["pins"] == 17
    assert sum(figures["rejected"].values()) == sum(row["rejected"] is not None for row in rows)
    known = tables.read(data / "truth").num_rows > 0
    assert ("unseen_view" in figures) == known
    assert decode_image((tmp_path / "out" / "sheet.png").read_bytes()).width > 500


def test_the_same_pins_give_the_same_bytes_in_batches_of_any_size(data, tmp_path):
    for name, batch_size in (("a", 32), ("b", 32), ("c", 5)):
        run_tiny(mask, data, tmp_path / name, batch_size=batch_size, workers=None)
    parts = [(tmp_path / name / "masks" / "part-00000.parquet").read_bytes() for name in "abc"]
    assert parts[0] == parts[1]
    first, third = (tables.read(tmp_path / name / "masks", ["pin_id", "mask"]) for name in "ac")
    assert first.equals(third)


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="'workers' in section 'mask' is 0: it must be 1 or more"):
        tiny(mask, workers=0)
