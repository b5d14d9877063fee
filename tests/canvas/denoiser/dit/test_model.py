from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from diffusers import FluxFillPipeline, FluxTransformer2DModel

from canvas.denoiser.dit.model import (
    add_inpaint_channels,
    build_dit_config,
    build_inpaint_input,
    build_token_places,
    check_architecture,
    count_inpaint_channels,
    has_inpaint_channels,
    pack_latents,
    unpack_latents,
)
from canvas.denoiser.dit.spec import DitSpec
from canvas.denoiser.loading import build_denoiser, load_denoiser
from canvas.denoiser.objective import DenoisingObjective
from canvas.masks.composite import compute_pixel_hole
from canvas.train.draws import Draws
from canvas.vae.model import LatentScale
from tests.canvas import tiny
from tests.canvas.denoiser.test_process import FLOW

CELL = 8
SIZES = {"latent_channels": 4, "sample_size": 8, "text_width": tiny.TEXT_WIDTH, "pooled_width": tiny.POOLED_WIDTH}
FLUX = DitSpec(
    heads=24, head_width=128, double_blocks=19, single_blocks=38, zero_modulation=False, rope_widths=(16, 56, 56)
)


def build_sample(given: dict[str, torch.Tensor]) -> torch.Tensor:
    return build_inpaint_input(given["latents"], torch.rand(1, CELL**2, 8, 8).round(), torch.randn(1, 4, 8, 8) * 100)


def test_flux_has_its_published_number_of_parameters() -> None:
    """The number is that of FLUX.1-schnell, which has no guidance embedding; FLUX.1-Fill reads 384 channels."""
    spec = dataclasses.replace(tiny.TRANSFORMER, dit=FLUX)
    with torch.device("meta"):
        model = build_denoiser(spec, latent_channels=16, sample_size=128, text_width=4096, pooled_width=768)
    assert sum(weight.numel() for weight in model.parameters()) == 11_891_178_560
    assert add_inpaint_channels(model, CELL).config["in_channels"] == 384


def test_tokens_are_packed_as_by_stock_diffusers() -> None:
    latents = torch.randn(2, 4, 6, 10)
    tokens = pack_latents(latents)
    assert torch.equal(tokens, FluxFillPipeline._pack_latents(latents, 2, 4, 6, 10))
    assert torch.equal(unpack_latents(tokens, 6, 10), latents)
    stock = FluxFillPipeline._prepare_latent_image_ids(2, 3, 5, latents.device, latents.dtype)
    assert torch.equal(build_token_places(3, 5, latents.device), stock)


def test_inpainting_starts_as_the_base() -> None:
    """To rounding: a longer row of products may be added up in another order."""
    given = tiny.conditions(batch=2)
    base = tiny.transformer()
    before = tiny.answer(base, given["latents"], given)
    inpaint = add_inpaint_channels(base, CELL)
    torch.testing.assert_close(tiny.answer(inpaint, build_sample(given), given), before, rtol=0, atol=1e-6)


def test_new_inputs_learn() -> None:
    given = tiny.conditions(batch=1)
    inpaint = add_inpaint_channels(tiny.transformer(), CELL)
    tokens = inpaint(
        hidden_states=pack_latents(
            build_inpaint_input(given["latents"], torch.ones(1, CELL**2, 8, 8), given["latents"])
        ),
        encoder_hidden_states=given["text_states"],
        pooled_projections=given["text_pooled"],
        timestep=torch.tensor([0.5]),
        img_ids=build_token_places(4, 4, torch.device("cpu")),
        txt_ids=torch.zeros(7, 3),
    ).sample
    tokens.square().mean().backward()
    assert (inpaint.x_embedder.weight.grad[:, 16:].abs().amax(dim=0) > 0).all()


def test_inpaint_channels_come_once() -> None:
    with pytest.raises(ValueError, match="already has 288 input channels for 16"):
        add_inpaint_channels(add_inpaint_channels(tiny.transformer(), CELL), CELL)
    assert count_inpaint_channels(4, CELL) == 288


