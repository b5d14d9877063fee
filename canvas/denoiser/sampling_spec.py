"""What a stage samples, and how: params of stages, so this module is light to import."""

from __future__ import annotations

from dataclasses import dataclass

from canvas.train.spec import Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class PaintingSpec:
    """Sampling of many pictures."""

    steps: int
    guidance_scale: float  # 1: no guidance
    guidance_stop: float  # share of the steps that is guided, from the first
    batch_size: int  # pictures in a pass
    precision: Precision  # of the denoiser; latents stay fp32

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "guidance_scale"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} is {value}: it must be 1 or more")
        if not 0 <= self.guidance_stop <= 1:
            raise ValueError(f"guidance_stop is {self.guidance_stop}: it must be from 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Backgrounds:
    """What held-out products are shown in front of."""

    prompts: tuple[str, ...]  # each with every product

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("prompts is []: name one or more backgrounds")
