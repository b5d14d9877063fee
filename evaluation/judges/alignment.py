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
from evaluation.statistics.intervals import bootstrap_mean

MIN_PROMPTS = 20
"""Prompts, at least, by which an alignment may be accepted: an interval of fewer says too little."""


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
        """Return the gold of each image; of the set its distance to engaged pins and its diversity within prompts."""
        views = stack_views([Image.fromarray(image) for image in images.images], self.side)
        features = extract_trunk_features(views)
        scenes = [self.judges.match_prompt(prompt) for prompt in images.prompts]
        if any(scenes):
            values = self._compute_scene_chances(extract_scene_features(views), scenes)
        else:
            values = (normalize_vectors(features) @ normalize_vectors(self.engaged).T).max(axis=1).astype(np.float64)
        figures = {
            "kid_engaged": kernel_distance(self.engaged, features),
            "kid_engaged_error": half_sample_error(kernel_distance, self.engaged, features),
            "diversity": compute_group_diversity(features, images.group),
        }
        return GoldScore(float(np.nanmean(values)), tuple(values.tolist()), figures)

    def compare(self, before: GoldScore, after: GoldScore, group: int) -> GoldVerdict:
        """Return whether gold rose, its interval over prompts above 0, the set is no further from engaged pins than
        the distance's error, and images of a prompt are as diverse as was asked for."""
        pairs = np.array(after.values) - np.array(before.values)
        by_prompt = [float(np.nanmean(part)) for part in pairs.reshape(-1, group) if not np.isnan(part).all()]
        gain = bootstrap_mean(by_prompt)
        further = after.figures["kid_engaged"] - before.figures["kid_engaged"]
        error = before.figures["kid_engaged_error"]
        figures = gain.to_metrics("gold_gain") | {"kid_engaged_change": further}
        figures["diversity_ratio"] = after.figures["diversity"] / max(before.figures["diversity"], 1e-6)
        if len(by_prompt) < MIN_PROMPTS:
            reason = f"the judge saw {len(by_prompt)} prompts: it needs {MIN_PROMPTS}, raise align.guard.final_prompts"
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


def compute_group_diversity(features: Features, group: int) -> float:
    """Return the mean cosine distance of two images of one prompt."""
    vectors = normalize_vectors(features).astype(np.float64)
    distances = [
        1 - (group_vectors @ group_vectors.T)[np.triu_indices(group, 1)]
        for group_vectors in vectors.reshape(-1, group, vectors.shape[1])
    ]
    return float(np.mean(distances))
