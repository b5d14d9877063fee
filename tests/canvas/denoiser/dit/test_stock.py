"""Stock diffusers' Flux pipelines with what is trained here: the same outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel

from canvas.denoiser.dit.model import add_inpaint_channels
from canvas.denoiser.image_prompt import (
    WEIGHTS_FILE,
    AdapterConfig,
    add_image_prompt,
    get_image_processors,
    has_image_prompt,
    load_image_prompt,
    remove_image_prompt,
    resolve_layer_scales,
    save_image_prompt,
    set_scale,
    use_image_prompts,
)
from canvas.denoiser.lora import add_lora, load_lora, merge_lora, save_lora
from canvas.denoiser.process import build_training_scheduler
from canvas.denoiser.sampling import Condition
from canvas.masks.composite import compute_pixel_hole, mask_images
from canvas.vae.model import get_latent_scale
from tests.canvas import tiny
from tests.canvas.denoiser.dit.test_model import CELL, build_sample
from tests.canvas.denoiser.test_process import FLOW

WIDTH, STEPS = 24, 3


@pytest.fixture
def base() -> FluxTransformer2DModel:
    """An inpainting transformer whose new inputs have learnt something."""
    model = add_inpaint_channels(tiny.transformer(), CELL)
    torch.manual_seed(4)
    torch.nn.init.normal_(model.x_embedder.weight, std=0.1)
    return model


def add_learnt_lora(model: FluxTransformer2DModel) -> FluxTransformer2DModel:
    tuned = add_lora(model, rank=2, alpha=4)
    torch.manual_seed(3)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return tuned.eval()


def add_learnt_image_prompt(model: FluxTransformer2DModel) -> FluxTransformer2DModel:
    torch.manual_seed(5)
    add_image_prompt(model, WIDTH)
    for processor in get_image_processors(model).values():
        torch.nn.init.normal_(processor.to_v_ip[0].weight, std=0.3)
    return model.eval()


def test_stock_pipeline_generates_from_transformer_and_lora_read_from_disk(
    base: FluxTransformer2DModel, tmp_path: Path
) -> None:
    """The same latents as from our own loop without guidance, to 1e-4: stock encodes and masks the image itself."""
    scheduler = build_training_scheduler(FLOW)
    base.save_pretrained(tmp_path / "transformer")
    stock = tiny.flux_fill_pipeline(FluxTransformer2DModel.from_pretrained(tmp_path / "transformer"), scheduler)
    tuned = add_learnt_lora(copy.deepcopy(base))
    save_lora(tuned, tmp_path / "lora")
    given, draw = tiny.conditions(batch=1), torch.Generator().manual_seed(7)
    image = torch.rand(1, 3, 64, 64, generator=draw)
    hidden = torch.zeros(1, 1, 64, 64)
    hidden[..., 5:40, 11:50] = 1  # off the cells
    scheduler.set_timesteps(STEPS)
    sigmas = scheduler.sigmas[:-1].tolist()

    def generate() -> torch.Tensor:
        return stock(
            image=image,
            mask_image=hidden,
            height=64,
            width=64,
            prompt_embeds=given["text_states"],
            pooled_prompt_embeds=given["text_pooled"],
            latents=stock._pack_latents(given["latents"], 1, 4, 8, 8),
            num_inference_steps=STEPS,
            sigmas=sigmas,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        ).images

    def generate_ours(model: FluxTransformer2DModel) -> torch.Tensor:
        with torch.no_grad():
            raw = stock.vae.encode(mask_images(2 * image - 1, 1 - hidden)).latent_dist.mode()
        condition = Condition(
            states=given["text_states"],
            pooled=given["text_pooled"],
            sizes=given["sizes"],
            hole=compute_pixel_hole(1 - hidden, CELL),
            masked_latents=get_latent_scale(stock.vae).normalize(raw),
        )
        settings = {"steps": STEPS, "guidance_scale": 1.0}
        latents = tiny.sample_latents(model, build_training_scheduler(FLOW), given["latents"], condition, **settings)
        return stock._pack_latents(latents, 1, 4, 8, 8)

    without = generate()
    torch.testing.assert_close(without, generate_ours(base), rtol=0, atol=1e-4)
    stock.load_lora_weights(tmp_path / "lora")
    torch.testing.assert_close(generate(), generate_ours(tuned), rtol=0, atol=1e-4)
    assert (without - generate_ours(tuned)).abs().max() > 1e-2


def test_lora_is_on_every_layer_and_merges(base: FluxTransformer2DModel, tmp_path: Path) -> None:
    layers = sum(isinstance(layer, torch.nn.Linear) for layer in base.modules())
    given = tiny.conditions(batch=1)
    sample = build_sample(given)
    before = tiny.answer(base, sample, given)
    started = add_lora(copy.deepcopy(base), rank=2, alpha=2)
    assert torch.equal(tiny.answer(started, sample, given), before)
    assert sum(weight.requires_grad for weight in started.parameters()) == 2 * layers
    tuned = add_learnt_lora(copy.deepcopy(base))
    save_lora(tuned, tmp_path)
    answer = tiny.answer(tuned, sample, given)
    again = load_lora(base, tmp_path)
    assert torch.equal(tiny.answer(again, sample, given), answer)
    torch.testing.assert_close(tiny.answer(merge_lora(again), sample, given), answer, rtol=1e-4, atol=1e-4)


def test_image_prompt_starts_without_effect_and_comes_off(base: FluxTransformer2DModel) -> None:
    given, image = tiny.conditions(batch=2), [torch.randn(2, 1, WIDTH)]
    sample = build_sample(given)
    before = tiny.answer(base, sample, given)
    adapted = add_image_prompt(copy.deepcopy(base), WIDTH)
    assert list(get_image_processors(adapted)) == ["transformer_blocks.0.attn", "transformer_blocks.1.attn"]
    assert torch.equal(tiny.answer(adapted, sample, given, image), before)
    learnt = add_learnt_image_prompt(copy.deepcopy(base))
    assert not torch.allclose(tiny.answer(learnt, sample, given, image), before, atol=1e-3)
    bare = remove_image_prompt(learnt)
    assert not has_image_prompt(bare)
    assert torch.equal(tiny.answer(bare, sample, given), before)


def test_stock_loader_gives_the_same_output_from_our_adapter(base: FluxTransformer2DModel, tmp_path: Path) -> None:
    """To 1e-5, by the loader of `FluxTransformer2DModel` behind `FluxPipeline.load_ip_adapter`; the inpainting
    pipeline has none of its own."""
    adapted = add_learnt_image_prompt(copy.deepcopy(base))
    save_image_prompt(adapted, AdapterConfig(source="clip", style_layers=("transformer_blocks.1",)), tmp_path)
    none = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "vae"))
    stock = FluxPipeline(transformer=copy.deepcopy(base), scheduler=build_training_scheduler(FLOW), **none)
    stock.load_ip_adapter(str(tmp_path), weight_name=WEIGHTS_FILE, image_encoder_pretrained_model_name_or_path=None)
    given, image = tiny.conditions(batch=2), [torch.randn(2, 1, WIDTH)]
    sample = build_sample(given)
    for scale in (0.0, 0.6, 1.0):
        set_scale(adapted, scale)
        stock.set_ip_adapter_scale(scale)
        ours = tiny.answer(adapted, sample, given, image)
        torch.testing.assert_close(tiny.answer(stock.transformer, sample, given, image), ours, rtol=0, atol=1e-5)
    again = load_image_prompt(copy.deepcopy(base), tmp_path)
    assert torch.equal(tiny.answer(again, sample, given, image), ours)


def test_style_layers_are_double_blocks(base: FluxTransformer2DModel) -> None:
    model = add_learnt_image_prompt(base)
    given, image = tiny.conditions(batch=2), [torch.randn(2, 1, WIDTH)]
    sample = build_sample(given)
    second = resolve_layer_scales(model, {"transformer_blocks.1": 0.5})
    assert second == {"transformer_blocks.0.attn": 0.0, "transformer_blocks.1.attn": 0.5}
    with use_image_prompts(model, [second]):
        half = tiny.answer(model, sample, given, image)
    assert not torch.allclose(half, tiny.answer(model, sample, given, image), atol=1e-4)
    with pytest.raises(
        ValueError, match=r"layer is called single_trans.*: there are transformer_blocks\.0, transformer_blocks\.1"
    ):
        resolve_layer_scales(model, {"single_transformer_blocks.0": 1.0})


def _count(compute: Callable[..., Any], calls: list[str], name: str, *arguments: Any) -> Any:
    calls.append(name)
    return compute(*arguments)


def test_sampling_projects_once_and_equals_a_plain_loop(base: FluxTransformer2DModel) -> None:
    """With true guidance, an image prompt and a LoRA."""
    model = add_learnt_image_prompt(add_learnt_lora(base))
    given, image = tiny.conditions(batch=2), torch.randn(2, 1, WIDTH)
    hole, masked = torch.ones(2, CELL**2, 8, 8), given["latents"].flip(0)
    condition = Condition(
        states=given["text_states"],
        pooled=given["text_pooled"],
        sizes=given["sizes"],
        hole=hole,
        masked_latents=masked,
        image_embeddings=image,
    )
    calls: list[str] = []
    names = ("context_embedder", "encoder_hid_proj", "transformer_blocks.0.attn.processor.to_k_ip.0")
    for name in names:
        layer = model.get_submodule(name)
        layer.forward = partial(_count, layer.forward, calls, name)
    sampled = tiny.sample_latents(
        model, build_training_scheduler(FLOW), given["latents"], condition, steps=STEPS, guidance_scale=3.0
    )
    assert sorted(calls) == sorted(names)

    scheduler = build_training_scheduler(FLOW)
    scheduler.set_timesteps(STEPS)
    latents = given["latents"]
    for timestep in scheduler.timesteps:
        sample = torch.cat([latents, masked, hole], dim=1)
        nothing = given | {name: torch.zeros_like(given[name]) for name in ("text_states", "text_pooled")}
        empty, full = (
            tiny.answer(model, sample, texts, [picture], timestep=timestep)
            for texts, picture in ((nothing, torch.zeros_like(image)), (given, image))
        )
        latents = scheduler.step(empty + 3 * (full - empty), timestep, latents).prev_sample
    torch.testing.assert_close(sampled, latents, atol=1e-5, rtol=1e-5)
