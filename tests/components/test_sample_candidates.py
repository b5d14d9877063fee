from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_masked_product
from canvas.pins import tables
from canvas.pins.captions import format_caption
from canvas.pins.images import decode_image
from canvas.pins.masks import decode_mask
from components.sample_candidates import sample_candidates
from lifecycle.declare.stage import Input, Output
from lifecycle.ratings.packet import read_packet
from lifecycle.workspace.digest import digest
from tests.canvas.inference.conftest import pipeline  # noqa: F401 (a fixture)
from tests.canvas.light.test_model import build_moved
from tests.components.mugs import tiny, write_catalogue
from tests.components.sidecars import write_sidecars


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, pipeline) -> Path:  # noqa: F811
    root = tmp_path_factory.mktemp("candidates")
    (root / "artifacts").mkdir()
    write_catalogue(root / "artifacts")
    write_sidecars(root / "artifacts")
    pipeline.save_pretrained(root / "models" / "canvas")
    (root / "champion").mkdir()
    (root / "champion" / "champion.json").write_text('{"version": null}')
    return root


def run(root: Path, out: Path, **changes: Any) -> list[dict[str, Any]]:
    """The candidates of a run that writes to `out`."""
    ends: dict[str, Any] = {key: Input(root / artifact.path) for key, artifact in sample_candidates.inputs.items()}
    for key, artifact in sample_candidates.outputs.items():
        (out / artifact.path).parent.mkdir(parents=True, exist_ok=True)
        ends[key] = Output(out / artifact.path)
    sample_candidates(**tiny(sample_candidates, **changes), **ends)
    return list(tables.read(out / "artifacts" / "candidates").to_pylist())


@pytest.fixture(scope="module")
def made(root: Path) -> tuple[Path, list[dict[str, Any]]]:
    return root, run(root, root)


def by_model(rows: list[dict[str, Any]], model: str) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["item_id"], row["seed"]): row for row in rows if row["model"] == model}


def test_every_item_has_a_challenger_and_a_pasted_product(made: tuple[Path, list[dict[str, Any]]]) -> None:
    root, rows = made
    own, pasted, spoiled = (by_model(rows, model) for model in ("challenger", "paste", "spoiled"))
    assert len(own) == 4  # two products, two prompts
    assert own.keys() == pasted.keys()
    assert len(spoiled) == 1
    assert spoiled.keys() <= own.keys()
    assert not by_model(rows, "champion")
    assert {row["digest"] for row in own.values()} == {digest(root / "models" / "canvas")}
    assert {row["digest"] for row in [*pasted.values(), *spoiled.values()]} == {None}
    assert len({row["candidate_id"] for row in rows}) == len(rows)
    assert {row["scene"] for row in rows} <= {None, "forest", "lobby"}
    assert all(row["prompt"].endswith(("in a forest", "in a lobby")) for row in rows)


def test_products_stay_as_they_are_on_other_images(made: tuple[Path, list[dict[str, Any]]]) -> None:
    root, rows = made
    pins = {row["pin_id"]: row["image"] for row in tables.read(root / "artifacts" / "pins").to_pylist()}
    for row in rows:
        original, image = decode_image(pins[row["pin_id"]]), decode_image(row["image"])
        assert image.size == original.size
        mask = decode_mask(row["mask"])
        product = build_masked_product(original, mask)
        difference = np.abs(np.array(image).astype(int) - product.pixels)[product.core].max()
        assert (difference == 0) == (row["model"] != "spoiled"), (row["model"], difference)


def lend_light(pipeline: CanvasPipeline, folder: Path, *, diverged: bool) -> None:  # noqa: F811
    """Save the generator with a light network that has learnt something, or whose training has diverged."""
    light = build_moved(3.0)
    if diverged:
        torch.nn.init.constant_(light.head[-1].weight, float("nan"))
    lit = CanvasPipeline(**pipeline.components | {"light": light}, max_aspect=2.0)
    shutil.rmtree(folder)
    lit.save_pretrained(folder)


