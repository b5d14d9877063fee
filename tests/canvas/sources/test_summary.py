"""What `ingest` prints of a catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from canvas.pins import tables
from canvas.sources.manifest import ManifestSpec
from canvas.sources.summary import COLUMNS, count_columns, describe_catalogue, describe_stages
from lifecycle.declare.graph import load_stages
from lifecycle.declare.params import load_sections, read_section


def describe(folder: Path, pins: list[dict[str, Any]], *mapped: str, **changes: Any) -> dict[str, str]:
    rows = [dict.fromkeys(tables.PINS.names) | {"pin_id": str(at)} | pin for at, pin in enumerate(pins)]
    tables.write_rows(folder / "pins", rows, tables.PINS)
    settings = {"name": "shop", "columns": {name: name for name in ("image", *mapped)}} | changes
    manifest = load_sections("public-sdxl-lora")["ingest"]["manifest"] | settings
    spec = read_section(ManifestSpec, "manifest", {"manifest": manifest})
    title, *lines = describe_catalogue(folder / "pins", count_columns(folder / "pins"), spec)
    parts = {line[: line.index("  ", 2)].strip(): line[line.index("  ", 2) :].strip() for line in lines}
    return {"title": title} | parts


def test_what_a_catalogue_has_and_lacks(tmp_path: Path) -> None:
    pins = [
        {"title": "Mug", "product_id": "a", "split": "train", "promoted": False, "description": ""},
        {"title": "Mug", "product_id": "a", "split": "train", "promoted": True, "description": "Red."},
        {"title": "Jug", "product_id": "b", "split": "unseen_product", "promoted": False, "description": ""},
        {"title": "Hills", "product_id": None, "split": "unseen_view", "promoted": False, "description": ""},
    ]
    summary = describe(tmp_path, pins, "title", "product_id", "promoted", "description")
    assert summary["title"] == "shop: 4 pins of 2 products"
    assert summary["has"] == "product_id (3 pins), title, description (1 pins), promoted (1 pins)"
    assert summary["lacks"] == "alt_text, board, category, impressions, saves, clicks, truth"
    assert summary["held out"] == "2 pins of 1 products: what was trained is scored on them"
    assert summary["tune_engaged"] == "hands on the backdrop LoRA: there are no impressions, saves or clicks"


def test_photographs_alone(tmp_path: Path) -> None:
    summary = describe(tmp_path, [{"product_id": "0", "split": "train"}], held_out=0.0)
    assert summary["has"] == "photographs alone"
    assert summary["lacks"].startswith("product_id, title")
    assert summary["held out"] == "nothing: what was trained is scored on pins that training saw"


def test_boards_are_held_out_as_a_whole(tmp_path: Path) -> None:
    pins = [{"product_id": str(at), "board": "b", "split": "unseen_product"} for at in range(2)]
    summary = describe(tmp_path, pins, "board", held_out_by="board")
    assert summary["held out"] == "2 pins of 2 products, by board: what was trained is scored on them"


@pytest.mark.parametrize(
    ("stage", "columns", "effect"),
    [
        ("filter", "", "asks for no texts"),
        ("filter", "title", "compares no texts"),
        ("filter", "title alt_text board", "compares title with alt_text, board"),
        ("train_captioner", "", "needs init_from: no text tells"),
        ("train_captioner", "title", "learns from title, or takes init_from"),
        ("train_clip", "", "is scored with generated captions"),
        ("train_clip", "description title", "is scored with title"),
        ("train_uve", "board category", "learns categories, boards, backgrounds of captions"),
        ("mine_styles", "", "finds clusters, no boards"),
        ("mine_styles", "board", "finds clusters and boards"),
        ("tune_engaged", "saves clicks", "hands on the backdrop LoRA: there are no promoted pins, impressions"),
        ("tune_engaged", "promoted impressions clicks", "learns from promoted pins with enough impressions"),
        ("sample_candidates", "", "names products by generated caption"),
        ("evaluate", "category", "compares with no engaged pins, has slices by category"),
        ("evaluate", "promoted impressions saves", "compares with engaged pins, has no slices by category"),
    ],
)
def test_what_a_stage_does_with_columns(stage: str, columns: str, effect: str) -> None:
    assert describe_stages(columns.split())[stage] == effect


def test_the_stages_are_those_of_the_graph_in_its_order() -> None:
    names = [stage.name for stage in load_stages()]
    described = list(describe_stages(COLUMNS))
    assert sorted(described, key=names.index) == described
