from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from canvas.denoiser.image_prompt import (
    IMAGE_TOKENS,
    WEIGHTS_FILE,
    AdapterConfig,
    add_image_prompt,
    get_embedding_width,
    get_image_processors,
    has_image_prompt,
    load_image_prompt,
    remove_image_prompt,
    resolve_layer_scales,
    save_image_prompt,
    set_scale,
    use_image_prompts,
)
from canvas.denoiser.image_prompt_training import collect_caption_tokens, compute_caption_tokens, start_from_captions
from canvas.denoiser.lora import add_lora, merge_lora
from canvas.shards.files import Shards, write_shards
from canvas.shards.rows import ShardRows
from tests.canvas import tiny
from tests.components.generator_parts import write_random_shards

WIDTH = 24
STYLE = "up_blocks.0.attentions.1"
CONFIG = AdapterConfig(source="uve+clip", style_layers=(STYLE,))


def moved(unet: UNet2DConditionModel, seed: int = 5, width: int = WIDTH) -> UNet2DConditionModel:
    """With an adapter whose values have moved from their start."""
    torch.manual_seed(seed)
    add_image_prompt(unet, width)
    for processor in get_image_processors(unet).values():
        torch.nn.init.normal_(processor.to_v_ip[0].weight, std=0.3)
    return unet.eval()


def answer(unet: UNet2DConditionModel, *pictures: torch.Tensor, seed: int = 1) -> torch.Tensor:
    """For 2 samples; each picture's embedding (2, E)."""
    given = tiny.conditions(batch=2, seed=seed)
    added = {"text_embeds": given["text_pooled"], "time_ids": given["sizes"]}
    if pictures:
        added["image_embeds"] = [one[:, None] for one in pictures]
    with torch.no_grad():
        return unet(given["latents"], 500, given["text_states"], added_cond_kwargs=added).sample


