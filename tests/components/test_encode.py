import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from canvas.clip.model import TextTower, encode_prompts, load_clip
from canvas.pins import tables
from canvas.pins.masks import decode_mask
from canvas.shards.encoding import PinSamples
from canvas.shards.files import Sample, Shards
from components.encode import encode
from lifecycle.declare.stage import Input, Output, Scratch
from tests.components.generator_parts import write_encoding_inputs
from tests.components.mugs import tiny

CELL = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mugs")
    write_encoding_inputs(folder, tiny(encode)["text"])
    return folder


def run(data: Path, out: Path, scratch: Path | None = None, frames: dict | None = None, **changes) -> dict:
    out.mkdir()
    encode(
        **tiny(encode, **changes) | {"frames": tiny(encode, "frames", **frames or {})["frames"]},
        **{name: Input(data / name) for name in ("pins", "kept", "masks", "captions", "clip", "vae")},
        towers=Input(data / "clip"),
        shards=Output(out / "shards"),
        metrics=Output(out / "encode.json"),
        scratch=Scratch(scratch or out / "scratch"),
    )
    return json.loads((out / "encode.json").read_text())


def samples(out: Path) -> list[dict]:
    shards = Shards(out / "shards")
    return [dict(shards[row]) for row in range(len(shards))]


@pytest.fixture(scope="module")
def encoded_pins(data, tmp_path_factory) -> tuple[dict, list[dict]]:
    out = tmp_path_factory.mktemp("encoded") / "out"
    return run(data, out, views=1), samples(out)


