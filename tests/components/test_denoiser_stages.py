from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file

from canvas.align.spec import EVIDENCE_FILE
from canvas.denoiser.image_prompt import (
    WEIGHTS_FILE,
    AdapterConfig,
    get_image_processors,
    remove_image_prompt,
    set_scale,
)
from canvas.denoiser.loading import load_denoiser
from canvas.denoiser.lora import STYLE_LORA, list_lora_names, load_lora, merge_lora, set_style_lora
from canvas.inference.pipeline import CanvasPipeline
from canvas.pins import tables
from canvas.styles.table import read_styles
from components import artifacts
from evaluation.generator.stage_scores import list_stage_loras
from evaluation.scenes.sheets import CELL
from lifecycle.workspace.digest import digest
from tests.canvas.inference.conftest import cutout
from tests.canvas.safety_models import write_image_classifier
from tests.canvas.tiny import conditions, predict, sdxl_inpaint_pipeline
from tests.components.generator_parts import (
    CHANNELS,
    POOLED_WIDTH,
    TEXT_WIDTH,
    write_generator_inputs,
)
from tests.components.generator_stages import STAGES, run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four stages, run one after the other on random shards."""
    root = tmp_path_factory.mktemp("generator")
    write_generator_inputs(root)
    for name in STAGES:
        run(name, root)
    return root


def figures(root: Path, name: str) -> dict[str, Any]:
    return json.loads((root / "reports" / name / "metrics.json").read_text())


def losses_of(root: Path, name: str) -> list[str]:
    return (root / "reports" / name / "losses.csv").read_text().splitlines()


@pytest.mark.parametrize("name", ["train_base", "train_inpaint", "train_backdrop", "tune_engaged", "train_ip_adapter"])
def test_figures_losses_and_sheet(made, name):
    metrics = figures(made, name)
    assert metrics["held_out_loss"] == min(
        loss
        for average, loss in metrics["held_out_losses"].items()
        if average != "before" and _is_choice(metrics, average)
    )
    assert metrics["images_per_second"] > 0
    assert 0 < metrics["trained_parameters"] <= metrics["parameters"]
    header, *rows = losses_of(made, name)
    assert header == "step,loss"
    assert [int(row.split(",")[0]) for row in rows] == ([2] if name == "tune_engaged" else [2, 4])
    with Image.open(made / "reports" / name / "sheet.png") as sheet:
        assert sheet.height / sheet.width == pytest.approx(
            (2 if name == "train_base" else 3) / _columns(sheet), rel=0.2
        )


def _is_choice(metrics: dict[str, Any], average: str) -> bool:
    return (average == "last") == (metrics["average"] == 0)


def _columns(sheet: Image.Image) -> int:
    return (sheet.width - 6) // 134


def test_stock_diffusers_loads_what_is_trained(made):
    for name, inputs in (("base", CHANNELS), ("inpaint", 2 * CHANNELS + 1)):
        unet = UNet2DConditionModel.from_pretrained(made / "models" / name / "unet")
        assert unet.config["in_channels"] == inputs
        FlowMatchEulerDiscreteScheduler.from_pretrained(made / "models" / name / "scheduler")
    layers = sum(isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) for layer in unet.modules())
    pipeline = sdxl_inpaint_pipeline(unet)
    for name in ("backdrop", "engaged"):
        pipeline.load_lora_weights(made / "models" / f"{name}_lora", adapter_name=name)
        assert len([key for key in pipeline.unet.state_dict() if key.endswith(f"lora_B.{name}.weight")]) == layers


def test_inpainting_starts_where_the_base_ended(made):
    """The new inputs are zero, and the held-out loss draws the same times and noises."""
    assert figures(made, "train_inpaint")["held_out_losses"]["before"] == pytest.approx(
        figures(made, "train_base")["held_out_loss"], rel=1e-5
    )


def test_which_pins_each_stage_saw(made):
    pins = {
        name: figures(made, name)["pins"] for name in ("train_base", "train_inpaint", "train_backdrop", "tune_engaged")
    }
    selection = figures(made, "tune_engaged")["selection"]
    assert pins["train_base"] == pins["train_inpaint"] == 16
    assert pins["train_backdrop"] == 8  # those with a product
    assert pins["tune_engaged"] == selection["selected"] < selection["candidates"] < 8
    assert selection["mean_rate_of_selected"] > selection["mean_rate_of_candidates"]


def test_the_same_seed_trains_the_same_bytes(made, tmp_path):
    for folder in ("artifacts", "models"):
        (tmp_path / folder).mkdir()
    (tmp_path / "artifacts" / "shards").symlink_to(made / "artifacts" / "shards")
    (tmp_path / "models" / "vae").symlink_to(made / "models" / "vae")
    log = run("train_base", tmp_path)
    assert log.steps == [2, 4]
    assert log.pictures == ["samples-000004"]
    assert digest(tmp_path / "models" / "base") == digest(made / "models" / "base")


def test_the_assembled_pipeline_is_the_sum_of_its_parts(made):
    pipeline = CanvasPipeline.from_pretrained(made / "models" / "canvas")
    assert pipeline.config["parts"] == {
        name: digest(made / "models" / name)
        for name in (
            "base",
            "clip",
            "text",
            "vae",
            "inpaint",
            "backdrop_lora",
            "engaged_lora",
            "ip_adapter",
            "uve",
            "decoder",
            "upscaler",
            "segmenter",
            "light",
            "reward",
        )
    } | {
        "data": digest(made / "data"),
        "styles": digest(made / "artifacts" / "styles"),
    }
    assert pipeline.config["max_aspect"] == pytest.approx(80 / 48)
    trained = load_lora(load_denoiser(made / "models" / "inpaint"), made / "models" / "backdrop_lora")
    trained = load_lora(merge_lora(trained), made / "models" / "engaged_lora").eval()
    given = conditions(batch=1, latent_channels=2 * CHANNELS + 1)
    given["text_states"] = torch.randn(1, 7, TEXT_WIDTH)
    given["text_pooled"] = torch.randn(1, POOLED_WIDTH)
    remove_image_prompt(pipeline.unet)
    both = [predict(unet, given["latents"], given) for unet in (pipeline.unet, trained)]
    assert torch.allclose(*both, atol=1e-5)
    pipeline.unet.set_adapters(["backdrop"])
    assert not torch.allclose(both[0], predict(pipeline.unet, given["latents"], given), atol=1e-6)


def test_the_assembled_pipeline_paints(made):
    pipeline = CanvasPipeline.from_pretrained(made / "models" / "canvas")
    pipeline.set_progress_bar_config(disable=True)
    product = cutout(90, 120)
    image = pipeline(product, "red mug, in a forest", num_inference_steps=2, seed=0).images[0]
    core = np.array(product)[..., 3] == 255
    assert np.array_equal(np.array(image)[core], np.array(product)[core][:, :3])
    shaded = pipeline(product, "red mug, in a forest", num_inference_steps=2, seed=0, mode="soft", shadow=1.0)
    assert shaded.certificates[0].shadow is not None


def test_the_adapter_alone_is_trained_and_a_picture_tells_it_something(made):
    metrics = figures(made, "train_ip_adapter")
    assert metrics["pins"] == 8
    assert metrics["embedding_width"] == 32
    adapter = load_file(made / "models" / "ip_adapter" / WEIGHTS_FILE)
    assert metrics["trained_parameters"] == sum(weight.numel() for weight in adapter.values())
    assert metrics["held_out_losses"]["last"] != metrics["held_out_losses"]["before"]
    assert metrics["held_out_loss_of_other_pictures"] != metrics["held_out_loss"]
    assert AdapterConfig.load(made / "models" / "ip_adapter").source == "uve+clip"
    assert not (made / "models" / "ip_adapter" / "lora").exists()


def stock_and_ours(made: Path, home: Path, width: int, loras: Mapping[str, Path]) -> dict[float, torch.Tensor]:
    """By strength, what our denoiser of `home` answers to a picture; stock diffusers does with its files, to 1e-5."""
    ours = CanvasPipeline.from_pretrained(home / "models" / "canvas").unet
    stock = sdxl_inpaint_pipeline(UNet2DConditionModel.from_pretrained(made / "models" / "inpaint" / "unet"))
    for name, folder in loras.items():
        stock.load_lora_weights(folder, adapter_name=name)
    folder = str(home / "models" / "ip_adapter")
    stock.load_ip_adapter(folder, subfolder="", weight_name=WEIGHTS_FILE, image_encoder_folder=None)
    draw = torch.Generator().manual_seed(0)
    given = conditions(batch=2, latent_channels=2 * CHANNELS + 1)
    states = torch.randn(2, 7, TEXT_WIDTH, generator=draw)
    added = {
        "text_embeds": torch.randn(2, POOLED_WIDTH, generator=draw),
        "time_ids": given["sizes"],
        "image_embeds": [torch.randn(2, 1, width, generator=draw)],
    }
    answers = {}
    for scale in (0.0, 0.5, 1.0):
        set_scale(ours, scale)
        set_style_lora(ours, dict.fromkeys(get_image_processors(ours), scale))
        stock.set_ip_adapter_scale(scale)
        stock.set_adapters(list(loras), [scale if name == STYLE_LORA else 1.0 for name in loras])
        with torch.no_grad():
            answers[scale], theirs = (
                unet(given["latents"], 500, states, added_cond_kwargs=added).sample for unet in (ours, stock.unet)
            )
        assert (answers[scale] - theirs).abs().max() <= 1e-5
    assert not torch.equal(answers[0.0], answers[1.0])
    return answers


def test_stock_diffusers_loads_the_trained_adapter(made):
    loras = {name: made / "models" / f"{name}_lora" for name in ("backdrop", "engaged")}
    stock_and_ours(made, made, 32, loras)


def test_a_lora_is_trained_with_it_and_assembled(made, tmp_path):
    (tmp_path / "data").symlink_to(made / "data")
    for folder in ("artifacts", "models"):
        (tmp_path / folder).mkdir()
        for part in (made / folder).iterdir():
            if part.name not in ("ip_adapter", "canvas"):
                (tmp_path / folder / part.name).symlink_to(part)
    run("train_ip_adapter", tmp_path, source="uve", lora={"rank": 2, "alpha": 2, "folded": False})
    run("assemble", tmp_path)
    pipeline = CanvasPipeline.from_pretrained(tmp_path / "models" / "canvas")
    assert sorted(list_lora_names(pipeline.unet)) == ["backdrop", "engaged", "style"]
    assert sorted(pipeline.unet.active_adapters()) == ["backdrop", "engaged"]  # without a style
    loras = {name: made / "models" / f"{name}_lora" for name in ("backdrop", "engaged")}
    stock_and_ours(made, tmp_path, 16, loras | {STYLE_LORA: tmp_path / "models" / "ip_adapter" / "lora"})
    assert pipeline.config["image_source"] == "uve"
    (cluster,) = [style for style in read_styles(made / "artifacts" / "styles") if style.kind == "cluster"]
    np.testing.assert_array_equal(pipeline.style_centres.uve.numpy(), cluster.uve[None])
    assert len(get_image_processors(pipeline.unet)) == 4
    whole, alone = figures(tmp_path, "train_ip_adapter"), figures(made, "train_ip_adapter")
    assert whole["embedding_width"] == 16
    assert whole["trained_parameters"] > alone["trained_parameters"]
    assert (tmp_path / "models" / "canvas" / "styles" / "part-00000.parquet").is_file()
    run("evaluate_backdrop", tmp_path)
    scores, of_made = figures(tmp_path, "evaluate_backdrop"), figures(made, "evaluate_backdrop")
    assert scores["by_stage"].keys() == {"base", "inpaint", "backdrop", "engaged"}
    assert scores["kid"] == pytest.approx(of_made["kid"])  # prompts know nothing of it


def test_safety_models_of_params_travel_with_the_assembled_pipeline(made, tmp_path):
    (tmp_path / "data").symlink_to(made / "data")
    (tmp_path / "artifacts").symlink_to(made / "artifacts")
    (tmp_path / "models").mkdir()
    for part in (made / "models").iterdir():
        if part.name != "canvas":
            (tmp_path / "models" / part.name).symlink_to(part)
    classifier = write_image_classifier(tmp_path / "classifier")
    image = {"repository": str(classifier), "labels": ["nsfw"], "threshold": 1e-6}
    run("assemble", tmp_path, section="safety", image=image)
    shutil.rmtree(classifier)
    sources = artifacts.CanvasModel.read_sources(tmp_path / "models" / "canvas")
    assert sources["image_safety"] == {"repository": str(classifier), "commit": "", "licence": "not stated"}
    with pytest.raises(ValueError, match=r"^the image of seed \d+ for the prompt '.*' is refused: the safety model "):
        run("evaluate_backdrop", tmp_path)


@pytest.mark.parametrize("generator", ["backdrop", "base"])
def test_an_alignment_of_backdrops_is_assembled_with_its_evidence(made, tmp_path, generator):
    (tmp_path / "data").symlink_to(made / "data")
    for folder in ("artifacts", "models"):
        (tmp_path / folder).mkdir()
        for part in (made / folder).iterdir():
            if part.name != "canvas":
                (tmp_path / folder / part.name).symlink_to(part)
    aligned = tmp_path / "models" / "aligned_lora"
    shutil.copytree(made / "models" / "engaged_lora", aligned)
    (aligned / EVIDENCE_FILE).write_text(json.dumps({"generator": generator, "reason": "better", "figures": {}}))
    run("assemble", tmp_path)
    canvas = tmp_path / "models" / "canvas"
    pipeline = CanvasPipeline.from_pretrained(canvas)
    is_part = generator == "backdrop"
    assert sorted(list_lora_names(pipeline.unet)) == [*(["aligned"] if is_part else []), "backdrop", "engaged"]
    assert ("aligned_lora" in pipeline.config["parts"]) == (canvas / EVIDENCE_FILE).is_file() == is_part
    stages = list_stage_loras(pipeline, tmp_path / "models" / "base")
    assert stages.get("aligned") == (("backdrop", "engaged", "aligned") if is_part else None)


def test_styles_are_scored_by_strength(made):
    metrics = figures(made, "evaluate_style")
    assert set(metrics["by_strength"]) == {"strength_0", "strength_0.5", "strength_1"}
    for strength, both in metrics["by_strength"].items():
        assert set(both) == {"prompted", "unprompted"}
        for how, scores in both.items():
            seeds = 2 if how == "unprompted" and strength != "strength_0.5" else 1  # of the headline
            assert scores["pictures"] == 2 * seeds  # a product, 2 styles
            assert ("diversity" in scores) == (seeds == 2)
            assert scores["core_max_abs_diff"] == 0
            assert scores["scene_follows_low"] <= scores["scene_follows"] <= scores["scene_follows_high"]
    assert metrics["diversity"] > 0
    assert metrics["diversity_without_style"] > 0
    assert metrics["core_max_abs_diff"] == 0
    for name in ("prompt_scene", "text_agreement"):
        change = f"{name}_change"
        assert metrics[change] == pytest.approx(metrics[name] - metrics[f"{name}_without_style"], abs=1e-6)
        assert metrics[f"{change}_low"] <= metrics[change] <= metrics[f"{change}_high"]
    assert isinstance(metrics["picture_agreement_gain"], float)
    assert "style_agreement_gain" not in metrics  # both styles are of one scene
    by_split = metrics["scene_follows_by_style_split"]
    assert by_split.keys() == {"unseen_view"}
    assert by_split["unseen_view"].items() <= metrics["by_strength"]["strength_1"]["unprompted"].items()
    assert metrics["scene_accuracy_real"] == 1.0
    header, *rows = (made / "reports" / "evaluate_style" / "curve.csv").read_text().splitlines()
    assert header.startswith("strength,scene_follows,scene_follows_low")
    assert [row.split(",")[0] for row in rows] == ["0", "0.5", "1"]
    with Image.open(made / "reports" / "evaluate_style" / "sheet.png") as grid:
        assert grid.width > 2 * 150  # the style picture, a product
        assert grid.height > 3 * 150  # the product as it came, two styles


def test_backdrops_are_scored_by_stage(made):
    metrics = figures(made, "evaluate_backdrop")
    assert set(metrics["by_stage"]) == {"base", "inpaint", "backdrop", "engaged"}
    for scores in (metrics, *metrics["by_stage"].values()):
        assert scores["pictures"] == 6
        assert scores["core_max_abs_diff"] == 0
        assert scores["seam_gradient_ratio"] > 0
        for name in ("scene_accuracy", "scene_accuracy_sharp", "erosion_mean", "extension_mean"):
            assert scores[f"{name}_low"] <= scores[name] <= scores[f"{name}_high"]
    assert metrics["scene_accuracy_real"] == 1.0  # forest and lobby are of different colours
    assert set(metrics["by_scene"]) == {"forest", "lobby"}
    assert metrics["kid"] == metrics["by_stage"]["engaged"]["kid"] != metrics["by_stage"]["base"]["kid"]
    with Image.open(made / "reports" / "evaluate_backdrop" / "sheet.png") as grid:
        assert grid.width > 3 * 150  # the original and two prompts
        assert grid.height > 2 * 150  # two products


def test_scenes_are_scored_by_mode_format_and_number_of_products(made):
    metrics = figures(made, "evaluate_scenes")
    assert set(metrics["mode"]) == {"hard", "soft", "shadow", "soft_shadow", "reflection"}
    assert set(metrics["format"]) == {"story", "pin", "square", "banner"}
    assert set(metrics["products"]) == {"1", "2"}  # two different products are held out
    for family in ("mode", "size", "format", "products"):
        for name, scores in metrics[family].items():
            assert scores["scene_right_low"] <= scores["scene_right"] <= scores["scene_right_high"]
            assert scores["certificates_failed" if "soft" in name else "core_max_abs_diff"] == 0
    assert metrics["omitted"] == metrics["products"]["2"]["omitted"] / 2
    assert "notes" not in metrics
    for name, columns in {"modes": 6, "sizes": 4, "formats": 5, "products": 3}.items():
        with Image.open(made / "reports" / "evaluate_scenes" / f"{name}.png") as sheet:
            assert sheet.width // CELL == columns


def test_without_truth_there_is_no_scene_accuracy(made, tmp_path):
    for folder in ("artifacts", "models"):
        (tmp_path / folder).mkdir()
        for part in (made / folder).iterdir():
            if part.name not in ("truth", "judges"):
                (tmp_path / folder / part.name).symlink_to(part)
    tables.write(tmp_path / "artifacts" / "truth", [], tables.TRUTH)
    run("train_judges", tmp_path)
    assert figures(tmp_path, "train_judges")["scenes"] == 0
    run("evaluate_backdrop", tmp_path, products=8)
    metrics = figures(tmp_path, "evaluate_backdrop")
    assert not [name for name in metrics if name.startswith("scene_accuracy")]
    assert {"kid", "extension_mean", "core_max_abs_diff"} <= metrics.keys()
    same_seed = metrics["same_seed"]
    assert same_seed["images"] >= 2 * 2  # products in frames of one size, prompts
    for name in ("distance", "distance_other_seeds", "of_other_seeds"):
        assert 0 < same_seed[f"{name}_low"] <= same_seed[name] <= same_seed[f"{name}_high"]
    assert "of_real" not in same_seed


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        ("tune_engaged", {"rule": {"share": 0.0}}, "'share' in section 'tune_engaged.rule' is 0.0: it must be above 0"),
        ("train_backdrop", {"lora": {"rank": 0}}, "'rank' in section 'train_backdrop.lora' is 0: it must be 1 or more"),
        ("train_base", {"section": "held_out", "averages": []}, r"'averages' in section .* is \[\]: give 1 or more"),
        ("train_base", {"section": "held_out", "ema": [0.3]}, "held_out.ema' is 0.3: it must be below 0.288675"),
        ("train_base", {"section": "held_out", "pins": 0}, "'pins' in section 'held_out' is 0"),
        ("evaluate_backdrop", {"splits": ["unseen_prodct"]}, "input should be 'train'"),
        ("assemble", {"section": "sampling", "steps": 0}, "'steps' in section 'sampling' is 0"),
        ("assemble", {"section": "sampling", "guidance_stop": 1.5}, "'sampling' is 1.5: it must be at most 1"),
        (
            "assemble",
            {"section": "safety", "image": {"repository": "./no", "labels": ["nsfw"], "threshold": 0.5}},
            "'./no' is neither a directory nor a hub id",
        ),
        (
            "assemble",
            {"section": "safety", "prompt": {"repository": "./no", "labels": ["nsfw"], "threshold": 1.5}},
            "is 1.5: it must be at most 1",
        ),
        ("assemble", {"section": "sampling", "scheduler": "ddim"}, "unknown scheduler 'ddim': this denoiser samples"),
        ("evaluate_backdrop", {"section": "backgrounds", "prompts": []}, r"'prompts' in section 'backgrounds' is \[\]"),
        (
            "evaluate_style",
            {"sampling": {"guidance_stop": -1}},
            "'evaluate_style.sampling' is -1: it must be 0 or more",
        ),
        ("train_ip_adapter", {"image_dropout": {"image": 0.6, "both": 0.5}}, "below 1 together"),
        (
            "train_ip_adapter",
            {"caption_dropout": 0.9, "image_dropout": {"image": 0.1, "both": 0.0}},
            "below 1 together",
        ),
        ("train_ip_adapter", {"style_layers": ["up_blocks.5"]}, "no image layer is called up_blocks.5"),
        ("train_ip_adapter", {"source": "dino"}, "source"),
        ("evaluate_style", {"strengths": [0.0]}, "strengths' is 0.0: it must be above 0"),
        ("evaluate_style", {"strengths": [1.0, 4.5]}, "strengths' is 4.5: it must be at most 4"),
        ("evaluate_style", {"strengths": []}, "give 1 or more"),
        ("evaluate_style", {"strengths": [1.0, 1.0]}, "give each one once"),
        ("evaluate_style", {"seeds": 3}, "headline_seeds is 2: it must be 3, as seeds is, or more"),
        ("evaluate_style", {"style_splits": ["all"]}, "input should be 'train'"),
        ("evaluate_style", {"typical": -0.5}, "'evaluate_style' is -0.5: it must be 0 or more"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(made, tmp_path, stage, changes, message):
    for folder in ("artifacts", "data", "models"):
        (tmp_path / folder).symlink_to(made / folder)
    (tmp_path / "reports").mkdir()
    with pytest.raises(ValueError, match=message):
        run(stage, tmp_path, **changes)
