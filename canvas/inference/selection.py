"""The best of many candidates by a reward, weak ones dropped before they are generated to the end.

Dropping is successive halving (Jamieson and Talwalkar 2016): the denoiser's prediction of the clean latents is decoded
and scored, and only the better candidates are denoised further.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from canvas.inference.generation.candidates import CandidateSelector
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import Product
from canvas.inference.scene.build import Images
from canvas.light.scene import ImageCertificate
from canvas.pins.images import Pixels
from canvas.reward.model import ProductImages
from canvas.reward.preference import PROMPT_MISSING, Reward, fetch_reward


@dataclass(frozen=True, slots=True)
class DropStep:
    """When candidates are dropped, and how many stay."""

    after: float  # fraction of the steps
    keep: float  # fraction of all candidates


HALVING = (DropStep(0.25, 0.5), DropStep(0.45, 0.25))
"""Half after a quarter of the steps, all but a quarter before half-way: 49 % of the denoiser's work on 16 candidates.
Of the schedules within half that bench/selection.py tries, the nearest to generating all."""


@dataclass(slots=True)
class SelectionCost:
    """Work of a selection, counted as it happens."""

    denoiser_calls: int = 0  # images that went through the denoiser; guidance takes two of a step and a candidate
    scored_images: int = 0  # images, and predictions of them, that were decoded and scored


@dataclass(frozen=True, slots=True)
class RankedImages:
    """The best images first."""

    images: list[Image.Image]
    seeds: list[int]  # of each: the pipeline makes the same image from it
    scores: list[Mapping[str, float]]  # of each, by name (canvas.reward.preference.Reward)
    product: Product
    cost: SelectionCost
    certificates: list[ImageCertificate]  # of each; mode hard: none


def select_best(
    pipeline: CanvasPipeline,
    reward: Reward | str | Path,
    product: Images,
    prompt: str | None,
    *,
    candidates: int,
    top: int,
    seed: int,
    drops: Sequence[DropStep] = (),
    **options: Any,
) -> RankedImages:
    """Return the `top` of `candidates` images of seeds `seed`, `seed` + 1, ..., ranked by a reward.

    Args:
        reward: It, or the directory or hub id of one, as `fetch_reward` takes it.
        drops: When weak candidates are dropped; all go through the denoiser in one pass then. (): never.
        options: As the pipeline takes them, like product and prompt: mask, steps and guidance among them.

    Raises:
        ValueError: For counts that do not fit, and as the pipeline does.
    """
    check_top(top, candidates)
    if isinstance(reward, str | Path):
        reward = fetch_reward(reward).to(pipeline.device)
    if prompt is None and reward.needs_prompt:
        raise ValueError(PROMPT_MISSING)
    cost = SelectionCost()
    steps = options.get("num_inference_steps") or pipeline.recommended_sampling.steps
    selectors = {
        step: _build_selector(reward, prompt, count, cost)
        for step, count in plan_drops(drops, candidates, top, steps).items()
    }
    if selectors:
        options["candidates_per_pass"] = candidates
    with count_denoiser_calls(pipeline, cost):
        output = pipeline(product, prompt, num_candidates=candidates, seed=seed, selectors=selectors, **options)
    images = [np.asarray(image) for image in output.images]
    scores = compute_rewards(reward, output.product, images, prompt)
    cost.scored_images += len(images)
    order = rank_candidates(scores)[:top]
    return RankedImages(
        images=[output.images[place] for place in order],
        seeds=[seed + output.candidates[place] for place in order],
        scores=[{name: float(values[place]) for name, values in scores.items()} for place in order],
        product=output.product,
        cost=cost,
        certificates=[output.certificates[place] for place in order if output.certificates],
    )


def check_top(top: int, candidates: int) -> None:
    """Raise ValueError if there are not `top` candidates to choose."""
    if not 1 <= top <= candidates:
        raise ValueError(f"top is {top}: it must be from 1 to the number of candidates, {candidates}")


def _build_selector(reward: Reward, prompt: str | None, count: int, cost: SelectionCost) -> CandidateSelector:
    """Build one of the pipeline's `selectors`: it keeps the `count` best, and adds what it scores to `cost`."""

    def select(product: Product, images: list[Pixels]) -> Sequence[int]:
        cost.scored_images += len(images)
        return sorted(rank_candidates(compute_rewards(reward, product, images, prompt))[:count])

    return select


def plan_drops(drops: Sequence[DropStep], candidates: int, top: int, steps: int) -> dict[int, int]:
    """Return the number of candidates that go on by steps done, never fewer than `top`.

    Raises:
        ValueError: For fractions outside of 0..1 or out of order.
    """
    before = DropStep(0.0, 1.0)
    counts: dict[int, int] = {}
    for drop in drops:
        if not (before.after < drop.after < 1 and 0 < drop.keep < before.keep):
            raise ValueError(f"drops must come later and keep less one after the other, between 0 and 1, not {drop}")
        counts[min(max(1, round(drop.after * steps)), steps)] = max(top, round(drop.keep * candidates))
        before = drop
    left, plan = candidates, {}
    for step, count in counts.items():
        if count < left and step < steps:
            left = plan[step] = count
    return plan


def count_image_steps(drops: Sequence[DropStep], candidates: int, top: int, steps: int) -> int:
    """Count the denoising steps of single images that a selection takes; without drops candidates * steps."""
    left, done, total = candidates, 0, 0
    for step, count in plan_drops(drops, candidates, top, steps).items():
        total, left, done = total + left * (step - done), count, step
    return total + left * (steps - done)


def compute_rewards(
    reward: Reward, product: Product, images: Sequence[Pixels], prompt: str | None
) -> Mapping[str, torch.Tensor]:
    """Score images (h, w, 3) of one product, by name, (N,) each; without a prompt no question about it is asked."""
    outputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    original = ProductImages(
        torch.from_numpy(product.pixels.copy()).permute(2, 0, 1)[None],
        torch.from_numpy(product.alpha >= 0.5)[None, None],
    )
    return reward.score(outputs, original, None if prompt is None else [prompt] * len(images))


def rank_candidates(scores: Mapping[str, torch.Tensor]) -> list[int]:
    """Return places by `select_ranking_score`, the best first, the earlier of equals first."""
    return [int(place) for place in torch.argsort(select_ranking_score(scores), descending=True, stable=True)]


def select_ranking_score(scores: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the score (N,) that ranks candidates: how plainly they show the prompted background, where the model
    knows it; else the overall score.

    Until people have rated, the other questions know corruptions of photographs; among generated images of one prompt
    their answers are chance to judges (docs/experiments/).
    """
    return scores.get("background", scores["overall"])


@contextmanager
def count_denoiser_calls(pipeline: CanvasPipeline, cost: SelectionCost) -> Iterator[None]:
    """Count, within the context, every image that goes through the denoiser."""

    def count(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
        cost.denoiser_calls += len(arguments[0] if arguments else named["hidden_states"])  # of a UNet, of a transformer

    hook = pipeline.denoiser.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
