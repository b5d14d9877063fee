"""The stages of profile canvas-dit, tiny: a LoRA on public weights of the Flux-Fill class, text states from T5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import T5EncoderModel

from canvas.clip.model import encode_prompts
from canvas.clip.spec import T5Spec, TextSpec
from canvas.clip.t5 import T5Tower, link_t5
from canvas.denoiser.spec import RecommendedSampling
from canvas.hub import SOURCE_FILE
from canvas.inference.assembly.stage_parts import assemble_pipeline
from canvas.inference.pipeline import CanvasPipeline
from canvas.pins.frames import FrameSpec
from canvas.safety.spec import SafetySpec
from canvas.segmenter.model import build_segmenter
from canvas.segmenter.spec import EdgeSpec, UNetSpec
from canvas.shards.files import Shards
from lifecycle.declare.params import load_sections, read_section
from lifecycle.declare.profiles import merge_sections
from tests.canvas.flux_fill import CHANNELS, DIT, POOLED_WIDTH, T5_WIDTH, VAE_WIDTHS, write_flux_fill
from tests.canvas.inference.conftest import cutout
from tests.components.generator_stages import ROOT, run
from tests.components.mugs import write_catalogue
from tests.components.sidecars import write_sidecars

CONTEXT = 20
T5 = {"width": T5_WIDTH, "layers": 2, "heads": 4, "head_width": 8, "hidden": 64, "context_length": CONTEXT}
T5 |= {"precision": "bf16"}


def build_overlay(public: Path) -> dict[str, Any]:
    """The sections of profile canvas-dit, tiny."""
    vae = {"channels": list(VAE_WIDTHS), "layers_per_block": 1, "latent_channels": CHANNELS, "patch": None}
    return {
        "frames": {"buckets": [[64, 64], [48, 80]]},
        "text": {"first": {"text_width": POOLED_WIDTH}, "t5": T5 | {"init_from": str(public)}},
        "vae": {"kind": "kl", "init_from": str(public), "norm_groups": 32, **vae},
        "encode": {"holes": "pixels", "views": 1},
        "denoiser": {"kind": "dit", "init_from": str(public), "unet": None, "dit": DIT},
        "train_base": {"train": None},
        "train_inpaint": {"train": None},
        "train_backdrop": {"caption_dropout": 0.0, "choose_average": False, "lora": {"folded": False}},
        "sample_sheet": {"guidance_scale": 30.0},
        "sampling": {"guidance_scale": 30.0, "scheduler": None},
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stages from texts to the LoRA."""
    root = tmp_path_factory.mktemp("flux")
    write_flux_fill(root / "public")
    (root / "artifacts").mkdir()
    write_catalogue(root / "artifacts")
    write_sidecars(root / "artifacts")
    (root / "models").mkdir()
    (root / "models" / "vae").symlink_to(root / "public" / "vae")
    for name in ("train_clip", "train_text", "encode", "train_base", "train_inpaint", "train_backdrop"):
        run(name, root, overlay=build_overlay(root / "public"))
    return root


@pytest.fixture(scope="module")
def pipeline(made: Path) -> CanvasPipeline:
    sections = merge_sections(load_sections("tiny", ROOT), build_overlay(made / "public"))
    models = made / "models"
    build_segmenter(UNetSpec(image_size=64, channels=(8, 8, 8, 16))).save(models / "segmenter")
    folders = {name: models / name for name in ("inpaint", "backdrop_lora", "clip", "text", "vae", "segmenter")}
    pipeline = assemble_pipeline(
        folders,
        {},
        text=read_section(TextSpec, "text", sections),
        frames=read_section(FrameSpec, "frames", sections),
        edges=read_section(EdgeSpec, "edges", sections),
        sampling=read_section(RecommendedSampling, "sampling", sections),
        safety=read_section(SafetySpec, "safety", sections),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_t5_stands_beside_the_encoders_with_its_source(made: Path) -> None:
    folder = made / "models" / "clip" / "t5"
    T5EncoderModel.from_pretrained(folder)
    assert {"config.json", "model.safetensors", "tokenizer.json", SOURCE_FILE} <= {
        file.name for file in folder.iterdir()
    }
    assert json.loads((folder / SOURCE_FILE).read_text())["licence"] == "openrail++"
    assert (folder / "model.safetensors").samefile(made / "public" / "text_encoder_2" / "model.safetensors")


def test_denoiser_is_trained_on_what_the_pipeline_reads(made: Path, pipeline: CanvasPipeline) -> None:
    """T5's states, as long as params say, and the first encoder's pooled text before its projection."""
    sample = Shards(made / "artifacts" / "shards")[1]
    assert sample["text_states"].shape == (3, CONTEXT, T5_WIDTH)
    assert sample["text_pooled"].shape == (3, POOLED_WIDTH)
    states, pooled = encode_prompts(pipeline.towers, ["red mug, in a lobby", "Red Mug in a lobby", "Title 1"])
    assert states.dtype == torch.bfloat16
    torch.testing.assert_close(sample["text_states"].float(), states.float(), rtol=0, atol=4e-3)
    torch.testing.assert_close(sample["text_pooled"].float(), pooled, rtol=0, atol=4e-3)


def test_lora_trains_on_the_weights_that_passed_through(made: Path) -> None:
    figures = json.loads((made / "reports" / "train_backdrop" / "metrics.json").read_text())
    assert figures["held_out_losses"]["last"] != figures["held_out_losses"]["before"]
    scheduler = json.loads((made / "models" / "inpaint" / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["use_dynamic_shifting"]


def test_assembled_pipeline_generates_and_comes_back(pipeline: CanvasPipeline, tmp_path: Path) -> None:
    product = cutout(80, 48)
    image = np.array(pipeline(product, "red mug, in a forest", seed=0).images[0])
    core = np.array(product)[..., 3] == 255
    np.testing.assert_array_equal(image[core], np.array(product)[core][:, :3])
    assert pipeline.config["sources"]["t5"]["licence"] == "openrail++"
    pipeline.save_pretrained(tmp_path)
    again = CanvasPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert isinstance(again.towers[1], T5Tower)
    assert again.towers[1].context_length == CONTEXT
    assert again.text_encoder_2.dtype == torch.bfloat16
    assert again.transformer.dtype == torch.float32
    np.testing.assert_array_equal(np.array(again(product, "red mug, in a forest", seed=0).images[0]), image)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 32}, r"has d_ff 64, the params say 32: make text\.t5\.hidden so"),
        ({"init_from": "transformer"}, "holds no T5EncoderModel"),
    ],
)
def test_t5_of_other_sizes_is_refused(made: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    public = made / "public"
    values = T5 | {"init_from": str(public)} | changes
    values["init_from"] = str(public / values["init_from"])
    with pytest.raises(ValueError, match=message):
        link_t5(T5Spec(**values), tmp_path / "t5")
