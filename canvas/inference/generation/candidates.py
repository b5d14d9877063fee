"""From an encoded scene to its candidates, so many in a pass through the denoiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from canvas.denoiser.loading import get_family
from canvas.denoiser.sampling import LatentSampler, OnStep, sample_noise
from canvas.denoiser.schedulers import set_steps
from canvas.inference.autoguidance import get_weak_denoiser
from canvas.inference.close_up import CloseUpBackground, add_close_ups, upscale_backgrounds
from canvas.inference.conditioning import Background, check_finite
from canvas.inference.generation.encoding import EncodedScene
from canvas.inference.generation.settings import GenerationSettings
from canvas.inference.product import Product, derive_seed
from canvas.inference.scene.lighting import relight_scene
from canvas.inference.scene.shadows import cast_on_scene
from canvas.layout.formats import Rectangle
from canvas.light.model import predict_gain
from canvas.light.reflection import cast_reflection
from canvas.light.relight import cast_recorded_shadow, certify, relight_pixels
from canvas.light.scene import ImageCertificate
from canvas.light.shadow.model import predict_shadow
from canvas.light.shadow.record import ShadowRecord
from canvas.pins.images import Pixels
from canvas.vae.model import get_latent_scale, get_scale_factor

if TYPE_CHECKING:
    from canvas.inference.pipeline import CanvasPipeline

StepCallback = Callable[["CanvasPipeline", int, torch.Tensor, dict[str, Any]], dict[str, Any]]
"""As in diffusers: (pipeline, step, timestep, {"latents": ...}) -> {} or {"latents": replacement}."""

CandidateSelector = Callable[[Product, list[Pixels]], Sequence[int]]
"""The product, and images of it as they would come out if the denoiser were right at once -> which to go on with."""


@dataclass
class CanvasOutput(BaseOutput):  # type: ignore[misc]
    """Images of the product image's size, or the layout's canvas, and what they show."""

    images: list[Image.Image]
    product: Product  # as it was cut out
    candidates: list[int]  # number of each image's candidate
    boxes: list[Rectangle] = field(default_factory=list)  # of each product on the layout's canvas
    certificates: list[ImageCertificate] = field(default_factory=list)  # of each image; mode hard: none


def generate_candidates(
    pipeline: CanvasPipeline,
    encoded: EncodedScene,
    settings: GenerationSettings,
    originals: Sequence[Image.Image],
    *,
    callback: StepCallback | None = None,
    selectors: Mapping[int, CandidateSelector],
) -> CanvasOutput:
    """Generate the candidates of a scene, under a progress bar.

    Args:
        pipeline: Whose parts are used.
        encoded: A scene, by this pipeline.
        settings: Checked for it.
        originals: The product images as they were handed in, for certificates.
        callback: As the pipeline takes it.
        selectors: Steps done -> which of a pass's images to go on with.

    Raises:
        ValueError: A network gave NaN or infinity, or the scheduler cannot go on with some candidates only.
        UnsafeContentError: A safety model refuses an image.
    """
    noise = _sample_noise(pipeline, encoded, settings)
    sampler = LatentSampler(
        denoiser=pipeline.denoiser,
        scheduler=pipeline.get_scheduler(settings.scheduler),
        scale=get_latent_scale(pipeline.vae),
        steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        guidance_rescale=settings.guidance_rescale,
        guidance_stop=settings.guidance_stop,
        weak=get_weak_denoiser(pipeline) if settings.autoguidance_scale else None,
        autoguidance_scale=settings.autoguidance_scale,
        reuse=settings.reuse,
    )
    passes = torch.split(noise, settings.candidates_per_pass)
    tokens = encoded.framed.cut_main(noise)[0, 0].numel() // get_family(pipeline.denoiser).patch ** 2
    timesteps = set_steps(sampler.scheduler, settings.steps, tokens=tokens)
    output = CanvasOutput(images=[], product=encoded.scene.product, candidates=[], boxes=encoded.scene.boxes)
    with pipeline.progress_bar(total=len(timesteps) * len(passes) * encoded.count_rounds()) as bar:

        def on_step(step: int, timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
            bar.update()
            if callback is None:
                return latents
            return callback(pipeline, step, timestep, {"latents": latents}).get("latents", latents)

        for start in range(0, settings.candidates, settings.candidates_per_pass):
            end = min(start + settings.candidates_per_pass, settings.candidates)
            numbers, latents = _sample_latents(
                pipeline, sampler, encoded, noise, range(start, end), selectors, on_step=on_step
            )
            backgrounds = _finish_backgrounds(
                pipeline, sampler, encoded, noise[numbers], latents, settings.upscale, on_step=on_step
            )
            images = [background.composite(encoded.scene.product) for background in backgrounds]
            if settings.mode == "soft":
                for place, background in enumerate(backgrounds):
                    images[place], certificate = _relight(
                        pipeline, background, images[place], encoded, originals, settings
                    )
                    output.certificates.append(certificate)
            else:
                cast = settings.shadow, settings.reflection
                images = [cast_on_scene(pipeline.shadow, image, encoded.scene, *cast) for image in images]
            pipeline.safety.check_images(images, [_name_candidate(number, settings.seed) for number in numbers])
            output.candidates.extend(numbers)
            while images:  # Pillow copies: each goes as its image comes
                output.images.append(Image.fromarray(images.pop(0)))
    return output


def _sample_noise(pipeline: CanvasPipeline, encoded: EncodedScene, settings: GenerationSettings) -> torch.Tensor:
    """Return unit noise (N, C, h, w) of N candidates."""
    cell = get_scale_factor(pipeline.vae)
    frame = encoded.framed.frame
    shape = pipeline.vae.config["latent_channels"], frame.height // cell, frame.width // cell
    seed = settings.seed
    if seed is None:
        return randn_tensor(
            (settings.candidates, *shape), generator=settings.generator, device=pipeline.device, dtype=torch.float32
        )
    seed = derive_seed(seed, encoded.scene.cut or encoded.scene.product) if settings.seed_by_product else seed
    return sample_noise(shape, range(seed, seed + settings.candidates), pipeline.device)


def _sample_latents(
    pipeline: CanvasPipeline,
    sampler: LatentSampler,
    encoded: EncodedScene,
    noise: torch.Tensor,
    numbers: Sequence[int],
    selectors: Mapping[int, CandidateSelector],
    *,
    on_step: OnStep,
) -> tuple[list[int], torch.Tensor]:
    """Return those of the candidates `numbers` that were gone on with, and their raw latents."""
    remaining = list(numbers)

    def select(selector: CandidateSelector, clean: torch.Tensor) -> Sequence[int]:
        backgrounds = encoded.framed.decode(pipeline, sampler.scale.denormalize(clean))
        product = encoded.scene.product
        places = selector(product, [background.composite(product) for background in backgrounds])
        remaining[:] = [remaining[place] for place in places]
        return places

    known = encoded.framed.known
    if known is not None:
        on_step = known.hold(sampler.scheduler, lambda: noise[remaining], on_step)
    latents = sampler.sample(
        noise[remaining],
        encoded.framed.condition,
        on_step=on_step,
        selectors={step: partial(select, selector) for step, selector in selectors.items()},
    )
    return remaining, latents


def _finish_backgrounds(
    pipeline: CanvasPipeline,
    sampler: LatentSampler,
    encoded: EncodedScene,
    noise: torch.Tensor,
    latents: torch.Tensor,
    upscale: int | None,
    *,
    on_step: OnStep,
) -> list[Background | CloseUpBackground]:
    """Return the backgrounds of raw latents (N, C, h, w), a small product's neighbourhood closer, and enlarged."""
    products, framed = [encoded.scene.product] * len(latents), encoded.framed
    backgrounds = add_close_ups(
        pipeline,
        sampler,
        framed.conditions[framed.main],
        framed.cut_main(noise),
        framed.decode(pipeline, latents),
        products,
        [encoded.close_up] * len(latents),
        on_step=on_step,
    )
    return upscale_backgrounds(pipeline, backgrounds, products, upscale)