def test_training_lowers_the_loss() -> None:
    torch.manual_seed(0)
    model = add_inpaint_channels(tiny.transformer(), CELL).train()
    draw = torch.Generator().manual_seed(0)
    batch = {
        "pin_id": ["0", "1"],
        "moments": torch.randn(2, 8, 8, 8, generator=draw),
        "text_states": torch.randn(2, 3, 7, tiny.TEXT_WIDTH, generator=draw),
        "text_pooled": torch.randn(2, 3, tiny.POOLED_WIDTH, generator=draw),
        "sizes": torch.tensor([[64, 64, 0, 0, 64, 64]]).repeat(2, 1),
        "masked": torch.randn(2, 2, 4, 8, 8, generator=draw),
        "holes": torch.randint(0, 2, (2, 2, CELL**2, 8, 8), generator=draw, dtype=torch.uint8),
    }
    scale = LatentScale(torch.zeros(4), torch.ones(4), 1.0)
    objective = DenoisingObjective(FLOW, scale, captions=9, caption_dropout=0.1, inpaint=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss, _ = objective(model, batch, Draws(seed=0, step=0, first=0, samples=2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_stock_diffusers_loads_what_we_save(tmp_path: Path) -> None:
    model = add_inpaint_channels(tiny.transformer(), CELL)
    model.save_pretrained(tmp_path)
    again = FluxTransformer2DModel.from_pretrained(tmp_path).eval()
    given = tiny.conditions(batch=1)
    sample = build_sample(given)
    answers = tiny.answer(again, sample, given), tiny.answer(model, sample, given)
    torch.testing.assert_close(*answers, rtol=0, atol=1e-6)
    ours = tiny.answer(load_denoiser(tmp_path).eval(), sample, given)
    torch.testing.assert_close(ours, answers[1], rtol=0, atol=1e-6)


def test_what_public_configs_leave_out_is_the_classs() -> None:
    """As FLUX.1-dev's file, which names neither the places' widths nor the outputs."""
    config = build_dit_config(FLUX, latent_channels=16, sample_size=128, text_width=4096, pooled_width=768)
    public = {"in_channels": 64, "patch_size": 1, "num_layers": 19, "num_single_layers": 38, "guidance_embeds": True}
    public |= {"attention_head_dim": 128, "num_attention_heads": 24}
    public |= {"joint_attention_dim": 4096, "pooled_projection_dim": 768}
    check_architecture(public, config, "public")
    assert not has_inpaint_channels(public)
    check_architecture(public | {"in_channels": 384, "out_channels": 64}, config, "public")
    with pytest.raises(ValueError, match="'public' has in_channels 384, the params say 64"):
        check_architecture(public | {"in_channels": 384}, config, "public")


@pytest.mark.parametrize("guidance", [False, True])
def test_starts_from_public_weights(tmp_path: Path, guidance: bool) -> None:
    """As FLUX.1-schnell and FLUX.1-dev: in their configs `out_channels` is null. Distilled guidance gets scale 1."""
    config = dict(tiny.transformer().config) | {"out_channels": None, "guidance_embeds": guidance}
    public = FluxTransformer2DModel(**config).eval()
    public.save_pretrained(tmp_path)
    model = build_denoiser(dataclasses.replace(tiny.TRANSFORMER, init_from=str(tmp_path)), **SIZES).eval()
    given = tiny.conditions(batch=2)
    with torch.no_grad():
        tokens = public(
            hidden_states=pack_latents(given["latents"]),
            encoder_hidden_states=given["text_states"],
            pooled_projections=given["text_pooled"],
            timestep=torch.tensor([0.5, 0.5]),
            img_ids=build_token_places(4, 4, torch.device("cpu")),
            txt_ids=torch.zeros(7, 3),
            guidance=torch.ones(2) if guidance else None,
        ).sample
    assert torch.equal(tiny.answer(model, given["latents"], given), unpack_latents(tokens, 8, 8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "has num_attention_heads 2, the params say 3"),
        ({"single_blocks": 2}, "has num_single_layers 1"),
        ({"rope_widths": (4, 4, 8)}, "has axes_dims_rope"),
    ],
)
def test_public_weights_of_another_architecture_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    tiny.transformer().save_pretrained(tmp_path)
    sizes = dataclasses.replace(tiny.DIT, **change)
    with pytest.raises(ValueError, match=message):
        build_denoiser(dataclasses.replace(tiny.TRANSFORMER, init_from=str(tmp_path), dit=sizes), **SIZES)


def test_public_weights_of_another_family_are_refused(tmp_path: Path) -> None:
    tiny.denoiser().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds a UNet2DConditionModel, and denoiser\.kind is dit: name a FluxTransf"):
        build_denoiser(dataclasses.replace(tiny.TRANSFORMER, init_from=str(tmp_path)), **SIZES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_widths": (4, 6, 4)}, r"\[4, 6, 4\]: give three even numbers that sum to .*, 16"),
        ({"rope_widths": (5, 5, 6)}, r"\[5, 5, 6\]: give three even"),
    ],
)
def test_spec_is_checked(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny.DIT, **change)


ZERO = dataclasses.replace(tiny.TRANSFORMER, dit=dataclasses.replace(tiny.DIT, zero_modulation=True))


def test_blocks_with_zero_modulation_pass_their_input_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_denoiser(ZERO, **SIZES).eval()
    blocks = [*model.transformer_blocks, *model.single_transformer_blocks]
    width = model.inner_dim
    for block in blocks:
        hidden, text, time = torch.randn(1, 5, width), torch.randn(1, 3, width), torch.randn(1, width)
        out_text, out_hidden = block(hidden_states=hidden, encoder_hidden_states=text, temb=time)
        assert torch.equal(out_hidden, hidden)
        assert torch.equal(out_text, text)
    given = tiny.conditions(batch=2)
    assert tiny.answer(model, given["latents"], given).abs().max() == 0
    stock_random = tiny.transformer().transformer_blocks[0]
    moved = stock_random(hidden_states=hidden, encoder_hidden_states=text, temb=time)[1]
    assert not torch.equal(moved, hidden)

    model.save_pretrained(tmp_path)
    stock = FluxTransformer2DModel.from_pretrained(tmp_path)
    assert all(torch.equal(weight, stock.state_dict()[name]) for name, weight in model.state_dict().items())
    tiny.transformer().save_pretrained(tmp_path / "plain")
    assert (tmp_path / "config.json").read_text() == (tmp_path / "plain" / "config.json").read_text()


def test_a_model_of_zero_modulation_learns_in_all_its_layers() -> None:
    torch.manual_seed(0)
    model = build_denoiser(ZERO, **SIZES).train()
    scale = LatentScale(torch.zeros(4), torch.ones(4), 1.0)
    objective = DenoisingObjective(FLOW, scale, captions=3, caption_dropout=0.0, inpaint=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    given = tiny.conditions(batch=4)
    batch = {
        "pin_id": list("abcd"),
        "moments": torch.cat([given["latents"], torch.full_like(given["latents"], -6.0)], dim=1),
        "text_states": given["text_states"][:, None],
        "text_pooled": given["text_pooled"][:, None],
        "sizes": given["sizes"],
    }
    for step in range(4):  # the output layer, then gates, then what is behind them
        optimizer.zero_grad()
        loss, _ = objective(model, batch, Draws(0, step, 0, 4))
        loss.backward()
        optimizer.step()
    last_text = ("ff_context", "to_add_out", "norm1_context.linear")  # of the last double block: single ones read it
    dead = [name for name, weight in model.named_parameters() if weight.grad is None or weight.grad.abs().max() == 0]
    assert [name for name in dead if not any(part in name for part in last_text)] == []


def test_zero_modulation_beside_public_weights_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"zero_modulation is true, but denoiser\.init_from 'some/model' brings weights"
    ):
        dataclasses.replace(ZERO, init_from="some/model")


def test_queries_and_keys_of_every_block_are_normalised() -> None:
    """QK norm is part of Flux's class: no param switches it."""
    attentions = [block.attn for model in [tiny.transformer()] for block in model.transformer_blocks]
    for norm in [norm for attention in attentions for norm in (attention.norm_added_q, attention.norm_added_k)]:
        assert isinstance(norm, torch.nn.RMSNorm)
    for block in [*tiny.transformer().transformer_blocks, *tiny.transformer().single_transformer_blocks]:
        assert isinstance(block.attn.norm_q, torch.nn.RMSNorm)
        assert isinstance(block.attn.norm_k, torch.nn.RMSNorm)


def test_odd_latents_are_refused() -> None:
    with pytest.raises(ValueError, match="latents of 7 cells cannot be packed"):
        build_denoiser(tiny.TRANSFORMER, **SIZES | {"sample_size": 7})


def test_holes_have_all_pixels() -> None:
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 3, 5] = 1
    hole = compute_pixel_hole(mask, CELL)
    assert hole.shape == (1, 64, 2, 2)
    assert hole.sum() == 16 * 16 - 1
    assert hole[0, 3 * CELL + 5, 0, 0] == 0
    kept = torch.ones(1, 1, 16, 16)
    kept[..., 0] = 0
    assert compute_pixel_hole(kept, CELL, 1).sum() == 16 * (1 + CELL)
