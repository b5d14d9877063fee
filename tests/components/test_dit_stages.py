"""The generator's stages with a diffusion transformer: the same code, another family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from safetensors.torch import load_file

from canvas.denoiser.image_prompt import get_image_processors, set_scale
from canvas.denoiser.lora import STYLE_LORA, list_lora_names
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.selection import SelectionCost, count_denoiser_calls
from canvas.inference.style import build_style_prompt
from canvas.styles.table import read_styles
from lifecycle.declare.profiles import merge_sections
from tests.canvas import tiny
from tests.canvas.inference.conftest import cutout
from tests.components.generator_parts import (
    CHANNELS,
    POOLED_WIDTH,
    TEXT_WIDTH,
    write_generator_inputs,
    write_random_shards,
)
from tests.components.generator_stages import STAGES, run

CELL = 8
OVERLAY: dict[str, Any] = {
    "encode": {"holes": "pixels"},
    "diffusion": {"shift": 3.0, "shift_side": 16},
    "train_base": {
        "feature_alignment": {"layer": "transformer_blocks.0", "weight": 0.5, "width": 8, "share": 0.5},
        "train": {"override": {"optimizer": "muon", "log_every": 1}},
    },
    "denoiser": {
        "kind": "dit",
        "unet": None,
        "dit": {
            "heads": 2,
            "head_width": 16,
            "double_blocks": 2,
            "single_blocks": 1,
            "zero_modulation": False,
            "rope_widths": [4, 6, 6],
        },
    },
    "train_ip_adapter": {
        "style_layers": ["transformer_blocks.1"],
        "lora": {"rank": 2, "alpha": 2, "folded": True},
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stages, run one after the other on random shards."""
    root = tmp_path_factory.mktemp("transformer")
    write_generator_inputs(root, hole_channels=CELL**2)
    for name in STAGES:
        run(name, root, overlay=OVERLAY)
    return root


def read_figures(root: Path, name: str) -> dict[str, Any]:
    return json.loads((root / "reports" / name / "metrics.json").read_text())


@pytest.mark.parametrize("name", ["train_base", "train_inpaint", "train_backdrop", "tune_engaged", "train_ip_adapter"])
def test_stage_trains(made: Path, name: str) -> None:
    figures = read_figures(made, name)
    assert figures["held_out_losses"]["last"] != figures["held_out_losses"]["before"]
    assert (made / "reports" / name / "sheet.png").stat().st_size > 1000


