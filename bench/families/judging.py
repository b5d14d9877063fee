"""Images of held-out products by each trained denoiser, their scores with intervals, the table and the sheet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.families.training import Contestant, Sources, Trained
from canvas.denoiser.spec import SamplingSpec
from canvas.inference.assembly.stage_parts import assemble_pipeline
from canvas.inference.batch import Request, encode_requests, fit_prompt, generate_images
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_masked_product
from canvas.pins.images import Pixels, draw_contact_sheet
from canvas.pins.products import ProductPin, load_product_pins
from canvas.pins.scene_views import stack_views
from canvas.pins.tables import HELD_OUT_SPLITS
from canvas.safety.spec import SafetySpec
from canvas.segmenter.model import Segmenter
from canvas.segmenter.spec import EdgeSpec
from evaluation.generator.background_scores import BackgroundScore, BackgroundScorer
from evaluation.judges.features import choose_view_side, extract_trunk_features
from evaluation.judges.judges import Judges
from evaluation.measures.distances import half_sample_error, kernel_distance
from evaluation.statistics.intervals import Interval, crossed_bootstrap_mean
from lifecycle.declare.graph import load_stage
from lifecycle.declare.params import Sections, read_stage_params

MEASURES = ("scene", "sharp", "erosion")
"""Scores that have a mean: the share of images in which each judge sees the prompted scene, and what `measure_growth`
says the product lost."""

ERROR_WIDTH = 1.96  # standard errors on each side of a 95 % interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Jury:
    """What judges all contestants alike: products, prompts, real images, judges and sampling."""

    pins: Sequence[ProductPin]
    prompts: Sequence[str]
    real: Any  # features of real images
    scene_judges: Judges
    sampling: SamplingSpec
    sections: Sections
    sources: Sources

    @classmethod
    def read(cls, sections: Sections, products: int | None, sources: Sources) -> Jury:
        """Return the jury of the stage evaluate_backdrop; `products` None: as many as it has."""
        params = read_stage_params(load_stage("evaluate_backdrop"), sections)
        spec, artifacts = params["evaluate_backdrop"], sources.root / "artifacts"
        tables = [artifacts / name for name in ("pins", "kept", "masks", "captions")]
        names = params["product_name"].source
        real = load_product_pins(*tables, splits=HELD_OUT_SPLITS, count=spec.real_pins)
        side = choose_view_side(params["frames"].side)
        recommended = read_stage_params(load_stage("assemble"), sections)["sampling"]
        return cls(
            pins=load_product_pins(*tables, splits=spec.splits, count=products or spec.products, names=names),
            prompts=params["backgrounds"].prompts,
            real=extract_trunk_features(stack_views([pin.image for pin in real], side)),
            scene_judges=Judges.load(sources.root / "models" / "judges"),
            sampling=recommended.build_spec(params["passes"]),
            sections=sections,
            sources=sources,
        )

    def generate(self, contestant: Contestant, trained: Trained, seed: int) -> tuple[list[Pixels], Verdict]:
        """Return the images of every prompt for every pin, pin by pin, and what the judges say of them."""
        models = self.sources.root / "models"
        folders = {"inpaint": trained.folder} | {name: models / name for name in ("clip", "vae", "segmenter")}
        folders["text"] = contestant.text_encoders or models / "text"
        params = read_stage_params(load_stage("assemble"), contestant.sections)
        parts = {name: params[name] for name in ("text", "frames", "edges", "sampling")}
        pipeline = assemble_pipeline(folders, {}, **parts, safety=SafetySpec(prompt=None, image=None))
        encoded = encode_requests(pipeline, self.list_requests(pipeline, seed))
        images = generate_images(pipeline, encoded, self.sampling, name=f"{contestant.name}, seed {seed}")
        return images, self.judge(pipeline, images, seed)

    def list_requests(self, pipeline: CanvasPipeline, seed: int) -> list[Request]:
        """Return a request for every prompt and pin, pin by pin, each at a seed of its own."""
        products = [build_masked_product(pin.image, pin.mask) for pin in self.pins for _ in self.prompts]
        texts = [fit_prompt(pipeline, pin.product, prompt) for pin in self.pins for prompt in self.prompts]
        first = seed * len(texts)
        return [
            Request(product=product, prompt=text, seed=first + place)
            for place, (product, text) in enumerate(zip(products, texts, strict=True))
        ]

    def judge(self, pipeline: CanvasPipeline, images: Sequence[Pixels], seed: int) -> Verdict:
        """Return what the judges say of images of `list_requests`; the pipeline's segmenter looks for products."""
        side = read_stage_params(load_stage("assemble"), self.sections)["frames"].side
        products = [build_masked_product(pin.image, pin.mask) for pin in self.pins for _ in self.prompts]
        views = stack_views([Image.fromarray(image) for image in images], choose_view_side(side))
        scorer = BackgroundScorer(
            judges=self.scene_judges,
            segmenter=Segmenter(pipeline.segmenter, pipeline.segmenter_processor).eval(),
            edges=EdgeSpec(radius=pipeline.config["edge_radius"], epsilon=pipeline.config["edge_epsilon"]),
            seam_side=side,
            seam_reach=read_stage_params(load_stage("evaluate_backdrop"), self.sections)[
                "evaluate_backdrop"
            ].seam_reach,
            batch_size=self.sampling.batch_size,
        )
        ids = [pin.product_id or pin.pin_id for pin in self.pins for _ in self.prompts]
        scores = scorer.score(images, views, products, ids, [*self.prompts] * len(self.pins))
        features = extract_trunk_features(views)
        kid = kernel_distance(self.real, features)
        return Verdict(seed, scores, kid, half_sample_error(kernel_distance, self.real, features))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judges say of one trained denoiser."""

    seed: int
    scores: list[BackgroundScore]
    kid: float
    kid_error: float

    def list_values(self, measure: str) -> list[float | None]:
        """Return one value an image; None: no judge knows its scene."""
        names = {"scene": "scene_right", "sharp": "scene_right_sharp"}
        return [getattr(score, names.get(measure, measure)) for score in self.scores]


def summarize_verdicts(verdicts: Sequence[Verdict]) -> dict[str, Interval]:
    """Return means over images and seeds with 95 % intervals: products and seeds are resampled together.

    That of KID is by the errors of half samples, of sets that are independent from seed to seed.
    """
    summary = {}
    for measure in MEASURES:
        rows = [
            (value, score.product, verdict.seed)
            for verdict in verdicts
            for score, value in zip(verdict.scores, verdict.list_values(measure), strict=True)
            if value is not None
        ]
        if rows:
            summary[measure] = _average(rows)
    kid = float(np.mean([verdict.kid for verdict in verdicts]))
    error = float(np.sqrt(np.sum([verdict.kid_error**2 for verdict in verdicts]))) / len(verdicts)
    summary["kid"] = Interval(kid, kid - ERROR_WIDTH * error, kid + ERROR_WIDTH * error)
    return summary


def _average(rows: Sequence[tuple[float, str, int]]) -> Interval:
    """Return the mean of (value, product, seed) with its interval."""
    values, products, seeds = zip(*rows, strict=True)
    return crossed_bootstrap_mean(values, products, seeds)


def compare_verdicts(first: Sequence[Verdict], second: Sequence[Verdict]) -> dict[str, Interval]:
    """Return by how much `first` is above `second`, image by image, with intervals as `summarize_verdicts` has them."""
    gains = {}
    for measure in MEASURES:
        rows = [
            (ours - theirs, score.product, verdict.seed)
            for verdict, rival in zip(first, second, strict=True)
            for score, ours, theirs in zip(
                verdict.scores, verdict.list_values(measure), rival.list_values(measure), strict=True
            )
            if ours is not None and theirs is not None
        ]
        if rows:
            gains[measure] = _average(rows)
    return gains


def format_table(rows: Sequence[Mapping[str, Any]], seconds: float, title: str) -> str:
    """Return a Markdown table of contestants, one a row, under a title."""
    columns = ("denoiser", "parameters", "seconds", "images", "images/s", "held-out loss", *MEASURES, "kid")
    lines = [
        f"## {title}",
        "",
        " | ".join(["", *columns, ""]).strip(),
        " | ".join(["", *["---"] * len(columns), ""]).strip(),
    ]
    for row in rows:
        figures = row["figures"]
        cells = [
            row["name"],
            f"{row['parameters']:,}",
            f"{figures['training_seconds']:.0f}",
            f"{figures['images']:,.0f}",
            f"{figures['images_per_second']:.1f}",
            f"{figures['held_out_loss']:.4f}",
            *(format(row["summary"][name], ".3f") if name in row["summary"] else "-" for name in (*MEASURES, "kid")),
        ]
        lines.append(" | ".join(["", *cells, ""]).strip())
    lines += ["", f"Asked for {seconds:g} seconds each. Losses compare in one frame and with one autoencoder only."]
    return "\n".join(lines) + "\n"


def draw_sheet(jury: Jury, images: Mapping[str, Sequence[Pixels]], products: int = 4) -> Image.Image:
    """Draw a row for each product and contestant: the original, then its image of every prompt."""
    width = len(jury.prompts)
    cells: list[Image.Image] = []
    labels: list[str] = []
    for row, pin in enumerate(jury.pins[:products]):
        for name, contestant_images in images.items():
            cells += [pin.image, *map(Image.fromarray, contestant_images[row * width : (row + 1) * width])]
            labels += [name, *jury.prompts]
    return draw_contact_sheet(cells, labels, columns=width + 1, cell=150)


def write_report(file: Path, report: Mapping[str, Any]) -> None:
    """Write figures as JSON, intervals as [mean, low, high]."""

    def encode(value: Any) -> Any:
        if isinstance(value, Interval):
            return [value.mean, value.low, value.high]
        raise TypeError(f"{type(value).__name__} is no figure")

    file.write_text(json.dumps(report, indent=1, default=encode) + "\n", encoding="utf-8")
