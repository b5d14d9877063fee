"""A long image denoised in windows: each sees its own part, and where they overlap their answers are averaged."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from canvas.denoiser.family import Denoiser
from canvas.denoiser.passes.windows import LatentPlace, average_predictions, compute_weight
from canvas.denoiser.sampling import Condition, Window
from tests.canvas import tiny
from tests.canvas.denoiser.test_process import FLOW, build_training_scheduler

PLACES = [LatentPlace(0, start, 6, 8) for start in (0, 4, 8)]


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def test_what_all_windows_agree_on_is_the_answer() -> None:
    latents = draw(2, 4, 6, 16)
    averaged = average_predictions(latents, PLACES, [1.0, 1.0, 1.0], lambda part, factor: part * factor)
    assert torch.allclose(averaged, latents, atol=1e-6)


def test_where_windows_disagree_the_answer_goes_over_from_one_to_the_other() -> None:
    latents = torch.ones(1, 1, 6, 16)
    line = average_predictions(latents, PLACES, [0.0, 1.0, 5.0], lambda part, factor: part * factor)[0, 0, 0]
    assert line[:4].eq(0).all()
    assert line[12:].eq(5).all()
    assert (line.diff() >= 0).all()
    assert line.diff().max() < 1.5  # no window ends with a step


def test_one_window_is_the_answer_itself() -> None:
    latents = draw(1, 4, 6, 8)
    assert torch.equal(average_predictions(latents, PLACES[:1], [3.0], lambda part, factor: part * factor), latents * 3)


def test_weights_are_least_at_the_ends_and_above_zero() -> None:
    weight = compute_weight(6, 8)
    assert weight.shape == (6, 8)
    assert weight.min() > 0
    assert weight[0, 0] == weight.min()
    assert weight[2:4, 3:5].eq(weight.max()).all()


def test_a_gap_between_windows_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="do not cover"):
        average_predictions(draw(1, 1, 6, 17), PLACES, [1.0] * 3, lambda part, factor: part)


def build_condition(seed: int) -> Condition:
    given = tiny.conditions(1, seed=seed)
    return Condition(states=given["text_states"], pooled=given["text_pooled"], sizes=given["sizes"])


@pytest.mark.parametrize("build", [tiny.denoiser, tiny.transformer])
@pytest.mark.parametrize("settings", [{"guidance_scale": 1.0}, {"guidance_scale": 3.0, "guidance_stop": 0.5}])
def test_windows_of_one_image_are_sampled_as_one(build: Callable[[], Denoiser], settings: dict[str, float]) -> None:
    """One window over all is the plain way, to the bit; several make another image, that follows each one's text."""
    unet, scheduler = build(), build_training_scheduler(FLOW)
    noise, first, other = draw(2, 4, 8, 8), build_condition(1), build_condition(2)
    plain = tiny.sample_latents(unet, scheduler, noise, first, steps=4, **settings)
    whole = tiny.sample_latents(unet, scheduler, noise, [Window(LatentPlace(0, 0, 8, 8), first)], steps=4, **settings)
    assert torch.equal(plain, whole)
    long = draw(2, 4, 8, 16)
    places = [LatentPlace(0, start, 8, 8) for start in (0, 4, 8)]
    made, changed = (
        tiny.sample_latents(
            unet,
            scheduler,
            long,
            [*(Window(place, first) for place in places[:2]), Window(places[2], last)],
            steps=4,
            **settings,
        )
        for last in (first, other)
    )
    assert torch.isfinite(made).all()
    assert not torch.equal(made[..., 8:], changed[..., 8:])
    alone = tiny.sample_latents(
        unet, scheduler, long[:1], [Window(place, first) for place in places], steps=4, **settings
    )
    assert torch.allclose(alone, made[:1], atol=1e-4)  # whatever is in the pass beside it


def test_images_are_dropped_in_all_windows() -> None:
    unet, scheduler, long = tiny.denoiser(), build_training_scheduler(FLOW), draw(3, 4, 8, 16)
    windows = [Window(LatentPlace(0, start, 8, 8), build_condition(1)) for start in (0, 8)]
    settings = {"steps": 4, "guidance_scale": 2.0}
    kept = tiny.sample_latents(unet, scheduler, long, windows, selectors={2: lambda clean: [2, 0]}, **settings)
    every = tiny.sample_latents(unet, scheduler, long, windows, **settings)
    assert torch.allclose(kept, every[[2, 0]], atol=1e-4)
