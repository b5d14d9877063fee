"""Policies of tiny denoisers, params of alignments, and batches for them."""

from __future__ import annotations

from typing import Any, Literal

import torch

from canvas.align.objectives import AlignmentBatch
from canvas.align.policy import Policy
from canvas.align.spec import (
    AlignParams,
    AwmSpec,
    GuardSpec,
    NftSpec,
    PpoSpec,
    PretrainingSpec,
    ReferenceSpec,
    RolloutSpec,
)
from canvas.denoiser.loading import add_inpaint_channels, get_family
from canvas.denoiser.lora import add_lora
from canvas.denoiser.objective import DenoisingObjective
from canvas.denoiser.spec import DiffusionSpec, LoraSpec
from canvas.shards.spec import EngagementRule
from canvas.train.draws import Draws
from canvas.train.spec import Train
from canvas.vae.model import LatentScale
from tests.canvas import tiny

CHANNELS, CELL = 4, 8
SCALE = LatentScale(torch.zeros(CHANNELS), torch.ones(CHANNELS), 1.0)
OBJECTIVES: dict[str, dict[str, Any]] = {
    "ppo": {"ppo": PpoSpec(noise=1.0, timesteps=2, clip=1e-4), "awm": None, "nft": None},
    "awm": {"ppo": None, "awm": AwmSpec(power=0.25, clip=0.2), "nft": None},
    "nft": {"ppo": None, "awm": None, "nft": NftSpec(strength=1.0, clip=5.0, decay=0.5)},
}


def build_policy(kind: Literal["unet", "dit"], *, inpaint: bool = True) -> Policy:
    """A tiny denoiser whose new LoRA alone is trained."""
    denoiser = tiny.denoiser() if kind == "unet" else tiny.transformer()
    if inpaint:
        denoiser = add_inpaint_channels(denoiser, CELL)
    torch.manual_seed(4)
    return Policy(add_lora(denoiser.train(), rank=4, alpha=4))


def perturb(policy: Policy, seed: int = 5) -> None:
    """Move the LoRA away from its start."""
    draw = torch.Generator().manual_seed(seed)
    for weight in policy.parameters():
        if weight.requires_grad:
            weight.data += 0.05 * torch.randn(weight.shape, generator=draw)


def build_params(objective: str = "nft", **changes: Any) -> AlignParams:
    """Params of an alignment on tiny models."""
    values: dict[str, Any] = {
        "train": Train(steps=4, batch_size=4, learning_rate=1e-3, warmup_steps=0, override={}),
        "generator": "backdrop",
        "lora": LoraSpec(rank=4, alpha=4, folded=False),
        "objective": objective,
        **OBJECTIVES[objective],
        "baseline": "batch",
        "clip": 10.0,
        "rollouts": RolloutSpec(
            groups=2, images=2, steps=4, guidance_scale=2.0, updates=2, batch_size=4, precision="fp32"
        ),
        "rewards": {"aesthetics": 1.0},
        "turns": {},
        "encoder": "first",
        "attribute": (),
        "pretraining": PretrainingSpec(weight=1.0, own_step=False, captions=1, caption_dropout=0.0),
        "reference": ReferenceSpec(weight=0.0, policy="start", decay=0.5),
        "guard": GuardSpec(
            prompts=2,
            images=2,
            final_prompts=2,
            min_diversity=0.95,
            patience=2,
            engaged=EngagementRule(min_impressions=1, share=0.5, saves_weight=1.0),
            real_pins=4,
        ),
        "pins": 8,
    }
    return AlignParams(**values | changes)


def build_denoising(diffusion: DiffusionSpec, *, inpaint: bool = True) -> DenoisingObjective:
    """The denoising loss on real pins."""
    return DenoisingObjective(diffusion, SCALE, captions=1, caption_dropout=0.0, inpaint=inpaint)


def build_batch(policy: Policy, samples: int = 4, *, inpaint: bool = True, advantages: torch.Tensor) -> AlignmentBatch:
    """Random real pins and random images with these advantages."""
    draw = torch.Generator().manual_seed(6)
    holes = get_family(policy.denoiser).count_hole_channels(CELL)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(samples, *shape, generator=draw)

    batch = AlignmentBatch(
        pin_id=[str(number) for number in range(samples)],
        moments=torch.cat([normal(CHANNELS, 8, 8), normal(CHANNELS, 8, 8) - 4], dim=1),
        text_states=normal(1, 7, tiny.TEXT_WIDTH),
        text_pooled=normal(1, tiny.POOLED_WIDTH),
        sizes=torch.tensor([[64.0, 64, 0, 0, 64, 64]]).repeat(samples, 1),
        advantages=advantages,
        states=normal(7, tiny.TEXT_WIDTH),
        pooled=normal(tiny.POOLED_WIDTH),
        frames=torch.tensor([[64.0, 64, 0, 0, 64, 64]]).repeat(samples, 1),
        clean=normal(CHANNELS, 8, 8),
        before=normal(CHANNELS, 8, 8),
        after=normal(CHANNELS, 8, 8),
        action=torch.arange(samples) % 3,
    )
    if inpaint:
        batch["masked"], batch["holes"] = normal(1, CHANNELS, 8, 8), (normal(1, holes, 8, 8) > 0).float()
        batch["known"], batch["unknown"] = normal(CHANNELS, 8, 8), (normal(holes, 8, 8) > 0).float()
    return batch


def build_draws(samples: int = 4, step: int = 0) -> Draws:
    """Noise of a step."""
    return Draws(0, step, 0, samples)


def compute_gradients(policy: Policy, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """The gradient of every trained weight that has one."""
    policy.zero_grad(set_to_none=True)
    loss.backward()
    return {
        name: weight.grad.clone()
        for name, weight in policy.named_parameters()
        if weight.requires_grad and weight.grad is not None
    }
