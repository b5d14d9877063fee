"""Collages: views of scenes with products of other pins, of the painted catalogue."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from canvas.clip.model import encode_prompts
from canvas.pins import tables
from canvas.pins.frames import FrameSpec
from canvas.shards.collages import Collage, Collages, place_row
from canvas.shards.encoding import Encoders, PinSamples
from canvas.shards.spec import CollageSpec, EncodingSpec
from components.encode import encode
from tests.components.generator_parts import write_encoding_inputs
from tests.components.mugs import tiny

ALWAYS = CollageSpec(share=1.0, products=3, sizes=(0.15, 0.6))
TRAIN = [f"p{row:02d}" for row in range(12)]
SCENES = TRAIN[::3]
SCENE = np.full((64, 48, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mugs")
    write_encoding_inputs(folder, tiny(encode)["text"])
    return folder


def read(data: Path, spec: CollageSpec = ALWAYS, seed: int = 0, pins: list[str] = TRAIN) -> Collages:
    return Collages.read(spec, seed, data / "pins", data / "masks", data / "captions", pins)


def name_apart(collages: Collages) -> Collages:
    """The catalogue's products are all of one name; a collage has no two of one."""
    return replace(collages, names={pin_id: f"mug {pin_id}" for pin_id in collages.names})


def make(data: Path, collages: Collages, pin_id: str, number: int, scene: np.ndarray = SCENE) -> Collage | None:
    pins, masks = tables.RowsById(data / "pins"), tables.RowsById(data / "masks")
    return collages.make_collage(pin_id, number, scene, collages.read_cutouts([(pin_id, number)], pins, masks))


def test_products_and_scenes_are_those_of_the_train_split(data):
    collages = read(data)
    assert list(collages.names) == [pin_id for pin_id in TRAIN if pin_id not in SCENES]
    assert set(collages.names.values()) == {"red mug"}
    assert collages.places == {pin_id: ("in a forest", "in a lobby")[int(pin_id[1:]) % 2] for pin_id in SCENES}
    assert [collages.choose_products(pin_id, 1) for pin_id in ("p01", "p12")] == [(), ()]
    assert collages.choose_products("p00", 0) == ()


def test_products_that_their_image_cuts_off_are_not_used(data, tmp_path):
    rows = tables.read(data / "masks").to_pylist()
    rows[1]["box"] = [0, *rows[1]["box"][1:]]
    tables.write_rows(tmp_path / "masks", rows, tables.MASKS)
    cut = Collages.read(ALWAYS, 0, data / "pins", tmp_path / "masks", data / "captions", TRAIN)
    assert set(read(data).names) - set(cut.names) == {"p01"}


def test_a_scene_with_an_uncertain_mask_is_left_alone(data, tmp_path):
    rows = tables.read(data / "masks").to_pylist()
    rows[0]["rejected"] = "low confidence"
    tables.write_rows(tmp_path / "masks", rows, tables.MASKS)
    uncertain = Collages.read(ALWAYS, 0, data / "pins", tmp_path / "masks", data / "captions", TRAIN)
    assert set(read(data).places) - set(uncertain.places) == {"p00"}


def test_a_collage_is_a_function_of_seed_pin_and_view(data):
    collages, again, other = (name_apart(read(data, seed=seed)) for seed in (0, 0, 1))
    views = [(pin_id, number) for pin_id in SCENES for number in (1, 2)]
    chosen = [collages.choose_products(*view) for view in views]
    assert chosen == [again.choose_products(*view) for view in views]
    assert chosen != [other.choose_products(*view) for view in views]
    assert len(set(chosen)) > 1
    first, second = make(data, collages, "p03", 2), make(data, again, "p03", 2)
    assert first is not None
    assert second is not None
    assert np.array_equal(first.pixels, second.pixels)


def test_shares_and_counts_are_as_asked_for(data):
    half = name_apart(read(data, replace(ALWAYS, share=0.5)))
    counts = Counter(len(half.choose_products("p00", number)) for number in range(1, 1201))
    assert counts[0] / 1200 == pytest.approx(0.5, abs=0.05)
    assert set(counts) == {0, 1, 2, 3}
    for count in (1, 2, 3):
        assert counts[count] / 1200 == pytest.approx(1 / 6, abs=0.04)
    assert not any(read(data, replace(ALWAYS, share=0.0)).choose_products("p00", number) for number in range(1, 99))


def test_no_two_products_of_one_name(data):
    assert {len(read(data).choose_products("p00", number)) for number in range(1, 50)} == {1}


def test_pixels_change_where_the_mask_is_and_captions_name_all(data):
    collages = name_apart(read(data))
    for number in range(1, 20):
        made = make(data, collages, "p00", number)
        assert made is not None
        assert 1 <= len(made.products) <= 3
        changed = (made.pixels != SCENE).any(-1)
        assert made.mask.any()
        assert not (made.mask & ~changed).any()
        assert (changed & ~made.mask).sum() < 0.3 * made.mask.sum()  # their soft edges
        product, place = collages.get_caption_parts("p00", made.products)
        assert product == " and ".join(f"mug {pin_id}" for pin_id in made.products)
        assert place == "in a forest"


