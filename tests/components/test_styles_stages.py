"""From labelled pins to styles: the stages train_uve, embed and mine_styles on the painted catalogue."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from canvas.clip.model import build_clip, save_clip
from canvas.pins import tables
from canvas.styles.table import find_style, read_styles
from canvas.uve.model import load_uve
from canvas.uve.spec import UveSpec
from components import artifacts
from components.embed import embed
from components.mine_styles import mine_styles
from components.train_clip import train_clip
from components.train_uve import train_uve
from lifecycle.declare.stage import Input, Output, Scratch
from tests.canvas.public_models import write_timm
from tests.components.mugs import Log, tiny, write_catalogue
from tests.components.sidecars import write_sidecars


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The catalogue with boards and products, its sidecars, and a random text-image encoder."""
    folder = tmp_path_factory.mktemp("styles")
    write_catalogue(folder)
    pins = tables.read(folder / "pins").to_pylist()
    for index, pin in enumerate(pins):
        pin["board"] = ("Forest style", "Lobby style")[index % 2] if index % 4 < 2 else "Anything goes"
        pin["product_id"] = f"mug-{index % 3}" if index % 3 else None
    rewrite(folder / "pins", pins, tables.PINS)
    write_sidecars(folder)
    second = tiny(train_clip)["text"].second
    save_clip(build_clip(second), second, folder / "clip" / "second")
    return folder


def rewrite(path: Path, rows: list[dict], schema=tables.PINS) -> None:
    shutil.rmtree(path)
    tables.write(path, [pa.Table.from_pylist(rows, schema)], schema)


def train(data: Path, out: Path, log: Log | None = None, **params) -> dict:
    out.mkdir(exist_ok=True)
    train_uve(
        **(params or tiny(train_uve)),
        **{name: Input(data / name) for name in ("pins", "kept", "truth", "captions", "clip")},
        model=Output(out / "uve"),
        metrics=Output(out / "uve.json"),
        losses=Output(out / "uve.csv"),
        sheet=Output(out / "uve.png"),
        log=log or Log(),
        scratch=Scratch(out / "scratch"),
    )
    return json.loads((out / "uve.json").read_text())


@pytest.fixture(scope="module")
def embedded(data, tmp_path_factory) -> Path:
    """What train_uve and embed wrote."""
    out = tmp_path_factory.mktemp("out")
    train(data, out)
    write_embeddings(data, out)
    return out


def write_embeddings(data: Path, out: Path) -> None:
    embed(
        **tiny(embed),
        pins=Input(data / "pins"),
        kept=Input(data / "kept"),
        uve=Input(out / "uve"),
        clip=Input(data / "clip"),
        embeddings=Output(out / "embeddings"),
        metrics=Output(out / "embed.json"),
    )


def mine(data: Path, embedded: Path, out: Path, **params) -> dict:
    out.mkdir(exist_ok=True)
    mine_styles(
        **(params or tiny(mine_styles)),
        **{name: Input(data / name) for name in ("pins", "truth", "captions")},
        embeddings=Input(embedded / "embeddings"),
        styles=Output(out / "styles"),
        metrics=Output(out / "styles.json"),
        report=Output(out / "styles.html"),
    )
    return json.loads((out / "styles.json").read_text())