@pytest.mark.parametrize("diverged", [False, True])
def test_of_a_model_with_a_light_one_image_of_each_product_is_certified(
    root: Path,
    tmp_path: Path,
    pipeline: CanvasPipeline,  # noqa: F811
    diverged: bool,
    made: tuple[Path, list[dict[str, Any]]],
) -> None:
    """A network that has learnt something passes; one whose training diverged has no certificate that holds."""
    shutil.copytree(root, tmp_path / "lit", ignore=shutil.ignore_patterns("reports"))
    lend_light(pipeline, tmp_path / "lit" / "models" / "canvas", diverged=diverged)
    rows = run(tmp_path / "lit", tmp_path / "out")
    own = by_model(rows, "challenger").values()
    tried = [row for row in own if row["certified"] is not None]
    assert len(tried) == len({row["pin_id"] for row in tried}) == 2  # of each product one
    assert len({row["prompt"].partition(", ")[2] for row in tried}) == 2  # before different backgrounds
    assert {row["certified"] for row in tried} == {not diverged}
    assert all(row["certified"] is None for row in rows if row["model"] != "challenger")
    notes = json.loads((tmp_path / "out" / "reports" / "sample_candidates" / "metrics.json").read_text()).get("notes")
    if diverged:
        assert len(notes) == 2
        assert notes[0].startswith(f"in mode soft {tried[0]['candidate_id']} has no certificate that holds: the light ")
    else:
        assert notes is None
    assert {row["certified"] for row in made[1]} == {None}  # without a light there is no mode soft
    assert [row["image"] for row in rows] == [row["image"] for row in made[1]]


def test_the_packet_is_blind_and_complete(made: tuple[Path, list[dict[str, Any]]]) -> None:
    root, rows = made
    written = json.loads((root / "artifacts" / "packet" / "packet.json").read_text())
    text = json.dumps([written["name"], written["items"]])  # questions are the same in every packet
    names = {row[key] for row in rows for key in ("candidate_id", "item_id", "pin_id", "digest", "model") if row[key]}
    assert not [name for name in names if name in text]
    assert not {"expected", "repeat_of", "first"} & set(written["items"][0])
    packet = read_packet(root / "artifacts" / "packet")
    assert len(packet.items) == 3 + 1 + 1 + 2 * 2  # pairs, a repeat, a check, images alone
    assert sorted(path.name for path in (root / "artifacts" / "packet").rglob("*") if path.is_file()) == sorted(
        ["packet.json", *(item.image.name for item in packet.items)]
    )
    for item in packet.items:
        with Image.open(io.BytesIO(item.image.read_bytes())) as image:
            assert image.width > (800 if item.kind == "pairwise" else 400)
            assert not image.info


def test_the_key_opens_the_packet(made: tuple[Path, list[dict[str, Any]]]) -> None:
    root, rows = made
    key = json.loads((root / "artifacts" / "packet_key" / "key.json").read_text())
    packet = read_packet(root / "artifacts" / "packet")
    assert key["name"] == packet.name
    assert list(key["items"]) == [item.item_id for item in packet.items]
    models = {row["candidate_id"]: row["model"] for row in rows}
    alone = [models[one["first"]] for one in key["items"].values() if one["second"] is None]
    assert sorted(alone) == ["challenger"] * 2 + ["paste"] * 2
    pairs = [{models[one["first"]], models[one["second"]]} for one in key["items"].values() if one["second"]]
    assert pairs.count({"challenger", "paste"}) == 4
    assert pairs.count({"challenger", "spoiled"}) == 1
    (check,) = (one for one in key["items"].values() if one["expected"] is not None)
    assert models[check["first"]] == ("challenger" if check["expected"] == 1 else "spoiled")
    (again,) = (one for one in key["items"].values() if one["repeat_of"])
    before = key["items"][again["repeat_of"]]
    assert (again["first"], again["second"]) == (before["second"], before["first"])


