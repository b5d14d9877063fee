"""Many products with a prompt, a style or both each, in passes of one frame: for evaluation and batch jobs.

Equal to calling the pipeline for each, up to rounding; a pass costs what its candidates would cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial

import torch
from diffusers import SchedulerMixin
from tqdm import tqdm

from canvas.clip.model import get_overflow
from canvas.denoiser.family import Denoiser
from canvas.denoiser.sampling import Condition, LatentSampler, sample_noise
from canvas.denoiser.spec import SamplingSpec
from canvas.inference.autoguidance import get_weak_denoiser
from canvas.inference.close_up import add_close_ups, find_close_up, upscale_backgrounds
from canvas.inference.conditioning import (
    build_condition,
    decode_backgrounds,
    encode_decoder_condition,
    frame_for_pipeline,
)
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import FramedProduct, Product
from canvas.inference.style import StylePrompt
from canvas.pins.captions import fit_caption
from canvas.pins.images import Pixels
from canvas.vae.model import get_latent_scale

TextToImage = tuple[Denoiser, SchedulerMixin]
"""A denoiser that knows nothing of the product, and its scheduler. The product is put on the image that it generates,
decoded by the autoencoder's own decoder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One image to generate."""

    product: Product
    prompt: str | None
    seed: int
    style: StylePrompt | None = None


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """A request in the model's frame, its text and masked image encoded: once, for any number of denoisers."""

    request: Request
    framed: FramedProduct  # on the CPU: requests are many
    condition: Condition


def fit_prompt(pipeline: CanvasPipeline, product: str, background: str) -> str:
    """Return the prompt of a product before a background, with as much of its name as the text towers have room for."""

    return fit_caption(product, background, partial(get_overflow, pipeline.towers))


@torch.no_grad()
def encode_requests(pipeline: CanvasPipeline, requests: Sequence[Request]) -> list[EncodedRequest]:
    """Encode `requests`, in their order; ValueError for a prompt that is too long or refused.

    What differs in its seed alone is encoded once, a product is framed once.
    """
    products: dict[int, FramedProduct] = {}
    conditions: dict[tuple[int, str | None, int], Condition] = {}
    encoded = []
    for request in requests:
        product = id(request.product)
        key = product, request.prompt, id(request.style)
        if key not in conditions:
            pipeline.check_prompts(request.prompt)
            if product not in products:
                products[product] = frame_for_pipeline(pipeline, request.product)
            style = request.style and request.style.scale_for_prompt(request.prompt)
            framed = products[product].to(pipeline.device)
            conditions[key] = build_condition(pipeline, framed, request.prompt, style=style)
        encoded.append(EncodedRequest(request, products[product], conditions[key]))
    return encoded


@torch.no_grad()
def iterate_images(
    pipeline: CanvasPipeline,
    requests: Sequence[EncodedRequest],
    sampling: SamplingSpec,
    *,
    text_to_image: TextToImage | None = None,
) -> Iterator[tuple[int, Pixels]]:
    """Yield (place in `requests`, image of the product image's size), a pass of one frame after the other; ValueError
    for an image that the pipeline's safety model refuses.

    `text_to_image` None: the pipeline's denoiser and decoder. Autoguidance is for that denoiser alone, where it has
    LoRAs.
    """
    denoiser, scheduler = text_to_image or (pipeline.denoiser, pipeline.get_scheduler())
    weak = get_weak_denoiser(pipeline) if text_to_image is None and sampling.autoguidance_scale else None
    device = pipeline.device  # diffusers looks through all parts for it
    sampler = LatentSampler(
        denoiser=denoiser,
        scheduler=scheduler,
        scale=get_latent_scale(pipeline.vae),
        steps=sampling.steps,
        guidance_scale=sampling.guidance_scale,
        guidance_stop=sampling.guidance_stop,
        weak=weak,
        autoguidance_scale=0.0 if weak is None else sampling.autoguidance_scale,
        reuse=sampling.reuse,
        precision=sampling.precision,
    )
    for places in group_into_passes(requests, sampling.batch_size):
        members = [requests[place] for place in places]
        condition = concatenate_conditions([member.condition for member in members], with_product=text_to_image is None)
        masked_latents = members[0].condition.masked_latents
        assert masked_latents is not None
        seeds = [member.request.seed for member in members]
        noise = sample_noise(masked_latents.shape[1:], seeds, device)
        latents = sampler.sample(noise, condition)
        features = None
        if text_to_image is None:  # encoded anew in every pass, as features are large
            features = encode_decoder_condition(pipeline, [member.framed.to(device) for member in members])
        frame, products = members[0].framed.frame, [member.request.product for member in members]
        wholes = decode_backgrounds(pipeline, latents, features, frame)
        close_ups = [None if text_to_image is not None else find_close_up(product, frame) for product in products]
        backgrounds = add_close_ups(pipeline, sampler, condition, noise, wholes, products, close_ups)
        backgrounds = upscale_backgrounds(pipeline, backgrounds, products)
        images = [background.composite(product) for background, product in zip(backgrounds, products, strict=True)]
        pipeline.safety.check_images(images, [_name_request(member.request) for member in members])
        yield from zip(places, images, strict=True)


def generate_images(
    pipeline: CanvasPipeline,
    requests: Sequence[EncodedRequest],
    sampling: SamplingSpec,
    *,
    name: str,
    text_to_image: TextToImage | None = None,
) -> list[Pixels]:
    """Return the images in the order of `requests`, under a progress bar.

    Args:
        pipeline: Whose parts are used.
        requests: Encoded by it.
        sampling: Steps, guidance, precision, and how many images go through the denoiser at once.
        name: Of the progress bar.
        text_to_image: None: the pipeline's denoiser and decoder.

    Raises:
        ValueError: The pipeline's safety model refuses an image, or a network gave NaN or infinity.
    """
    images = iterate_images(pipeline, requests, sampling, text_to_image=text_to_image)
    by_place = dict(tqdm(images, total=len(requests), desc=name, unit="image"))
    return [by_place[place] for place in range(len(requests))]


def group_into_passes(requests: Sequence[EncodedRequest], batch_size: int) -> list[list[int]]:
    """Return places in `requests`, at most `batch_size` of one frame, and with styles of the same scales, together."""
    groups: dict[object, list[int]] = {}
    for place, request in enumerate(requests):
        sets = request.condition.image_scales
        scales = None if sets is None else tuple(tuple(layers.items()) for layers in sets)
        groups.setdefault((request.framed.frame, scales), []).append(place)
    return [
        places[first : first + batch_size] for places in groups.values() for first in range(0, len(places), batch_size)
    ]


def concatenate_conditions(conditions: Sequence[Condition], *, with_product: bool) -> Condition:
    """Concatenate conditions of one image each; without the product: text-to-image."""
    columns: dict[str, torch.Tensor | None] = {}
    for field in fields(Condition):
        if field.name == "image_scales":
            continue
        values = [value for condition in conditions if (value := getattr(condition, field.name)) is not None]
        assert len(values) in (0, len(conditions)), f"{field.name} is given for some of the images only"
        kept = with_product or field.name not in ("hole", "masked_latents", "image_embeddings")
        columns[field.name] = torch.cat(values) if values and kept else None
    scales = conditions[0].image_scales if with_product else None  # the same in all of a pass
    return Condition(**columns, image_scales=scales)  # type: ignore[arg-type]


def _name_request(request: Request) -> str:
    prompt = "a style alone" if request.prompt is None else f"the prompt {request.prompt!r}"
    return f"the image of seed {request.seed} for {prompt}"
