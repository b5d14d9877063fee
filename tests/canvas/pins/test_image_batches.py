from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from canvas.pins import tables
from canvas.pins.captions import read_captions
from canvas.pins.frames import CropSpec, FrameSpec, crop_random_square
from canvas.pins.image_batches import CropBatches, batch_by_frame, load_images
from canvas.pins.images import encode_png
from lifecycle.declare.params import read_section

CROPS = CropSpec(zoom=1.5, mirror=True)
SPLITS = {"a": "train", "b": "train", "c": "unseen_view"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pins, each a gradient of its own; two captions of one, one of another."""
    folder = tmp_path_factory.mktemp("pins")
    rows = []
    for index, (pin_id, split) in enumerate(SPLITS.items()):
        pixels = np.zeros((50, 70, 3), np.uint8)
        pixels[..., index] = np.linspace(50, 250, 70).astype(np.uint8)
        picture = encode_png(Image.fromarray(pixels if pin_id != "c" else pixels.swapaxes(0, 1)))
        rows.append(dict.fromkeys(tables.PINS.names) | {"pin_id": pin_id, "image": picture, "split": split})
    tables.write(folder / "pins", [pa.Table.from_pylist(rows, tables.PINS)], tables.PINS)
    texts = [("a", "title", "A"), ("a", "generated", "red"), ("b", "generated", "green"), ("c", "alt", "blue")]
    captions = [dict(zip(tables.CAPTIONS.names, row, strict=True)) for row in texts]
    tables.write(folder / "captions", [pa.Table.from_pylist(captions, tables.CAPTIONS)], tables.CAPTIONS)
    return folder


def batches(data: Path, seed: int = 0) -> CropBatches:
    ids, pictures = load_images(data / "pins", {"a", "b"}, 30)
    return CropBatches(ids, pictures, 20, CROPS, 4, seed)


def test_pictures_are_loaded_at_their_short_side(data):
    ids, pictures = load_images(data / "pins", {"a", "c"}, 30)
    assert ids == ["a", "c"]
    assert [picture.shape for picture in pictures] == [(30, 42, 3), (42, 30, 3)]


def test_no_picture_is_an_error(data):
    with pytest.raises(ValueError, match="holds none of the 1 pins to load"):
        load_images(data / "pins", {"x"}, 30)


def test_crops_are_a_function_of_seed_and_step(data):
    first, again = batches(data)(5, 0, 1), batches(data)(5, 0, 1)
    assert torch.equal(first["images"], again["images"])
    assert not torch.equal(first["images"], batches(data)(6, 0, 1)["images"])
    assert not torch.equal(first["images"], batches(data, seed=1)(5, 0, 1)["images"])
    assert first["images"].shape == (4, 3, 20, 20)
    channels = {"a": 0, "b": 1}
    for pin, image in zip(first["pin_id"], first["images"], strict=True):
        assert image[channels[pin]].float().mean() > 50
        assert image.sum(dim=(1, 2)).argmax() == channels[pin]


def test_ranks_share_a_batch_of_crops(data):
    whole = batches(data)(3, 0, 1)["images"]
    assert torch.equal(torch.cat([batches(data)(3, rank, 2)["images"] for rank in (0, 1)]), whole)


def test_crops_zoom_and_mirror():
    picture = np.tile(np.arange(60, dtype=np.uint8)[None, :, None], (60, 1, 3))
    rng = np.random.default_rng(0)
    crops = [crop_random_square(picture, 30, CROPS, rng).astype(int) for _ in range(40)]
    slopes = [crop[0, -1, 0] - crop[0, 0, 0] for crop in crops]
    assert min(slopes) < 0 < max(slopes)
    assert 36 < min(map(abs, slopes)) < 45 < 55 < max(map(abs, slopes))
    plain = [crop_random_square(picture, 30, CropSpec(zoom=1, mirror=False), rng) for _ in range(2)]
    assert np.array_equal(*plain)
    with pytest.raises(ValueError, match=r"is 0\.5: it must be 1 or more"):
        read_section(CropSpec, "crops", {"crops": {"zoom": 0.5, "mirror": False}})


def test_framed_pins_come_one_frame_a_batch(data):
    spec = FrameSpec(side=64, buckets=((64, 64), (80, 48), (48, 80)), hole_inflation=0)
    batches = list(batch_by_frame(data / "pins", SPLITS, spec, batch_size=2))
    assert sorted((tuple(batch["pin_id"]), tuple(batch["images"].shape)) for batch in batches) == [
        (("a", "b"), (2, 3, 48, 80)),
        (("c",), (1, 3, 80, 48)),
    ]
    assert [batch["split"] for batch in batches if len(batch["split"]) == 1] == [["unseen_view"]]


def test_captions_by_preferred_source(data):
    assert read_captions(data / "captions", SPLITS, ["generated", "title"]) == {"a": ["red", "A"], "b": ["green"]}
    with pytest.raises(ValueError, match=r"no pin has a caption from \['poem'\]"):
        read_captions(data / "captions", SPLITS, ["poem"])


def test_sources_are_joined_to_longer_captions(data):
    for sources, captions in (
        (["generated+title"], {"a": ["red, A"], "b": ["green"]}),
        (["title+generated", "title"], {"a": ["A, red", "A"], "b": ["green"]}),
        (["title+poem"], {"a": ["A"]}),
        (["title", "generated+title"], {"a": ["A", "red, A"], "b": ["green"]}),
    ):
        assert read_captions(data / "captions", SPLITS, sources) == captions
