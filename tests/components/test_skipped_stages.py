"""Public weights through a graph whose trainings are all null, to a generator: nothing trains, everybody knows it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusionXLInpaintPipeline, UNet2DConditionModel
from PIL import Image

from canvas.denoiser.lora import list_lora_names
from canvas.denoiser.unet.model import build_unet_config
from canvas.hub import SOURCE_FILE
from canvas.inference.pipeline import CanvasPipeline
from canvas.pins import tables
from components import artifacts
from evaluation.generator.stage_scores import list_stage_loras
from evaluation.scenes.families import NO_UPSCALER
from evaluation.scenes.sheets import draw_notice
from lifecycle.declare.params import load_sections
from lifecycle.declare.profiles import merge_sections
from lifecycle.declare.skipping import NOTICE_FILE, read_skip_reason
from tests.canvas import tiny
from tests.canvas.inference.conftest import cutout
from tests.components.generator_parts import (
    POOLED_WIDTH,
    TEXT_WIDTH,
    write_generator_inputs,
    write_random_shards,
)
from tests.components.generator_stages import ROOT, run
from tests.components.judged import Judged
from tests.components.test_evaluate import measure
from tests.lifecycle.registering import open_registry

SKIPPED = (
    "train_base",
    "train_inpaint",
    "train_backdrop",
    "tune_engaged",
    "align",
    "train_ip_adapter",
    "train_decoder",
    "train_upscaler",
    "train_reward",
    "train_light",
)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "zero_terminal_snr": False}
SIZES = {"latent_channels": 4, "sample_size": 8, "text_width": TEXT_WIDTH, "pooled_width": POOLED_WIDTH}


def write_public_pipeline(folder: Path, *, inputs: int) -> StableDiffusionXLInpaintPipeline:
    """A repository as diffusers' SDXL inpainting one, tiny, made and saved by stock libraries, with a model card."""
    torch.manual_seed(1)
    unet = UNet2DConditionModel(**build_unet_config(tiny.UNET, **SIZES) | {"in_channels": inputs})
    pipeline = tiny.sdxl_inpaint_pipeline(unet.eval())
    pipeline.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: openrail++\n---\n", encoding="utf-8")
    return pipeline


def use_public_weights(folder: Path) -> dict[str, Any]:
    """The sections of a profile that trains nothing of the generator."""
    sizes = {"channels": [32, 64, 64, 64], "layers_per_block": 1, "patch": None, "norm_groups": 32}
    return {
        "vae": {"kind": "kl", "init_from": str(folder), **sizes},
        "train_vae": {"train": None, "objective": None},
        "denoiser": {
            "init_from": str(folder),
            "unet": {"channels": [32, 64], "heads": [2, 4], "size_embedding": 8}
            | {"layers_per_block": 1, "transformer_layers": [0, 1], "norm_groups": 32},
        },
        "diffusion": {"prediction": "eps", "time_mean": None, "time_std": None, "shift": None, **BETAS},
        **{stage: {"train": None} for stage in SKIPPED},
    }


