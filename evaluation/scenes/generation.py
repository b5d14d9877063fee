"""Images of families of requests: those that are one plain pass in batches, the others by the pipeline one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from canvas.denoiser.spec import SamplingSpec
from canvas.inference.batch import Request, encode_requests, iterate_images
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.scene.build import Scene, build_scene
from canvas.layout.compose import NO_PRODUCT
from canvas.layout.windows import plan_windows
from canvas.pins.images import Pixels
from canvas.safety.guard import UnsafeContentError
from evaluation.measures.certificates import find_certificate_fault
from evaluation.scenes.families import Family, SceneRequest


@dataclass(frozen=True, slots=True)
class SceneImage:
    """What the generator made of a request."""

    request: SceneRequest
    pixels: Pixels | None  # None: mode soft gave no image
    core_difference: int | None  # largest change of a byte on its products' cores; None: mode soft changes them
    fault: str | None = None  # why an image in mode soft has no certificate that holds


Images = Mapping[str, Mapping[str, Sequence[SceneImage]]]
"""Family -> slice -> images, in the order of the requests."""


def generate_families(pipeline: CanvasPipeline, families: Mapping[str, Family], sampling: SamplingSpec) -> Images:
    """Generate all images of all families under one progress bar. Raises as `generate_scenes` does."""
    requests = [request for family in families.values() for slice_ in family.values() for request in slice_]
    images = iter(generate_scenes(pipeline, requests, sampling))
    return {
        name: {key: [next(images) for _ in slice_] for key, slice_ in family.items()}
        for name, family in families.items()
    }


def generate_scenes(
    pipeline: CanvasPipeline, requests: Sequence[SceneRequest], sampling: SamplingSpec
) -> list[SceneImage]:
    """Return the images in the order of `requests`, certificates of mode soft verified from their files.

    Args:
        pipeline: Whose progress bars are off.
        requests: Images to generate.
        sampling: As the pipeline recommends it, and how many images go through the denoiser at once.

    Raises:
        ValueError: A safety model refuses an image, or a network gave NaN or infinity, but for that of the light: its
            image has a fault.
    """
    plain = [place for place, request in enumerate(requests) if is_plain(pipeline, request)]
    scenes = [build_scene(requests[place].images, requests[place].masks, requests[place].layout) for place in plain]
    encoded = encode_requests(
        pipeline,
        [
            Request(product=scene.product, prompt=requests[place].prompt, seed=requests[place].seed)
            for place, scene in zip(plain, scenes, strict=True)
        ],
    )
    images: dict[int, SceneImage] = {}
    with tqdm(total=len(requests), desc="scenes", unit="image") as bar:
        for number, pixels in iterate_images(pipeline, encoded, sampling):
            difference = measure_scene_core(pixels, scenes[number])
            images[plain[number]] = SceneImage(requests[plain[number]], pixels, difference)
            bar.update()
        for place, request in enumerate(requests):
            if place not in images:
                images[place] = generate_scene(pipeline, request)
                bar.update()
    return [images[place] for place in range(len(requests))]


def is_plain(pipeline: CanvasPipeline, request: SceneRequest) -> bool:
    """Return whether an image is one pass through one frame, and nothing is done to it afterwards."""
    return not request.settings and (
        request.layout is None or len(plan_windows(request.layout.canvas, pipeline.config["max_aspect"])) == 1
    )


def generate_scene(pipeline: CanvasPipeline, request: SceneRequest) -> SceneImage:
    """Generate one image by the pipeline. Raises as `generate_scenes` does."""
    try:
        output = pipeline(
            request.images,
            request.prompt,
            mask=request.masks,
            layout=request.layout,
            seed=request.seed,
            **request.settings,
        )
    except UnsafeContentError:
        raise
    except ValueError as error:
        if not request.is_soft:
            raise
        return SceneImage(request, None, None, str(error))
    (image,) = output.images
    if request.is_soft:
        fault = find_certificate_fault(image, output.certificates[0], request.images, request.masks)
        return SceneImage(request, np.asarray(image), None, fault)
    scene = build_scene(request.images, request.masks, request.layout)
    return SceneImage(request, np.asarray(image), measure_scene_core(np.asarray(image), scene))


def measure_scene_core(image: Pixels, scene: Scene) -> int:
    """Return the largest change of a byte on the cores of the products of an image (H, W, 3), 0..255."""
    core = scene.product.core if scene.owners is None else scene.owners != NO_PRODUCT
    return int(np.abs(image.astype(int) - scene.product.pixels)[core].max(initial=0))
