"""A photograph that is extended: what lies next to it begins as its mirror image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.scene.extension import mirror_scene, remove_product
from canvas.layout.spec import build_layout

PROMPT = "a mug, forest"


def draw_scene(height: int = 60, width: int = 64) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


def test_a_scene_is_mirrored_at_its_borders() -> None:
    scene, known = draw_scene(6, 4), np.zeros((10, 4), bool)
    known[3:9] = True
    frame = mirror_scene(scene, known)
    assert np.array_equal(frame[3:9], scene)
    assert np.array_equal(frame[:3], scene[2::-1])
    assert np.array_equal(frame[9:], scene[-1:])


def test_a_scene_is_mirrored_again_and_again_where_it_is_short() -> None:
    scene, known = draw_scene(4, 3), np.zeros((4, 12), bool)
    known[:, :3] = True
    assert np.array_equal(mirror_scene(scene, known)[:, 3:9], np.concatenate([scene[:, ::-1], scene], axis=1))


def test_what_surrounds_a_product_takes_its_place() -> None:
    scene, alpha = np.full((40, 40, 3), 90, np.uint8), np.zeros((40, 40), np.float32)
    scene[10:30, 10:30], alpha[10:30, 10:30] = 255, 1
    assert np.array_equal(remove_product(scene, alpha), np.full((40, 40, 3), 90))
    assert np.array_equal(remove_product(scene, np.ones((40, 40), np.float32)), scene)
    assert np.array_equal(remove_product(scene, np.zeros((40, 40), np.float32)), scene)


def extend(pipeline: CanvasPipeline, photograph: Image.Image, **options: object) -> np.ndarray:
    layout = build_layout("64x128", place="keep-top")
    output = pipeline(photograph, PROMPT, layout=layout, num_inference_steps=4, **options)
    return np.stack([np.asarray(image) for image in output.images])


def test_seeds_agree_next_to_the_photograph_and_differ_further_away(pipeline: CanvasPipeline) -> None:
    photograph = Image.fromarray(draw_scene(60, 64))
    first, second = (extend(pipeline, photograph, seed=seed)[0].astype(int) for seed in (0, 1))
    assert np.array_equal(first[:58], second[:58])
    differences = np.abs(first - second).mean((1, 2))
    assert differences[62:66].mean() < 0.5 * differences[100:].mean()


def test_candidates_may_be_dropped_on_the_way(pipeline: CanvasPipeline) -> None:
    photograph, dropped = Image.fromarray(draw_scene(60, 64)), []

    def keep_second(product: object, images: list[np.ndarray]) -> list[int]:
        dropped.append(len(images))
        return [1]

    whole = extend(pipeline, photograph, seed=0, num_candidates=2)
    kept = extend(pipeline, photograph, seed=0, num_candidates=2, selectors={2: keep_second})
    assert dropped == [2]
    assert kept.shape[0] == 1
    assert np.abs(kept[0].astype(int) - whole[1]).max() <= 1


def test_a_model_without_a_segmenter_extends_too(pipeline: CanvasPipeline) -> None:
    parts = {name: part for name, part in pipeline.components.items() if not name.startswith("segmenter")}
    without = CanvasPipeline(**parts, max_aspect=2.0)
    without.set_progress_bar_config(disable=True)
    photograph = Image.fromarray(draw_scene(60, 64))
    assert extend(without, photograph, seed=0).shape == (1, 128, 64, 3)


@pytest.mark.parametrize("size", [(3, 3), (3, 5), (300, 3)])
def test_tiny_photographs_are_extended_too(segmenting_pipeline: CanvasPipeline, size: tuple[int, int]) -> None:
    """Less than a pixel of the model's frame, which a segmenter sees nevertheless."""
    width, height = size
    output = segmenting_pipeline(
        Image.fromarray(draw_scene(height, width)),
        PROMPT,
        layout=build_layout("600x600", place="keep"),
        num_inference_steps=1,
        seed=0,
    )
    (box,) = output.boxes
    assert (box.height, box.width) == (height, width)
    assert output.images[0].size == (600, 600)
