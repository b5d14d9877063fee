from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from canvas.denoiser.schedulers import build_scheduler, predict_clean_latents
from canvas.inference.selection import (
    HALVING,
    DropStep,
    SelectionCost,
    count_denoiser_calls,
    count_image_steps,
    plan_drops,
    rank_candidates,
    select_best,
)
from canvas.reward.model import RewardModel
from tests.canvas.inference.conftest import cutout
from tests.canvas.public_models import write_clip
from tests.canvas.reward.test_model import build_tiny_reward

OPTIONS = {"num_inference_steps": 8, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def reward() -> RewardModel:
    """Random, but not blind: its answers differ from image to image."""
    model = build_tiny_reward(seed=1)
    model.register_to_config(rated=True)
    with torch.no_grad():
        for layer in model.answers:
            if isinstance(layer, torch.nn.Linear):
                layer.weight.mul_(8)
    return model


def test_the_best_are_those_that_the_reward_model_likes_and_their_seeds_generate_them(pipeline, reward):
    product = cutout(64, 64)
    every = select_best(pipeline, reward, product, "a mug, forest", candidates=4, top=4, seed=5, **OPTIONS)
    overall = [scores["overall"] for scores in every.scores]
    assert overall == sorted(overall, reverse=True)
    assert len(set(overall)) > 1
    assert sorted(every.seeds) == [5, 6, 7, 8]
    two = select_best(pipeline, reward, product, "a mug, forest", candidates=4, top=2, seed=5, **OPTIONS)
    assert two.seeds == every.seeds[:2]
    alone = pipeline(product, "a mug, forest", seed=two.seeds[0], **OPTIONS).images[0]
    assert np.abs(np.array(alone).astype(int) - np.array(two.images[0])).max() <= 1
    assert two.cost == SelectionCost(denoiser_calls=2 * 4 * 8, scored_images=4)


def test_public_rewards_choose_by_their_directory(pipeline, tmp_path):
    write_clip(tmp_path / "clip")
    product, options = cutout(64, 64), {"candidates": 4, "seed": 5, **OPTIONS}
    every = select_best(pipeline, tmp_path / "clip", product, "a mug, forest", top=4, **options)
    overall = [scores["overall"] for scores in every.scores]
    assert overall == sorted(overall, reverse=True)
    assert len(set(overall)) > 1
    best = select_best(pipeline, str(tmp_path / "clip"), product, "a mug, forest", top=1, drops=HALVING, **options)
    assert best.cost.scored_images == 4 + 2 + 1
    with pytest.raises(ValueError, match="compares images with their prompt"):
        select_best(pipeline, str(tmp_path / "clip"), product, None, top=1, **options)


def test_a_model_that_tells_backgrounds_ranks_by_the_one_asked_for():
    scores = {"overall": torch.tensor([0.9, 0.1, 0.5]), "background": torch.tensor([0.2, 0.8, 0.8])}
    assert rank_candidates(scores) == [1, 2, 0]
    assert rank_candidates({"overall": scores["overall"]}) == [0, 2, 1]


def test_dropping_generates_survivors_as_if_nothing_had_been_dropped_and_counts_its_calls(pipeline, reward):
    product, drops = cutout(48, 80), (DropStep(0.25, 0.5), DropStep(0.5, 0.25))
    best = select_best(pipeline, reward, product, "a mug, forest", candidates=8, top=1, seed=0, drops=drops, **OPTIONS)
    assert best.cost == SelectionCost(denoiser_calls=2 * (8 * 2 + 4 * 2 + 2 * 4), scored_images=8 + 4 + 2)
    assert best.cost.denoiser_calls == 2 * count_image_steps(drops, 8, 1, 8)
    alone = pipeline(product, "a mug, forest", seed=best.seeds[0], **OPTIONS).images[0]
    assert np.abs(np.array(alone).astype(int) - np.array(best.images[0])).max() <= 1


def test_a_drop_that_comes_with_the_last_step_drops_nothing(pipeline, reward):
    product = cutout(64, 64)
    options = {"candidates": 6, "top": 2, "seed": 0, **OPTIONS}
    plain = select_best(pipeline, reward, product, "a mug, forest", **options)
    late = select_best(pipeline, reward, product, "a mug, forest", drops=(DropStep(0.99, 0.5),), **options)
    assert plan_drops((DropStep(0.99, 0.5),), 6, 2, 8) == {}
    assert late.seeds == plain.seeds


def test_half_of_the_work_on_sixteen_candidates_is_saved():
    assert count_image_steps((), 16, 1, 20) == 320
    assert count_image_steps(HALVING, 16, 1, 20) == 156
    assert plan_drops(HALVING, 16, 1, 20) == {5: 8, 9: 4}
    assert plan_drops(HALVING, 16, 6, 20) == {5: 8, 9: 6}
    assert plan_drops(HALVING, 2, 2, 20) == {}


@pytest.mark.parametrize(
    "drops",
    [
        (DropStep(0.5, 0.5), DropStep(0.25, 0.25)),
        (DropStep(0.2, 0.5), DropStep(0.4, 0.5)),
        (DropStep(1.0, 0.5),),
        (DropStep(0.5, 0),),
    ],
)
def test_drops_out_of_order_are_refused(drops):
    with pytest.raises(ValueError, match="drops must come later"):
        plan_drops(drops, 8, 1, 20)


@pytest.mark.parametrize("top", [0, 5])
def test_more_than_there_are_cannot_be_chosen(pipeline, reward, top):
    with pytest.raises(ValueError, match=f"top is {top}"):
        select_best(pipeline, reward, cutout(64, 64), "a mug", candidates=4, top=top, seed=0)


def test_samplers_that_remember_earlier_steps_are_refused(pipeline, reward):
    with pytest.raises(ValueError, match="dropped early with FlowMatchHeun"):
        select_best(
            pipeline,
            reward,
            cutout(64, 64),
            "a mug",
            candidates=4,
            top=1,
            seed=0,
            drops=HALVING,
            scheduler="heun",
            **OPTIONS,
        )


def test_calls_are_counted_only_within_the_context(pipeline):
    cost = SelectionCost()
    with count_denoiser_calls(pipeline, cost):
        pipeline(cutout(64, 64), "a mug", num_inference_steps=3, guidance_scale=1.0, num_candidates=2, seed=0)
    pipeline(cutout(64, 64), "a mug", num_inference_steps=3, guidance_scale=1.0, seed=0)
    assert cost.denoiser_calls == 6


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerDiscreteScheduler])
def test_clean_predictions_are_those_of_diffusers(scheduler, kind):
    options = {"clip_sample": False} if scheduler is DDIMScheduler else {}
    sampling = scheduler(prediction_type=kind, **options)
    sampling.set_timesteps(10)
    draw = torch.Generator().manual_seed(0)
    latents, prediction = (torch.randn(2, 4, 3, 3, generator=draw) for _ in range(2))
    for step, time in enumerate(sampling.timesteps):
        sampling.scale_model_input(latents, time)
        ours = predict_clean_latents(sampling, prediction, latents, step)
        theirs = sampling.step(prediction, time, latents).pred_original_sample
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_clean_predictions_of_a_solver_of_flows_are_those_of_diffusers(pipeline):
    sampling = build_scheduler("dpm++", pipeline.scheduler)
    sampling.set_timesteps(6)
    latents, prediction = torch.randn(2, 2, 6, 4, 4)
    for step, time in enumerate(sampling.timesteps):
        ours = predict_clean_latents(sampling, prediction, latents, step)
        sampling.step(prediction, time, latents)
        torch.testing.assert_close(ours, sampling.model_outputs[-1])


def test_the_last_clean_prediction_of_a_flow_is_what_comes_out(pipeline):
    sampling = pipeline.scheduler
    sampling.set_timesteps(6)
    latents, prediction = torch.randn(2, 2, 6, 4, 4)
    sampling._step_index = 5
    ours = predict_clean_latents(sampling, prediction, latents, 5)
    torch.testing.assert_close(ours, sampling.step(prediction, sampling.timesteps[5], latents).prev_sample)
