"""The measures and the headline metrics: what each is called, what it means, what it has to reach.

Reports, the review page, gates, the summary and `docs/reference/metrics.md` read them here: `python -m
evaluation.metrics` writes its tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PAGE = Path("docs/reference/metrics.md")


@dataclass(frozen=True, slots=True)
class Measure:
    """What a number is called and what it means."""

    title: str
    meaning: str
    better: Literal["higher", "lower"] = "higher"
    unit: str = ""


CANDIDATE_MEASURES: Mapping[str, Measure] = {
    "core_max_abs_diff": Measure("Core difference", "largest change of a byte on a product's core", "lower", "of 255"),
    "certificates_failed": Measure(
        "Certificates failed", "share of images in mode soft whose certificate does not pass `verify`", "lower"
    ),
    "extension": Measure("Product extension", "area that the product gained, in parts of its area", "lower"),
    "erosion": Measure("Product erosion", "area that the product lost, in parts of its area", "lower"),
    "seam_ratio": Measure("Seam ratio", "image gradient round the product over the original's; 1 is best", "lower"),
    "scene_right": Measure("Scene accuracy", "share of images in which the judge sees the prompted scene"),
    "scene_right_sharp": Measure("Sharp scene accuracy", "the same by a judge that asks for texture"),
    "agreement": Measure("Prompt agreement", "cosine of image and prompt by the text-image encoder"),
    "diversity": Measure("Diversity", "perceptual distance between images of one item"),
    "defective": Measure(
        "Defect rate", "share of images in which the frozen judge sees a defect; of real ones 0.05", "lower"
    ),
    "reward_defects": Measure("Reward, defects", "chance that people see no defect"),
    "reward_fidelity": Measure("Reward, fidelity", "chance that people find the product as it was"),
    "reward_aesthetics": Measure("Reward, aesthetics", "chance that people find it beautiful"),
    "reward_overall": Measure("Reward, overall", "chance that people would take it"),
}
"""Measures of a candidate, columns of tables.EVALUATION; of several candidates, their mean."""

LOWER_IS_BETTER = frozenset(name for name, measure in CANDIDATE_MEASURES.items() if measure.better == "lower")

SET_MEASURES: Mapping[str, Measure] = {
    "fid": Measure("FID", "Fréchet distance of generated to real images; biased upwards for small sets", "lower"),
    "kid": Measure("KID", "kernel distance of generated to real images", "lower"),
    "kid_engaged": Measure(
        "KID, engaged", "kernel distance of generated images to pins that people engaged with", "lower"
    ),
    "cmmd": Measure("CMMD", "kernel distance of generated to real images by text-image embeddings", "lower"),
    "vendi": Measure("Vendi score", "effective number of different images"),
}
"""Measures of a set of images."""

MEASURES: Mapping[str, Measure] = {
    **CANDIDATE_MEASURES,
    **SET_MEASURES,
    "pins_kept": Measure("Pins kept", "pins that the filter lets through", "higher", "pins"),
    "segmenter_iou": Measure("Segmenter IoU", "overlap of mask and truth on products and views not seen in training"),
    "mask_rejects": Measure("Masks rejected", "kept pins without a usable mask", "lower", "pins"),
    "caption_scene_accuracy": Measure(
        "Caption scene accuracy", "share of unseen pins whose generated caption names the scene"
    ),
    "clip_recall": Measure("CLIP recall@5", "share of unseen images with their caption among the five nearest"),
    "uve_scene_recall": Measure("UVE recall@1, scene", "share of held-out pins nearest to one of the same scene"),
    "uve_product_recall": Measure("UVE recall@1, product", "share of held-out pins nearest to one of the same product"),
    "vae_psnr": Measure("VAE PSNR", "likeness of held-out pin and reconstruction", "higher", "dB"),
    "reconstructed_scene_accuracy": Measure(
        "Reconstructed scene accuracy", "share of real scenes that the judge still sees after the autoencoder"
    ),
    "backdrop_loss": Measure("Held-out loss of the backdrop denoiser", "error of the predicted target", "lower"),
    "reward_accuracy": Measure("Reward accuracy", "share of held-out pairs whose better image has the higher reward"),
    "reward_calibration_error": Measure(
        "Reward calibration error", "distance between the reward's chances and the share of outcomes", "lower"
    ),
    "judge_scene_accuracy": Measure("Accuracy of the scene judge", "share of real held-out pins whose scene it sees"),
    "same_seed_diversity": Measure(
        "Diversity at one seed",
        "distance of the backgrounds of different products at one seed and prompt, in parts of that of real images of "
        "one scene",
    ),
    "style_followed": Measure("Style followed", "share of images that show the style image's scene, without a prompt"),
    "products_omitted": Measure(
        "Products omitted", "share of the products in scenes of two and three that the segmenter does not see", "lower"
    ),
    "prompt_beside_style": Measure("Prompt beside a style", "change of the prompted scene's share with a style"),
}
"""All measures; those not named above are of a stage."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A headline metric: one number by which runs are compared."""

    name: str
    stage: str
    key: str  # dotted name in the stage's metrics; of a group of numbers, their sum
    measure_name: str = ""  # in MEASURES; "": the same as the metric's
    mark: float | None = None  # what it has to reach, or to stay below
    kind: Literal["goal", "limit"] = "goal"  # is the mark a target of the project or a limit of `gate` in params.yaml?

    @property
    def measure(self) -> Measure:
        return MEASURES[self.measure_name or self.name]

    def is_met(self, value: float) -> bool:
        return self.mark is None or (value >= self.mark if self.measure.better == "higher" else value <= self.mark)

    def format_mark(self) -> str:
        """Return "goal: at least 0.75", or "" without a mark."""
        bound = "at least" if self.measure.better == "higher" else "at most"
        return "" if self.mark is None else f"{self.kind}: {bound} {self.mark:g}"

    def format_value(self, value: float) -> str:
        """Return the value with its unit, its mark, and whether it is missed."""
        number = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
        text = f"{number} {self.measure.unit}".rstrip()
        missed = "" if self.is_met(value) else ", missed"
        return f"{text} ({self.format_mark()}{missed})" if self.mark is not None else text


