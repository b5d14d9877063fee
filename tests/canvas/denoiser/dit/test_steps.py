"""Prepared steps give what the transformer's own forward pass gives; models that they cannot follow keep theirs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch.nn import functional as F

from canvas.denoiser.dit import steps
from canvas.denoiser.dit.family import DIT
from canvas.denoiser.dit.model import add_inpaint_channels, build_inpaint_input, run_dit
from canvas.denoiser.dit.steps import PreparedDit, activate, can_prepare
from canvas.denoiser.family import DenoiserCondition
from canvas.denoiser.image_prompt import resolve_layer_scales, use_image_prompts
from canvas.denoiser.lora import add_lora, fuse_loras, merge_lora
from canvas.denoiser.process import build_training_scheduler
from canvas.denoiser.sampling import Condition
from canvas.denoiser.unet.family import UNET
from tests.canvas import tiny
from tests.canvas.denoiser.dit.test_model import CELL
from tests.canvas.denoiser.dit.test_stock import WIDTH, add_learnt_image_prompt, add_learnt_lora
from tests.canvas.denoiser.test_process import FLOW

ROWS, SIZE = 3, (8, 12)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def base() -> FluxTransformer2DModel:
    """An inpainting transformer whose weights are all at work."""
    model = add_inpaint_channels(tiny.transformer(), CELL)
    torch.manual_seed(4)
    for name, weight in model.named_parameters():
        torch.nn.init.normal_(weight, mean=float("norm_" in name and "norm_out" not in name), std=0.15)
    return model.eval()


def build_condition(rows: int = ROWS, images: int = 0) -> DenoiserCondition:
    draw = torch.Generator().manual_seed(1)
    sets = [torch.randn(rows, 1, WIDTH, generator=draw) for _ in range(images)]
    return DenoiserCondition(
        states=torch.randn(rows, 7, tiny.TEXT_WIDTH, generator=draw),
        pooled=torch.randn(rows, tiny.POOLED_WIDTH, generator=draw),
        sizes=torch.zeros(rows, 6),
        images=sets or None,
    )


def build_parts(rows: int = ROWS) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy latents, hole and masked latents."""
    draw = torch.Generator().manual_seed(2)
    noisy, masked = (torch.randn(rows, 4, *SIZE, generator=draw) for _ in range(2))
    return noisy, torch.randint(0, 2, (rows, CELL**2, *SIZE), generator=draw).float(), masked


