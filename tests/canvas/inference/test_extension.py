"""A photograph that is extended: what lies next to it begins as its mirror image."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image

from canvas.denoiser.schedulers import set_steps
from canvas.inference.known_latents import KnownLatents, add_noise
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


def test_known_latents_are_free_in_the_last_steps_alone() -> None:
    """Held to the end, they come out clean; never held, they stay; half held, half."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    set_steps(scheduler, 4, tokens=16)
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(1, 4, 2, 3, generator=generator) for _ in range(2))
    strengths = torch.tensor([[[[0.0, 0.5, 1.0]] * 2]])
    seen: list[int] = []

    def watch(step: int, timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        seen.append(step)
        return latents

    hold = KnownLatents(clean, strengths).hold(scheduler, lambda: noise.expand(2, -1, -1, -1), watch)
    for step, timestep in enumerate(scheduler.timesteps):
        mine = torch.full((2, 4, 2, 3), 7.0)
        after = hold(step, timestep, mine)
        noisy = add_noise(scheduler, clean, noise, step + 1)
        assert torch.equal(after[..., 0], noisy[..., 0].expand(2, -1, -1))
        assert torch.equal(after[..., 1], (noisy if step < 2 else mine[:1])[..., 1].expand(2, -1, -1))
        assert torch.equal(after[..., 2], mine[..., 2])
    assert torch.equal(after[..., 0], clean[..., 0].expand(2, -1, -1))
    assert seen == [0, 1, 2, 3]


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
