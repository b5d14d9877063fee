"""Products painted after style pictures, with a prompt and without, at several strengths: what is asked for, the
pictures, and the score of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from evaluation.style_prompts import StyleScore, agreements, standardised

if TYPE_CHECKING:
    import open_clip

    from canvas.data.product_pins import ProductPin
    from canvas.data.style_pins import StylePin
    from canvas.inference.many import Request
    from canvas.inference.painting_spec import PaintingSpec
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.inference.product import Pixels
    from evaluation.distances import Features
    from evaluation.judges import Judges
    from evaluation.leakage import ProductJudge


@dataclass(frozen=True, slots=True)
class Subject:
    """A product that is painted, and what is known of the pin that it comes from."""

    pin: ProductPin
    product_id: str | None
    category: str | None
    scene: str | None


@dataclass(frozen=True, slots=True)
class Asked:
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


def followed(
    subjects: Sequence[Subject], by_scene: Mapping[str, Sequence[StylePin]], count: int, together: int
) -> tuple[list[StylePin], list[list[int]]]:
    """Style pins, and for each subject the places of `count` of them: of as many scenes as there are, none with the
    subject's own product. So many subjects `together` follow the same, the next ones others, as far as there are. A
    subject may have fewer."""
    styles: dict[str, tuple[int, StylePin]] = {}
    chosen: list[list[int]] = []
    for number, subject in enumerate(subjects):
        fitting = {scene: [pin for pin in pins if _fits(pin, subject)] for scene, pins in by_scene.items()}
        turns = [
            pins[(number // together + pick) % len(pins)]
            for pick in range(max(map(len, fitting.values())))
            for pins in fitting.values()
            if pick < len(pins)
        ]
        chosen.append([styles.setdefault(pin.pin_id, (len(styles), pin))[0] for pin in turns[:count]])
    return [pin for _, pin in styles.values()], chosen


def _fits(pin: StylePin, subject: Subject) -> bool:
    """Whether the picture shows another product, so that what is followed is not the product's own picture."""
    return pin.pin_id != subject.pin.pin_id and (pin.product_id is None or pin.product_id != subject.product_id)


def asked(chosen: Sequence[Sequence[int]], strengths: Sequence[float], seeds: int, seed: int) -> list[Asked]:
    """Every subject with each of its styles, without style and at every strength, with a prompt and without."""
    return [
        Asked(subject, style, strength, prompted, seed + number)
        for subject, own in enumerate(chosen)
        for style in own
        for strength in (0.0, *strengths)
        for prompted in (False, True)
        for number in range(seeds)
    ]


def prompt_of(subject: Subject, style: StylePin) -> str:
    """The words for the subject before the style picture's background."""
    from canvas.data.captions import joined

    return joined(subject.pin.product, style.background)


def requests_of(
    pipeline: CanvasPipeline,
    subjects: Sequence[Subject],
    styles: Sequence[StylePin],
    wanted: Sequence[Asked],
    layers: Literal["all", "style"],
    typical: float,
) -> Iterator[Request]:
    """A request each; every style picture is embedded once."""
    from canvas.inference.many import Request
    from canvas.inference.product import masked_product
    from canvas.inference.style import StylePrompt, style_of_pictures

    known: dict[tuple[int, float], StylePrompt] = {}
    products = [masked_product(one.pin.image, one.pin.mask) for one in subjects]
    for one in wanted:
        how, prompt = (one.style, one.strength), prompt_of(subjects[one.subject], styles[one.style])
        if one.strength and how not in known:
            image = styles[one.style].image
            known[how] = style_of_pictures(pipeline, [image], strength=one.strength, layers=layers, typical=typical)
        yield Request(
            product=products[one.subject],
            prompt=prompt if one.prompted else None,
            seed=one.seed,
            style=known.get(how),
        )


