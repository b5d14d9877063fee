"""Trials of style images on products, with a prompt and without, at several strengths: plan, images and grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from canvas.denoiser.spec import SamplingSpec
from canvas.inference.batch import Request, encode_requests, fit_prompt, generate_images
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_masked_product
from canvas.inference.style import StylePrompt, encode_style_images
from canvas.pins import tables
from canvas.pins.fallbacks import Notes, choose_splits
from canvas.pins.images import Pixels, draw_contact_sheet
from canvas.pins.products import ProductPin, load_product_pins
from canvas.styles.pins import StylePin, read_style_pins
from evaluation.generator.spec import ProductNameSpec, StyleEvaluationSpec
from evaluation.generator.style_plan import StyleTrial, plan_trials

MAX_SCENES = 200  # scenes of style images, at most; without truth every background has a name of its own
IMAGES_PER_SCENE = 3  # style images of a scene to choose from, and to compare with


@dataclass(frozen=True, slots=True)
class Subject:
    """A product that images are generated of, and the scene that it came in."""

    pin: ProductPin
    scene: str | None


@dataclass(frozen=True, slots=True)
class StylePlan:
    """Trials, and the subjects and styles that they are of; no trials where no style image shows another product."""

    subjects: Sequence[Subject]
    styles: Sequence[StylePin]
    trials: Sequence[StyleTrial]


def load_style_plan(
    spec: StyleEvaluationSpec,
    names: ProductNameSpec,
    notes: Notes,
    *,
    pins: Path,
    kept: Path,
    truth: Path,
    masks: Path,
    captions: Path,
) -> StylePlan:
    """Return the trials of `spec` on pins of the tables; what stands for missing splits is noted. Raises `ValueError`
    if there is no product."""
    sources = pins, kept, masks, captions
    products = load_product_pins(*sources, splits=spec.splits, count=spec.products, names=names.source, notes=notes)
    scene_of = dict(zip(*tables.read(truth, ["pin_id", "scene"]).to_pydict().values(), strict=True))
    subjects = [Subject(pin, scene_of.get(pin.pin_id)) for pin in products]
    present = tables.read_kept_splits(pins, kept).values()
    for splits in (choose_splits(present, spec.style_splits, notes), tables.SPLITS):
        by_scene = read_style_pins(pins, kept, truth, captions, splits=splits, scenes=MAX_SCENES, each=IMAGES_PER_SCENE)
        styles, assigned = assign_styles(subjects, by_scene, spec.styles, spec.grid_products)
        if trials := plan_trials(assigned, spec.strengths, spec.seeds, spec.headline_seeds, spec.seed):
            return StylePlan(subjects, styles, trials)
        notes.add(f"no style image of {' or '.join(splits)} shows another product, so training pins were taken, too")
    return StylePlan(subjects, styles, trials)


def assign_styles(
    subjects: Sequence[Subject], by_scene: Mapping[str, Sequence[StylePin]], count: int, group_size: int
) -> tuple[list[StylePin], list[list[int]]]:
    """Return all style pins, and for each subject the indices of `count` of them.

    A subject's styles are of as many scenes as there are, none with its own product: it may have fewer than `count`.
    Each `group_size` subjects in a row share styles; the next ones get others, as far as there are.
    """
    styles = [pin for pins in by_scene.values() for pin in pins]
    indices = {pin.pin_id: index for index, pin in enumerate(styles)}
    assigned: list[list[int]] = []
    for number, subject in enumerate(subjects):
        fitting = {scene: [pin for pin in pins if _is_other_product(pin, subject)] for scene, pins in by_scene.items()}
        turns = [
            pins[(number // group_size + pick) % len(pins)]
            for pick in range(max(map(len, fitting.values()), default=0))
            for pins in fitting.values()
            if pick < len(pins)
        ]
        assigned.append([indices[pin.pin_id] for pin in turns[:count]])
    return styles, assigned


def select_comparisons(subject: Subject, styles: Sequence[StylePin], style: int) -> tuple[list[int], list[int]]:
    """Return indices of the style images of the style's own scene, and of other scenes, that it is compared with.

    Neither the style itself nor what shows the subject's product is among them.
    """
    fitting = [index for index, pin in enumerate(styles) if index != style and _is_other_product(pin, subject)]
    alike = [index for index in fitting if _get_scene_name(styles[index]) == _get_scene_name(styles[style])]
    return alike, [index for index in fitting if index not in alike]


def _is_other_product(pin: StylePin, subject: Subject) -> bool:
    return pin.pin_id != subject.pin.pin_id and (pin.product_id is None or pin.product_id != subject.pin.product_id)


def _get_scene_name(pin: StylePin) -> str:
    """Return the scene, or where truth knows none the background in words."""
    return pin.scene or pin.background


def generate_trials(
    pipeline: CanvasPipeline,
    plan: StylePlan,
    sampling: SamplingSpec,
    *,
    layers: Literal["all", "style"],
    centre_pull: float,
) -> list[Pixels]:
    """Return the images of the plan's trials in their order; equal ones are generated once, styles embedded once."""
    pipeline.merge_lora()
    distinct = {trial.image_key: trial for trial in plan.trials}
    products = [build_masked_product(subject.pin.image, subject.pin.mask) for subject in plan.subjects]
    embedded: dict[tuple[int, float], StylePrompt] = {}
    requests: list[Request] = []
    for trial in distinct.values():
        style, key = plan.styles[trial.style], (trial.style, trial.strength)
        if trial.strength and key not in embedded:
            embedded[key] = encode_style_images(
                pipeline, [style.image], strength=trial.strength, layers=layers, centre_pull=centre_pull
            )
        name = plan.subjects[trial.subject].pin.product
        prompt = fit_prompt(pipeline, name, style.background) if trial.prompted else None
        product, style_prompt = products[trial.subject], embedded.get(key)
        requests.append(Request(product=product, prompt=prompt, seed=trial.seed, style=style_prompt))
    images = generate_images(pipeline, encode_requests(pipeline, requests), sampling, name="styles")
    by_key = dict(zip(distinct, images, strict=True))
    return [by_key[trial.image_key] for trial in plan.trials]


def draw_style_grid(
    plan: StylePlan, images: Sequence[Pixels], *, count: int, strength: float, seed: int
) -> Image.Image:
    """Draw a row a style: its image, then those of the first `count` subjects without a prompt, originals on top."""
    subjects = plan.subjects[:count]
    rows: dict[int, dict[int, int]] = {}
    for index, trial in enumerate(plan.trials):
        if (trial.strength, trial.prompted, trial.seed) == (strength, False, seed) and trial.subject < len(subjects):
            rows.setdefault(trial.style, {})[trial.subject] = index
    blank = Image.new("RGB", subjects[0].pin.image.size, "white")
    cells = [blank, *(subject.pin.image for subject in subjects)]
    labels = ["style", *(subject.pin.product for subject in subjects)]
    for style, row in rows.items():
        pin = plan.styles[style]
        cells += [pin.image, *(Image.fromarray(images[row[n]]) if n in row else blank for n in range(len(subjects)))]
        labels += [_get_scene_name(pin), *[""] * len(subjects)]
    return draw_contact_sheet(cells, labels, columns=len(subjects) + 1, cell=150)
