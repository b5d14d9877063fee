"""The stage `train_text` of profile tiny+text, short, on the painted catalogue; and what the generator reads of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from canvas.clip.model import encode_prompts, load_clip
from canvas.clip.spec import TextSpec
from canvas.clip.tuning.towers import TUNING_FILE, MixedTextTower, load_towers
from canvas.denoiser.loading import add_inpaint_channels, build_denoiser
from canvas.denoiser.process import build_training_scheduler
from canvas.denoiser.spec import DenoiserSpec, DiffusionSpec, RecommendedSampling
from canvas.inference.assembly.stage_parts import assemble_pipeline
from canvas.inference.conditioning import build_condition, frame_for_pipeline
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_masked_product
from canvas.pins import tables
from canvas.pins.frames import FrameSpec
from canvas.safety.spec import SafetySpec
from canvas.segmenter.spec import EdgeSpec
from canvas.shards.files import Shards
from lifecycle.declare.params import load_sections, read_section
from tests.canvas.inference.conftest import cutout
from tests.components.generator_parts import write_generator_inputs
from tests.components.generator_stages import ROOT, Log, run
from tests.components.mugs import tiny

TRAIN: dict[str, Any] = {"steps": 4, "batch_size": 8, "learning_rate": 0.01, "warmup_steps": 1, "override": {}}
TEXT = read_section(TextSpec, "text", load_sections("tiny", ROOT))
PROMPTS = ["red mug, in a forest", "in a lobby"]


def share_boards(root: Path) -> None:
    """Put every pin of the catalogue on a board: half of them each."""
    table = tables.read(root / "artifacts" / "pins")
    rows = [row | {"board": ("Kitchen", "Garden")[place % 2]} for place, row in enumerate(table.to_pylist())]
    shutil.rmtree(root / "artifacts" / "pins")
    tables.write_rows(root / "artifacts" / "pins", rows, tables.PINS)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("catalogue")
    write_generator_inputs(root)
    share_boards(root)
    return root


def link(catalogue: Path, root: Path) -> Path:
    """A project with the catalogue and encoders, in which the stage has not run."""
    (root / "models").mkdir()
    tables_read = [f"artifacts/{name}" for name in ("pins", "kept", "truth", "masks", "captions")]
    for place in ("data", *tables_read, "models/clip", "models/vae", "models/segmenter"):
        (root / place).parent.mkdir(exist_ok=True)
        (root / place).symlink_to(catalogue / place)
    return root


@pytest.fixture(scope="module")
def tuned(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = link(catalogue, tmp_path_factory.mktemp("tuned"))
    log = run("train_text", root, train=TRAIN)
    assert log.steps == [2, 4]
    return root


def read_metrics(root: Path, stage: str = "train_text") -> dict[str, Any]:
    return json.loads((root / "reports" / stage / "metrics.json").read_text())


def test_frozen_and_tuned_are_scored_side_by_side(tuned: Path) -> None:
    figures = read_metrics(tuned)
    assert figures.keys() == {"probe", "second", "seconds"}
    for side in ("frozen", "tuned"):
        assert figures["probe"][side].keys() == {"scene", "product"}
        scene = figures["probe"][side]["scene"]
        assert 0 <= scene["recall_at_1_low"] <= scene["recall_at_1"] <= scene["recall_at_1_high"] <= 1
        assert figures["second"][side].keys() == {"width_16", "width_8", "width_4"}
        assert 0 <= figures["second"][side]["width_4"]["text_to_image_recall_at_5"] <= 1
    assert figures["second"]["boards"] == 2
    assert figures["second"]["connected_share"] == 1
    assert figures["second"]["mix"].keys() == {"layer_0", "layer_1"}
    lines = (tuned / "reports" / "train_text" / "losses.csv").read_text().splitlines()
    assert [line.rsplit(",", 1)[0] for line in lines] == ["step,encoder", "2,second", "4,second"]


def test_the_text_half_changes_and_the_rest_does_not(catalogue: Path, tuned: Path) -> None:
    before, after = (folder / "models" / name for folder, name in ((catalogue, "clip"), (tuned, "text")))
    for file in (before / "first").iterdir():
        assert file.read_bytes() == (after / "first" / file.name).read_bytes()
    old, new = (load_clip(folder / "second").state_dict() for folder in (before, after))
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert {name for name in changed if name.startswith("visual.")} == {"visual.proj"}
    assert {"text_projection", "positional_embedding", "transformer.resblocks.0.ln_1.weight"} <= changed
    tuning = json.loads((after / "second" / TUNING_FILE).read_text())
    assert tuning["widths"] == [16, 8, 4]
    assert len(tuning["layer_weights"]) == 2
    assert tuning["layer_weights"] != [1, 0]
    stock = open_clip.create_model(f"local-dir:{after / 'second'}").eval()
    with torch.no_grad():
        assert torch.isfinite(stock.encode_text(open_clip.tokenize(PROMPTS, context_length=16))).all()


def test_shards_hold_the_states_of_the_tuned_towers(tuned: Path) -> None:
    run("encode", tuned, views=1, captions=1, product_masks=1, random_masks=1)
    sample = Shards(tuned / "artifacts" / "shards")[1]
    rows = tables.read(tuned / "artifacts" / "captions").to_pylist()
    text = next(row["caption"] for row in rows if (row["pin_id"], row["source"]) == (sample["pin_id"], "generated"))
    states, _ = encode_prompts(load_towers(tuned / "models" / "text", TEXT), [text])
    torch.testing.assert_close(sample["text_states"][0].float(), states[0], atol=2e-3, rtol=2e-3)
    frozen, _ = encode_prompts(load_towers(tuned / "models" / "clip", TEXT), [text])
    assert (states - frozen).abs().max() > 0.05


def test_the_generator_reads_prompts_with_them(tuned: Path, tmp_path: Path) -> None:
    sections = load_sections("tiny", ROOT)
    spec = read_section(DenoiserSpec, "denoiser", sections)
    unet = build_denoiser(spec, latent_channels=4, sample_size=8, text_width=32, pooled_width=16)
    add_inpaint_channels(unet, 8).save_pretrained(tmp_path / "inpaint" / "unet")
    scheduler = build_training_scheduler(read_section(DiffusionSpec, "diffusion", sections))
    scheduler.save_pretrained(tmp_path / "inpaint" / "scheduler")
    folders = {name: tuned / "models" / name for name in ("clip", "text", "vae", "segmenter")}
    pipeline = assemble_pipeline(
        folders | {"inpaint": tmp_path / "inpaint"},
        {},
        text=TEXT,
        frames=read_section(FrameSpec, "frames", sections),
        edges=read_section(EdgeSpec, "edges", sections),
        sampling=read_section(RecommendedSampling, "sampling", sections),
        safety=SafetySpec(prompt=None, image=None),
    )
    pipeline.save_pretrained(tmp_path / "canvas")
    loaded = CanvasPipeline.from_pretrained(tmp_path / "canvas")
    assert isinstance(loaded.text_encoder_2, MixedTextTower)
    image = np.array(cutout(64, 64))
    product = build_masked_product(cutout(64, 64).convert("RGB"), image[..., 3] == 255)
    condition = build_condition(loaded, frame_for_pipeline(loaded, product), PROMPTS[0])
    states, pooled = encode_prompts(load_towers(tuned / "models" / "text", TEXT), PROMPTS[:1])
    torch.testing.assert_close(condition.states, states, rtol=0, atol=0)
    torch.testing.assert_close(condition.pooled, pooled, rtol=0, atol=0)


class KilledError(Exception):
    """Ends a run after its first checkpoint."""


class KillingLog(Log):
    def metrics(self, values: dict[str, float], step: int) -> None:
        super().metrics(values, step)
        if step == 4:
            raise KilledError


def test_a_killed_run_goes_on_to_the_same_bytes(catalogue: Path, tuned: Path, tmp_path: Path) -> None:
    root = link(catalogue, tmp_path)
    with pytest.raises(KilledError):
        run("train_text", root, KillingLog(), train=TRAIN)
    (root / "models" / "text").rename(root / "half")
    log = run("train_text", root, train=TRAIN)
    assert log.steps == [4]
    for file in ("open_clip_model.safetensors", TUNING_FILE):
        whole, resumed = (folder / "models" / "text" / "second" / file for folder in (tuned, root))
        assert whole.read_bytes() == resumed.read_bytes()


@pytest.mark.parametrize("given", [False, True])
def test_without_training_encoders_pass_through(catalogue: Path, tuned: Path, tmp_path: Path, given: bool) -> None:
    """Those of train_clip, or those that a run before tuned."""
    root = link(catalogue, tmp_path)
    source = tuned / "models" / "text" if given else catalogue / "models" / "clip"
    run("train_text", root, init_from=str(source) if given else None)
    figures = read_metrics(root)
    name = "train_text.init_from passes" if given else "the encoders of train_clip pass"
    assert figures["skipped"] == f"train_text.train is null, {name} through"
    files = {file.relative_to(source): file.read_bytes() for file in source.rglob("*.*")}
    text = root / "models" / "text"
    assert {file.relative_to(text): file.read_bytes() for file in text.rglob("*.*")} == files
    assert figures["linked_files"] + figures["copied_files"] == len(files) == 4 + given
    assert (root / "reports" / "train_text" / "losses.csv").read_text() == "step,loss\n"
    if not given:
        run("encode", root, views=1)
        sample = dict(Shards(root / "artifacts" / "shards")[0])
        (root / "models" / "text").rename(root / "moved")
        (root / "models" / "text").symlink_to(root / "models" / "clip")
        (root / "artifacts" / "shards").rename(root / "before")
        shutil.rmtree(root / "scratch" / "encode")
        run("encode", root, views=1)
        again = Shards(root / "artifacts" / "shards")[0]
        assert all(torch.equal(sample[name], again[name]) for name in ("text_states", "text_pooled", "clip_image"))


def test_tuning_goes_on_from_a_run_before(catalogue: Path, tuned: Path, tmp_path: Path) -> None:
    """Both towers, without neighbours or a mix."""
    root = link(catalogue, tmp_path)
    changes = {"towers": ["second", "first"], "mix_weight": 0.0, "neighbours": None}
    log = run("train_text", root, train=TRAIN, init_from=str(tuned / "models" / "text"), **changes)
    assert log.steps == [2, 4, 2, 4]
    figures = read_metrics(root)
    assert figures["second"]["frozen"] == read_metrics(tuned)["second"]["tuned"]
    assert "mix" not in figures["second"]
    assert all(type(tower) is not MixedTextTower for tower in load_towers(root / "models" / "text", TEXT))


def test_boards_that_people_saved_to_join_the_graph(catalogue: Path, tmp_path: Path) -> None:
    root = link(catalogue, tmp_path)
    (root / "data").unlink()
    (root / "data").mkdir()
    (root / "data" / "saves.csv").write_text("pin_id,board\np00,Party\np01,Party\n", encoding="utf-8")
    run("train_text", root, train=TRAIN, neighbours={"saves": "saves.csv"})
    assert read_metrics(root)["second"]["boards"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"towers": []}, r"towers is \[\]: name first, second or both, each once"),
        ({"towers": ["second", "second"]}, r"each once"),
        ({"towers": ["third"]}, r"key 0 in section .train_text\.towers. is .third."),
        ({"halvings": 5}, r"halvings is 5: text\.second\.embed_dim 16 cannot be halved so often"),
        ({"train": TRAIN | {"override": {"accumulate": 2}}}, "accumulate is 2: pairs are told apart within one pass"),
        ({"train": TRAIN | {"override": {"parallel": "fsdp"}}}, "temperatures are single numbers"),
    ],
)
def test_params_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    from components.train_text import train_text

    with pytest.raises(ValueError, match=message):
        tiny(train_text, **{"train": TRAIN} | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_from": "./nowhere"}, "neither a directory nor a hub id"),
        ({"neighbours": {"max_pins": 2}}, "no two of 12 pins share a board of at most 2 pins"),
        ({"neighbours": {"saves": "saves.csv"}}, r"saves is 'saves.csv': name a file in .*data/"),
        ({"scored_source": "poem"}, "captions have no source poem"),
    ],
)
def test_bad_input_is_one_sentence(catalogue: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run("train_text", link(catalogue, tmp_path), train=TRAIN, **changes)


def test_encoders_of_other_sizes_are_refused(catalogue: Path, tmp_path: Path) -> None:
    overlay = {"text": {"second": {"text_layers": 3}}}
    with pytest.raises(ValueError, match=r"clip/second has embed_dim 16 .*make them agree"):
        run("train_text", link(catalogue, tmp_path), overlay=overlay)
