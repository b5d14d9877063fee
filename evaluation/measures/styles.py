"""Agreement of mined styles with the scenes that truth knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_mutual_info_score

from canvas.styles.mining import EmbeddedPins, Group
from canvas.styles.table import Style
from evaluation.statistics.intervals import compute_mean_metrics

Scenes = Mapping[str, str | None]  # pin_id -> scene; None: truth does not know it


def compute_mining_metrics(
    styles: Sequence[Style], clusters: Sequence[Group], pins: EmbeddedPins, scene_of: Scenes
) -> dict[str, Any]:
    """Return the metrics of `clusters`, of `boards`, and with pins of other splits than were mined, `held_out`."""
    majority_of = {style.style_id: find_majority([scene_of.get(pin) for pin in style.pins]) for style in styles}
    usable = [style for style in styles if style.kind == "cluster" and not style.dropped]
    cluster_of = {pins.pins[row]: place for place, group in enumerate(clusters) for row in group.rows}
    metrics: dict[str, Any] = {
        "clusters": {"found": len(clusters), "kept": len(usable), "dropped": _count_faults(styles, "cluster")}
    }
    for name in ("purity", "coherence"):
        if values := [value for style in usable if (value := getattr(style, name)) is not None]:
            metrics["clusters"][name] = sum(values) / len(values)
    agreement = compute_label_agreement(list(cluster_of.values()), [scene_of.get(pin) for pin in cluster_of])
    if agreement is not None:
        majorities = [majority for style in usable if (majority := majority_of[style.style_id])[0] is not None]
        metrics["clusters"]["agreement_with_scenes"] = agreement
        metrics["clusters"]["scene_purity"] = sum(share for _, share in majorities) / max(1, len(majorities))
        metrics["clusters"]["scenes"] = len({scene for scene, _ in majorities})
    held_out = [row for row, pin in enumerate(pins.pins) if pin not in cluster_of and scene_of.get(pin)]
    if held_out and usable:
        scenes = [majority_of[style.style_id][0] for style in usable]
        metrics["held_out"] = _score_nearest_clusters(usable, scenes, pins, held_out, scene_of)
    boards = [style for style in styles if style.kind == "board"]
    strong = sum(not board.dropped for board in boards)
    metrics["boards"] = {"found": len(boards), "strong": strong, "dropped": _count_faults(styles, "board")}
    return metrics


def _count_faults(styles: Sequence[Style], kind: str) -> dict[str, int]:
    return dict(Counter(style.dropped.partition(":")[0] for style in styles if style.kind == kind and style.dropped))


def _score_nearest_clusters(
    clusters: Sequence[Style], scenes: Sequence[str | None], pins: EmbeddedPins, rows: Sequence[int], scene_of: Scenes
) -> dict[str, float]:
    """Return how often the cluster nearest to a pin of `rows` has its scene; `scenes` are those of the clusters."""
    row_of = {pin: row for row, pin in enumerate(pins.pins)}
    centres = np.stack([pins.descriptors[[row_of[pin] for pin in style.pins]].mean(axis=0) for style in clusters])
    nearest = (pins.descriptors[list(rows)] @ centres.T).argmax(axis=1)
    hits = [float(scenes[at] == scene_of[pins.pins[row]]) for row, at in zip(rows, nearest, strict=True)]
    return {"pins": len(rows), **compute_mean_metrics("nearest_cluster_right", hits)}


def find_majority(labels: Sequence[str | None]) -> tuple[str | None, float]:
    """Return the label of most, and its share of those with a label; (None, 0.0): none has one."""
    counts = Counter(label for label in labels if label is not None)
    if not counts:
        return None, 0.0
    label = min(counts, key=lambda name: (-counts[name], name))
    return label, counts[label] / counts.total()


def compute_label_agreement(clusters: Sequence[int], labels: Sequence[str | None]) -> float | None:
    """Return the adjusted mutual information of clusters and labels where there is one: 1 for the same division, 0 for
    chance (Vinh et al. 2010); None: fewer than two labels are known."""
    pairs = [(label, cluster) for cluster, label in zip(clusters, labels, strict=True) if label is not None]
    if len({label for label, _ in pairs}) < 2:
        return None
    return float(adjusted_mutual_info_score(*zip(*pairs, strict=True)))