def test_the_base_is_saved_without_the_head_of_its_alignment(made: Path) -> None:
    names = load_file(made / "models" / "base" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert not [name for name in names if "alignment" in name]
    with torch.device("meta"):
        plain = FluxTransformer2DModel(**FluxTransformer2DModel.load_config(made / "models" / "base" / "transformer"))
    assert names.keys() == plain.state_dict().keys()


def test_inpainting_starts_where_the_base_ended(made: Path) -> None:
    assert read_figures(made, "train_inpaint")["held_out_losses"]["before"] == pytest.approx(
        read_figures(made, "train_base")["held_out_loss"], rel=1e-5
    )


def test_stock_diffusers_loads_what_is_trained(made: Path) -> None:
    for name, inputs in (("base", 4 * CHANNELS), ("inpaint", 4 * (2 * CHANNELS + CELL**2))):
        transformer = FluxTransformer2DModel.from_pretrained(made / "models" / name / "transformer")
        assert transformer.config["in_channels"] == inputs
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(made / "models" / name / "scheduler")
        assert scheduler.config.shift == 1.5  # of 8 x 8 cells
    layers = sum(isinstance(layer, torch.nn.Linear) for layer in transformer.modules())
    stock = tiny.flux_fill_pipeline(transformer, scheduler)
    for name in ("backdrop", "engaged"):
        stock.load_lora_weights(made / "models" / f"{name}_lora", adapter_name=name)
        weights = [key for key in stock.transformer.state_dict() if key.endswith(f"lora_B.{name}.weight")]
        assert len(weights) == layers
    stock.set_adapters(["backdrop", "engaged"])
    ours = CanvasPipeline.from_pretrained(made / "models" / "canvas").transformer
    set_scale(ours, 0.0)
    draw = torch.Generator().manual_seed(0)
    given = tiny.conditions(batch=2, latent_channels=2 * CHANNELS + CELL**2)
    given["text_states"] = torch.randn(2, 7, TEXT_WIDTH, generator=draw)
    given["text_pooled"] = torch.randn(2, POOLED_WIDTH, generator=draw)
    image = [torch.zeros(2, 1, 32)]
    torch.testing.assert_close(
        tiny.answer(ours, given["latents"], given, image),
        tiny.answer(stock.transformer.eval(), given["latents"], given),
        rtol=0,
        atol=1e-5,
    )


def test_assembled_pipeline_generates_and_follows_a_style(made: Path, tmp_path: Path) -> None:
    pipeline = CanvasPipeline.from_pretrained(made / "models" / "canvas")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.unet is None
    assert sorted(list_lora_names(pipeline.denoiser)) == ["backdrop", "engaged", STYLE_LORA]
    assert list(get_image_processors(pipeline.denoiser)) == ["transformer_blocks.0.attn", "transformer_blocks.1.attn"]
    product = cutout(90, 120)
    image = np.array(pipeline(product, "red mug, in a forest", num_inference_steps=2, seed=0).images[0])
    core = np.array(product)[..., 3] == 255
    np.testing.assert_array_equal(image[core], np.array(product)[core][:, :3])
    assert image[~core].std() > 0
    (mined,) = [style for style in read_styles(made / "artifacts" / "styles") if style.kind == "cluster"]
    style = build_style_prompt(pipeline, {"uve": mined.uve[None], "clip": mined.clip[None]}, layers="style")
    styled = np.array(pipeline(product, style=style, num_inference_steps=2, seed=0).images[0])
    assert (styled != image).any()
    counted = SelectionCost()
    with count_denoiser_calls(pipeline, counted):
        again = np.array(pipeline(product, "red mug, in a forest", num_inference_steps=2, seed=0).images[0])
    assert counted.denoiser_calls >= 2  # guidance and a close-up take more
    np.testing.assert_array_equal(again, image)
    pipeline.save_pretrained(tmp_path / "again")
    loaded = CanvasPipeline.from_pretrained(tmp_path / "again")
    loaded.set_progress_bar_config(disable=True)
    copied = np.array(loaded(product, "red mug, in a forest", num_inference_steps=2, seed=0).images[0])
    np.testing.assert_array_equal(copied, image)


def test_every_stage_is_scored(made: Path) -> None:
    figures = read_figures(made, "evaluate_backdrop")
    assert set(figures["by_stage"]) == {"base", "inpaint", "backdrop", "engaged"}
    assert figures["core_max_abs_diff"] == 0


def test_lora_loads_as_in_stock_pipelines(made: Path) -> None:
    pipeline = CanvasPipeline.from_pretrained(made / "models" / "canvas")
    pipeline.load_lora_weights(made / "models" / "backdrop_lora", adapter_name="again")
    assert "again" in list_lora_names(pipeline.transformer)
    with pytest.raises(ValueError, match="takes no weight_name with a transformer: give a directory alone"):
        pipeline.load_lora_weights(made / "models" / "backdrop_lora", weight_name="other.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"denoiser": {"unet": {"channels": [16]}}}, "unet"),
        ({"denoiser": {"dit": None}}, r"denoiser\.dit is null, but denoiser\.kind is dit: give its sizes"),
        ({"denoiser": {"kind": "unet"}}, r"denoiser\.unet is null, but denoiser\.kind is unet: give its sizes"),
        (
            {"train_base": {"train": {"override": {"compile": True}}}},
            "feature_alignment reads a block's output, which compile hides: set compile to false",
        ),
        ({"train_base": {"feature_alignment": {"layer": "mid_block"}}}, r"feature_alignment\.layer is 'mid_block'"),
        ({"train_base": {"feature_alignment": {"share": 1.5}}}, r"share' in section .* is 1\.5: it must be at most 1"),
        (
            {
                "diffusion": {
                    "prediction": "eps",
                    "time_mean": None,
                    "time_std": None,
                    "shift": None,
                    "shift_side": None,
                }
                | {"beta_start": 0.00085, "beta_end": 0.012, "zero_terminal_snr": False}
            },
            r"kind is dit and diffusion\.prediction eps: use flow",
        ),
    ],
)
def test_params_that_do_not_fit_are_one_sentence(made: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run("train_base", made, overlay=merge_sections(OVERLAY, changes))


@pytest.mark.parametrize("name", ["train_base", "train_inpaint"])
def test_shards_of_the_other_family_are_refused(made: Path, tmp_path: Path, name: str) -> None:
    write_random_shards(tmp_path / "artifacts" / "shards")
    (tmp_path / "models").mkdir()
    for part in ("vae", "base") if name == "train_inpaint" else ("vae",):
        (tmp_path / "models" / part).symlink_to(made / "models" / part)
    with pytest.raises(ValueError, match=r"holes have 1 numbers a latent cell, .* dit reads 64: change encode\.holes"):
        run(name, tmp_path, overlay=OVERLAY)