def painted_as_asked(
    pipeline: CanvasPipeline,
    subjects: Sequence[Subject],
    styles: Sequence[StylePin],
    wanted: Sequence[Asked],
    painting: PaintingSpec,
    *,
    layers: Literal["all", "style"],
    typical: float,
) -> list[Pixels]:
    """The pictures, in the order of `wanted`; equal ones are painted once."""
    from canvas.inference.many import all_painted, all_prepared
    from canvas.models.adapters import merge_lora

    merge_lora(pipeline.unet)
    different = {one.same: one for one in wanted}
    requests = list(requests_of(pipeline, subjects, styles, list(different.values()), layers, typical))
    pictures = all_painted(
        pipeline,
        all_prepared(pipeline, requests),
        painting,
        name="styles",
    )
    found = dict(zip(different, pictures, strict=True))
    return [found[one.same] for one in wanted]


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleJudges:
    """All that styled pictures are scored by; none of it steers the generator's style."""

    judges: Judges
    finder: ProductJudge | None  # None: truth knows no products
    clip: open_clip.CLIP  # the first text-image encoder
    real: Features  # of real pictures (evaluation.features), which agreement is measured against
    side: int  # pixels of the squares that they see


def scored(
    by: StyleJudges,
    pipeline: CanvasPipeline,
    subjects: Sequence[Subject],
    styles: Sequence[StylePin],
    wanted: Sequence[Asked],
    pictures: Sequence[Pixels],
) -> tuple[list[StyleScore], Features]:
    """A score each, and the pictures' features."""
    from canvas.data.scene_views import square_view
    from canvas.inference.product import masked_product
    from evaluation.features import scene_features, trunk_features
    from evaluation.leakage import leaked

    views = np.stack([square_view(Image.fromarray(picture), by.side) for picture in pictures])
    features = standardised(trunk_features(views), by.real)
    shown = np.stack([square_view(style.image, by.side) for style in styles])
    others = [[at for at, other in enumerate(styles) if other.scene != styles[one.style].scene] for one in wanted]
    own, rest = agreements(
        features, standardised(trunk_features(shown), by.real), [one.style for one in wanted], others
    )
    seen = [soft for soft, _ in by.judges.seen(scene_features(views))]
    products = [masked_product(one.pin.image, one.pin.mask) for one in subjects]
    leaks: list[bool | None] = [None] * len(wanted)
    if by.finder is not None:
        masks = [Image.fromarray((one.pin.mask * 255).astype(np.uint8)) for one in subjects]
        hidden = np.stack([square_view(mask, by.side) >= 1 for mask in masks])  # every pixel that it touches
        said = by.finder.seen(views, hidden[[one.subject for one in wanted]])
        leaks = leaked(
            said, [styles[one.style].category for one in wanted], [subjects[one.subject].category for one in wanted]
        )
    text = _text_agreement(by, pipeline, subjects, styles, wanted, views)
    scores = []
    for place, (one, picture) in enumerate(zip(wanted, pictures, strict=True)):
        product = products[one.subject]
        changed = np.abs(picture.astype(int) - product.pixels)[product.core]
        scores.append(
            StyleScore(
                strength=one.strength,
                prompted=one.prompted,
                item=(one.subject, one.style),
                product_scene=subjects[one.subject].scene,
                style_scene=styles[one.style].scene,
                seen=seen[place],
                style_agreement=float(own[place]),
                other_agreement=float(rest[place]),
                text_agreement=text.get(place),
                core_difference=int(changed.max(initial=0)),
                leaked=leaks[place],
            )
        )
    return scores, features


def _text_agreement(
    by: StyleJudges,
    pipeline: CanvasPipeline,
    subjects: Sequence[Subject],
    styles: Sequence[StylePin],
    wanted: Sequence[Asked],
    views: np.ndarray,
) -> dict[int, float]:
    """Of the pictures that had a prompt, by place; the encoder's text half is the pipeline's own copy."""
    from evaluation.alignment import text_agreement
    from evaluation.candidates import embedded, embedded_texts

    places = [place for place, one in enumerate(wanted) if one.prompted]
    prompts = [prompt_of(subjects[wanted[place].subject], styles[wanted[place].style]) for place in places]
    if not places:
        return {}
    found = text_agreement(embedded(by.clip, views[places], 64), embedded_texts(pipeline.text_encoder, prompts))
    return dict(zip(places, map(float, found), strict=True))
