"""Steps that take over the guidance's difference, or what the blocks did, from an earlier step."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel

from canvas.denoiser.dit.model import add_inpaint_channels, build_inpaint_input, run_dit, run_dit_from_change
from canvas.denoiser.passes.stepping import check_reuse
from canvas.denoiser.process import build_training_scheduler
from canvas.denoiser.sampling import Condition
from canvas.denoiser.schedulers import build_scheduler
from canvas.denoiser.spec import DEFAULT_SAMPLING, PassSpec, ReuseSpec, count_comparisons
from tests.canvas import tiny
from tests.canvas.denoiser.dit.test_model import CELL
from tests.canvas.denoiser.test_process import FLOW

ROWS, STEPS, GUIDANCE = 3, 6, 2.5


@pytest.fixture
def model() -> FluxTransformer2DModel:
    made = add_inpaint_channels(tiny.transformer(), CELL)
    torch.manual_seed(4)
    torch.nn.init.normal_(made.x_embedder.weight, std=0.1)
    return made.eval()


def build_condition() -> Condition:
    given, draw = tiny.conditions(batch=ROWS), torch.Generator().manual_seed(6)
    return Condition(
        states=given["text_states"],
        pooled=given["text_pooled"],
        sizes=given["sizes"],
        hole=torch.randint(0, 2, (ROWS, CELL**2, 8, 8), generator=draw).float(),
        masked_latents=torch.randn(ROWS, 4, 8, 8, generator=draw),
    )


def sample(
    model: FluxTransformer2DModel, reuse: ReuseSpec | None, scheduler: str = "euler", **options: Any
) -> torch.Tensor:
    settings = {"steps": STEPS, "guidance_scale": GUIDANCE, "reuse": reuse} | options
    noise = tiny.conditions(batch=ROWS)["latents"]
    sampling = build_scheduler(scheduler, build_training_scheduler(FLOW))
    return tiny.sample_latents(model, sampling, noise, build_condition(), **settings)


def add_hook(model: FluxTransformer2DModel, calls: list[int]) -> None:
    """The model keeps its own forward pass, and its block passes are counted, by their rows."""
    block = model.single_transformer_blocks[0]
    block.register_forward_pre_hook(lambda module, args, kwargs: calls.append(len(kwargs["temb"])), with_kwargs=True)


@torch.no_grad()
def sample_step_by_step(model: FluxTransformer2DModel, guided: int, guidance: int, blocks: int) -> torch.Tensor:
    """The same in one plain loop: the conditional and the unconditional half each on their own."""
    condition, scheduler = build_condition(), build_training_scheduler(FLOW)
    scheduler.set_timesteps(STEPS)
    latents = tiny.conditions(batch=ROWS)["latents"]
    empty = {"states": torch.zeros_like(condition.states), "pooled": torch.zeros_like(condition.pooled)}
    halves = {"full": {"states": condition.states, "pooled": condition.pooled}, "empty": empty}
    changes: dict[str, torch.Tensor] = {}
    for step, timestep in enumerate(scheduler.timesteps):
        inputs = build_inpaint_input(latents, condition.hole, condition.masked_latents)
        compares = step < guided and step % guidance == 0
        asked = ["full", "empty"] if compares else ["full"]
        made = {}
        reuses = step % blocks > 0 and all(name in changes for name in asked)
        for name in asked:
            row = tiny.DenoiserCondition(**halves[name], sizes=condition.sizes, images=None)
            change = changes[name] if reuses else None
            made[name], changes[name] = run_dit_from_change(model, inputs, timestep, row, change)
        if not compares:
            changes.pop("empty", None)
        prediction = made["full"]
        if compares:
            difference = made["full"] - made["empty"]
        if step < guided:
            prediction = prediction + (GUIDANCE - 1) * difference
        latents = scheduler.step(prediction, timestep, latents).prev_sample
    return latents


def test_nothing_is_reused_unless_it_is_asked_for(model: FluxTransformer2DModel) -> None:
    plain = sample(model, None)
    assert torch.equal(sample(model, ReuseSpec(guidance=1, blocks=1)), plain)
    for reuse in (ReuseSpec(guidance=2, blocks=1), ReuseSpec(guidance=1, blocks=2)):
        assert not torch.equal(sample(model, reuse), plain)


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize(("guidance", "blocks"), [(2, 1), (3, 1), (1, 2), (2, 2), (1, 3)])
def test_steps_take_over_what_a_plain_loop_does(
    model: FluxTransformer2DModel, guidance: int, blocks: int, hooked: bool
) -> None:
    expected = sample_step_by_step(model, 4, guidance, blocks)
    if hooked:
        add_hook(model, [])
    made = sample(model, ReuseSpec(guidance=guidance, blocks=blocks), guidance_stop=4 / 6)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)


def test_fewer_rows_pass_through_the_blocks(model: FluxTransformer2DModel) -> None:
    calls: list[int] = []
    add_hook(model, calls)
    passes = {}
    for guidance, blocks in ((1, 1), (2, 1), (1, 2)):
        calls.clear()
        sample(model, ReuseSpec(guidance=guidance, blocks=blocks), guidance_stop=4 / 6)
        passes[guidance, blocks] = [rows // ROWS for rows in calls]
    assert passes == {(1, 1): [2, 2, 2, 2, 1, 1], (2, 1): [2, 1, 2, 1, 1, 1], (1, 2): [2, 2, 1]}


def test_what_is_reused_is_near(model: FluxTransformer2DModel) -> None:
    plain, unguided = sample(model, None), sample(model, None, guidance_scale=1.0)
    for reuse in (ReuseSpec(guidance=2, blocks=1), ReuseSpec(guidance=1, blocks=2)):
        assert (sample(model, reuse) - plain).norm() < 0.3 * (unguided - plain).norm()


def test_a_change_of_the_same_step_gives_its_prediction(model: FluxTransformer2DModel) -> None:
    given, condition = tiny.conditions(batch=ROWS), build_condition()
    row = tiny.DenoiserCondition(states=condition.states, pooled=condition.pooled, sizes=condition.sizes, images=None)
    inputs, time = build_inpaint_input(given["latents"], condition.hole, condition.masked_latents), torch.tensor(400.0)
    with torch.no_grad():
        prediction, change = run_dit_from_change(model, inputs, time, row, None)
        again, same = run_dit_from_change(model, inputs, time, row, change)
        assert torch.equal(prediction, run_dit(model, inputs, time, row))
    assert same is change
    torch.testing.assert_close(again, prediction, rtol=1e-5, atol=1e-5)
    assert not model.x_embedder._forward_hooks
    assert not model.norm_out._forward_pre_hooks


@pytest.mark.parametrize("scheduler", ["euler", "dpm++"])
def test_dropped_candidates_do_not_change_those_that_stay(model: FluxTransformer2DModel, scheduler: str) -> None:
    reuse, options = ReuseSpec(guidance=2, blocks=2), {"scheduler": scheduler, "guidance_stop": 0.5}
    whole = sample(model, reuse, **options)
    left = sample(model, reuse, **options, selectors={1: lambda clean: [2, 0], 4: lambda clean: [1, 0]})
    torch.testing.assert_close(left, whole[[0, 2]], rtol=1e-4, atol=1e-4)


def build_weak(model: FluxTransformer2DModel) -> FluxTransformer2DModel:
    weak = copy.deepcopy(model)
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in weak.parameters():
            weight.add_(0.1 * weight.std() * torch.randn_like(weight) if weight.numel() > 1 else 0)
    return weak.eval()


@torch.no_grad()
def sample_autoguided(
    model: FluxTransformer2DModel, weak: FluxTransformer2DModel, guided: int, scale: float, autoguidance: float
) -> torch.Tensor:
    """Guidance and autoguidance in one plain loop."""
    condition, scheduler = build_condition(), build_training_scheduler(FLOW)
    scheduler.set_timesteps(STEPS)
    latents = tiny.conditions(batch=ROWS)["latents"]
    full = tiny.DenoiserCondition(states=condition.states, pooled=condition.pooled, sizes=condition.sizes, images=None)
    empty = replace(full, states=torch.zeros_like(full.states), pooled=torch.zeros_like(full.pooled))
    for step, timestep in enumerate(scheduler.timesteps):
        inputs = build_inpaint_input(latents, condition.hole, condition.masked_latents)
        prediction = strong = run_dit(model, inputs, timestep, full)
        if step < guided:
            prediction = strong + (scale - 1) * (strong - run_dit(model, inputs, timestep, empty))
            prediction = prediction + autoguidance * (strong - run_dit(weak, inputs, timestep, full))
        latents = scheduler.step(prediction, timestep, latents).prev_sample
    return latents


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("scale", [1.0, GUIDANCE])
def test_autoguidance_leads_away_from_the_weaker_denoiser(
    model: FluxTransformer2DModel, scale: float, hooked: bool
) -> None:
    weak = build_weak(model)
    expected = sample_autoguided(model, weak, 4, scale, 0.5)
    if hooked:
        add_hook(model, [])
    options = {"guidance_scale": scale, "guidance_stop": 4 / 6}
    made = sample(model, None, weak=weak, autoguidance_scale=0.5, **options)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(
        sample(model, None, weak=weak, autoguidance_scale=0.0, **options), sample(model, None, **options)
    )


def test_a_weaker_denoiser_that_is_none_changes_nothing(model: FluxTransformer2DModel) -> None:
    made = sample(model, None, weak=copy.deepcopy(model), autoguidance_scale=0.5)
    torch.testing.assert_close(made, sample(model, None), rtol=1e-4, atol=1e-4)


def test_autoguidance_goes_with_reuse_and_with_candidates_that_are_dropped(model: FluxTransformer2DModel) -> None:
    weak, calls = build_weak(model), []
    options = {"weak": weak, "autoguidance_scale": 0.5, "guidance_stop": 0.7}
    add_hook(weak, calls)
    whole = sample(model, ReuseSpec(guidance=2, blocks=1), **options)
    assert calls == [ROWS, ROWS]  # of four guided steps every other compares
    left = sample(model, ReuseSpec(guidance=2, blocks=1), **options, selectors={1: lambda clean: [2, 0]})
    torch.testing.assert_close(left, whole[[2, 0]], rtol=1e-4, atol=1e-4)


def test_autoguidance_without_a_weaker_denoiser_is_refused(model: FluxTransformer2DModel) -> None:
    with pytest.raises(ValueError, match=r"autoguidance_scale is 0\.5, but this denoiser has no LoRAs .*: use 0"):
        sample(model, None, autoguidance_scale=0.5)


def test_what_a_denoiser_cannot_reuse_is_named(model: FluxTransformer2DModel) -> None:
    with pytest.raises(ValueError, match=r"reuse\.blocks is 2, but a UNet's blocks are not reused: use 1"):
        check_reuse(ReuseSpec(guidance=1, blocks=2), tiny.denoiser())
    distilled = FluxTransformer2DModel.from_config(dict(model.config) | {"guidance_embeds": True})
    with pytest.raises(ValueError, match=r"reuse\.guidance is 3, but this denoiser was distilled with guidance"):
        sample(distilled, ReuseSpec(guidance=3, blocks=1))
    check_reuse(ReuseSpec(guidance=2, blocks=1), tiny.denoiser())
    check_reuse(ReuseSpec(guidance=1, blocks=2), distilled)


@pytest.mark.parametrize(
    ("scale", "stop", "reuse", "expected"),
    [
        (4.0, 0.7, None, 8),
        (4.0, 0.7, ReuseSpec(guidance=2, blocks=1), 4),
        (4.0, 0.7, ReuseSpec(guidance=3, blocks=2), 3),
        (1.0, 0.7, None, 0),
        (4.0, 0.0, None, 0),
    ],
)
def test_comparisons_are_counted(scale: float, stop: float, reuse: ReuseSpec | None, expected: int) -> None:
    sampling = replace(DEFAULT_SAMPLING, steps=12, guidance_scale=scale, guidance_stop=stop, reuse=reuse)
    assert count_comparisons(sampling) == expected
    assert count_comparisons(sampling.build_spec(PassSpec(batch_size=2, precision="fp32"))) == expected