def test_the_champion_meets_the_challenger_where_it_painted_the_same(
    made: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    root, rows = made
    place = root / "champion" / "evaluation"
    mine = list(by_model(rows, "challenger").values())
    pasted = by_model(rows, "paste")
    old = [row | {"digest": "0" * 32, "image": pasted[row["item_id"], row["seed"]]["image"]} for row in mine]
    old[0] |= {"prompt": f"enamel {mine[0]['prompt']}"}  # its towers had room for more of the product's name
    old[3] |= {"seed": 5}
    others = [row for row in rows if row["model"] != "challenger"]
    tables.write(place, [pa.Table.from_pylist([*old, *others], tables.CANDIDATES)], tables.CANDIDATES)
    try:
        met = run(root, tmp_path)
    finally:
        shutil.rmtree(place)
    champions = by_model(met, "champion")
    assert champions.keys() == {(row["item_id"], row["seed"]) for row in old[:3]}
    assert {row["digest"] for row in champions.values()} == {"0" * 32}
    assert [champions[row["item_id"], row["seed"]]["prompt"] for row in old[:3]] == [row["prompt"] for row in old[:3]]
    assert by_model(met, "challenger")[mine[0]["item_id"], mine[0]["seed"]]["prompt"] == mine[0]["prompt"]
    packet = json.loads((tmp_path / "artifacts" / "packet" / "packet.json").read_text())
    asked = {one["prompt"] for one in packet["items"] if one["kind"] == "pairwise"}
    assert old[0]["prompt"] in asked
    key = json.loads((tmp_path / "artifacts" / "packet_key" / "key.json").read_text())
    models = {row["candidate_id"]: row["model"] for row in met}
    real = [one for one in key["items"].values() if one["expected"] is None and one["second"]]
    pairs = [{models[one["first"]], models[one["second"]]} for one in real]
    assert pairs == [{"challenger", "champion"}] * 4


def test_the_same_inputs_give_the_same_bytes(made: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    root, _ = made
    run(root, tmp_path)
    for artifact in ("candidates", "packet", "packet_key"):
        assert digest(tmp_path / "artifacts" / artifact) == digest(root / "artifacts" / artifact)


def test_long_titles_are_cut_and_every_pin_may_be_shown(root: Path, tmp_path: Path) -> None:
    """What stops no run after hours of training: a name beyond the text towers, a catalogue of few pins."""
    few = tmp_path / "few"
    shutil.copytree(root, few)
    rows = tables.read(root / "artifacts" / "pins").to_pylist()
    longest = "Extraordinarily hand-painted stoneware coffee mug with a very long name " * 9
    titled = [row | {"title": longest} for row in rows]
    shutil.rmtree(few / "artifacts" / "pins")
    tables.write_rows(few / "artifacts" / "pins", titled, tables.PINS)
    masked = {row["pin_id"] for row in tables.read(root / "artifacts" / "masks").to_pylist() if not row["rejected"]}
    kept = [row for row in tables.read(root / "artifacts" / "kept").to_pylist() if row["pin_id"] in masked]
    shutil.rmtree(few / "artifacts" / "kept")
    tables.write_rows(few / "artifacts" / "kept", kept, tables.KEPT)
    made = run(few, tmp_path / "out", products=99, splits=["train", "unseen_product", "unseen_view"])
    assert {row["pin_id"] for row in made} == {row["pin_id"] for row in kept if row["kept"]}
    prompts = {row["prompt"] for row in made}
    assert all(prompt.startswith("extraordinarily") for prompt in prompts)
    assert {prompt.partition(", ")[2] for prompt in prompts} == {"in a forest", "in a lobby"}
    for row in made:  # an item is known by its whole prompt, however much of it this model has room for
        whole = format_caption(longest, row["prompt"].partition(", ")[2])
        assert row["prompt"] != whole
        assert row["item_id"] == f"{row['pin_id']}.{crc32(whole.encode()):08x}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"products": 0}, "'products' in section 'sample_candidates' is 0"),
        ({"splits": ["test"]}, "input should be 'train'"),
    ],
)
def test_params_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(sample_candidates, **changes)
