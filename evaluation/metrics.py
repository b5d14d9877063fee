"""The headline metrics and the measures of a candidate: what each is called, what it means, what it has to reach.

Reports, gates, the summary and `docs/reference/metrics.md` read them here: `python -m evaluation.metrics` writes its
tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

PAGE = Path("docs/reference/metrics.md")


@dataclass(frozen=True, slots=True)
class Metric:
    """One number by which runs are compared."""

    name: str
    stage: str
    key: str
    """Dotted name in the stage's metrics; of a group of numbers, their sum."""
    title: str
    meaning: str
    better: Literal["higher", "lower"]
    unit: str = ""
    mark: float | None = None
    """What it has to reach, or to stay below."""
    kind: Literal["goal", "limit"] = "goal"
    """Whether the mark is a target of the project or a limit of the gates (`gate` in params.yaml)."""

    def is_met(self, value: float) -> bool:
        return self.mark is None or (value >= self.mark if self.better == "higher" else value <= self.mark)

    def format_mark(self) -> str:
        """Return "goal: at least 0.75", or "" without a mark."""
        bound = "at least" if self.better == "higher" else "at most"
        return "" if self.mark is None else f"{self.kind}: {bound} {self.mark:g}"

    def format_value(self, value: float) -> str:
        """Return the value with its unit, its mark, and whether it is missed."""
        text = f"{format_number(value)} {self.unit}".rstrip()
        missed = "" if self.is_met(value) else ", missed"
        return f"{text} ({self.format_mark()}{missed})" if self.mark is not None else text


HEADLINE = (
    Metric("pins_kept", "filter", "kept", "Pins kept", "pins that the filter lets through", "higher", "pins"),
    Metric(
        "segmenter_iou",
        "train_segmenter",
        "unseen_both.iou",
        "Segmenter IoU",
        "overlap of mask and truth on products and views that training never saw",
        "higher",
    ),
    Metric("mask_rejects", "mask", "rejected", "Masks rejected", "kept pins without a usable mask", "lower", "pins"),
    Metric(
        "caption_scene_accuracy",
        "train_captioner",
        "unseen_both.scene_right",
        "Caption scene accuracy",
        "share of unseen pins whose generated caption names the scene",
        "higher",
    ),
    Metric(
        "clip_recall",
        "train_clip",
        "first.unseen_both.image_to_text_recall_at_5",
        "CLIP recall@5",
        "share of unseen images with their caption among the five nearest",
        "higher",
    ),
    Metric(
        "uve_scene_recall",
        "train_uve",
        "uve.scene.held_out.recall_at_1",
        "UVE recall@1, scene",
        "share of held-out pins whose nearest neighbour shows the same scene",
        "higher",
    ),
    Metric(
        "uve_product_recall",
        "train_uve",
        "uve.product.held_out.recall_at_1",
        "UVE recall@1, product",
        "share of held-out pins whose nearest neighbour shows the same product",
        "higher",
    ),
    Metric(
        "vae_psnr", "train_vae", "psnr_db", "VAE PSNR", "likeness of held-out pin and reconstruction", "higher", "dB"
    ),
    Metric(
        "reconstructed_scene_accuracy",
        "train_vae",
        "scene_accuracy_reconstructed",
        "Reconstructed scene accuracy",
        "share of real scenes that the judge still sees after the autoencoder",
        "higher",
        mark=0.92,
    ),
    Metric(
        "backdrop_loss",
        "train_backdrop",
        "held_out_loss",
        "Held-out loss of the backdrop denoiser",
        "error of the predicted target on held-out pins",
        "lower",
    ),
    Metric(
        "reward_accuracy",
        "train_reward",
        "mixed.overall_accuracy",
        "Reward accuracy",
        "share of held-out pairs whose better image has the higher reward",
        "higher",
    ),
    Metric(
        "reward_calibration_error",
        "train_reward",
        "mixed.overall_ece",
        "Reward calibration error",
        "distance between the reward's chances and the share of outcomes",
        "lower",
        mark=0.05,
    ),
    Metric(
        "judge_scene_accuracy",
        "evaluate",
        "judge.scene_accuracy_real",
        "Accuracy of the scene judge",
        "share of real held-out pins whose scene the judge sees",
        "higher",
        mark=0.6,
        kind="limit",
    ),
    Metric(
        "scene_accuracy",
        "evaluate_backdrop",
        "scene_accuracy",
        "Scene accuracy",
        "share of images in which the judge sees the prompted scene",
        "higher",
        mark=0.75,
    ),
    Metric(
        "scene_accuracy_sharp",
        "evaluate_backdrop",
        "scene_accuracy_sharp",
        "Sharp scene accuracy",
        "the same by a judge that asks for texture",
        "higher",
        mark=0.5,
    ),
    Metric("kid", "evaluate_backdrop", "kid", "KID", "kernel distance of generated to real images", "lower"),
    Metric(
        "core_difference",
        "evaluate",
        "challenger.core_max_abs_diff_worst",
        "Core difference",
        "largest change of a byte on any product's core",
        "lower",
        "of 255",
        mark=0.0,
        kind="limit",
    ),
    Metric(
        "extension",
        "evaluate",
        "challenger.extension",
        "Product extension",
        "area that the product gained, in parts of its area",
        "lower",
        mark=0.1,
        kind="limit",
    ),
    Metric(
        "erosion",
        "evaluate",
        "challenger.erosion",
        "Product erosion",
        "area that the product lost, in parts of its area",
        "lower",
    ),
    Metric(
        "seam_ratio",
        "evaluate",
        "challenger.seam_ratio",
        "Seam ratio",
        "image gradient round the product over the original's; near 1 is best",
        "lower",
        mark=1.15,
    ),
    Metric(
        "diversity",
        "evaluate",
        "challenger.diversity",
        "Diversity",
        "perceptual distance between images of one item",
        "higher",
    ),
    Metric(
        "style_followed",
        "evaluate_style",
        "scene_follows",
        "Style followed",
        "share of images that show the style image's scene, without a prompt",
        "higher",
        mark=0.7,
    ),
    Metric(
        "prompt_beside_style",
        "evaluate_style",
        "prompt_scene_change",
        "Prompt beside a style",
        "change of the prompted scene's share when a style is given, too",
        "higher",
        mark=-0.02,
    ),
)
"""In the order of the pipeline."""

