"""Products painted after style pictures, with a prompt and without, at several strengths: what is asked for, the
pictures, and the score of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from evaluation.generator.style_scores import StyleScore, average_agreements, compute_agreements, standardize_features

if TYPE_CHECKING:
    import open_clip

    from canvas.denoiser.spec import SamplingSpec
    from canvas.inference.batch import Request
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.inference.product import Pixels
    from canvas.pins.products import ProductPin
    from canvas.pins.scene_views import Views
    from canvas.styles.pins import LabelledProducts, StylePin
    from evaluation.generator.leakage import ProductJudge
    from evaluation.judges.judges import Judges
    from evaluation.measures.distances import Features


@dataclass(frozen=True, slots=True)
class Subject:
    """A product that is painted, and what is known of the pin that it comes from."""

    pin: ProductPin
    product_id: str | None
    category: str | None
    scene: str | None


@dataclass(frozen=True, slots=True)
class StyleTrial:
    """What one picture was asked for with."""

    subject: int  # places
    style: int
    strength: float
    prompted: bool
    seed: int

    @property
    def same(self) -> tuple[object, ...]:
        """Equal for those that get the same picture: without prompt and strength the style is all one."""
        nothing = not self.prompted and self.strength == 0
        return (self.subject, None if nothing else self.style, self.strength, self.prompted, self.seed)


def assign_styles(
    subjects: Sequence[Subject], by_scene: Mapping[str, Sequence[StylePin]], count: int, together: int
) -> tuple[list[StylePin], list[list[int]]]:
    """All style pins, and for each subject the places of `count` of them: of as many scenes as there are, none with the
    subject's own product. So many subjects `together` follow the same, the next ones others, as far as there are. A
    subject may have fewer."""
    styles = [pin for pins in by_scene.values() for pin in pins]
    places = {pin.pin_id: place for place, pin in enumerate(styles)}
    chosen: list[list[int]] = []
    for number, subject in enumerate(subjects):
        fitting = {scene: [pin for pin in pins if _is_other_product(pin, subject)] for scene, pins in by_scene.items()}
        turns = [
            pins[(number // together + pick) % len(pins)]
            for pick in range(max(map(len, fitting.values())))
            for pins in fitting.values()
            if pick < len(pins)
        ]
        chosen.append([places[pin.pin_id] for pin in turns[:count]])
    return styles, chosen


def select_comparisons(subject: Subject, styles: Sequence[StylePin], style: int) -> tuple[list[int], list[int]]:
    """Places of the pictures of the style's own scene, and of other scenes, that a picture which follows it is compared
    with: neither the style itself nor what shows the subject's product."""
    fitting = [place for place, pin in enumerate(styles) if place != style and _is_other_product(pin, subject)]
    alike = [place for place in fitting if _get_scene_name(styles[place]) == _get_scene_name(styles[style])]
    return alike, [place for place in fitting if place not in alike]


def _is_other_product(pin: StylePin, subject: Subject) -> bool:
    """Whether the picture shows another product, so that what is followed is not the product's own picture."""
    return pin.pin_id != subject.pin.pin_id and (pin.product_id is None or pin.product_id != subject.product_id)


def _get_scene_name(pin: StylePin) -> str:
    """The scene; where truth knows none, the background in words."""
    return pin.scene or pin.background


def plan_trials(
    chosen: Sequence[Sequence[int]], strengths: Sequence[float], seeds: int, headline_seeds: int, seed: int
) -> list[StyleTrial]:
    """Every subject with each of its styles, without style and at every strength, with a prompt and without; the first
    strength and none, without a prompt, with `headline_seeds`."""
    return [
        StyleTrial(subject, style, strength, prompted, seed + number)
        for subject, own in enumerate(chosen)
        for style in own
        for strength in (0.0, *strengths)
        for prompted in (False, True)
        for number in range(headline_seeds if not prompted and strength in (0.0, strengths[0]) else seeds)
    ]


def format_prompt(subject: Subject, style: StylePin) -> str:
    """The words for the subject before the style picture's background."""
    from canvas.pins.captions import format_caption

    return format_caption(subject.pin.product, style.background)


def build_requests(
    pipeline: CanvasPipeline,
    subjects: Sequence[Subject],
    styles: Sequence[StylePin],
    wanted: Sequence[StyleTrial],
    layers: Literal["all", "style"],
    typical: float,
) -> Iterator[Request]:
    """A request each; every style picture is embedded once."""
    from canvas.inference.batch import Request
    from canvas.inference.product import build_masked_product
    from canvas.inference.style import StylePrompt, encode_style_images

    known: dict[tuple[int, float], StylePrompt] = {}
    products = [build_masked_product(one.pin.image, one.pin.mask) for one in subjects]
    for one in wanted:
        how, prompt = (one.style, one.strength), format_prompt(subjects[one.subject], styles[one.style])
        if one.strength and how not in known:
            image = styles[one.style].image
            known[how] = encode_style_images(pipeline, [image], strength=one.strength, layers=layers, typical=typical)
        yield Request(
            product=products[one.subject],
            prompt=prompt if one.prompted else None,
            seed=one.seed,
            style=known.get(how),
        )


