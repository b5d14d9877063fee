"""What came of the arms: changes since the start with intervals over products, and the table of them.

S: seeds; N: images of a seed, the same prompts and noises of all arms; P: products; R: resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.align.trials import Judgment, Trial
from canvas.features.vectors import normalize_vectors
from evaluation.measures.distances import Features, polynomial_kernel
from evaluation.statistics.intervals import LEVEL, Interval

RESAMPLES = 1000
MEASURES = ("gold", "scene", "sharp", "growth")
"""Columns of a judgment that have a mean."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ProductResampler:
    """Intervals by drawing products with replacement (the cluster bootstrap); seeds are all taken, each time."""

    weights: Values  # (R, N), how often each image was drawn; the first row, of ones, is the sample itself

    @classmethod
    def draw(cls, products: Sequence[str], seed: int = 0) -> ProductResampler:
        """Draw products of N images."""
        names, places = np.unique(np.array(products), return_inverse=True)
        count = len(names)
        drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)
        return cls(np.concatenate([np.ones((1, len(places))), drawn[:, places]]))

    def compute_mean(self, values: Values) -> Values:
        """Return the means (R,) of values (S, N); NaN does not count."""
        counts = np.isfinite(values)
        totals = self.weights @ np.where(counts, values, 0).sum(axis=0)
        return np.asarray(totals / (self.weights @ counts.sum(axis=0)))

    def compute_kernel_distance(self, real: Features, sets: Sequence[Features]) -> Values:
        """Return the mean kernel distance (R,) of S sets of N features to real ones: `kernel_distance`, resampled."""
        x = real.astype(np.float64)
        within_real = polynomial_kernel(x, x)
        count = len(x)
        constant = (within_real.sum() - np.trace(within_real)) / (count * (count - 1))
        total, squares = self.weights.sum(axis=1), (self.weights**2).sum(axis=1)
        distances = np.zeros(len(self.weights))
        for features in sets:
            y = features.astype(np.float64)
            kernel = polynomial_kernel(y, y)
            within = ((self.weights @ kernel) * self.weights).sum(axis=1) - self.weights**2 @ np.diag(kernel)
            cross = self.weights @ polynomial_kernel(y, x).mean(axis=1)
            distances += constant + within / (total**2 - squares) - 2 * cross / total
        return distances / len(sets)


def to_interval(samples: Values) -> Interval:
    """Return the first of the samples with the percentile interval of the others."""
    drawn = samples[1:][np.isfinite(samples[1:])]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(samples[0]), float(low), float(high))


def compute_prompt_diversities(judgment: Judgment) -> Values:
    """Return for each image (N,) the mean cosine distance of the images of its prompt."""
    group = judgment.images.group
    vectors = normalize_vectors(judgment.features).astype(np.float64)
    upper = np.triu_indices(group, 1)
    distances = [
        (1 - group_vectors @ group_vectors.T)[upper].mean()
        for group_vectors in vectors.reshape(-1, group, vectors.shape[1])
    ]
    return np.repeat(np.array(distances), group)


def summarize(real: Features, before: Sequence[Judgment], after: Sequence[Judgment]) -> dict[str, dict[str, Interval]]:
    """Return levels after an alignment and changes since the start by measure, over S seeds; diversity as a share of
    the start's."""
    resampler = ProductResampler.draw(after[0].images.products)
    levels: dict[str, Interval] = {}
    changes: dict[str, Interval] = {}
    for name in MEASURES:
        if name not in after[0].columns or not np.isfinite(after[0].columns[name]).any():
            continue
        old, new = (np.stack([judgment.columns[name] for judgment in side]) for side in (before, after))
        levels[name] = to_interval(resampler.compute_mean(new))
        changes[name] = to_interval(resampler.compute_mean(new - old))
    old, new = (
        resampler.compute_kernel_distance(real, [judgment.features for judgment in side]) for side in (before, after)
    )
    levels["kid"], changes["kid"] = to_interval(new), to_interval(new - old)
    old, new = (
        resampler.compute_mean(np.stack([compute_prompt_diversities(judgment) for judgment in side]))
        for side in (before, after)
    )
    levels["diversity"], changes["diversity"] = to_interval(new), to_interval(new / old)
    return {"levels": levels, "changes": changes}


def describe_trial(trial: Trial, start: Judgment) -> dict[str, Any]:
    """Return the figures of one run, and its checks."""
    return {
        "arm": trial.arm,
        "seed": trial.seed,
        "gold_gain": trial.judgment.score.gold - start.score.gold,
        "kept": trial.is_better,
        "reason": trial.reason,
        "best_step": trial.best_step,
        "images_sampled": trial.images_sampled,
        "seconds": trial.seconds,
        "checking_seconds": trial.checking_seconds,
        "core_difference": trial.judgment.core_difference,
        "checks": [
            {
                "step": check.step,
                "reward": check.reward,
                "gold": check.gold,
                "alarm": check.alarm,
                "rewards": dict(check.rewards),
                "figures": dict(check.figures),
            }
            for check in trial.checks
        ],
    }


COLUMNS = (*MEASURES, "kid", "diversity")


def format_table(
    starts: Sequence[Judgment], summaries: Mapping[str, Mapping[str, Mapping[str, Interval]]], trials: Sequence[Trial]
) -> str:
    """Return a Markdown table: levels of the start, then an arm a row, its changes with their intervals."""
    head = ("", *COLUMNS, "core", "images", "seconds", "checks", "kept")
    rows = [head, ("---",) * len(head)]
    first = next(iter(summaries.values()))
    levels = [
        _format_cell(first["levels"], first["changes"], name) if name in first["levels"] else "-" for name in COLUMNS
    ]
    core = max(judgment.core_difference for judgment in starts)
    rows.append(("start", *levels, str(core), "-", "-", "-", "-"))
    for arm, summary in summaries.items():
        arm_trials = [trial for trial in trials if trial.arm == arm]
        rows.append(
            (
                arm,
                *(
                    "-"
                    if name not in summary["changes"]
                    else format(summary["changes"][name], ".3f" if name == "diversity" else "+.3f")
                    for name in COLUMNS
                ),
                str(max(trial.judgment.core_difference for trial in arm_trials)),
                f"{np.mean([trial.images_sampled for trial in arm_trials]):,.0f}",
                f"{np.mean([trial.seconds for trial in arm_trials]):.0f}",
                f"{np.mean([trial.checking_seconds for trial in arm_trials]):.0f}",
                f"{sum(trial.is_better for trial in arm_trials)} of {len(arm_trials)}",
            )
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _format_cell(levels: Mapping[str, Interval], changes: Mapping[str, Interval], name: str) -> str:
    """Return the start's level of a measure, from an arm's level and change."""
    if name == "diversity":
        return f"{levels[name].mean / changes[name].mean:.3f}"
    return f"{levels[name].mean - changes[name].mean:.3f}"
