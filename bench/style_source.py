"""What the denoiser should be told of a style picture: UVE, CLIP, or both side by side; and how much text is dropped.

    OMP_NUM_THREADS=2 python -m bench.style_source [--sources uve clip uve+clip] [--caption-dropout 0.05 ...]
        [--strengths 1 0.25 ...]

For each source and share of dropped captions an adapter is trained with the params of params.yaml, assembled and scored
by the stage evaluate_style on the same products, style pictures and noises, more of them than the stage shows; the
first strength is the headline's. It needs models/ and artifacts/ of a full run; it prints JSON. Intervals resample
products and style pictures; the first adapter is compared with each other one picture by picture.
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

from bench.filter import SilentLog
from evaluation.generator import style_scores as style_prompts
from evaluation.generator.style_scores import HEADLINE, StyleScore, compute_metrics_by_strength
from evaluation.measures.distances import Features
from evaluation.statistics.intervals import crossed_bootstrap_mean
from lifecycle.declare.graph import load_stage
from lifecycle.declare.params import load_sections, read_stage_params
from lifecycle.declare.stage import Artifact, Input, Output, Scratch

SOURCES = ("uve", "clip", "uve+clip")
STAGES = ("train_ip_adapter", "assemble", "evaluate_style")
INTERVAL_SUFFIXES = ("", "_low", "_high")
REPORTED_METRICS = {
    "unprompted": HEADLINE,
    "prompted": ("style_scene", "text_agreement"),
}
STRENGTHS = (1.0, 0.25, 0.5, 1.5, 2.0)


def run_stage(name: str, sections: Mapping[str, Any], home: Path) -> None:
    """A stage whose outputs go below `home`; what an earlier one wrote there is read from there."""
    stage = load_stage(name)

    def read(artifact: type[Artifact]) -> Path:
        own = home / artifact.path
        return own if own.exists() else Path(artifact.path)

    ends: dict[str, Any] = {argument: Input(read(artifact)) for argument, artifact in stage.inputs.items()}
    for argument, artifact in stage.outputs.items():
        (home / artifact.path).parent.mkdir(parents=True, exist_ok=True)
        ends[argument] = Output(home / artifact.path)
    if stage.scratch:
        (home / "scratch").mkdir()
        ends[stage.scratch] = Scratch(home / "scratch")
    if stage.log:
        ends[stage.log] = SilentLog()
    stage(**read_stage_params(stage, sections), **ends)


def evaluate_source(
    source: str, caption_dropout: float, strengths: Sequence[float], products: int, seeds: int
) -> tuple[dict[str, Any], list[StyleScore]]:
    """What an adapter of this source is worth, by so many products and noises of each picture: means and the ends of
    their intervals, and every picture's score."""
    sections = load_sections()
    sections["train_ip_adapter"] |= {"source": source, "caption_dropout": caption_dropout}
    shown = {"products": products, "seeds": seeds, "headline_seeds": max(2, seeds), "strengths": list(strengths)}
    sections["evaluate_style"] |= shown
    scores: list[StyleScore] = []

    def heard(found: Sequence[StyleScore], features: Features) -> dict[float, dict[str, dict[str, float]]]:
        scores.extend(found)
        return compute_metrics_by_strength(found, features)

    with tempfile.TemporaryDirectory() as folder, patch.object(style_prompts, "compute_metrics_by_strength", heard):
        home = Path(folder)
        for name in STAGES:
            run_stage(name, sections, home)
        trained = json.loads((home / "reports" / "train_ip_adapter" / "metrics.json").read_text(encoding="utf-8"))
        found = json.loads((home / "reports" / "evaluate_style" / "metrics.json").read_text(encoding="utf-8"))
    return {
        "pictures": found["by_strength"]["strength_0"]["unprompted"]["pictures"],
        "by_strength": {name: _select_metrics(both) for name, both in found["by_strength"].items()},
        "prompt_scene_change": [found.get(f"prompt_scene_change{end}") for end in INTERVAL_SUFFIXES],
        **{name: trained[name] for name in ("held_out_loss", "held_out_loss_of_other_pictures")},
        "core_max_abs_diff": found["core_max_abs_diff"],
        "seconds": trained["seconds"],
    }, scores


def compare_scores(one: Sequence[StyleScore], other: Sequence[StyleScore], strength: float) -> dict[str, list[float]]:
    """By how much one adapter's pictures show the style picture's scene more often than the other's of the same
    product, style picture and noise: without a prompt where the product came in another scene, and with a prompt."""
    known = {(score.item, score.seed, score.prompted): score for score in other if score.strength == strength}
    found = {}
    for name, prompted in (("scene_follows", False), ("prompt_scene", True)):
        wanted = [
            score
            for score in one
            if score.strength == strength
            and score.prompted == prompted
            and (prompted or score.style_scene != score.product_scene)
        ]
        gains = [
            float(score.seen == score.style_scene) - float(rival.seen == rival.style_scene)
            for score in wanted
            for rival in [known[score.item, score.seed, prompted]]
        ]
        of = crossed_bootstrap_mean(gains, [score.product for score in wanted], [score.item[1] for score in wanted])
        found[name] = [of.mean, of.low, of.high]
    return found


def _select_metrics(both: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, list[float]]]:
    return {
        how: {name: [both[how][f"{name}{end}"] for end in INTERVAL_SUFFIXES] for name in names if name in both[how]}
        for how, names in REPORTED_METRICS.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.style_source")
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=SOURCES)
    parser.add_argument("--caption-dropout", nargs="+", type=float, help="by default that of params.yaml")
    parser.add_argument("--strengths", nargs="+", type=float, default=list(STRENGTHS), help="the headline's first")
    parser.add_argument("--products", type=int, default=18)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    if not Path("models/engaged_lora").is_dir() or not Path("artifacts/embeddings").is_dir():
        print("bench.style_source: models/ and artifacts/ are missing: run `dvc repro embed tune_engaged` first")
        return 1
    own = load_sections()["train_ip_adapter"]["caption_dropout"]
    first: list[StyleScore] = []
    for source in options.sources:
        for dropout in options.caption_dropout or [own]:
            found, scores = evaluate_source(source, dropout, options.strengths, options.products, options.seeds)
            found = {"source": source, "caption_dropout": dropout} | found
            if first:
                found["first_over_this"] = compare_scores(first, scores, options.strengths[0])
            first = first or scores
            print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