def test_one_embedding_is_trained_on_all_tasks_and_compared(data, embedded):
    figures = json.loads((embedded / "uve.json").read_text())
    for embedding in ("uve", "uve_code", "clip"):
        assert set(figures[embedding]) == {"scene", "product", "category", "board"}
        scene = figures[embedding]["scene"]
        assert scene["held_out"]["queries"] <= scene["catalogue"]["queries"] <= 5
        assert 0 <= scene["catalogue"]["recall_at_1"] <= scene["catalogue"]["recall_at_10"] <= 1
    model = load_uve(embedded / "uve")
    assert figures["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert not [name for name in model.state_dict() if "prox" in name]
    assert [line.split(",")[0] for line in (embedded / "uve.csv").read_text().splitlines()] == ["step", "2", "4"]
    with Image.open(embedded / "uve.png") as sheet:
        assert min(sheet.size) > 100


def test_the_same_seed_gives_the_same_embedding(data, embedded, tmp_path):
    train(data, tmp_path / "again")
    weights = [path / "uve" / "diffusion_pytorch_model.safetensors" for path in (embedded, tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_every_kept_pin_is_embedded(data, embedded):
    rows = tables.read(embedded / "embeddings")
    assert rows.schema.equals(tables.EMBEDDINGS)
    assert set(rows["pin_id"].to_pylist()) == set(tables.read_kept_splits(data / "pins", data / "kept"))
    for row in rows.to_pylist():
        assert np.linalg.norm(row["uve"]) == pytest.approx(1, abs=1e-5)
        assert np.linalg.norm(row["clip"]) == pytest.approx(1, abs=1e-5)
        assert np.unpackbits(np.frombuffer(row["uve_code"], np.uint8)).tolist() == [int(v > 0) for v in row["uve"]]
    figures = json.loads((embedded / "embed.json").read_text())
    assert (figures["pins"], figures["uve_width"], figures["bytes_a_pin"]) == (17, 16, 4 * 16 + 2 + 4 * 16)


def test_an_embedding_can_be_used_as_it_is_or_trained_on(data, embedded, tmp_path):
    from dataclasses import replace

    spec = replace(tiny(train_uve)["uve"], init_from=str(embedded / "uve"))
    train(data, tmp_path / "same", **tiny(train_uve, train=None) | {"uve": spec})
    assert (tmp_path / "same" / "uve.csv").read_text() == "step,loss\n"
    name = "uve/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "same" / name).read_bytes() == (embedded / name).read_bytes()
    train(data, tmp_path / "on", **tiny(train_uve) | {"uve": spec})
    assert (tmp_path / "on" / name).read_bytes() != (embedded / name).read_bytes()


def test_a_public_embedding_passes_through_without_labels(data, tmp_path):
    unlabelled = tmp_path / "data"
    shutil.copytree(data, unlabelled)
    pins = tables.read(data / "pins").to_pylist()
    rewrite(unlabelled / "pins", [pin | {"product_id": None, "category": None, "board": None} for pin in pins])
    for name, schema in (("truth", tables.TRUTH), ("captions", tables.CAPTIONS)):
        rewrite(unlabelled / name, [], schema)
    network = write_timm(tmp_path / "dinov2", "vit_small_patch14_dinov2", img_size=28, init_values=1.0)
    (tmp_path / "dinov2" / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    spec = UveSpec(
        trunk="vit_small_patch14_dinov2",
        trunk_args={},
        image_size=None,
        embed_dim=None,
        init_from=str(tmp_path / "dinov2"),
    )
    figures = train(unlabelled, tmp_path / "out", **tiny(train_uve, train=None) | {"uve": spec})
    assert figures["uve"]["product"]["catalogue"] == {"queries": 0}
    (source,) = artifacts.Uve.read_sources(tmp_path / "out" / "uve").values()
    assert source == {"repository": str(tmp_path / "dinov2"), "commit": "", "licence": "apache-2.0"}
    model = load_uve(tmp_path / "out" / "uve")
    assert [name for name in model.state_dict() if not name.startswith("network.")] == []
    assert figures["parameters"] == sum(weight.numel() for weight in network.parameters())
    write_embeddings(unlabelled, tmp_path / "out")
    row = tables.read(tmp_path / "out" / "embeddings").to_pylist()[0]
    assert np.linalg.norm(row["uve"]) == pytest.approx(1, abs=1e-5)
    assert (len(row["uve"]), len(row["uve_code"])) == (32, 4)


def test_an_untrained_embedding_needs_weights(data, tmp_path):
    with pytest.raises(ValueError, match=r"train_uve\.train is null: the embedding needs training"):
        train(data, tmp_path, **tiny(train_uve, train=None))


def test_a_task_without_classes_is_noted(data, tmp_path):
    notes = train(data, tmp_path, **tiny(train_uve, min_pins=50))["notes"]
    assert "task scene has 0 classes of 50 pins or more, so it was not trained" in notes
    assert "there was nothing to train on, so the embedding is as it started" in notes


def test_styles_are_found_named_and_shown(data, embedded, tmp_path):
    figures = mine(data, embedded, tmp_path)
    styles = read_styles(tmp_path / "styles")
    mined = {pin for pin, split in tables.read_kept_splits(data / "pins", data / "kept").items() if split == "train"}
    clusters = [style for style in styles if style.kind == "cluster"]
    assert sorted(pin for style in clusters for pin in style.pins) == sorted(mined)
    assert figures["clusters"]["found"] == len(clusters) in (2, 3)
    assert figures["clusters"]["kept"] + sum(figures["clusters"]["dropped"].values()) == len(clusters)
    boards = {style.name: style for style in styles if style.kind == "board"}
    assert set(boards) == {"Forest style", "Lobby style", "Anything goes"}
    assert boards["Forest style"].purity == 1.0
    assert all(style.name for style in styles)
    for style in styles:
        assert np.linalg.norm(style.uve) == pytest.approx(1, abs=1e-5)
        assert style.chance is None or style.kind == "board"
    page = (tmp_path / "styles.html").read_text()
    kept = [style for style in styles if not style.dropped]
    assert page.count("data:image/png") == len(kept)
    assert all(style.dropped in page.replace("&#x27;", "'") for style in styles if style.dropped)
    assert find_style(styles, "board", "forest STYLE").pins == boards["Forest style"].pins


def test_small_and_mixed_groups_are_dropped_with_their_reason(data, embedded, tmp_path):
    from dataclasses import replace

    params = tiny(mine_styles)
    own = params["mine_styles"]
    hard = replace(own, limits=replace(own.limits, min_pins=50))
    figures = mine(data, embedded, tmp_path, mine_styles=hard)
    assert figures["clusters"]["dropped"] == {"small": figures["clusters"]["found"]}
    assert all(style.dropped.endswith("50 are needed") for style in read_styles(tmp_path / "styles"))
    assert "None." in (tmp_path / "styles.html").read_text()


@pytest.mark.parametrize(
    ("limits", "kind", "reason"),
    [
        ({"min_purity": 0.0, "min_coherence": 1.1}, "cluster", "loose: its pins' mean cosine is "),
        ({"chance": 1e-9}, "board", "no style of its own: pins at random cohere as much with a chance of "),
        ({"chance": 0.999, "min_gain": 2.0}, "board", "a weak style: its coherence is "),
    ],
)
def test_each_limit_drops_with_its_own_reason(data, embedded, tmp_path, limits, kind, reason):
    from dataclasses import replace

    own = tiny(mine_styles)["mine_styles"]
    mine(data, embedded, tmp_path, mine_styles=replace(own, limits=replace(own.limits, **limits)))
    dropped = [style.dropped for style in read_styles(tmp_path / "styles") if style.kind == kind and style.dropped]
    assert any(why.startswith(reason) for why in dropped), dropped


def test_a_cluster_whose_pins_have_no_caption_is_nameless(data, embedded, tmp_path):
    silent = tmp_path / "silent"
    silent.mkdir()
    for part in data.iterdir():
        if part.name != "captions":
            (silent / part.name).symlink_to(part)
    tables.write(silent / "captions", [], tables.CAPTIONS)
    mine(silent, embedded, tmp_path)
    clusters = [style for style in read_styles(tmp_path / "styles") if style.kind == "cluster"]
    assert {style.dropped for style in clusters} == {"nameless: none of its pins has a caption"}


def test_splits_without_pins_are_named(data, embedded, tmp_path):
    with pytest.raises(ValueError, match=r"no embedded pin is of unseen_both"):
        mine(data, embedded, tmp_path, **tiny(mine_styles, splits=["unseen_both"]))
