"""Photographs that are extended, and long canvases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from bench.scenes.subjects import summarize
from canvas.inference.scene.framing import frame_windows
from canvas.layout.formats import Rectangle
from canvas.layout.spec import build_layout
from canvas.layout.windows import plan_windows
from canvas.pins.images import Pixels
from canvas.pins.products import ProductPin
from evaluation.judges.features import extract_trunk_features
from evaluation.measures.canvases.borders import compute_border_gradient_ratio
from evaluation.measures.canvases.repetition import compute_repetition
from evaluation.measures.distances import half_sample_error, kernel_distance
from evaluation.scenes.subjects import Subjects, cut_out

HIDDEN = (0.25, 0.5)
REACH_SHARE = 1 / 64
"""Pixels that count as the border, over the shorter side."""
VIEW = 160
BANNER = (576, 192)  # width, height


@dataclass(frozen=True, slots=True)
class HiddenPart:
    """A pin of which a part along one side is hidden."""

    place: str  # where the rest stands: "keep-left" and the like
    kept: tuple[int, int, int, int]  # left, top, right, bottom
    hidden: tuple[int, int, int, int]


def measure_outpainting(subjects: Subjects, count: int) -> dict[str, Any]:
    """Hide a part of each pin, generate it again, and compare."""
    rng = np.random.default_rng(0)
    images: dict[str, list[Pixels]] = {"generated": [], "real": [], "mirrored": []}
    views: dict[str, list[Pixels]] = {name: [] for name in images}
    ratios: dict[str, list[float]] = {name: [] for name in images}
    whole: list[bool] = []  # nothing of the product is hidden
    for number, pin in enumerate(tqdm(subjects.pins[:count], desc="outpainting", unit="pin")):
        part = choose_hidden_part(pin, rng.uniform(*HIDDEN))
        layout = build_layout(f"{pin.image.width}x{pin.image.height}", place=part.place)
        output = subjects.pipeline(
            pin.image.crop(part.kept), subjects.write_prompt([pin], pin.background), layout=layout, seed=1000 + number
        )
        version_images = {
            "generated": np.asarray(output.images[0]),
            "real": np.asarray(pin.image),
            "mirrored": mirror_hidden(pin.image, part),
        }
        (box,) = output.boxes
        whole.append(_count_product(pin, part) == 0)
        reach = max(2, round(REACH_SHARE * min(pin.image.size)))
        for name, pixels in version_images.items():
            images[name].append(pixels)
            left, top, right, bottom = part.hidden
            views[name].append(_view(pixels[top:bottom, left:right]))
            ratios[name].append(compute_border_gradient_ratio(pixels, box, reach=reach))
    features = {name: extract_trunk_features(np.stack(parts)) for name, parts in views.items()}
    half = len(features["real"]) // 2
    of_whole = _divide(*(list(compress(ratios[name], whole)) for name in ("generated", "real")))
    return {
        "pins": len(images["real"]),
        "kid": {
            name: [
                round(kernel_distance(features["real"], features[name]), 4),
                round(half_sample_error(kernel_distance, features["real"], features[name]), 4),
            ]
            for name in ("generated", "mirrored")
        }
        | {"real halves": round(kernel_distance(features["real"][:half], features["real"][half:]), 4)},
        "border_gradient_ratio": {name: summarize(values) for name, values in ratios.items()},
        "border_gradient_over_real": summarize(_divide(ratios["generated"], ratios["real"])),
        "whole_products": sum(whole),
        "border_gradient_over_real_whole": summarize(of_whole) if of_whole else None,
        "repetition": {
            name: summarize([value for image in version_images if (value := _measure_repetition(image)) is not None])
            for name, version_images in images.items()
        },
    }


def measure_banners(subjects: Subjects, count: int) -> dict[str, Any]:
    """Generate banners, and look at the ends of their windows and for repetition."""
    width, height = BANNER
    windows = plan_windows((height, width), subjects.pipeline.config["max_aspect"])
    frame, places = frame_windows(subjects.pipeline, (height, width), windows)
    ends = {round(end * width / frame.width) for place in places for end in (place.left, place.left + place.width)}
    ends -= {0, width}
    between = [round(np.mean(pair)) for pair in zip(sorted(ends), sorted(ends)[1:], strict=False)]
    figures: dict[str, list[float]] = {"at ends": [], "between": [], "generated": [], "real": []}
    for number, pin in enumerate(tqdm(subjects.pins[:count], desc="banners", unit="pin")):
        prompt = subjects.write_prompt([pin], subjects.get_background(number))
        layout = build_layout(f"{width}x{height}", place="center", scale=0.7)
        image = np.asarray(subjects.pipeline(cut_out(pin), prompt, layout=layout, seed=1000 + number).images[0])
        figures["at ends"].append(float(np.mean([_measure_line(image, end) for end in ends])))
        figures["between"].append(float(np.mean([_measure_line(image, end) for end in between])))
        generated, real = _measure_repetition(image), _measure_repetition(_crop_band(pin))
        if generated is not None and real is not None:
            figures["generated"].append(generated)
            figures["real"].append(real)
    gained = np.subtract(figures["generated"], figures["real"]).tolist()
    return {
        "banners": len(figures["between"]),
        "windows": len(places),
        "gradient_ratio": {name: summarize(figures[name]) for name in ("at ends", "between")},
        "repetition": {name: summarize(figures[name]) for name in ("generated", "real")},
        "repetition_over_real": summarize(gained),
    }


def choose_hidden_part(pin: ProductPin, share: float) -> HiddenPart:
    """Return the side of a pin, `share` of its length deep, that shows least of the product."""
    height, width = pin.mask.shape
    tall, wide = round(share * height), round(share * width)
    parts = [
        HiddenPart("keep-left", (0, 0, width - wide, height), (width - wide, 0, width, height)),
        HiddenPart("keep-right", (wide, 0, width, height), (0, 0, wide, height)),
        HiddenPart("keep-top", (0, 0, width, height - tall), (0, height - tall, width, height)),
        HiddenPart("keep-bottom", (0, tall, width, height), (0, 0, width, tall)),
    ]
    return min(parts, key=lambda part: _count_product(pin, part))


def mirror_hidden(image: Image.Image, part: HiddenPart) -> Pixels:
    """Return the image with its hidden part a mirrored copy of the rest: no border, and nothing new."""
    left, top, right, bottom = part.kept
    sides = top, image.height - bottom, left, image.width - right
    kept = np.asarray(image.crop(part.kept))
    return np.asarray(cv2.copyMakeBorder(kept, *sides, cv2.BORDER_REFLECT_101), np.uint8)


def _count_product(pin: ProductPin, part: HiddenPart) -> int:
    left, top, right, bottom = part.hidden
    return int(pin.mask[top:bottom, left:right].sum())


def _view(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.resize(pixels, (VIEW, VIEW), interpolation=cv2.INTER_AREA), np.uint8)


def _measure_line(image: Pixels, column: int) -> float:
    """Return the gradient across a column over that beside it."""
    box = Rectangle(0, column, image.shape[0], image.shape[1] - column)
    return compute_border_gradient_ratio(image, box, reach=max(2, round(REACH_SHARE * image.shape[0])))


def _measure_repetition(image: Pixels) -> float | None:
    """Return the repetition; None of an image that is all flat."""
    try:
        return compute_repetition(image)
    except ValueError:
        return None


def _crop_band(pin: ProductPin) -> Pixels:
    """Return the middle of a pin in a banner's aspect."""
    height = max(1, round(pin.image.width * BANNER[1] / BANNER[0]))
    top = (pin.image.height - height) // 2
    return np.asarray(pin.image)[max(0, top) : top + height]


def _divide(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(first, second, strict=True) if other > 0]  # 0 on a plain white wall
