"""A scene as the model reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from canvas.denoiser.sampling import Condition
from canvas.inference.close_up import CloseUp, find_close_up
from canvas.inference.conditioning import build_condition, encode_decoder_condition, frame_for_pipeline
from canvas.inference.product import Frame, Product
from canvas.inference.scene.build import Scene
from canvas.inference.scene.outpaint import crop_product
from canvas.layout.formats import Rectangle
from canvas.layout.windows import order_windows, plan_windows
from canvas.pins.captions import parse_caption

if TYPE_CHECKING:
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.inference.style import StylePrompt


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedScene:
    """A scene in the model's frame, its text, style and masked image encoded: once, for all candidates."""

    scene: Scene
    windows: Sequence[Rectangle]  # of a layout's canvas, in the order in which they are generated; without one: none
    cutout: Product  # as the first window shows it
    frame: Frame  # of the cutout
    condition: Condition
    outer_condition: Condition  # of further windows in which no product appears
    decoder_features: list[torch.Tensor] | None  # None: the pipeline has no conditional decoder
    close_up: CloseUp | None  # None: the cutout is not small

    @property
    def has_outer_windows(self) -> bool:
        """Whether one window does not show the whole canvas."""
        return len(self.windows) > 1

    def count_rounds(self) -> int:
        """Return how often a pass of candidates goes through the denoiser."""
        return (1 if self.close_up is None else 2) + len(self.windows[1:])


def encode_scene(
    pipeline: CanvasPipeline,
    scene: Scene,
    prompt: str | None,
    negative_prompt: str | None,
    style: StylePrompt | None,
    *,
    has_layout: bool,
) -> EncodedScene:
    """Encode a scene, and how its background is asked for.

    Args:
        pipeline: Whose parts are used.
        scene: At the size of the images.
        prompt: None: as a dropped caption in training.
        negative_prompt: None: guidance compares with a dropped caption.
        style: Whose strength counts as it is.
        has_layout: Whether the scene stands on a layout's canvas, which may be longer than a frame of the model.
    """
    product = scene.product
    windows = plan_windows(product.size, pipeline.config["max_aspect"]) if has_layout else []
    windows = order_windows(windows, product.alpha)
    cutout = crop_product(product, windows[0]) if windows[1:] else product
    framed = frame_for_pipeline(pipeline, cutout).to(pipeline.device)
    condition = outer_condition = build_condition(pipeline, framed, prompt, negative_prompt, style)
    if windows[1:] and prompt is not None:
        outer_condition = build_condition(pipeline, framed, parse_caption(prompt)[1], negative_prompt, style)
    return EncodedScene(
        scene=scene,
        windows=windows,
        cutout=cutout,
        frame=framed.frame,
        condition=condition,
        outer_condition=outer_condition,
        decoder_features=encode_decoder_condition(pipeline, [framed]),
        close_up=find_close_up(cutout, framed.frame),
    )