HEADLINE = (
    Metric("pins_kept", "filter", "kept"),
    Metric("segmenter_iou", "train_segmenter", "unseen_both.iou"),
    Metric("mask_rejects", "mask", "rejected"),
    Metric("caption_scene_accuracy", "train_captioner", "unseen_both.scene_right"),
    Metric("clip_recall", "train_clip", "first.unseen_both.image_to_text_recall_at_5"),
    Metric("uve_scene_recall", "train_uve", "uve.scene.held_out.recall_at_1"),
    Metric("uve_product_recall", "train_uve", "uve.product.held_out.recall_at_1"),
    Metric("vae_psnr", "train_vae", "psnr_db"),
    Metric("reconstructed_scene_accuracy", "train_vae", "scene_accuracy_reconstructed", mark=0.92),
    Metric("backdrop_loss", "train_backdrop", "held_out_loss"),
    Metric("reward_accuracy", "train_reward", "mixed.overall_accuracy"),
    Metric("reward_calibration_error", "train_reward", "mixed.overall_ece", mark=0.05),
    Metric("judge_scene_accuracy", "evaluate", "judge.scene_accuracy_real", mark=0.9, kind="limit"),
    Metric("scene_accuracy", "evaluate_backdrop", "scene_accuracy", "scene_right", mark=0.75),
    Metric("scene_accuracy_sharp", "evaluate_backdrop", "scene_accuracy_sharp", "scene_right_sharp", mark=0.5),
    Metric("kid", "evaluate_backdrop", "kid"),
    Metric("same_seed_diversity", "evaluate_backdrop", "same_seed.of_real"),
    Metric(
        "core_difference", "evaluate", "challenger.core_max_abs_diff_worst", "core_max_abs_diff", mark=0.0, kind="limit"
    ),
    Metric("certificates_failed", "evaluate", "challenger.certificates_failed", mark=0.0, kind="limit"),
    Metric("extension", "evaluate", "challenger.extension", mark=0.1, kind="limit"),
    Metric("erosion", "evaluate", "challenger.erosion"),
    Metric("seam_ratio", "evaluate", "challenger.seam_ratio", mark=1.15),
    Metric("diversity", "evaluate", "challenger.diversity"),
    Metric("style_followed", "evaluate_style", "scene_follows", mark=0.7),
    Metric("prompt_beside_style", "evaluate_style", "prompt_scene_change", mark=-0.02),
    Metric("products_omitted", "evaluate_scenes", "omitted"),
)
"""In the order of the pipeline."""

SUMMARY = (
    *("scene_accuracy", "scene_accuracy_sharp", "kid", "core_difference", "extension", "seam_ratio"),
    *("style_followed", "reward_accuracy", "uve_product_recall", "segmenter_iou"),
)
"""Names of the headline metrics that the terminal shows at the end of a run."""


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
    measured = [metric for metric in HEADLINE if metric.name in values]
    return {metric.measure.title: metric.format_value(values[metric.name]) for metric in measured}


def format_summary(values: Mapping[str, float]) -> list[str]:
    """Return a line for each metric of SUMMARY in `values`."""
    by_name = {metric.name: metric for metric in HEADLINE}
    measured = [by_name[name] for name in SUMMARY if name in values]
    return [f"{metric.measure.title:28} {metric.format_value(values[metric.name])}" for metric in measured]


def get_title(stage: str, key: str) -> str:
    """Return "title (key)" of a stage's metric, or the key where it is no headline metric."""
    return next((f"{m.measure.title} ({key})" for m in HEADLINE if (m.stage, m.key) == (stage, key)), key)


def describe_measures(names: Iterable[str]) -> list[dict[str, str]]:
    """Return rows that say what the measures mean, of those of `names` that have a meaning."""
    return [
        {"measure": name, "title": measure.title, "meaning": measure.meaning, "better": measure.better}
        for name in names
        if (measure := MEASURES.get(name))
    ]


def render_page(text: str) -> str:
    """Return the text of PAGE with each table between `<!-- NAME -->` and `<!-- end -->` as it is here."""
    headline = [
        {"metric": f"`{metric.name}`", "meaning": f"{metric.measure.title}: {metric.measure.meaning}"}
        | {"unit": metric.measure.unit, "better": metric.measure.better, "mark": metric.format_mark()}
        | {"from": f"`{metric.stage}`: `{metric.key}`"}
        for metric in HEADLINE
    ]
    candidates, sets = (
        [row | {"measure": f"`{row['measure']}`"} for row in describe_measures(names)]
        for names in (CANDIDATE_MEASURES, SET_MEASURES)
    )
    for name, rows in (("headline", headline), ("candidates", candidates), ("sets", sets)):
        lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        start = text.index(f"<!-- {name} -->\n") + len(f"<!-- {name} -->\n")
        text = f"{text[:start]}\n{table}\n\n{text[text.index('<!-- end -->', start) :]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