def pictures(count: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(9)
    return [torch.randn(2, WIDTH, generator=draw) for _ in range(count)]


def test_training_starts_where_the_denoiser_ended():
    plain = tiny.denoiser()
    adapted = add_image_prompt(copy.deepcopy(plain), WIDTH)
    assert has_image_prompt(adapted)
    assert get_embedding_width(adapted) == WIDTH
    assert torch.equal(answer(adapted, *pictures(1)), answer(plain))


def test_scale_zero_is_the_model_without_adapter():
    plain = tiny.denoiser()
    adapted = moved(copy.deepcopy(plain))
    assert (answer(adapted, *pictures(1)) - answer(plain)).abs().max() > 1e-3
    set_scale(adapted, 0.0)
    assert torch.equal(answer(adapted, *pictures(1)), answer(plain))
    assert torch.equal(answer(remove_image_prompt(adapted)), answer(plain))


def test_a_picture_starts_as_its_caption():
    plain = tiny.denoiser()
    given = tiny.conditions(batch=2)
    draw = torch.Generator().manual_seed(3)
    known = torch.randn(400, WIDTH, generator=draw) * torch.linspace(0.5, 2, WIDTH)
    width = given["text_states"].shape[-1]
    tokens = (known @ torch.randn(WIDTH, IMAGE_TOKENS * width, generator=draw)).view(400, IMAGE_TOKENS, width)
    tokens = 0.3 * torch.nn.functional.layer_norm(tokens, (width,)) + 0.1
    unet = add_image_prompt(copy.deepcopy(plain), WIDTH)
    start_from_captions(unet, known, tokens)
    added = {"text_embeds": given["text_pooled"], "time_ids": given["sizes"]}
    with torch.no_grad():
        text = plain(given["latents"], 500, tokens[:2], added_cond_kwargs=added).sample
        silent = plain(given["latents"], 500, torch.zeros_like(tokens[:2]), added_cond_kwargs=added).sample
        condition = added | {"image_embeds": [known[:2, None]]}
        picture = unet(given["latents"], 500, torch.zeros_like(tokens[:2]), added_cond_kwargs=condition).sample
    assert (picture - text).norm() < 0.3 * (silent - text).norm()


def test_an_untrained_picture_does_not_disturb_a_transformer():
    adapted = add_image_prompt(tiny.transformer(), WIDTH)
    draw = torch.Generator().manual_seed(3)
    embeddings, tokens = (torch.randn(9, *size, generator=draw) for size in ((WIDTH,), (IMAGE_TOKENS, tiny.TEXT_WIDTH)))
    start_from_captions(adapted, embeddings, tokens)
    for processor in get_image_processors(adapted).values():
        assert not any(parameter.any() for parameter in processor.to_v_ip[0].parameters())
        assert processor.to_k_ip[0].weight.any()


def test_tokens_of_a_caption_are_means_of_its_parts_without_its_start():
    states = torch.arange(2 * 9 * 3.0).view(2, 9, 3)
    tokens = compute_caption_tokens(states)
    assert tokens.shape == (2, IMAGE_TOKENS, 3)
    assert torch.equal(tokens[:, 0], states[:, 1:3].mean(dim=1))
    assert torch.equal(tokens[:, -1], states[:, 7:].mean(dim=1))


def test_captions_of_collages_say_nothing_of_their_pins_embedding(tmp_path: Path):
    write_random_shards(tmp_path / "shards", rows=6)
    pins = Shards(tmp_path / "shards")
    samples = [dict(pins[row]) for row in range(6)]
    samples.insert(1, samples[0] | {"view": "1", "kind": "product"})  # the first pin is a scene
    work = tmp_path / "more-work"
    write_shards(tmp_path / "more", 7, lambda rows: (samples[row] for row in rows), work=work, rows_per_shard=8)
    one, other = (
        collect_caption_tokens(ShardRows(tmp_path / name, lambda ids: torch.ones(len(ids), 3)))
        for name in ("shards", "more")
    )
    assert len(one[1]) == 2  # p001, p002: the others are scenes or held out
    assert torch.equal(one[1], other[1])


def test_stock_diffusers_gives_the_same_output(tmp_path: Path):
    plain = tiny.denoiser()
    adapted = moved(copy.deepcopy(plain))
    save_image_prompt(adapted, CONFIG, tmp_path)
    stock = tiny.sdxl_inpaint_pipeline(copy.deepcopy(plain))
    stock.load_ip_adapter(str(tmp_path), subfolder="", weight_name=WEIGHTS_FILE, image_encoder_folder=None)
    for scale in (0.0, 0.6, 1.0):
        set_scale(adapted, scale)
        stock.set_ip_adapter_scale(scale)
        difference = answer(adapted, *pictures(1)) - answer(stock.unet, *pictures(1))
        assert difference.abs().max() <= 1e-5


def test_a_stock_pipeline_paints_from_our_file_and_embeddings(tmp_path: Path):
    save_image_prompt(moved(tiny.denoiser()), CONFIG, tmp_path)
    stock = tiny.sdxl_inpaint_pipeline(tiny.denoiser())
    stock.load_ip_adapter(str(tmp_path), subfolder="", weight_name=WEIGHTS_FILE, image_encoder_folder=None)
    stock.set_progress_bar_config(disable=True)

    def painted(embedding: torch.Tensor) -> torch.Tensor:
        given = tiny.conditions(batch=2)
        nothing = {name: torch.zeros_like(given[name]) for name in ("text_states", "text_pooled")}
        return stock(
            image=torch.zeros(2, 3, 64, 64),
            mask_image=torch.ones(2, 1, 64, 64),
            height=64,
            width=64,
            prompt_embeds=given["text_states"],
            pooled_prompt_embeds=given["text_pooled"],
            negative_prompt_embeds=nothing["text_states"],
            negative_pooled_prompt_embeds=nothing["text_pooled"],
            ip_adapter_image_embeds=[torch.cat([torch.zeros_like(embedding), embedding])[:, None]],
            num_inference_steps=2,
            strength=1.0,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        ).images

    first, second = (one[:1] for one in pictures(2))
    assert (painted(first) - painted(second)).abs().max() > 1e-3


def test_what_is_saved_loads_here(tmp_path: Path):
    plain = tiny.denoiser()
    adapted = moved(copy.deepcopy(plain))
    save_image_prompt(adapted, CONFIG, tmp_path)
    again = load_image_prompt(plain, tmp_path)
    assert torch.equal(answer(again, *pictures(1)), answer(adapted, *pictures(1)))
    assert AdapterConfig.load(tmp_path) == CONFIG


def test_a_lora_may_be_there():
    """On every layer, added before; the adapter is none of them, and survives the merge."""
    unet = add_lora(tiny.denoiser(), rank=2, alpha=2)
    torch.manual_seed(3)
    for name, weight in unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    moved(unet)
    before = answer(unet, *pictures(1))
    trained = {name for name, weight in unet.named_parameters() if weight.requires_grad}
    assert all("lora_" in name or "_ip." in name or name.startswith("encoder_hid_proj") for name in trained)
    torch.testing.assert_close(answer(merge_lora(unet), *pictures(1)), before, atol=1e-5, rtol=1e-5)


def test_sets_add_up_by_their_weights():
    unet = moved(tiny.denoiser())
    layers = list(get_image_processors(unet))
    assert len(layers) == 4
    first, second = pictures(2)
    zero = torch.zeros_like(first)

    def painted(*weights: float) -> torch.Tensor:
        with use_image_prompts(unet, [resolve_layer_scales(unet, weight) for weight in weights]):
            return answer(unet, first, second)

    assert torch.allclose(painted(0.0, 0.7), _alone(unet, second, 0.7), atol=1e-6)
    assert not torch.allclose(painted(0.3, 0.7), _alone(unet, second, 0.7), atol=1e-4)
    with use_image_prompts(unet, [resolve_layer_scales(unet, 0.25)] * 4):
        four = answer(unet, first, first, first, first)
    assert torch.allclose(four, _alone(unet, first, 1.0), atol=1e-5)
    assert torch.equal(answer(unet, zero), answer(unet, zero))  # outside of the context: one set again


def _alone(unet: UNet2DConditionModel, picture: torch.Tensor, scale: float) -> torch.Tensor:
    with use_image_prompts(unet, [resolve_layer_scales(unet, scale)]):
        return answer(unet, picture)


def test_style_layers_alone_or_a_scale_of_each():
    unet = moved(tiny.denoiser())
    only = resolve_layer_scales(unet, {STYLE: 0.5})
    assert {layer for layer, scale in only.items() if scale} == {f"{STYLE}.transformer_blocks.0.attn2"}
    assert resolve_layer_scales(unet, {"up_blocks.0": 0.2, STYLE: 0.5, "mid_block": 1.0}) == {
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2": 0.0,
        "up_blocks.0.attentions.0.transformer_blocks.0.attn2": 0.2,
        "up_blocks.0.attentions.1.transformer_blocks.0.attn2": 0.5,
        "mid_block.attentions.0.transformer_blocks.0.attn2": 1.0,
    }
    assert set(resolve_layer_scales(unet, 2).values()) == {2.0}


def test_what_does_not_fit_is_refused(tmp_path: Path):
    unet = moved(tiny.denoiser())
    with pytest.raises(ValueError, match=r"layer is called up_blocks\.0\.attention: there are down_blocks\.1\.att"):
        resolve_layer_scales(unet, {"up_blocks.0.attention": 1.0, STYLE: 1.0})
    with pytest.raises(ValueError, match="layer is called up_blocks"):
        save_image_prompt(unet, AdapterConfig(source="uve", style_layers=("up_blocks.9",)), tmp_path)
    with pytest.raises(ValueError, match=r"holds no ip_adapter\.safetensors"):
        load_image_prompt(tiny.denoiser(), tmp_path)
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        AdapterConfig.load(tmp_path)
    save_image_prompt(unet, CONFIG, tmp_path)
    other = UNet2DConditionModel(**dict(tiny.denoiser().config) | {"cross_attention_dim": 32})
    with pytest.raises(ValueError, match=r"an adapter fits the denoiser that it was trained with"):
        load_image_prompt(other, tmp_path)
    assert not has_image_prompt(other)