@torch.no_grad()
def compare(model: FluxTransformer2DModel, condition: DenoiserCondition) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions at two timesteps by prepared steps, and by the model."""
    assert can_prepare(model)
    noisy, hole, masked = build_parts()
    prepared = PreparedDit(model, condition, hole, masked, SIZE)
    times = [torch.tensor(number) for number in (930.25, 41.0)]
    whole = build_inpaint_input(noisy, hole, masked).repeat(len(condition.states) // ROWS, 1, 1, 1)
    return (
        torch.stack([prepared(noisy, time)[0] for time in times]),
        torch.stack([run_dit(model, whole, time, condition) for time in times]),
    )


@pytest.mark.parametrize(("rows", "at_once"), [(ROWS, 8), (2 * ROWS, 8), (2 * ROWS, 2), (2 * ROWS, 4)])
def test_prepared_steps_equal_the_model(
    base: FluxTransformer2DModel, rows: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "ROWS", at_once)
    ours, stock = compare(base, build_condition(rows))
    assert stock.std() > 0.1
    torch.testing.assert_close(ours, stock, **CLOSE)


def test_text_to_image_is_prepared_too() -> None:
    model, condition, (noisy, _, _) = tiny.transformer(), build_condition(), build_parts()
    time = torch.tensor(500.0)
    with torch.no_grad():
        ours = PreparedDit(model, condition, None, None, SIZE)(noisy, time)[0]
        torch.testing.assert_close(ours, run_dit(model, noisy, time, condition), **CLOSE)


def test_distilled_guidance_is_read(base: FluxTransformer2DModel) -> None:
    config = dict(base.config) | {"guidance_embeds": True}
    torch.manual_seed(3)
    model = FluxTransformer2DModel.from_config(config).eval()
    plain, guided = build_condition(), build_condition().select_rows(slice(None))
    object.__setattr__(guided, "guidance", torch.full((ROWS,), 30.0))
    without, stock = compare(model, plain)
    torch.testing.assert_close(without, stock, **CLOSE)
    ours, stock = compare(model, guided)
    torch.testing.assert_close(ours, stock, **CLOSE)
    assert not torch.allclose(ours, without, atol=1e-3)


@pytest.mark.parametrize("change", ["beside", "off", "fused", "merged"])
def test_loras_count_as_they_do_in_the_model(base: FluxTransformer2DModel, change: str) -> None:
    plain = compare(copy.deepcopy(base), build_condition())[1]
    model = add_learnt_lora(base)
    if change == "off":
        model.disable_lora()
    if change == "merged":
        merge_lora(model)
    if change == "fused":
        with fuse_loras(model, ["default"]):
            ours, stock = compare(model, build_condition())
    else:
        ours, stock = compare(model, build_condition())
    torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)
    assert torch.allclose(ours, plain, atol=1e-4) == (change == "off")


@pytest.mark.parametrize("scales", [(0.0,), (0.7,), (0.4, 1.0)])
def test_image_prompts_count_as_they_do_in_the_model(
    base: FluxTransformer2DModel, scales: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "ROWS", 2)
    model = add_learnt_image_prompt(base)
    with use_image_prompts(model, [resolve_layer_scales(model, scale) for scale in scales]):
        ours, stock = compare(model, build_condition(images=len(scales)))
    torch.testing.assert_close(ours, stock, **CLOSE)


def test_half_precision_stays_as_near_as_it_is(base: FluxTransformer2DModel) -> None:
    exact = compare(base, build_condition())[1]
    model = base.to(torch.bfloat16)
    condition, (noisy, hole, masked) = build_condition(), (part.bfloat16() for part in build_parts())
    halved = DenoiserCondition(
        states=condition.states.bfloat16(), pooled=condition.pooled.bfloat16(), sizes=condition.sizes, images=None
    )
    with torch.no_grad():
        ours = PreparedDit(model, halved, hole, masked, SIZE)(noisy, torch.tensor(930.25))[0]
        stock = run_dit(model, build_inpaint_input(noisy, hole, masked), torch.tensor(930.25), halved)
    assert ours.dtype == stock.dtype == torch.bfloat16
    assert (ours - exact[0]).abs().mean() <= 1.2 * (stock - exact[0]).abs().mean()


def test_gelu_is_stocks() -> None:
    values = torch.linspace(-30, 30, 200_001)
    torch.testing.assert_close(activate(values), F.gelu(values, approximate="tanh"), rtol=1e-5, atol=1e-5)
    rounded = values.bfloat16()
    assert torch.equal(activate(rounded), F.gelu(rounded, approximate="tanh"))


def hook(model: FluxTransformer2DModel) -> None:
    model.single_transformer_blocks[0].register_forward_hook(lambda *_: None)


def replace_forward(model: FluxTransformer2DModel) -> None:
    layer = model.proj_out
    layer.forward = partial(type(layer).forward, layer)


def fuse(model: FluxTransformer2DModel) -> None:
    model.fuse_qkv_projections()


def compile_block(model: FluxTransformer2DModel) -> None:
    block = model.single_transformer_blocks[0]
    block._compiled_call_impl = block._call_impl  # as its `compile` leaves it, which takes seconds


def halve(model: FluxTransformer2DModel) -> None:
    model.to(torch.float16)


def add_dora(model: FluxTransformer2DModel) -> None:
    from peft import LoraConfig

    model.add_adapter(LoraConfig(r=2, target_modules=["proj_mlp"], use_dora=True), "dora")


def quantise(model: FluxTransformer2DModel) -> None:
    class Quantised(torch.nn.Linear):
        """As bitsandbytes' layers are linear ones of torch, whose weights mean something else."""

    model.single_transformer_blocks[0].proj_mlp.__class__ = Quantised


def enable_cache(model: FluxTransformer2DModel) -> None:
    from diffusers import FirstBlockCacheConfig

    model.enable_cache(FirstBlockCacheConfig())


@pytest.mark.parametrize(
    "change",
    [hook, replace_forward, fuse, compile_block, halve, add_dora, quantise, enable_cache],
    ids=lambda change: change.__name__,
)
def test_what_else_runs_in_the_model_keeps_its_own_pass(
    base: FluxTransformer2DModel, change: Callable[[FluxTransformer2DModel], None]
) -> None:
    assert DIT.choose_preparation(base) is PreparedDit
    change(base)
    assert DIT.choose_preparation(base) is None


def test_large_models_and_unets_keep_their_own_pass(
    base: FluxTransformer2DModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "MAX_PARAMETERS", sum(weight.numel() for weight in base.parameters()) - 1)
    assert DIT.choose_preparation(base) is None
    assert UNET.choose_preparation(tiny.denoiser()) is None


@pytest.mark.parametrize("stop", [0.5, 1.0])
def test_sampling_is_the_same_by_both(base: FluxTransformer2DModel, stop: float) -> None:
    """With guidance that stops, a LoRA beside the weights, an image prompt, and candidates dropped on the way."""
    model = add_learnt_image_prompt(add_lora(base, rank=2, alpha=2).eval())
    given = tiny.conditions(batch=4)
    draw = torch.Generator().manual_seed(6)
    condition = Condition(
        states=given["text_states"],
        pooled=given["text_pooled"],
        sizes=given["sizes"],
        hole=torch.randint(0, 2, (4, CELL**2, 8, 8), generator=draw).float(),
        masked_latents=torch.randn(4, 4, 8, 8, generator=draw),
        image_embeddings=torch.randn(4, 1, WIDTH, generator=draw),
    )

    def sample() -> torch.Tensor:
        return tiny.sample_latents(
            model,
            build_training_scheduler(FLOW),
            given["latents"],
            condition,
            steps=4,
            guidance_scale=3.0,
            guidance_stop=stop,
            selectors={1: lambda clean: [3, 0, 2], 3: lambda clean: [1, 0]},
        )

    assert can_prepare(model)
    prepared = sample()
    hook(model)
    torch.testing.assert_close(prepared, sample(), rtol=1e-4, atol=1e-4)
