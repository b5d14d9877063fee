"""A scene as the model reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from canvas.inference.close_up import CloseUp, find_close_up
from canvas.inference.conditioning import load_segmenter
from canvas.inference.scene.build import Images, Masks, Scene, build_scene, mend_scene
from canvas.inference.scene.framing import FramedScene, frame_scene
from canvas.layout.spec import Layout
from canvas.light.spec import Mode
from canvas.segmenter.ensemble import predict_mattes

if TYPE_CHECKING:
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.inference.style import StylePrompt


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedScene:
    """A scene in the model's frame, its text, style and masked image encoded: once, for all candidates."""

    scene: Scene
    layout: Layout | None  # None: the scene is the product image
    framed: FramedScene
    close_up: CloseUp | None  # None: the product is not small

    def count_rounds(self) -> int:
        """Return how often a pass of candidates goes through all steps."""
        return 1 if self.close_up is None else 2


def read_scene(pipeline: CanvasPipeline, product: Images, mask: Masks, layout: Layout | None, mode: Mode) -> Scene:
    """Read what is given of an image, by the pipeline's segmenter where no mask is; mode soft mends a product's edge.

    Raises:
        ValueError: In one sentence, for what cannot be used.
    """
    loaded = load_segmenter(pipeline)
    if loaded is None:
        scene = build_scene(product, mask, layout)
        return mend_scene(scene, None) if mode == "soft" and layout is None else scene
    segmenter, edges = loaded
    scene = build_scene(product, mask, layout, lambda image: segmenter.predict_alphas([image], edges)[0])
    if mode == "soft" and layout is None:
        scene = mend_scene(scene, lambda image: predict_mattes(segmenter, image, edges))
    return scene


def encode_scene(
    pipeline: CanvasPipeline,
    scene: Scene,
    prompt: str | None,
    negative_prompt: str | None,
    style: StylePrompt | None,
    *,
    layout: Layout | None,
) -> EncodedScene:
    """Encode a scene, and how its background is asked for.

    Args:
        pipeline: Whose parts are used.
        scene: At the size of the images.
        prompt: None: as a dropped caption in training.
        negative_prompt: None: guidance compares with a dropped caption.
        style: Whose strength counts as it is.
        layout: Where the scene stands on a canvas, which may be longer than a frame of the model.
    """
    framed = frame_scene(pipeline, scene.product, prompt, negative_prompt, style, layout=layout)
    close_up = find_close_up(scene.product, framed.main_frame)
    return EncodedScene(scene=scene, layout=layout, framed=framed, close_up=close_up)