def write_inputs(root: Path) -> None:
    """What the stages read that no stage of this test writes."""
    write_generator_inputs(root)
    measure(root / "artifacts")
    for made in ("vae", "decoder", "upscaler", "reward", "light"):
        shutil.rmtree(root / "models" / made)
    for pinned in (artifacts.Champion, artifacts.Ratings, artifacts.Preferences):
        pinned.write_empty(root / pinned.path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generator's stages on nine-channel public weights. The shards are gone after `train_base`, which asks them
    for the width of the texts alone: a stage that trained would miss them."""
    root = tmp_path_factory.mktemp("skipped")
    write_public_pipeline(root / "public", inputs=9)
    write_inputs(root)
    overlay = use_public_weights(root / "public")
    for name in ("train_judges", "train_vae", "train_base"):
        run(name, root, overlay=overlay)
    shutil.rmtree(root / "artifacts" / "shards")
    for name in (
        *SKIPPED[1:],
        "assemble",
        "evaluate_backdrop",
        "evaluate_style",
        "evaluate_scenes",
        "sample_candidates",
    ):
        run(name, root, overlay=overlay)
    for name in ("evaluate", "gate"):
        run(name, root, overlay=overlay)
    return root


def read_figures(root: Path, name: str) -> dict[str, Any]:
    return json.loads((root / "reports" / name / "metrics.json").read_text())


@pytest.mark.parametrize("name", [*SKIPPED, "evaluate_style"])
def test_reason_is_recorded_and_nothing_drawn(made: Path, name: str) -> None:
    figures = read_figures(made, name)
    assert "no image-prompt adapter" in figures["skipped"] or figures["skipped"].startswith(f"{name}.train is null, ")
    (curve,) = (made / "reports" / name).glob("*.csv")
    assert curve.read_text().count("\n") == 1
    with Image.open(made / "reports" / name / "sheet.png") as sheet:
        assert sheet.size == (1, 1)


@pytest.mark.parametrize("model", ["base", "inpaint"])
def test_denoiser_passes_through_as_links(made: Path, model: str) -> None:
    for file in ("unet/config.json", "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"):
        assert (made / "models" / model / file).samefile(made / "public" / file)
    figures = read_figures(made, f"train_{model}")
    assert (figures["linked_files"], figures["copied_files"]) == (3, 0)
    source = json.loads((made / "models" / model / SOURCE_FILE).read_text())
    assert source == {"repository": str(made / "public"), "commit": "", "licence": "openrail++"}


@pytest.mark.parametrize(
    "model", ["backdrop_lora", "engaged_lora", "aligned_lora", "ip_adapter", "decoder", "upscaler", "reward", "light"]
)
def test_models_that_are_not_made_say_why(made: Path, model: str) -> None:
    assert [file.name for file in (made / "models" / model).iterdir()] == [NOTICE_FILE]
    assert "is null" in str(read_skip_reason(made / "models" / model))


def test_scenes_are_shown_as_far_as_the_generator_can(made: Path) -> None:
    figures = read_figures(made, "evaluate_scenes")
    assert list(figures["mode"]) == ["hard", "reflection"]
    assert "size" not in figures
    assert figures["notes"][0] == "the generator has no network of light, so mode soft was not tried"
    assert figures["notes"][-1] == NO_UPSCALER
    with Image.open(made / "reports" / "evaluate_scenes" / "sizes.png") as sheet:
        assert sheet.size == draw_notice(NO_UPSCALER).size


def test_generator_is_the_public_weights(made: Path) -> None:
    pipeline = CanvasPipeline.from_pretrained(made / "models" / "canvas")
    assert pipeline.decoder is None
    assert pipeline.upscaler is None
    assert pipeline.light is None
    assert pipeline.shadow is None
    assert list_lora_names(pipeline.unet) == []
    assert pipeline.config["image_source"] is None
    assert not (made / "models" / "canvas" / "reward").exists()
    assert pipeline.config["sources"].keys() == {"denoiser", "vae"}
    assert artifacts.CanvasModel.read_sources(made / "models" / "canvas")["vae"]["licence"] == "openrail++"
    stock = UNet2DConditionModel.from_pretrained(made / "public" / "unet")
    torch.testing.assert_close(pipeline.unet.state_dict(), stock.state_dict(), rtol=0, atol=0)
    pipeline.set_progress_bar_config(disable=True)
    product = cutout(90, 120)
    image = np.array(pipeline(product, "red mug, in a forest", seed=0).images[0])
    core = np.array(product)[..., 3] == 255
    np.testing.assert_array_equal(image[core], np.array(product)[core][:, :3])
    assert image[~core].std() > 0


def test_judgement_goes_without_what_is_not_there(made: Path) -> None:
    assert read_figures(made, "evaluate_backdrop")["by_stage"].keys() == {"inpaint"}
    rows = tables.read(made / "artifacts" / "evaluation").to_pylist()
    assert {row["reward_overall"] for row in rows} == {None}
    assert all(row["agreement"] is not None for row in rows)
    verdict = json.loads((made / "artifacts" / "verdict.json").read_text())
    assert any("there is no reward model: " in reason for reason in verdict["reasons"])
    assert not any("reward" in reason and "not measured" in reason for reason in verdict["reasons"])


def test_registered_versions_name_sources_and_reasons(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(made)
    (made / "models" / "captioner").mkdir()
    (made / "models" / "captioner" / "config.json").write_text("{}")
    Judged(made).run("review", "register")
    client = open_registry(made).versions.client
    tags = {name: client.get_model_version(f"canvas-{name}", "1").tags for name in ("base", "reward", "background")}
    licences = {part: source["licence"] for part, source in json.loads(tags["background"]["sources"]).items()}
    assert licences == {"denoiser": "openrail++", "vae": "openrail++"}
    assert json.loads(tags["base"]["sources"])["base"]["repository"] == str(made / "public")
    assert tags["reward"]["skipped"] == "train_reward.train is null, no reward model is made"


@pytest.fixture
def fresh(made: Path, tmp_path: Path) -> Path:
    """A project with shards and the autoencoder, and no denoiser yet."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "vae").symlink_to(made / "models" / "vae")
    write_random_shards(tmp_path / "artifacts" / "shards", has_engagement=False)
    return tmp_path


def test_text_to_image_weights_get_inputs_of_zero(fresh: Path) -> None:
    """A repository that is the UNet, without a scheduler: that of section `diffusion` samples."""
    pipeline = write_public_pipeline(fresh / "pipeline", inputs=4)
    pipeline.unet.save_pretrained(fresh / "public")
    overlay = use_public_weights(fresh / "public")
    run("train_base", fresh, overlay=overlay)
    scheduler = json.loads((fresh / "models" / "base" / "scheduler" / "scheduler_config.json").read_text())
    assert (scheduler["_class_name"], scheduler["prediction_type"]) == ("DDIMScheduler", "epsilon")
    run("train_inpaint", fresh, overlay=overlay)
    assert "at zero" in read_figures(fresh, "train_inpaint")["skipped"]
    weights = UNet2DConditionModel.from_pretrained(fresh / "models" / "inpaint" / "unet").conv_in.weight
    torch.testing.assert_close(weights[:, :4], pipeline.unet.conv_in.weight, rtol=0, atol=0)
    assert not weights[:, 4:].any()
    assert (fresh / "models" / "inpaint" / SOURCE_FILE).is_file()


def test_inpainting_weights_train_further(made: Path, fresh: Path) -> None:
    """`train_base` passes them on, `train_inpaint` trains all nine channels."""
    overlay = use_public_weights(made / "public")
    train = load_sections("tiny", ROOT)["train_inpaint"]["train"]
    run("train_base", fresh, overlay=overlay)
    run("train_inpaint", fresh, overlay=overlay | {"train_inpaint": {"train": train}})
    before, after = (
        UNet2DConditionModel.from_pretrained(folder / "unet").conv_in.weight
        for folder in (made / "public", fresh / "models" / "inpaint")
    )
    assert before.shape == after.shape
    assert not torch.equal(before, after)
    assert "skipped" not in read_figures(fresh, "train_inpaint")


def test_engaged_lora_stands_alone(made: Path, tmp_path: Path) -> None:
    """It is trained on the denoiser itself where the backdrop LoRA is skipped."""
    (tmp_path / "data").symlink_to(made / "data")
    for folder in ("artifacts", "models"):
        (tmp_path / folder).mkdir()
        for part in (made / folder).iterdir():
            if part.name not in ("engaged_lora", "canvas"):
                (tmp_path / folder / part.name).symlink_to(part)
    write_random_shards(tmp_path / "artifacts" / "shards")
    overlay = use_public_weights(made / "public")
    overlay["tune_engaged"] = {"train": load_sections("tiny", ROOT)["tune_engaged"]["train"]}
    for name in ("tune_engaged", "assemble"):
        run(name, tmp_path, overlay=overlay)
    pipeline = CanvasPipeline.from_pretrained(tmp_path / "models" / "canvas")
    assert list_lora_names(pipeline.unet) == ["engaged"]
    assert list_stage_loras(pipeline, made / "models" / "base") == {"inpaint": (), "engaged": ("engaged",)}


def test_catalogue_without_engagement_makes_no_engaged_lora(fresh: Path) -> None:
    for model in ("inpaint", "backdrop_lora"):
        (fresh / "models" / model).mkdir()
    run("tune_engaged", fresh)
    assert "no promoted product pin to train on has" in read_figures(fresh, "tune_engaged")["skipped"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"denoiser": {"init_from": None}}, "the denoiser needs training, or name denoiser.init_from"),
        ({"denoiser": {"unet": {"size_embedding": 16}}}, "has addition_time_embed_dim 8, the params say 16"),
        ({"diffusion": {"prediction": "v"}}, "predicts eps, diffusion.prediction is v: make them agree"),
        ({"denoiser": {"init_from": "./nowhere"}}, "neither a directory nor a hub id"),
        ({"train_base": "trained"}, "has 9 input channels, those of inpainting: set train_base.train to null"),
    ],
)
def test_weights_that_do_not_fit_are_one_sentence(
    made: Path, fresh: Path, changes: dict[str, Any], message: str
) -> None:
    overlay: Mapping[str, Any] = use_public_weights(made / "public")
    for section, values in changes.items():
        if values == "trained":
            values = {"train": load_sections("tiny", ROOT)["train_base"]["train"]}
        overlay = merge_sections(overlay, {section: values})
    with pytest.raises(ValueError, match=message):
        run("train_base", fresh, overlay=overlay)


def test_a_scheduler_of_another_process_is_refused(made: Path, fresh: Path) -> None:
    shutil.copytree(made / "public", fresh / "public")
    FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).save_pretrained(fresh / "public" / "scheduler")
    with pytest.raises(ValueError, match=r"predicts flow, diffusion\.prediction is eps: make them agree"):
        run("train_base", fresh, overlay=use_public_weights(fresh / "public"))


def test_weights_that_are_pickles_are_refused(made: Path, fresh: Path) -> None:
    shutil.copytree(made / "public" / "unet", fresh / "unet")
    (fresh / "unet" / "diffusion_pytorch_model.safetensors").rename(fresh / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="holds no safetensors"):
        run("train_base", fresh, overlay=use_public_weights(fresh))