def test_every_kept_pin_is_a_sample(encoded_pins):
    figures, samples = encoded_pins
    assert [sample["pin_id"] for sample in samples] == [f"p{row:02d}" for row in range(17)]
    assert figures["pins"] == sum(figures["by_split"].values()) == sum(figures["by_bucket"].values()) == 17
    assert figures["by_kind"] == {"scene": 6, "product": 11}
    assert figures["bytes_per_pin"] > 0
    for sample in samples:
        height, width = (int(side) // CELL for side in sample["bucket"].split("x"))
        assert sample["moments"].shape == (8, height, width)
        assert sample["masked_random"].shape == sample["masked_product"].shape == (2, 4, height, width)
        assert sample["holes_random"].shape == sample["holes_product"].shape == (2, 1, height, width)
        assert sample["text_states"].shape == (3, 16, 32)
        assert sample["text_pooled"].shape == (3, 16)
        assert sample["clip_image"].shape == (32,)
        assert sample["sizes"][4:].tolist() == [height * CELL, width * CELL]


def test_captions_are_the_preferred_ones_through_both_towers(encoded_pins, data):
    text = tiny(encode)["text"]
    towers = [
        TextTower.from_clip(load_clip(data / "clip" / name), spec)
        for name, spec in (("first", text.first), ("second", text.second))
    ]
    sample = encoded_pins[1][1]
    states, pooled = encode_prompts(towers, ["red mug, in a lobby", "Red Mug in a lobby", "Title 1"])
    assert torch.allclose(sample["text_states"].float(), states, atol=2e-3)
    assert torch.allclose(sample["text_pooled"].float(), pooled, atol=2e-3)


def test_holes_surround_the_product(encoded_pins, data):
    masks = {row["pin_id"]: row for row in tables.read(data / "masks").to_pylist()}
    for sample in encoded_pins[1]:
        holes = sample["holes_product"].float()
        assert set(holes.unique().tolist()) <= {0.0, 1.0}
        if sample["kind"] == "scene":
            assert holes.all()
        else:
            area = decode_mask(masks[sample["pin_id"]]["mask"]).mean()
            assert 0 < 1 - holes.mean() < 2 * area + 0.1  # cells all product, errors included


def test_holes_of_pixels_have_those_of_cells_as_their_maximum(data, tmp_path):
    frames = {"buckets": [[64, 64], [48, 80]]}
    for holes in ("pixels", "cells"):
        run(data, tmp_path / holes, views=1, frames=frames, holes=holes)
    for sample, cells in zip(samples(tmp_path / "pixels"), samples(tmp_path / "cells"), strict=True):
        for name in ("holes_random", "holes_product"):
            assert sample[name].shape == (2, CELL**2, *cells[name].shape[2:])
            assert torch.equal(sample[name].amax(dim=1, keepdim=True), cells[name])
        assert torch.equal(sample["masked_product"], cells["masked_product"])


def test_features_of_a_frozen_network_are_kept_at_every_token(data, tmp_path, encoded_pins):
    assert "features" not in encoded_pins[1][0]
    frames = {"buckets": [[64, 64], [48, 80]]}
    features = {"network": "second", "layer": 1, "cells": 2}
    run(data, tmp_path / "out", views=1, frames=frames, features=features)
    for sample in samples(tmp_path / "out"):
        height, width = sample["moments"].shape[1:]
        assert sample["features"].shape == (32, height // 2, width // 2)
        assert sample["features"].dtype == torch.float16
        assert sample["features"].float().std() > 0
    with pytest.raises(ValueError, match=r"features\.cells is 3, 24 pixels, which do not divide frames of 64 x 64"):
        run(data, tmp_path / "uneven", views=1, features=features | {"cells": 3})


def test_frames_that_a_transformer_cannot_read_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match=r"frames.buckets .*are no multiples of 16 pixels"):
        run(data, tmp_path / "out", holes="pixels", frames={"buckets": [[64, 64], [72, 56]]})


def test_known_latents_depend_on_the_mask(encoded_pins):
    sample = encoded_pins[1][1]
    mean = sample["moments"].chunk(2)[0].float()
    assert not torch.allclose(sample["masked_product"][0].float(), mean, atol=1e-2)
    scene = encoded_pins[1][0]
    assert torch.equal(scene["masked_product"][0], scene["masked_product"][1])


def test_a_killed_run_continues_to_the_same_bytes(data, tmp_path, monkeypatch):
    run(data, tmp_path / "one", rows_per_shard=6, views=1)
    made, whole = [], PinSamples.__call__

    def dying(self: PinSamples, rows: range) -> Iterator[Sample]:
        made.append(rows.start)
        if made == [0, 6]:
            raise KeyboardInterrupt
        return whole(self, rows)

    monkeypatch.setattr(PinSamples, "__call__", dying)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "two", rows_per_shard=6, views=1)
    shutil.move(tmp_path / "two" / "scratch", tmp_path / "scratch")
    shutil.rmtree(tmp_path / "two")
    figures = run(data, tmp_path / "two", scratch=tmp_path / "scratch", rows_per_shard=6, views=1)
    assert made == [0, 6, 6, 12]
    assert figures["images_per_second"] * figures["seconds"]["encode"] == pytest.approx(17 - 6)  # of this run alone
    files = [{file.name: file.read_bytes() for file in (tmp_path / n / "shards").iterdir()} for n in ("one", "two")]
    assert files[0] == files[1]


def read_files(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (out / "shards").iterdir()}


def test_collages_do_not_depend_on_what_a_call_encodes(data, tmp_path, monkeypatch):
    collages = {"share": 1.0, "products": 2, "sizes": [0.2, 0.6]}
    figures = run(data, tmp_path / "one", rows_per_shard=6, views=3, collages=collages)
    assert figures["collages"] == 4 * 2  # four scenes to train on, their views after the first
    assert figures["by_kind"] == {"scene": 6, "product": 11}
    whole, made = PinSamples.__call__, []

    def dying(self: PinSamples, rows: range) -> Iterator[Sample]:
        made.append(rows.start)
        if len(made) == 3:
            raise KeyboardInterrupt
        return whole(self, rows)

    monkeypatch.setattr(PinSamples, "__call__", dying)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "two", scratch=tmp_path / "scratch", rows_per_shard=6, views=3, collages=collages)
    shutil.rmtree(tmp_path / "two")
    run(data, tmp_path / "two", scratch=tmp_path / "scratch", rows_per_shard=6, views=3, collages=collages)
    assert read_files(tmp_path / "one") == read_files(tmp_path / "two")


