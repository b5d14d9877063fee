"""`generate --canvas` and `--layout`, and the same of a served model."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from canvas.__main__ import main
from canvas.inference.served import ServedPipeline
from canvas.layout.spec import build_layout
from canvas.pins.images import encode_png
from tests.canvas.inference.conftest import cutout
from tests.canvas.reward.test_model import build_tiny_reward

PROMPT = "a mug, forest"


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory) -> Path:
    """A model with a reward, two cut-outs, a photograph, a layout."""
    path = tmp_path_factory.mktemp("layouts")
    pipeline.save_pretrained(path / "model")
    build_tiny_reward().save_pretrained(path / "model" / "reward")
    cutout(64, 64).save(path / "mug.png")
    cutout(40, 60).save(path / "lamp.png")
    cutout(64, 64).convert("RGB").save(path / "photo.png")
    cutout(64, 64).getchannel("A").save(path / "mask.png")
    places = {"canvas": "100x120", "products": [{"left": 5, "top": 60}, {"left": 50, "top": 60, "width": 40}]}
    (path / "places.json").write_text(json.dumps(places))
    (path / "broken.json").write_text('{"products": ')
    (path / "binary.json").write_bytes(b"\xff\xfe\x00")
    return path


def generate(folder: Path, *options: str) -> int:
    return main(
        [
            *("generate", "--model", str(folder / "model"), "--prompt", PROMPT, "--steps", "1"),
            *("--candidates", "1", "--out", str(folder / "out"), "--overwrite", *options),
        ]
    )


@pytest.mark.parametrize(
    ("options", "name", "size"),
    [
        (("--product", "mug.png", "--canvas", "90x160", "--place", "bottom", "--scale", "0.6"), "mug-0", (90, 160)),
        (("--product", "mug.png", "--canvas", "300x80"), "mug-0", (300, 80)),
        (("--product", "photo.png", "--canvas", "64x100", "--place", "keep-bottom"), "photo-0", (64, 100)),
        (
            ("--product", "mug.png", "--product", "lamp.png", "--canvas", "150x90", "--layout", "row"),
            "mug+lamp-0",
            (150, 90),
        ),
        (("--product", "mug.png", "--product", "lamp.png", "--layout", "places.json"), "mug+lamp-0", (100, 120)),
        (
            (
                *("--canvas", "150x90", "--layout", "grid", "--scale", "0.9", "--heights", "30", "12"),
                *("--product", "photo.png", "--mask", "mask.png") * 2,
            ),
            "photo+photo-0",
            (150, 90),
        ),
        (("--product", "mug.png", "--canvas", "100x100", "--candidates", "2", "--top", "1"), None, (100, 100)),
    ],
)
def test_an_image_of_the_canvass_size_is_written(folder: Path, options, name, size, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    assert generate(folder, *options) == 0
    printed = capsys.readouterr()
    (path,) = map(Path, printed.out.split())
    assert name is None or path.stem == name
    assert Image.open(path).size == size
    assert ("photograph kept" in printed.err) == ("keep-bottom" in options)
    given = [word for pair in itertools.pairwise(options) if pair[0] in ("--product", "--mask") for word in pair]
    assert main(["verify", str(path), *given]) == 0  # what is kept is the original's


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--place", "bottom"), "--place is about a canvas: give its size with --canvas"),
        (("--canvas", "story-ish"), "the canvas 'story-ish' is not understood"),
        (("--canvas", "20000x20000"), "a canvas of 20000 x 20000 pixels exceeds the limit of 64000000"),
        (("--canvas", "20000x1000"), "20000 x 1000 pixels is too long for this model"),
        (("--canvas", "16384x4000", "--max-pixels", "99999999", "--format", "webp"), "too many for webp"),
        (("--canvas", "40x50"), "takes 43 x 43 pixels, the canvas has 40 x 50"),
        (("--canvas", "90x90", "--place", "keep"), "but this image is cut out: choose another place"),
        (("--canvas", "90x90", "--place", "under"), "the place 'under' is unknown"),
        (("--canvas", "90x90", "--scale", "2"), "the scale is 2: it must be above 0"),
        (("--layout", "row"), "--layout row needs a canvas: give its size with --canvas"),
        (("--layout", "none.json"), "--layout none.json is neither row nor grid nor a file: No such file"),
        (("--layout", "broken.json"), "the layout is neither row nor grid nor JSON"),
        (("--layout", "binary.json"), "--layout binary.json is no text: give a JSON file"),
        (("--layout", "places.json"), "the layout has 2 products, 1 were given: one each is needed"),
        (
            ("--product", "lamp.png"),
            "2 products were given: say how they stand in one scene with --layout and --canvas",
        ),
        (("--product", "lamp.png", "--canvas", "200x90"), "2 products were given: say how they stand with --layout"),
        (("--layout", "row", "--canvas", "9000x900", *("--product", "mug.png") * 99), "100 products were given"),
        (("--canvas", "90x90", "--mask", "mask.png"), "has an alpha channel and a mask was given too"),
        (("--product", "photo.png", "--canvas", "200x90", "--layout", "row"), "and this model has no segmenter"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(folder, options, message, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    assert generate(folder, "--product", "mug.png", "--out", "none", *options) == 1
    printed = capsys.readouterr()
    (sentence,) = printed.err.strip().splitlines()
    assert message in sentence
    assert not list(folder.glob("none/*"))


def test_the_served_model_knows_the_same_options(pipeline) -> None:
    import pandas as pd

    products = [cutout(64, 64), cutout(40, 60)]
    rows = pd.DataFrame(
        [
            {"product": encode_png(products[0]), "prompt": PROMPT, "seed": 3, "more_products": None},
            {
                "product": encode_png(products[0]),
                "prompt": PROMPT,
                "seed": 3,
                "more_products": [encode_png(products[1])],
            },
        ]
    )
    served = ServedPipeline(pipeline)
    options = {"steps": 1, "canvas": "160x90", "layout": "row", "place": "bottom", "scale": 0.8}
    made = served.predict(rows, options)["image"]
    layout = build_layout("160x90", layout="row", place="bottom", scale=0.8)
    for png, given in zip(made, (products[:1], products), strict=True):
        expected = pipeline(given, PROMPT, layout=layout, seed=3, num_inference_steps=1).images[0]
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")), np.asarray(expected))
    with pytest.raises(ValueError, match="2 products were given: say with a layout"):
        served.predict(rows[1:], {"steps": 1})
    with pytest.raises(ValueError, match="a layout needs a canvas"):
        served.predict(rows[:1], {"steps": 1, "place": "bottom"})
    places = json.dumps({"canvas": "100x100", "products": [{"left": 9, "top": 9}]})
    made = served.predict(rows[:1], {"steps": 1, "layout": places})["image"]
    assert Image.open(io.BytesIO(made[0])).size == (100, 100)
