"""Return the best of many candidates by the reward model, and drop weak ones before they are generated to the end.

Dropping is successive halving (Jamieson and Talwalkar 2016): what an image will look like is guessed from the
denoiser's prediction of the clean latents, every guess is scored, and the better ones alone are denoised further.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from canvas.inference.pipeline import CandidateSelector, CanvasPipeline
from canvas.inference.product import Product
from canvas.pins.images import Pixels
from canvas.reward.model import RewardModel, predict_scores


@dataclass(frozen=True, slots=True)
class DropStep:
    """When candidates are dropped, and how many stay."""

    after: float  # fraction of the steps
    keep: float  # fraction of all candidates


HALVING = (DropStep(0.25, 0.5), DropStep(0.45, 0.25))
"""Half after a quarter of the steps, all but a quarter before half-way: 49 % of the denoiser's work on 16 candidates.
Of the schedules within half that bench/selection.py tries, the nearest to painting all."""


@dataclass(slots=True)
class Cost:
    """What a selection took, counted as it happened."""

    denoiser_calls: int = 0  # images that went through the denoiser; guidance takes two of a step and a candidate
    scored: int = 0  # images and guesses that were decoded and scored


@dataclass(frozen=True, slots=True)
class RankedImages:
    """The best images first."""

    images: list[Image.Image]
    seeds: list[int]  # of each: the pipeline makes the same image from it
    scores: list[Mapping[str, float]]  # of each, by name (canvas.reward.model.predict_scores)
    product: Product
    cost: Cost = field(default_factory=Cost)


def select_best(
    pipeline: CanvasPipeline,
    reward: RewardModel,
    product: Image.Image,
    prompt: str | None,
    *,
    candidates: int,
    top: int,
    seed: int,
    drops: Sequence[DropStep] = (),
    **options: Any,
) -> RankedImages:
    """Return the `top` of `candidates` images of seeds `seed`, `seed` + 1, ..., ranked by the reward model.

    Args:
        pipeline: What generates.
        reward: What ranks.
        product: As the pipeline takes it.
        prompt: Likewise.
        candidates: How many are generated.
        top: How many come back.
        seed: Of the first candidate.
        drops: When weak candidates are dropped, all in one pass of the denoiser then; (): never.
        options: As the pipeline takes them, its mask, steps and guidance among them.

    Raises:
        ValueError: For counts that do not fit, and as the pipeline does.
    """
    check_top(top, candidates)
    cost = Cost()
    steps = options.get("num_inference_steps") or pipeline.recommended_sampling.steps
    selectors = build_selectors(reward, prompt, drops, candidates, top, steps, cost)
    if selectors:
        options["candidates_per_pass"] = candidates
    with count_denoiser_calls(pipeline, cost):
        made = pipeline(product, prompt, num_candidates=candidates, seed=seed, selectors=selectors, **options)
    pictures = [np.asarray(image) for image in made.images]
    found = compute_rewards(reward, made.product, pictures, prompt)
    cost.scored += len(pictures)
    order = rank_candidates(found)[:top]
    return RankedImages(
        images=[made.images[place] for place in order],
        seeds=[seed + made.candidates[place] for place in order],
        scores=[{name: float(values[place]) for name, values in found.items()} for place in order],
        product=made.product,
        cost=cost,
    )


def check_top(top: int, candidates: int) -> None:
    """Raises ValueError if there are not `top` candidates to choose."""
    if not 1 <= top <= candidates:
        raise ValueError(f"top is {top}: it must be from 1 to the number of candidates, {candidates}")


def build_selectors(
    reward: RewardModel,
    prompt: str | None,
    drops: Sequence[DropStep],
    candidates: int,
    top: int,
    steps: int,
    cost: Cost,
) -> dict[int, CandidateSelector]:
    """For the pipeline's `selectors`: after so many of `steps`, the best by what they will look like; never fewer than
    `top`. What is scored is added to `cost`."""

    def keeping(count: int) -> CandidateSelector:
        def pick(product: Product, pictures: list[Pixels]) -> Sequence[int]:
            cost.scored += len(pictures)
            return sorted(rank_candidates(compute_rewards(reward, product, pictures, prompt))[:count])

        return pick

    return {step: keeping(count) for step, count in plan_drops(drops, candidates, top, steps).items()}


def plan_drops(drops: Sequence[DropStep], candidates: int, top: int, steps: int) -> dict[int, int]:
    """Steps done -> candidates that go on. Raises ValueError for fractions outside of 0..1 or out of order."""
    found: dict[int, int] = {}
    before = DropStep(0.0, 1.0)
    for drop in drops:
        if not (before.after < drop.after < 1 and 0 < drop.keep < before.keep):
            raise ValueError(f"drops must come later and keep less one after the other, between 0 and 1, not {drop}")
        found[min(max(1, round(drop.after * steps)), steps)] = max(top, round(drop.keep * candidates))
        before = drop
    left, kept = candidates, {}
    for step, count in found.items():
        if count < left and step < steps:
            left = kept[step] = count
    return kept


def count_image_steps(drops: Sequence[DropStep], candidates: int, top: int, steps: int) -> int:
    """Steps of single pictures that a selection takes; without drops candidates * steps."""
    left, done, total = candidates, 0, 0
    for step, count in sorted(plan_drops(drops, candidates, top, steps).items()):
        total, left, done = total + left * (step - done), count, step
    return total + left * (steps - done)


def compute_rewards(
    reward: RewardModel, product: Product, pictures: Sequence[Pixels], prompt: str | None
) -> Mapping[str, torch.Tensor]:
    """Scores of pictures (h, w, 3) of one product, by name, (N,) each; without a prompt none is asked about."""

    def channels_first(pixels: Pixels) -> torch.Tensor:
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)

    outputs = torch.stack([channels_first(picture) for picture in pictures])
    mask = torch.from_numpy(product.alpha >= 0.5)[None, None]
    prompts = None if prompt is None else [prompt] * len(pictures)
    return predict_scores(reward, outputs, channels_first(product.pixels)[None], mask, prompts)


def rank_candidates(found: Mapping[str, torch.Tensor]) -> list[int]:
    """Places by `ranked_by`, the best first, the earlier of equals first."""
    return [int(place) for place in torch.argsort(select_ranking_score(found), descending=True, stable=True)]


def select_ranking_score(found: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What of the scores (N,) ranks candidates: how plainly they show the background asked for, where the model says
    so; else the overall score. Until people have rated, the other questions know corruptions of photographs, and among
    paintings of one prompt their answers are chance to judges (docs/experiments/)."""
    return found.get("background", found["overall"])


@contextmanager
def count_denoiser_calls(pipeline: CanvasPipeline, cost: Cost) -> Iterator[None]:
    """Within the context every picture that goes through the denoiser is counted."""

    def count(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        cost.denoiser_calls += len(given[0])

    hook = pipeline.unet.register_forward_pre_hook(count)
    try:
        yield
    finally:
        hook.remove()
