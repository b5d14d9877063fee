import shutil
from pathlib import Path

import pytest
import torch

from canvas.captioner.model import Captioner, build_captioner
from canvas.captioner.spec import CaptioningSpec, DecoderSpec
from canvas.captioner.training import train_tokenizer
from canvas.pins import tables
from canvas.pins.images import decode_image
from components.caption import caption
from tests.canvas.captioner.test_public import build_idefics3
from tests.components.mugs import run_tiny, tiny, write_catalogue


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mugs")
    write_catalogue(folder)
    torch.manual_seed(0)
    spec = DecoderSpec(image_size=64, vocabulary=320, width=32, layers=1, heads=4, dropout=0.0)
    tokenizer = train_tokenizer(["red mug, in a forest", "in a lobby"], 320)
    build_captioner(spec, tokenizer, CaptioningSpec(prompt=None, max_tokens=6)).save(folder / "captioner")
    return folder


def test_every_text_of_a_kept_pin_with_its_source(data, tmp_path):
    figures = run_tiny(caption, data, tmp_path / "out", workers=None)
    rows = tables.read(tmp_path / "out" / "captions").to_pylist()
    assert sorted({row["pin_id"] for row in rows}) == [f"p{index:02d}" for index in range(17)]
    assert all(row["caption"].strip() for row in rows)
    of_fourth = {row["source"]: row["caption"] for row in rows if row["pin_id"] == "p04"}
    assert "title" not in of_fourth  # it was empty
    assert of_fourth["description"] == "A mug to drink from"
    assert of_fourth["alt"] == "Red Mug in a forest"
    assert figures["by_source"]["description"] == 17
    assert figures["by_source"]["title"] == 16
    assert figures["rows"] == len(rows)
    assert figures["asked_again"] == 0
    assert figures["unusable"] == 17 - figures["by_source"].get("generated", 0)
    assert figures["pins_per_second"] > 0
    assert {"train", "unseen_view", "unseen_product"} <= figures.keys()
    assert decode_image((tmp_path / "out" / "sheet.png").read_bytes()).width > 500


def test_the_same_pins_give_the_same_bytes(data, tmp_path):
    for name in "ab":
        run_tiny(caption, data, tmp_path / name, workers=None)
    parts = [(tmp_path / name / "captions" / "part-00000.parquet").read_bytes() for name in "ab"]
    assert parts[0] == parts[1]


def test_answers_without_the_form_are_asked_for_again_and_counted(data, tmp_path):
    torch.manual_seed(0)
    model, processor = build_idefics3()
    asking = CaptioningSpec(prompt="Name the product.", max_tokens=3)
    shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("captioner"))
    Captioner(model.eval(), processor, asking).save(tmp_path / "data" / "captioner")
    figures = run_tiny(caption, tmp_path / "data", tmp_path / "out", batch_size=5, workers=None)
    assert figures["asked_again"] == 17
    assert figures["unusable"] == 17
    assert "generated" not in figures["by_source"]
    assert figures["by_source"]["alt"] == 17
    assert decode_image((tmp_path / "out" / "sheet.png").read_bytes()).width > 500


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="must be 1 or more"):
        tiny(caption, sheet_pins=0)
