"""What the text encoders of an arm know, without a denoiser; by product, so that intervals are."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from bench.families.training import Contestant, Sources
from canvas.clip.model import TextTower, load_clip
from canvas.clip.tuning.data import TuningData
from canvas.device import default_device
from canvas.pins import tables
from canvas.pins.fallbacks import Notes
from canvas.uve.training import read_labels
from evaluation.measures.neighbours import find_label_hits
from evaluation.measures.retrieval import embed_pairs, find_hits
from evaluation.measures.text_probe import TASKS, compute_text_vectors, label_texts
from evaluation.statistics.intervals import Interval, crossed_bootstrap_mean
from lifecycle.declare.graph import load_stage
from lifecycle.declare.params import read_stage_params

Hits = Mapping[Hashable, tuple[float, str]]
"""Query -> whether it finds what it should, 1 or 0, and its product."""
PROBE_K = 1
"""Texts among which one of the same scene, or product, must be."""


def score_encoders(arm: Contestant, sources: Sources) -> dict[str, Hits]:
    """Return the hits of an arm by measure: retrieval at every width, probes of states that have queries."""
    params = read_stage_params(load_stage("train_text"), arm.sections)
    spec, text = params["train_text"], params["text"]
    pins, kept, truth, captions = (sources.root / "artifacts" / name for name in ("pins", "kept", "truth", "captions"))
    data = TuningData.read(pins, kept, captions, spec, [], Notes())
    labels = read_labels(pins, truth, captions, data.prompts.keys())
    products = tables.read_column(pins, "product_id", data.prompts.keys())
    assert arm.text_encoders is not None
    hits: dict[str, Hits] = {}
    for name in spec.towers:
        sizes = getattr(text, name)
        clip = load_clip(arm.text_encoders / name).eval().to(default_device())
        tower = TextTower.from_clip(clip, sizes)
        everyone = dict.fromkeys(data.scored, "any")
        (pairs,) = embed_pairs(clip, tower, pins, data.scored, everyone, params["frames"], spec.score_batch).values()
        distinct, firsts, places = np.unique(pairs.captions, return_index=True, return_inverse=True)
        owner = _find_owners(data.scored, products)
        for width in spec.compute_widths(sizes.embed_dim):
            cut = pairs.cut(width)
            nearest = find_hits(
                cut.texts[firsts] @ cut.images.T, places[None, :] == np.arange(len(distinct))[:, None], 1
            )
            hits[f"text to image, {name}, {width} numbers"] = {
                caption: (float(hit), owner[caption]) for caption, hit in zip(distinct.tolist(), nearest, strict=True)
            }
    texts, vectors = compute_text_vectors(arm.text_encoders, text, data.prompts, spec.score_batch)
    owner = _find_owners(data.prompts, products)
    for task in TASKS:
        label_of = label_texts(data.prompts, labels[task])
        rows, hits_at = find_label_hits(vectors, [label_of[caption] for caption in texts])
        if len(rows):
            hits[f"probe, {task}"] = {
                texts[row]: (float(hit), owner[texts[row]]) for row, hit in zip(rows, hits_at[PROBE_K], strict=True)
            }
    return hits


def _find_owners(captions: Mapping[str, Sequence[str]], products: Mapping[str, str | None]) -> dict[str, str]:
    """Return text -> the product of a pin that has it, or that pin where it shows none."""
    return {text: products.get(pin_id) or pin_id for pin_id, texts in captions.items() for text in texts}


def average_hits(hits: Hits) -> Interval:
    """Return the share of hits with its 95 % interval: products are resampled."""
    values, products = zip(*hits.values(), strict=True)
    return crossed_bootstrap_mean(values, products, [0] * len(values))


def compare_hits(hits: Hits, rival: Hits) -> Interval:
    """Return the mean difference over the queries of both, likewise."""
    pairs = [(value - rival[query][0], product) for query, (value, product) in hits.items() if query in rival]
    values, products = zip(*pairs, strict=True)
    return crossed_bootstrap_mean(values, products, [0] * len(values))
