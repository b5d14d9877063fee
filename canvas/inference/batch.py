"""Many products with a prompt, a style or both each, in passes of one frame: for evaluation and batch jobs.

Equal to calling the pipeline for each, up to rounding; a pass costs what its candidates would cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from diffusers import SchedulerMixin, UNet2DConditionModel
from tqdm import tqdm

from canvas.denoiser.sampling import Condition, LatentSampler, sample_noise
from canvas.denoiser.spec import SamplingSpec
from canvas.inference.conditioning import build_condition, compute_pipeline_frame, decode_composites
from canvas.inference.framed_product import FramedProduct, frame_product
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import Product
from canvas.inference.style import StylePrompt
from canvas.pins.images import Pixels
from canvas.vae.latents import get_latent_scale


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One picture to paint."""

    product: Product
    prompt: str | None
    seed: int
    style: StylePrompt | None = None

    @property
    def told(self) -> StylePrompt | None:
        """The style as it counts beside the prompt."""
        return self.style and self.style.scale_for_prompt(self.prompt)


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """A request in the model's frame, its text and known pixels encoded: once, for any number of denoisers."""

    request: Request
    scene: FramedProduct  # on the CPU: requests are many
    condition: Condition


@torch.no_grad()
def encode_request(pipeline: CanvasPipeline, request: Request, scene: FramedProduct | None = None) -> EncodedRequest:
    """`request`, encoded by the pipeline's parts; `scene`: its product's, if it is known already. Raises ValueError for
    a prompt that is too long."""
    pipeline.check_prompts(request.prompt)
    scene = scene or frame_product(
        request.product, compute_pipeline_frame(pipeline, request.product), torch.device("cpu")
    )
    condition = build_condition(pipeline, scene.to(pipeline.device), request.prompt, style=request.told)
    return EncodedRequest(request, scene, condition)


def encode_requests(pipeline: CanvasPipeline, requests: Sequence[Request]) -> list[EncodedRequest]:
    """`requests` in their order, encoded; those of one product, prompt and style, which differ in their seed alone,
    are encoded once and share it, and those of one product its scene. Raises ValueError for a prompt that is too
    long."""
    scenes: dict[int, FramedProduct] = {}
    known: dict[tuple[int, str | None, int], EncodedRequest] = {}
    found = []
    for request in requests:
        same = (id(request.product), request.prompt, id(request.style))
        if same not in known:
            known[same] = encode_request(pipeline, request, scenes.get(id(request.product)))
            scenes[id(request.product)] = known[same].scene
        found.append(replace(known[same], request=request))
    return found


@torch.no_grad()
def iterate_images(
    pipeline: CanvasPipeline,
    requests: Sequence[EncodedRequest],
    painting: SamplingSpec,
    *,
    text_to_image: tuple[UNet2DConditionModel, SchedulerMixin] | None = None,
) -> Iterator[tuple[int, Pixels]]:
    """(place in `requests`, picture of the product image's size), a pass of one frame after the other.

    `text_to_image`: a denoiser that is not told of the product; the product is put on what it paints, decoded by the
    autoencoder's own decoder. None: the pipeline's denoiser and decoder.
    """
    unet, scheduler = text_to_image or (pipeline.unet, pipeline.get_scheduler())
    sampler = LatentSampler(
        unet=unet,
        scheduler=scheduler,
        scale=get_latent_scale(pipeline.vae),
        steps=painting.steps,
        guidance_scale=painting.guidance_scale,
        guidance_stop=painting.guidance_stop,
        precision=painting.precision,
    )
    for places in group_into_passes(requests, painting.batch_size):
        chosen = [requests[place] for place in places]
        condition = concatenate_conditions([one.condition for one in chosen], with_product=text_to_image is None)
        masked_latents = chosen[0].condition.masked_latents
        assert masked_latents is not None
        seeds = [one.request.seed for one in chosen]
        raw = sampler.sample(sample_noise(masked_latents.shape[1:], seeds, pipeline.device), condition)
        features = None if text_to_image is not None else _encode_products(pipeline, chosen)
        products = [one.request.product for one in chosen]
        yield from zip(
            places,
            decode_composites(pipeline, raw, features, chosen[0].scene.frame, products),
            strict=True,
        )


def generate_images(
    pipeline: CanvasPipeline, requests: Sequence[EncodedRequest], painting: SamplingSpec, *, name: str, **options: Any
) -> list[Pixels]:
    """Pictures in the order of `requests`, under a progress bar called `name`; `options` as `painted` takes them."""
    found: dict[int, Pixels] = {}
    with tqdm(total=len(requests), desc=name, unit="picture") as bar:
        for place, picture in iterate_images(pipeline, requests, painting, **options):
            found[place] = picture
            bar.update()
    return [found[place] for place in range(len(requests))]


def group_into_passes(requests: Sequence[EncodedRequest], batch_size: int) -> list[list[int]]:
    """Places in `requests`, at most `batch_size` of one frame, and with styles that count alike, together."""
    alike: dict[object, list[int]] = {}
    for place, one in enumerate(requests):
        sets = one.condition.image_scales
        counts = None if sets is None else tuple(tuple(scales.items()) for scales in sets)
        alike.setdefault((one.scene.frame, counts), []).append(place)
    return [
        places[first : first + batch_size] for places in alike.values() for first in range(0, len(places), batch_size)
    ]


def concatenate_conditions(conditions: Sequence[Condition], *, with_product: bool) -> Condition:
    """Conditions of one picture each as one of all; without the product: text-to-image."""
    columns: dict[str, torch.Tensor | None] = {}
    for field in fields(Condition):
        if field.name == "image_scales":
            continue
        values = [value for one in conditions if (value := getattr(one, field.name)) is not None]
        assert len(values) in (0, len(conditions)), f"{field.name} is given for some of the pictures only"
        known = with_product or field.name not in ("hole", "masked_latents", "image_embeddings")
        columns[field.name] = torch.cat(values) if values and known else None
    scales = conditions[0].image_scales if with_product else None  # the same in all of a pass
    return Condition(**columns, image_scales=scales)  # type: ignore[arg-type]


def _encode_products(pipeline: CanvasPipeline, chosen: Sequence[EncodedRequest]) -> list[torch.Tensor] | None:
    """Of the conditional decoder, if there is one: made anew in every pass, for they are as large as its maps."""
    decoder = pipeline.decoder
    if decoder is None:
        return None
    device = pipeline.device  # diffusers looks through all parts for it
    scenes = [one.scene.to(device) for one in chosen]
    known = [decoder.encode_condition(scene.pixels, scene.mask, scene.alpha) for scene in scenes]
    return [torch.cat(level) for level in zip(*known, strict=True)]
