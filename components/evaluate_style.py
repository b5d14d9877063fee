"""Stage `evaluate_style`: held-out products and style pictures in, how far the generator follows them out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from canvas.denoiser.spec import SamplingSpec
from canvas.pins.frames import FrameSpec
from canvas.pins.tables import SPLITS
from canvas.ranges import Count, Share
from canvas.styles.table import MAX_STRENGTH
from components.artifacts import CanvasModel, Captions, Clip, Kept, Masks, Pins, SceneJudges, Truth
from lifecycle.declare.stage import Input, Metrics, Output, Plot, Sheet, stage

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from canvas.inference.product import Pixels
    from canvas.pins.products import ProductPin
    from canvas.styles.pins import StylePin
    from evaluation.generator.styled_images import StyleTrial, Subject

SCENES = 200
"""That style pictures are of, at most; without truth every background has a name of its own."""

EACH = 3
"""Style pictures of a scene to choose from, and to compare with."""

HELD_OUT = tuple(split for split in SPLITS if split != "train")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateStyleParams:
    splits: tuple[str, ...]  # whose products are shown
    style_splits: tuple[str, ...]  # whose pictures are followed
    products: Count  # pins
    styles: Count  # style pictures of each product, one a scene
    strengths: tuple[float, ...]  # beside 0, the model without a style; the first is the headline's
    layers: Literal["all", "style"]  # where the style is injected
    typical: Share  # how far style pictures are drawn to the nearest mined cluster, 0 to 1
    seeds: Count  # of each product, style and strength
    headline_seeds: int  # of the first strength and of none, without a prompt: diversity takes two
    sampling: SamplingSpec
    learnt_pins: Count  # real pins of the train split that the judge of products learns from
    real_pins: Count  # held-out ones that it is checked on, and painted pictures compared with
    grid_products: Count  # of the grid; style pictures are the same for so many
    seed: int

    def __post_init__(self) -> None:
        if self.headline_seeds < 2:
            raise ValueError(
                f"evaluate_style.headline_seeds is {self.headline_seeds}: it must be 2 or more, as diversity takes two"
            )
        if self.headline_seeds < self.seeds:
            raise ValueError(
                f"evaluate_style.headline_seeds is {self.headline_seeds}: it must be {self.seeds}, as seeds is, or more"
            )
        different = set(self.strengths)
        if len(different) < max(1, len(self.strengths)) or not all(0 < one <= MAX_STRENGTH for one in different):
            raise ValueError(
                f"evaluate_style.strengths are {list(self.strengths)}: give different ones above 0, to {MAX_STRENGTH:g}"
            )
        if not set(self.splits) | set(self.style_splits) <= set(SPLITS):
            raise ValueError(f"evaluate_style needs splits among {', '.join(SPLITS)}, not {self}")


class StyleCurve(Plot):
    """Agreement with style and text, scenes that follow, leakage and diversity, by strength."""

    x = "strength"
    y = ("scene_follows", "style_agreement", "leakage", "diversity", "prompt_scene", "text_agreement")


@stage(machine="gpu")
def evaluate_style(
    evaluate_style: EvaluateStyleParams,
    frames: FrameSpec,
    canvas: Input[CanvasModel],
    clip: Input[Clip],
    pins: Input[Pins],
    kept: Input[Kept],
    truth: Input[Truth],
    judges: Input[SceneJudges],
    masks: Input[Masks],
    captions: Input[Captions],
    metrics: Output[Metrics],
    curve: Output[StyleCurve],
    sheet: Output[Sheet],
) -> None:
    """Paint held-out products after held-out style pictures, with a prompt and without, at every strength; score.

    The sheet shows held-out products by style; a row a style, its image first.
    """
    import numpy as np

    from canvas.clip.model import load_clip
    from canvas.device import default_device
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.pins.images import encode_png
    from canvas.pins.products import load_product_pins
    from canvas.pins.scene_views import crop_center_square
    from canvas.pins.tables import read_kept_splits
    from canvas.styles.pins import read_labelled_products, read_style_pins
    from evaluation.generator.leakage import ProductJudge, compute_judge_metrics
    from evaluation.generator.style_scores import (
        compute_follows_by_style_split,
        compute_metrics_by_strength,
        compute_prompt_changes,
    )
    from evaluation.generator.style_scores import format_curve_csv as curve_of
    from evaluation.generator.styled_images import (
        StyleScorer,
        assign_styles,
        generate_trials,
        plan_trials,
        score_trials,
    )
    from evaluation.judges.features import choose_view_side, extract_trunk_features
    from evaluation.judges.judges import Judges

    params, clock = evaluate_style, time.perf_counter()
    tables = pins.path, kept.path, truth.path
    scenes, side = Judges.load(judges.path), choose_view_side(frames.side)
    figures: dict[str, Any] = dict(scenes.accuracy)
    learnt = read_labelled_products(*tables, splits=("train",), side=side, count=params.learnt_pins)
    unseen = read_labelled_products(*tables, splits=HELD_OUT, side=side, count=params.real_pins)
    finder = ProductJudge.learnt(learnt, params.seed)
    if finder is not None and len(unseen.views):
        figures |= compute_judge_metrics(finder, unseen, params.seed)
    sidecars = masks.path, captions.path
    real = load_product_pins(*tables[:2], *sidecars, splits=HELD_OUT, count=params.real_pins)
    by = StyleScorer(
        judges=scenes,
        finder=finder,
        leaks=unseen,
        clip=load_clip(clip.path / "first").eval().to(default_device()),
        real=extract_trunk_features(np.stack([crop_center_square(pin.image, side) for pin in real])),
        side=side,
        seed=params.seed,
    )
    judged = time.perf_counter()
    chosen = load_product_pins(*tables[:2], *sidecars, splits=params.splits, count=params.products)
    subjects = _subjects(chosen, pins.path, truth.path)
    by_scene = read_style_pins(*tables, captions.path, splits=params.style_splits, scenes=SCENES, each=EACH)
    styles, own = assign_styles(subjects, by_scene, params.styles, params.grid_products)
    wanted = plan_trials(own, params.strengths, params.seeds, params.headline_seeds, params.seed)
    if not wanted:
        raise ValueError("every style picture shows the product that it is to be tried on: bring pins of more products")
    pipeline = CanvasPipeline.from_pretrained(canvas.path).to(default_device())
    pictures = generate_trials(
        pipeline,
        subjects,
        styles,
        wanted,
        params.sampling,
        layers=params.layers,
        typical=params.typical,
    )
    painted = time.perf_counter()
    split_of = read_kept_splits(pins.path, kept.path)
    scores, features = score_trials(by, pipeline, subjects, styles, wanted, pictures, split_of)
    found, first = compute_metrics_by_strength(scores, features), params.strengths[0]
    figures |= compute_headline(found, first) | compute_prompt_changes(scores, first)
    followers = [score for score in scores if score.strength == first and not score.prompted]
    figures["scene_follows_by_style_split"] = compute_follows_by_style_split(followers)
    figures["by_strength"] = {f"strength_{strength:g}": both for strength, both in found.items()}
    done = time.perf_counter()
    figures["seconds"] = {"judges": judged - clock, "paint": painted - judged, "score": done - painted}
    metrics.write(figures)
    curve.write(curve_of(found))
    sheet.write(encode_png(_grid(params, subjects, styles, wanted, pictures)))


def _subjects(chosen: Sequence[ProductPin], pins: Path, truth: Path) -> list[Subject]:
    from canvas.pins import tables
    from evaluation.generator.styled_images import Subject

    wanted = {pin.pin_id for pin in chosen}
    rows = tables.read(pins, ["pin_id", "product_id", "category"]).to_pylist()
    known = {row["pin_id"]: row for row in rows if row["pin_id"] in wanted}
    scene_of = dict(zip(*tables.read(truth, ["pin_id", "scene"]).to_pydict().values(), strict=True))
    return [
        Subject(
            pin=pin,
            product_id=known[pin.pin_id]["product_id"],
            category=known[pin.pin_id]["category"],
            scene=scene_of.get(pin.pin_id),
        )
        for pin in chosen
    ]


HEADLINE = (
    "scene_follows",
    "style_agreement",
    "style_agreement_gain",
    "picture_agreement_gain",
    "leakage",
    "leakage_control",
    "diversity",
)


def compute_headline(found: Mapping[float, Mapping[str, Mapping[str, float]]], first: float) -> dict[str, float]:
    """What a style of the first strength does, and what there is of it without a style."""
    styled, without = found[first], found[0.0]
    told = {name: styled["unprompted"][name] for name in HEADLINE if name in styled["unprompted"]}
    told |= {f"{name}_without_style": without["unprompted"][name] for name in HEADLINE if name in without["unprompted"]}
    for name, key in (("style_scene", "prompt_scene"), ("text_agreement", "text_agreement")):
        if name in styled["prompted"]:
            told |= {key: styled["prompted"][name], f"{key}_without_style": without["prompted"][name]}
    core = max(figures["core_max_abs_diff"] for both in found.values() for figures in both.values())
    return told | {"core_max_abs_diff": core}


def _grid(
    params: EvaluateStyleParams,
    subjects: Sequence[Subject],
    styles: Sequence[StylePin],
    wanted: Sequence[StyleTrial],
    pictures: Sequence[Pixels],
) -> Image.Image:
    """A row a style picture, what products look like after it alone beside it; above them the products as they
    came."""
    from PIL import Image

    from canvas.pins.images import draw_contact_sheet

    count = min(params.grid_products, len(subjects))
    alone = params.strengths[0], False, params.seed
    rows: dict[int, dict[int, int]] = {}
    for place, one in enumerate(wanted):
        if (one.strength, one.prompted, one.seed) == alone and one.subject < count:
            rows.setdefault(one.style, {})[one.subject] = place
    blank = Image.new("RGB", subjects[0].pin.image.size, "white")
    shown, labels = [blank], ["style"]
    for subject in subjects[:count]:
        shown.append(subject.pin.image)
        labels.append(subject.pin.product)
    for style, places in rows.items():
        shown.append(styles[style].image)
        labels.append(styles[style].scene or styles[style].background)
        for column in range(count):
            shown.append(Image.fromarray(pictures[places[column]]) if column in places else blank)
            labels.append("")
    return draw_contact_sheet(shown, labels, columns=count + 1, cell=150)