def _relight(
    pipeline: CanvasPipeline,
    background: Background | CloseUpBackground,
    image: Pixels,
    encoded: EncodedScene,
    originals: Sequence[Image.Image],
    settings: GenerationSettings,
) -> tuple[Pixels, ImageCertificate]:
    """Return the image, at its final size, with its products in the light of the scene, and its certificate.

    Args:
        pipeline: Whose networks predict the gain and the shadow.
        background: As it is pasted: enlarged, where there is an upscaler.
        image: With the products as they are.
        encoded: The scene; of one product in its own image with its edge mended.
        originals: As they were handed in.
        settings: Of them the strength of shadows and reflections.
    """
    if encoded.layout is not None:
        return relight_scene(
            pipeline,
            background,
            image,
            encoded.scene,
            originals,
            encoded.layout,
            settings.shadow,
            settings.reflection,
        )
    product, cut = encoded.scene.product, encoded.scene.cut or encoded.scene.product
    predicted = predict_gain(pipeline.light, product.pixels, product.alpha, image)
    check_finite(torch.from_numpy(predicted), "the light network")
    lit, grid = relight_pixels(product.pixels, product.alpha, predicted)
    relit = background.composite(replace(product, pixels=lit))
    record: ShadowRecord | None = None
    if settings.shadow > 0:
        shadow = predict_shadow(pipeline.shadow, product.pixels, product.alpha, image)
        relit, record = cast_recorded_shadow(
            relit, shadow, lit, product.alpha, settings.shadow, reflection=settings.reflection
        )
    elif settings.reflection > 0:
        relit = cast_reflection(relit, lit, product.alpha, product.alpha, settings.reflection)
    return relit, certify(
        Image.fromarray(relit),
        originals[0],
        product.core,
        product.origin,
        grid,
        band=None if np.array_equal(product.alpha, cut.alpha) else product.band,
        handed_in=None if product.origin == "segmenter" else cut.alpha,
        shadow=record,
    )


def _name_candidate(number: int, seed: int | None) -> str:
    return f"the image of candidate {number}" if seed is None else f"the image of seed {seed + number}"