SUMMARY = (
    *("scene_accuracy", "scene_accuracy_sharp", "kid", "core_difference", "extension", "seam_ratio"),
    *("style_followed", "reward_accuracy", "uve_product_recall", "segmenter_iou"),
)
"""Names of the headline metrics that the terminal shows at the end of a run."""

MEASURE_MEANINGS: Mapping[str, str] = {
    "core_max_abs_diff": "largest change of a byte on the product's core",
    "extension": "area that the product gained, in parts of its area",
    "erosion": "area that the product lost, in parts of its area",
    "seam_ratio": "image gradient round the product over the original's",
    "scene_right": "the judge sees the prompted scene",
    "scene_right_sharp": "the sharp judge sees the prompted scene",
    "agreement": "cosine of image and prompt by the text-image encoder",
    "diversity": "perceptual distance to other images of the same item",
    "reward_defects": "reward: free of defects",
    "reward_fidelity": "reward: the product is as it was",
    "reward_aesthetics": "reward: people would find it beautiful",
    "reward_overall": "reward: people would take it",
}
"""Measure of a candidate -> its meaning."""


def collect_headline(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return name -> value of the headline metrics that were measured.

    Args:
        metrics: Stage -> its metrics by dotted name.
    """
    values = {metric.name: look_up_metric(metrics.get(metric.stage, {}), metric.key) for metric in HEADLINE}
    return {name: value for name, value in values.items() if value is not None}


def look_up_metric(metrics: Mapping[str, float], key: str) -> float | None:
    """Return the number `key`, or the sum of the numbers below it; None if it was not measured."""
    group = [value for name, value in metrics.items() if name == key or name.startswith(f"{key}.")]
    return sum(group) if group else None


def describe_headline(values: Mapping[str, float]) -> dict[str, str]:
    """Return title -> value with unit and mark, of the headline metrics in `values`."""
    return {metric.title: metric.format_value(values[metric.name]) for metric in HEADLINE if metric.name in values}


def format_summary(values: Mapping[str, float]) -> list[str]:
    """Return a line for each metric of SUMMARY in `values`."""
    by_name = {metric.name: metric for metric in HEADLINE}
    shown = [by_name[name] for name in SUMMARY if name in values]
    return [f"{metric.title:28} {metric.format_value(values[metric.name])}" for metric in shown]


def get_title(stage: str, key: str) -> str:
    """Return "title (key)" of a stage's metric, or the key where it is no headline metric."""
    return next((f"{m.title} ({key})" for m in HEADLINE if (m.stage, m.key) == (stage, key)), key)


def format_number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def render_page(text: str) -> str:
    """Return the text of PAGE with its tables between `<!-- headline -->` and `<!-- end -->` as they are here."""
    head, _, rest = text.partition("<!-- headline -->\n")
    _, _, tail = rest.partition("<!-- end -->")
    rows = [
        f"| `{m.name}` | {m.title}: {m.meaning} | {m.unit} | {m.better} | {m.format_mark()} | `{m.stage}`: `{m.key}` |"
        for m in HEADLINE
    ]
    table = ["| metric | meaning | unit | better | mark | from |", "|---|---|---|---|---|---|", *rows]
    return "\n".join([f"{head}<!-- headline -->", "", *table, "", "<!-- end -->"]) + tail


if __name__ == "__main__":
    PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
