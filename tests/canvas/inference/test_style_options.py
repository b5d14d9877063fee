from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from canvas.__main__ import main
from canvas.inference.style import encode_style_images
from canvas.inference.style_options import parse_layers
from canvas.pins import tables
from canvas.styles.table import STYLES_FOLDER
from tests.canvas import tiny
from tests.canvas.inference.conftest import cutout
from tests.canvas.inference.test_style import noise


@pytest.fixture(scope="module")
def folder(styled_pipeline, tmp_path_factory) -> Path:
    """The model with a board of one image's style and two clusters, one dropped; images beside it."""
    path = tmp_path_factory.mktemp("styles")
    styled_pipeline.save_pretrained(path / "model")
    vectors = encode_style_images(styled_pipeline, [noise(1)]).embeddings[0].numpy()
    assert len(vectors) == 16 + tiny.OTHER_CLIP.embed_dim
    row = {"uve": vectors[:16], "clip": vectors[16:], "pins": ["p0"], "purity": 1.0, "coherence": 1.0, "chance": 0.1}
    named = [
        ("board-0001", "board", "Cabin Weekend", None),
        ("cluster-001", "cluster", "desert at dawn", None),
        ("cluster-002", "cluster", "this and that", "mixed: purity 0.2"),
    ]
    rows = [
        row | {"style_id": style_id, "kind": kind, "name": name, "dropped": dropped}
        for style_id, kind, name, dropped in named
    ]
    schema = tables.STYLES
    tables.write(path / "model" / STYLES_FOLDER, [pa.Table.from_pylist(rows, schema)], schema)
    cutout(60, 60).save(path / "mug.png")
    for seed in (1, 2):
        noise(seed).save(path / f"style{seed}.png")
    (path / "words.png").write_text("not a picture")
    return path


def generate(folder: Path, *options: str, out: str = "out") -> int:
    return main(
        [
            *("generate", "--model", str(folder / "model"), "--product", str(folder / "mug.png")),
            *("--steps", "2", "--guidance", "2", "--candidates", "1", "--out", str(folder / out), *options),
        ]
    )


def render(folder: Path, *options: str) -> np.ndarray:
    assert generate(folder, "--overwrite", *options, out="shown") == 0
    return np.array(Image.open(folder / "shown" / "mug-0.png"))


def test_images_a_board_and_a_cluster_with_a_prompt_and_without(folder: Path):
    first, second = str(folder / "style1.png"), str(folder / "style2.png")
    by_image = render(folder, "--style", first)
    assert np.array_equal(render(folder, "--board", "cabin weekend"), by_image)  # the same embedding
    assert np.array_equal(render(folder, "--style-cluster", "desert at dawn"), by_image)
    others = [
        render(folder, "--style", first, "--prompt", "a mug, in a forest"),
        render(folder, "--style", first, "--style-strength", "0.3"),
        render(folder, "--style", first, "--style-layers", "style"),
        render(folder, "--style", first, second, "--style-weights", "0.3", "0.7"),
        render(folder, "--style", first, second, "--style-weights", "0.3", "0.7", "--style-apart"),
    ]
    for place, other in enumerate(others):
        assert not np.array_equal(other, by_image), place
    core = np.array(cutout(60, 60))[..., 3] == 255
    assert all(np.array_equal(other[core], by_image[core]) for other in others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "say what to generate with --prompt, --style, --board or --style-cluster"),
        (("--style",), "0 style images were given: give 1 to 16"),
        (("--style", *["style1.png"] * 100), "100 style images were given: give 1 to 16"),
        (("--style", "words.png"), "words.png cannot be used: not a JPEG, PNG or WEBP image"),
        (("--style", "none.png"), "cannot read none.png"),
        (("--board", "cabin wekend"), "no board is called 'cabin wekend': did you mean 'Cabin Weekend'?"),
        (("--style-cluster", "dessert"), "no style cluster is called 'dessert': did you mean 'desert at dawn'?"),
        (("--style-cluster", "this and that"), "was dropped: mixed: purity 0.2"),
        (("--board", "x", "--style-cluster", "y"), "--board and --style-cluster were given: give the style in one way"),
        (("--board", "cabin weekend", "--style-weights", "1"), "are about the images of --style: give some"),
        (("--style-cluster", "desert at dawn", "--style-typical", "0"), "are about the images of --style: give some"),
        (("--style", "style1.png", "--style-typical", "2"), "--style-typical is 2.0: it must be from 0 to 1"),
        (("--style", "style1.png", "style2.png", "--style-weights", "0.5", "0.6"), "sum to 1.1"),
        (("--style", "style1.png", "--style-weights", "0.5", "0.5"), "2 style weights were given for 1 images"),
        (("--style", "style1.png", "--style-strength", "9"), "the style strength is 9"),
        (("--prompt", "a mug", "--style-strength", "0.5"), "are about a style: give one, or leave them out"),
        (("--prompt", "a mug", "--style-layers", "style"), "are about a style: give one, or leave them out"),
        (("--board", "zzz"), "no board is called 'zzz': did you mean 'Cabin Weekend'?"),
        (("--style", "style1.png", "--style-layers", "up_blocks.0=9"), "must be from 0 to 4"),
        (("--style", "style1.png", "--style-layers", "some"), "'some' is not understood: say all, style, or LAYER=F"),
        (
            ("--style", "style1.png", "--style-layers", "up_blocks.5=1"),
            "no image layer is called up_blocks.5",
        ),
    ],
)
def test_bad_input_is_said_in_one_sentence(folder: Path, options, message, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert generate(folder, *options) == 1
    printed = capsys.readouterr().err.strip().splitlines()
    sentence = next(line for line in printed if line.startswith("canvas generate: "))
    assert sentence == printed[-1]
    assert message in sentence


def test_a_model_without_mined_styles(styled_pipeline, folder: Path, tmp_path: Path, capsys):
    styled_pipeline.save_pretrained(tmp_path / "model")
    (tmp_path / "mug.png").write_bytes((folder / "mug.png").read_bytes())
    assert generate(tmp_path, "--board", "cabin weekend") == 1
    assert "knows no boards and clusters: assemble it with the styles of mine_styles" in capsys.readouterr().err


def test_factors_by_layer():
    assert parse_layers(["style"]) == "style"
    assert parse_layers(["up_blocks.0=0.5", "mid_block=1"]) == {"up_blocks.0": 0.5, "mid_block": 1.0}
