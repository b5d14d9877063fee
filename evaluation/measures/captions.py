"""Accuracy of generated captions: the scene, and the category of the product."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from canvas.captioner.captions import CaptionedPin
from canvas.pins.captions import parse_caption
from evaluation.statistics.intervals import compute_mean_metrics


@dataclass(frozen=True, slots=True)
class CaptionScore:
    """One caption against its truth; None where a question does not apply."""

    pin_id: str
    split: str
    scene_right: bool | None  # the background names the scene; None: the pin has none
    white_right: bool | None  # the background says white; None: the pin is not on white
    category_right: bool | None  # the product's noun is of the true category; None: no product
    alone_right: bool | None  # no product is named; None: there is one
    product_right: bool | None  # the product's name, letter by letter; None: no product


def learn_category_nouns(products: Iterable[tuple[str | None, str]]) -> dict[str, str]:
    """Return noun -> category from (product name or None, category): an English name ends with its noun.

    A noun of several categories goes to its most frequent one, the first by name on a tie.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name, category in products:
        if words := _split_words(name or ""):
            counts[words[-1]][category] += 1
    return {noun: min(tally, key=lambda category: (-tally[category], category)) for noun, tally in counts.items()}


def find_category(product: str, nouns: Mapping[str, str]) -> str | None:
    """Return the category of the last noun of a product's name that has one, or None."""
    return next((nouns[word] for word in reversed(_split_words(product)) if word in nouns), None)


def score_captions(captions: Mapping[str, str], pins: Mapping[str, CaptionedPin]) -> list[CaptionScore]:
    """Score the captions (pin_id -> caption) of pins that truth knows, in the order of `pins`.

    The nouns of categories are learnt from those of `pins` in the train split.
    """
    train = (pin for pin in pins.values() if pin.split == "train")
    nouns = learn_category_nouns((parse_caption(pin.caption)[0], pin.category) for pin in train)
    return [
        score_caption(pin_id, captions[pin_id], pin, nouns)
        for pin_id, pin in pins.items()
        if pin.has_truth and pin_id in captions
    ]


def score_caption(pin_id: str, caption: str, pin: CaptionedPin, nouns: Mapping[str, str]) -> CaptionScore:
    """Score one caption of a pin whose own caption is true; `nouns`: noun -> category."""
    product, background = parse_caption(caption)
    true_product, _ = parse_caption(pin.caption)
    has_product, scene = true_product is not None, pin.scene
    return CaptionScore(
        pin_id=pin_id,
        split=pin.split,
        scene_right=None if scene is None else _has_phrase(background, scene),
        white_right=_has_phrase(background, "white") if scene is None else None,
        category_right=find_category(product or "", nouns) == pin.category if has_product else None,
        alone_right=None if has_product else product is None,
        product_right=product == true_product if has_product else None,
    )


def compute_mean_words(texts: Iterable[Mapping[str, str]]) -> dict[str, float]:
    """Return the mean number of words of the rows' captions, by source."""
    words: dict[str, list[int]] = defaultdict(list)
    for row in texts:
        words[row["source"]].append(len(row["caption"].split()))
    return {source: sum(counts) / len(counts) for source, counts in words.items()}


def compute_caption_metrics(scores: Iterable[CaptionScore]) -> dict[str, dict[str, float]]:
    """Return the share of right answers of each kind, with 95 % intervals, and the number of captions, by split."""
    by_split = groupby(sorted(scores, key=lambda score: score.split), lambda score: score.split)
    return {split: _compute_split_metrics(list(members)) for split, members in by_split}


def _compute_split_metrics(scores: Sequence[CaptionScore]) -> dict[str, float]:
    metrics: dict[str, float] = {"captions": len(scores)}
    for name in ("scene_right", "white_right", "category_right", "alone_right", "product_right"):
        values = [float(right) for score in scores if (right := getattr(score, name)) is not None]
        metrics |= compute_mean_metrics(name, values)
    return metrics


def _has_phrase(text: str, words: str) -> bool:
    """Return whether `text` holds `words` in sequence."""
    return f" {' '.join(_split_words(words))} " in f" {' '.join(_split_words(text))} "


def _split_words(text: str) -> list[str]:
    return "".join(c if c.isalnum() or c in "-'" else " " for c in text.lower()).split()