def generate_trials(
    pipeline: CanvasPipeline,
    subjects: Sequence[Subject],
    styles: Sequence[StylePin],
    wanted: Sequence[StyleTrial],
    painting: SamplingSpec,
    *,
    layers: Literal["all", "style"],
    typical: float,
) -> list[Pixels]:
    """The pictures, in the order of `wanted`; equal ones are painted once."""
    from canvas.denoiser.lora import merge_lora
    from canvas.inference.batch import encode_requests, generate_images

    merge_lora(pipeline.unet)
    different = {one.same: one for one in wanted}
    requests = list(build_requests(pipeline, subjects, styles, list(different.values()), layers, typical))
    pictures = generate_images(
        pipeline,
        encode_requests(pipeline, requests),
        painting,
        name="styles",
    )
    found = dict(zip(different, pictures, strict=True))
    return [found[one.same] for one in wanted]


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleScorer:
    """All that styled pictures are scored by; none of it steers the generator's style."""

    judges: Judges
    finder: ProductJudge | None  # None: truth knows no products
    leaks: LabelledProducts  # what the finder is to find where it is put into pictures
    clip: open_clip.CLIP  # the first text-image encoder
    real: Features  # of real pictures (evaluation.judges.features), which agreement is measured against
    side: int  # pixels of the squares that they see
    seed: int  # of which products are put into pictures, and where


def score_trials(
    by: StyleScorer,
    pipeline: CanvasPipeline,
    subjects: Sequence[Subject],
    styles: Sequence[StylePin],
    wanted: Sequence[StyleTrial],
    pictures: Sequence[Pixels],
    split_of: Mapping[str, str],
) -> tuple[list[StyleScore], Features]:
    """A score each, and the pictures' features; `split_of` the styles' pins."""
    from canvas.inference.product import build_masked_product
    from canvas.pins.scene_views import crop_center_square
    from evaluation.judges.features import extract_scene_features, extract_trunk_features

    views = np.stack([crop_center_square(Image.fromarray(picture), by.side) for picture in pictures])
    features = standardize_features(extract_trunk_features(views), by.real)
    shown = np.stack([crop_center_square(style.image, by.side) for style in styles])
    cosines = compute_agreements(features, standardize_features(extract_trunk_features(shown), by.real))
    seen = [soft for soft, _ in by.judges.seen(extract_scene_features(views))]
    products = [build_masked_product(one.pin.image, one.pin.mask) for one in subjects]
    leaks, found = _detect_leaks(by, subjects, styles, wanted, views)
    text = _compute_text_agreement(by, pipeline, subjects, styles, wanted, views)
    scores = []
    for place, (one, picture) in enumerate(zip(wanted, pictures, strict=True)):
        subject, style, product = subjects[one.subject], styles[one.style], products[one.subject]
        alike, others = select_comparisons(subject, styles, one.style)
        changed = np.abs(picture.astype(int) - product.pixels)[product.core]
        scores.append(
            StyleScore(
                strength=one.strength,
                prompted=one.prompted,
                seed=one.seed,
                item=(one.subject, one.style),
                product=subject.product_id or subject.pin.pin_id,
                product_scene=subject.scene,
                style_scene=style.scene,
                style_split=split_of[style.pin_id],
                seen=seen[place],
                style_agreement=float(cosines[place, one.style]),
                scene_agreement=average_agreements(cosines[place], alike),
                other_agreement=average_agreements(cosines[place], others),
                text_agreement=text.get(place),
                core_difference=int(changed.max(initial=0)),
                leaked=leaks[place],
                leak_found=found.get(place),
            )
        )
    return scores, features


def _detect_leaks(
    by: StyleScorer,
    subjects: Sequence[Subject],
    styles: Sequence[StylePin],
    wanted: Sequence[StyleTrial],
    views: Views,
) -> tuple[Sequence[bool | None], dict[int, bool]]:
    """Whether the style picture's product is seen in each picture; and by place, of those with a style where that can
    be told, whether it would be if it were there."""
    from canvas.pins.scene_views import crop_center_square
    from evaluation.generator.leakage import detect_leaks, insert_products

    if by.finder is None:
        return [None] * len(wanted), {}
    masks = [Image.fromarray((one.pin.mask * 255).astype(np.uint8)) for one in subjects]
    touched = np.stack([crop_center_square(mask, by.side) >= 1 for mask in masks])  # every pixel that it touches
    hidden = touched[[one.subject for one in wanted]]
    categories = [styles[one.style].category for one in wanted]
    leaks = detect_leaks(by.finder.seen(views, hidden), categories, [subjects[one.subject].category for one in wanted])
    told = [
        category if one.strength and leak is not None else None
        for one, category, leak in zip(wanted, categories, leaks, strict=True)
    ]
    copies, places = insert_products(views, hidden, told, by.leaks, by.seed)
    seen = by.finder.seen(copies, hidden[places])
    return leaks, {place: said == told[place] for place, said in zip(places, seen, strict=True)}


def _compute_text_agreement(
    by: StyleScorer,
    pipeline: CanvasPipeline,
    subjects: Sequence[Subject],
    styles: Sequence[StylePin],
    wanted: Sequence[StyleTrial],
    views: Views,
) -> dict[int, float]:
    """Of the pictures that had a prompt, by place; the encoder's text half is the pipeline's own copy."""
    from evaluation.generator.candidates import embed_images, embed_prompts
    from evaluation.measures.alignment import text_agreement

    places = [place for place, one in enumerate(wanted) if one.prompted]
    prompts = [format_prompt(subjects[wanted[place].subject], styles[wanted[place].style]) for place in places]
    if not places:
        return {}
    found = text_agreement(embed_images(by.clip, views[places], 64), embed_prompts(pipeline.text_encoder, prompts))
    return dict(zip(places, map(float, found), strict=True))