@pytest.mark.parametrize("frame", [(64, 64), (48, 80), (80, 48), (256, 144), (16, 16)])
def test_rows_stand_in_the_frame_beside_each_other(frame):
    rng = np.random.default_rng(0)
    for number in range(300):
        boxes = [(int(height), int(width)) for height, width in rng.integers(8, 200, (1 + number % 3, 2))]
        spots = place_row(boxes, frame, (0.15, 0.6), rng)
        right = 0
        for spot, (tall, wide) in zip(spots, boxes, strict=False):
            assert spot.height is not None
            assert 0.15 * frame[0] - 1 <= spot.height <= 0.6 * frame[0] + 1
            assert 0 <= spot.top <= frame[0] - spot.height
            assert spot.top + spot.height >= 0.6 * frame[0]
            assert spot.left >= right
            right = spot.left + max(1, round(wide * spot.height / tall))
            assert right <= frame[1]


def test_heights_are_drawn_log_uniformly():
    rng = np.random.default_rng(0)
    spots = [place_row([(100, 10)], (1000, 1000), (0.1, 0.9), rng)[0].height or 0 for _ in range(2000)]
    assert np.median(spots) == pytest.approx(1000 * np.sqrt(0.1 * 0.9), rel=0.05)


def test_what_finds_no_room_is_left_out(data):
    rng = np.random.default_rng(0)
    assert len(place_row([(10, 10), (10, 10), (10, 10)], (100, 100), (0.4, 0.6), rng)) == 2
    assert place_row([(10, 100)], (100, 100), (0.4, 0.6), rng) == ()
    assert make(data, read(data, replace(ALWAYS, sizes=(0.9, 1.0))), "p00", 1, SCENE[:, :8]) is None


def test_without_products_there_are_no_collages(data):
    assert read(data, pins=SCENES).choose_products("p00", 1) == ()
    assert make(data, read(data, pins=SCENES), "p00", 1) is None


def encode_views(data: Path, collages: Collages | None, views: list[tuple[str, int]]) -> list[dict]:
    params = tiny(encode)
    spec: EncodingSpec = params["encode"]
    frames: FrameSpec = params["frames"]
    captions = {pin_id: [f"caption of {pin_id}"] for pin_id, _ in views}
    encoders = Encoders.load(data / "clip", data / "clip", data / "vae", params["text"])
    samples = PinSamples(data / "pins", data / "masks", views, captions, encoders, spec, frames, True, collages)
    return [dict(sample) for sample in samples(range(len(views)))]


def is_same(one: torch.Tensor | str, other: torch.Tensor | str) -> bool:
    return one == other if isinstance(one, str) else torch.equal(one, torch.as_tensor(other))


def test_a_caption_names_the_products_and_the_scenes_place(data):
    (sample,) = encode_views(data, read(data), [("p03", 1)])
    text = tiny(encode)["text"]
    towers = Encoders.load(data / "clip", data / "clip", data / "vae", text).towers
    states, _ = encode_prompts(towers, ["red mug, in a lobby"])
    for number in range(len(sample["text_states"])):
        assert torch.allclose(sample["text_states"][number].float(), states[0].cpu(), atol=2e-3)


def test_only_later_views_of_scenes_differ_from_those_without_collages(data):
    views = [(pin_id, number) for pin_id in TRAIN[:4] for number in (0, 1)]
    plain, collages = encode_views(data, None, views), encode_views(data, read(data), views)
    for view, one, other in zip(views, plain, collages, strict=True):
        same = {name for name in one if is_same(one[name], other[name])}
        if view in (("p00", 1), ("p03", 1)):
            assert (one["kind"], other["kind"]) == ("scene", "product")
            assert other["promoted"] == "0"
            assert {"pin_id", "split", "view", "bucket", "sizes", "holes_random"} <= same  # the same draws
            assert same.isdisjoint({"moments", "holes_product", "text_states"})
            assert 0 < 1 - other["holes_product"].float().mean() < 0.7
        else:
            assert same >= set(one) - {"text_states", "text_pooled", "moments", "masked_random", "masked_product"}
            for name in ("text_states", "moments", "masked_product"):  # encoded in other company: rounding may differ
                assert torch.allclose(one[name].float(), other[name].float(), atol=5e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 1.5}, r"'share' in section 'encode\.collages' is 1\.5: it must be at most 1"),
        ({"products": 0}, r"'products' in section 'encode\.collages' is 0: it must be 1 or more"),
        ({"products": 13}, r"'products' in section 'encode\.collages' is 13: it must be at most 12"),
        ({"sizes": [0.0, 0.5]}, r"key 0 in section 'encode\.collages\.sizes' is 0\.0: it must be above 0"),
        ({"sizes": [0.6, 0.2]}, r"encode\.collages\.sizes is \[0\.6, 0\.2\]: give the smaller one first"),
    ],
)
def test_impossible_collages_are_refused(changes, message):
    with pytest.raises(ValueError, match=message) as refusal:
        tiny(encode, collages=changes)
    assert "\n" not in str(refusal.value)
