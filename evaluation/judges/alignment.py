"""The judge of alignments: scenes and sets of images by the judges' network, of which no reward may be made.

The gold of an image is the chance that it shows the prompted scene, by the judges of sharp and of soft images alike.
Where no prompt names a scene that they know, it is the cosine to the nearest pin that people engaged with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from canvas.align.guard import GoldScore, GoldVerdict, JudgedImages
from canvas.features.vectors import normalize_vectors
from canvas.pins.scene_views import stack_views
from evaluation.judges.features import extract_scene_features, extract_trunk_features
from evaluation.judges.judges import Judges
from evaluation.measures.distances import Features, half_sample_error, kernel_distance
from evaluation.statistics.intervals import crossed_bootstrap_mean

MIN_PRODUCTS = 8
"""Products, at least, by which an alignment may be accepted: an interval over fewer says too little."""


@dataclass(frozen=True, slots=True)
class AlignmentJudge:
    """Scores images of prompts, and compares the generator before and after."""

    judges: Judges
    engaged: Features  # of real pins that people engaged with
    side: int  # pixels of the squares that are judged
    min_diversity: float  # of the images of a prompt, in parts of the start's

    @classmethod
    def load(cls, judges: Path, engaged: Sequence[Image.Image], side: int, min_diversity: float) -> AlignmentJudge:
        """Load the judges of scenes, and compute the features of images that people engaged with."""
        return cls(Judges.load(judges), extract_trunk_features(stack_views(engaged, side)), side, min_diversity)

    def judge(self, images: JudgedImages) -> GoldScore:
        """Return the gold of each image and whether each judge recognizes its scene; of the set its distance to engaged
        pins and its diversity within prompts."""
        return self.score(images, *self.extract_features(images))

    def extract_features(self, images: JudgedImages) -> tuple[Features, Features]:
        """Return what sets are compared by, and what scenes are recognized by."""
        views = stack_views([Image.fromarray(image) for image in images.images], self.side)
        return extract_trunk_features(views), extract_scene_features(views)

    def score(self, images: JudgedImages, features: Features, scene_features: Features) -> GoldScore:
        """Return what `judge` does of images with these features."""
        scenes = [self.judges.match_prompt(prompt) for prompt in images.prompts]
        columns: dict[str, NDArray[np.float64]] = {}
        if any(scenes):
            values = self._compute_scene_chances(scene_features, scenes)
            columns = self._compute_scene_hits(scene_features, scenes)
        else:
            values = (normalize_vectors(features) @ normalize_vectors(self.engaged).T).max(axis=1).astype(np.float64)
        return GoldScore(
            float(np.nanmean(values)),
            tuple(values.tolist()),
            {name: tuple(column.tolist()) for name, column in columns.items()},
            {
                **{name: float(np.nanmean(column)) for name, column in columns.items()},
                "kid_engaged": kernel_distance(self.engaged, features),
                "kid_engaged_error": half_sample_error(kernel_distance, self.engaged, features),
                "diversity": compute_group_diversity(features, images.group),
            },
        )

    def compare(self, before: GoldScore, after: GoldScore, images: JudgedImages) -> GoldVerdict:
        """Return whether gold rose, its interval over products above 0, the set is no further from engaged pins than
        the distance's error, and images of a prompt are as diverse as was asked for."""
        gains = np.array(after.values) - np.array(before.values)
        counted = np.flatnonzero(np.isfinite(gains))
        products = [images.products[row] for row in counted]
        gain = crossed_bootstrap_mean(gains[counted].tolist(), products, ["all prompts"] * len(counted))
        further = after.figures["kid_engaged"] - before.figures["kid_engaged"]
        error = before.figures["kid_engaged_error"]
        figures = gain.to_metrics("gold_gain") | {"kid_engaged_change": further}
        figures["diversity_ratio"] = after.figures["diversity"] / max(before.figures["diversity"], 1e-6)
        if (count := len(set(products))) < MIN_PRODUCTS:
            reason = f"the judge saw {count} products: it needs {MIN_PRODUCTS}, raise align.guard.final_prompts"
            return GoldVerdict(False, reason, figures)
        if gain.low <= 0:
            return GoldVerdict(False, f"the judge does not prefer it to the start: gold changed by {gain}", figures)
        if further > error:
            return GoldVerdict(
                False,
                f"its images lie further from engaged pins than the start's: KID changed by {further:.4f}, of which "
                f"{error:.4f} is its error",
                figures,
            )
        if figures["diversity_ratio"] < self.min_diversity:
            return GoldVerdict(
                False,
                f"images of a prompt are less diverse, {figures['diversity_ratio']:.2f} of the start's: at least "
                f"{self.min_diversity:g} was asked for",
                figures,
            )
        return GoldVerdict(True, f"the judge prefers it to the start: gold changed by {gain}", figures)

    def _compute_scene_chances(self, features: Features, scenes: Sequence[str | None]) -> NDArray[np.float64]:
        """Return the mean of both judges' probabilities of each image's scene; NaN: its prompt names none."""
        chances = np.full(len(scenes), np.nan)
        for scene in {scene for scene in scenes if scene is not None}:
            rows = [row for row, label in enumerate(scenes) if label == scene]
            chances[rows] = self.judges.compute_probabilities(features[rows], scene).mean(axis=1)
        return chances

    def _compute_scene_hits(self, features: Features, scenes: Sequence[str | None]) -> dict[str, NDArray[np.float64]]:
        """Return by judge whether it recognizes each image's prompted scene, 0 or 1; NaN: its prompt names none."""
        hits = np.array(
            [
                [np.nan if scene is None else float(scene == one) for one in seen]
                for scene, seen in zip(scenes, self.judges.recognize_scenes(features), strict=True)
            ]
        )
        return {"scene_accuracy": hits[:, 0], "scene_accuracy_sharp": hits[:, 1]}


def compute_group_diversity(features: Features, group: int) -> float:
    """Return the mean cosine distance of two images of one prompt."""
    vectors = normalize_vectors(features).astype(np.float64)
    distances = [
        1 - (group_vectors @ group_vectors.T)[np.triu_indices(group, 1)]
        for group_vectors in vectors.reshape(-1, group, vectors.shape[1])
    ]
    return float(np.mean(distances))