def test_no_collages_are_a_share_of_none(data, tmp_path):
    never = {"share": 0.0, "products": 2, "sizes": [0.2, 0.6]}
    assert run(data, tmp_path / "one", views=2, collages=never)["collages"] == 0
    assert run(data, tmp_path / "two", views=2, collages=None)["collages"] == 0
    assert read_files(tmp_path / "one") == read_files(tmp_path / "two")


def test_later_views_of_products_may_keep_a_photograph(data, tmp_path):
    """Its rectangle is all known: what lies round the product in it is not generated."""
    plain, extended = tmp_path / "plain", tmp_path / "extended"
    run(data, plain, views=3, collages=None, photographs=0.0)
    run(data, extended, views=3, collages=None, photographs=1.0)
    grown = 0
    for one, other in zip(samples(plain), samples(extended), strict=True):
        assert (one["pin_id"], one["kind"]) == (other["pin_id"], other["kind"])
        if other["view"] == "0" or other["kind"] == "scene":
            assert torch.equal(one["holes_product"], other["holes_product"])
        else:
            kept = 1 - other["holes_product"].float()
            for mask in kept[:, 0]:  # a rectangle, its border's cells counted as hole
                rows, columns = mask.any(1).sum(), mask.any(0).sum()
                assert mask.sum() == rows * columns
            grown += kept.mean() > 1 - one["holes_product"].float().mean()
    assert grown > 0


def test_pins_without_a_caption_are_counted_and_left_out(data, tmp_path):
    figures = run(data, tmp_path / "out", sources=["title"])
    assert (figures["pins"], figures["without_caption"]) == (16, 1)
    assert "p04" not in {sample["pin_id"] for sample in samples(tmp_path / "out")}


@pytest.mark.parametrize("changes", [{"views": 0}, {"captions": 0}, {"random_masks": 0}, {"sources": []}])
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ValueError, match=rf"'{next(iter(changes))}' in section 'encode' is"):
        tiny(encode, **changes)


def test_training_crops_vary_by_seed_and_held_out_ones_do_not(data, tmp_path):
    run(data, tmp_path / "one")
    run(data, tmp_path / "two", seed=1)
    one, two = samples(tmp_path / "one"), samples(tmp_path / "two")
    moved = {a["split"] for a, b in zip(one, two, strict=True) if not torch.equal(a["sizes"], b["sizes"])}
    assert moved <= {"train"}
    assert any(not np.array_equal(a["holes_random"], b["holes_random"]) for a, b in zip(one, two, strict=True))


def test_training_pins_are_seen_in_several_views_and_held_out_ones_in_one(data, tmp_path, encoded_pins):
    figures = run(data, tmp_path / "out", views=3, crops={"zoom": 1.5, "mirror": True})
    views: dict[str, list[dict]] = {}
    for sample in samples(tmp_path / "out"):
        views.setdefault(sample["pin_id"], []).append(sample)
    assert figures["views"] == sum(len(of_pin) for of_pin in views.values()) == 12 * 3 + 5
    assert figures["pins"] == sum(figures["by_split"].values()) == 17
    once = {sample["pin_id"]: sample for sample in encoded_pins[1]}
    for pin_id, of_pin in views.items():
        assert [sample["view"] for sample in of_pin] == [str(number) for number in range(len(of_pin))]
        assert len(of_pin) == (3 if of_pin[0]["split"] == "train" else 1)
        assert torch.equal(of_pin[0]["moments"], once[pin_id]["moments"])  # the first is the pin as it is
        assert len({sample["moments"].numpy().tobytes() for sample in of_pin}) == len(of_pin)
        for sample in of_pin:
            height, width, top, left, *frame = sample["sizes"].int().tolist()
            assert 0 <= top <= height - frame[0]
            assert 0 <= left <= width - frame[1]
