"""The filters, cheapest first. Each asks the survivors of a chain and notes its reasons against them."""

from __future__ import annotations

from canvas.filters.chain import FilterChain
from canvas.filters.near_duplicates import DuplicateLimits, ImageFeatureScorer, find_close_pairs, select_originals
from canvas.filters.quality import QualityLimits, QualityScorer
from canvas.filters.relevance import RelevanceScorer, TextLengthScorer, TextLimits
from canvas.filters.safety import SafetyScorer
from canvas.filters.text_overlay import OverlayLimits, TextOverlayScorer


def filter_by_quality(chain: FilterChain, limits: QualityLimits) -> None:
    """Keep pictures that can be read, are large, well exposed and sharp, and show something."""
    found = chain.ask("quality", QualityScorer)
    chain.drop("broken_bytes", found["short_side"].isna())
    chain.drop("tiny", found["short_side"] < limits.min_short_side)
    chain.drop("elongated", found["aspect"] > limits.max_aspect)
    chain.drop("underexposed", found["brightness"] < limits.min_brightness)
    bright = found["brightness"] > limits.max_brightness
    chain.drop("overexposed", bright & (found["clipped"] > limits.max_clipped))
    chain.drop("blurred", found["sharpness"] < limits.min_sharpness)
    chain.drop("plain", found["entropy"] < limits.min_entropy)
    chain.close("quality")


def filter_by_text_presence(chain: FilterChain, limits: TextLimits) -> None:
    """Keep pins that say something."""
    chain.drop("empty_text", chain.ask("text", TextLengthScorer)["text_length"] < limits.min_characters)
    chain.close("text")


def filter_near_duplicates(chain: FilterChain, limits: DuplicateLimits) -> None:
    """Keep the first of pictures that are nearly the same; features are asked where hashes are close."""
    alive = chain.survivors
    pairs = find_close_pairs(alive["phash"].tolist(), limits.max_hash_distance)
    names = [(alive.index[later], alive.index[earlier]) for later, earlier in pairs.tolist()]
    paired = set().union(*names)
    found = chain.ask("near_duplicates", ImageFeatureScorer, only=alive.index[alive.index.isin(paired)])
    features = dict(zip(found.index, found["features"], strict=True))
    cosines = [float(features[later] @ features[earlier]) for later, earlier in names]
    for (later, _), cosine in sorted(zip(names, cosines, strict=True), key=lambda pair: pair[1]):
        chain.scores.loc[later, "similarity"] = cosine  # the nearest is noted last
    for later, earlier in select_originals(pairs, cosines, limits.min_similarity).items():
        chain.scores.loc[alive.index[later], "duplicate_of"] = alive.index[earlier]
    chain.drop("near_duplicate", chain.scores["duplicate_of"].notna())
    chain.close("near_duplicates")


def filter_by_relevance(chain: FilterChain, limits: TextLimits) -> None:
    """Keep pins whose texts speak of one thing; a pin with too few texts to tell passes."""
    chain.drop("unrelated_text", chain.ask("relevance", RelevanceScorer)["relevance"] < limits.min_relevance)
    chain.close("relevance")


def filter_by_safety(chain: FilterChain, max_nsfw: float) -> None:
    """Keep pictures that are safe to show."""
    chain.drop("unsafe", chain.ask("safety", SafetyScorer)["nsfw"] > max_nsfw)
    chain.close("safety")


def filter_by_overlay(chain: FilterChain, limits: OverlayLimits) -> None:
    """Keep pictures without a line of text across them."""
    chain.drop("text_overlay", chain.ask("overlay", TextOverlayScorer, limits)["text_overlay"] > limits.max_width)
    chain.close("overlay")
