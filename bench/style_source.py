"""Which style features the denoiser should get, UVE, CLIP or both side by side; and how many captions to drop.

    OMP_NUM_THREADS=2 python -m bench.style_source [--sources uve clip uve+clip] [--caption-dropout 0.05 ...]
        [--strengths 1 0.25 ...]

For each source and share of dropped captions an adapter is trained with the params of params.yaml, assembled and scored
by the stage evaluate_style on the same products, style images and seeds, more of them than the stage has; the first
strength is the headline's. It needs models/ and artifacts/ of a full run; it prints JSON. Intervals resample products
and style images; the first adapter is compared with each other one image by image.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.measurement import run_stage
from evaluation.generator import style_scores
from evaluation.generator.style_scores import HEADLINE, StyleScore, compute_metrics_by_strength
from evaluation.measures.distances import Features
from evaluation.statistics.intervals import crossed_bootstrap_mean
from lifecycle.declare.params import load_sections

SOURCES = ("uve", "clip", "uve+clip")
INTERVAL_SUFFIXES = ("", "_low", "_high")
REPORTED_METRICS = {"unprompted": HEADLINE, "prompted": ("style_scene", "text_agreement")}
STRENGTHS = (1.0, 0.25, 0.5, 1.5, 2.0)


def evaluate_source(
    source: str, caption_dropout: float, strengths: Sequence[float], products: int, seeds: int
) -> tuple[dict[str, Any], list[StyleScore]]:
    """Train and score an adapter; return means with the ends of their intervals, and every image's score."""
    sections = load_sections()
    sections["train_ip_adapter"] |= {"source": source, "caption_dropout": caption_dropout}
    counts = {"products": products, "seeds": seeds, "headline_seeds": max(2, seeds), "strengths": list(strengths)}
    sections["evaluate_style"] |= counts
    scores: list[StyleScore] = []

    def record_scores(
        stage_scores: Sequence[StyleScore], features: Features
    ) -> dict[float, dict[str, dict[str, float]]]:
        scores.extend(stage_scores)
        return compute_metrics_by_strength(stage_scores, features)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained = run_stage("train_ip_adapter", sections, folder)
        run_stage("assemble", sections, folder)
        with patch.object(style_scores, "compute_metrics_by_strength", record_scores):
            metrics = run_stage("evaluate_style", sections, folder)
    return {
        "pictures": metrics["by_strength"]["strength_0"]["unprompted"]["pictures"],
        "by_strength": {name: _select_metrics(both) for name, both in metrics["by_strength"].items()},
        "prompt_scene_change": [metrics.get(f"prompt_scene_change{end}") for end in INTERVAL_SUFFIXES],
        **{name: trained[name] for name in ("held_out_loss", "held_out_loss_of_other_pictures", "seconds")},
        "core_max_abs_diff": metrics["core_max_abs_diff"],
    }, scores


def compare_scores(first: Sequence[StyleScore], other: Sequence[StyleScore], strength: float) -> dict[str, list[float]]:
    """Return by how much more often the first adapter's images show the style image's scene, with an interval.

    Images of the same product, style image and seed are compared: without a prompt where the product came in another
    scene, and with a prompt.
    """
    by_trial = {(score.item, score.seed, score.prompted): score for score in other if score.strength == strength}
    gains = {}
    for name, prompted in (("scene_follows", False), ("prompt_scene", True)):
        comparable = [
            score
            for score in first
            if (score.strength, score.prompted) == (strength, prompted)
            and (prompted or score.style_scene != score.product_scene)
        ]
        rivals = [by_trial[score.item, score.seed, prompted] for score in comparable]
        interval = crossed_bootstrap_mean(
            [
                float(score.seen == score.style_scene) - float(rival.seen == rival.style_scene)
                for score, rival in zip(comparable, rivals, strict=True)
            ],
            [score.product for score in comparable],
            [score.item[1] for score in comparable],
        )
        gains[name] = [interval.mean, interval.low, interval.high]
    return gains


def _select_metrics(both: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, list[float]]]:
    return {
        how: {name: [both[how][f"{name}{end}"] for end in INTERVAL_SUFFIXES] for name in names if name in both[how]}
        for how, names in REPORTED_METRICS.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.style_source")
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=SOURCES)
    parser.add_argument("--caption-dropout", nargs="+", type=float, help="by default that of params.yaml")
    parser.add_argument("--strengths", nargs="+", type=float, default=list(STRENGTHS), help="the headline's first")
    parser.add_argument("--products", type=int, default=18)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    if not Path("models/engaged_lora").is_dir() or not Path("artifacts/embeddings").is_dir():
        sys.exit("bench.style_source: models/ and artifacts/ are missing: run `dvc repro embed tune_engaged` first")
    default_dropout = load_sections()["train_ip_adapter"]["caption_dropout"]
    first: list[StyleScore] = []
    for source in options.sources:
        for dropout in options.caption_dropout or [default_dropout]:
            figures, scores = evaluate_source(source, dropout, options.strengths, options.products, options.seeds)
            if first:
                figures["first_over_this"] = compare_scores(first, scores, options.strengths[0])
            first = first or scores
            print(json.dumps({"source": source, "caption_dropout": dropout, **figures}), flush=True)


if __name__ == "__main__":
    main()
