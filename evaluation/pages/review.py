"""The page on which a lead decides: verdict first, then what it rests on.

Plain data in, one self-contained page out; readable on a phone. Everywhere the champion stands left, the challenger
right, and what is better for the challenger is green.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from evaluation.generator.comparison import Delta, Side
from evaluation.pages import html as pages
from evaluation.pages.html import Html, Mood, format_value
from evaluation.ratings.summary import RatingSummary, RewardAgreement
from evaluation.statistics.intervals import Interval

MOODS: Mapping[str, Mood] = {"pass": "good", "fail": "bad", "pending": "warn"}
WORDS = {"pass": "Pass", "fail": "Fail", "pending": "Pending"}
DIGEST_CHARACTERS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOrigin:
    """How a model was made. `artifacts`: path -> digest; `params`: `section.key` -> value; `runs`: path -> address."""

    digest: str
    artifacts: Mapping[str, str]
    params: Mapping[str, object]
    runs: Mapping[str, str]
    tree: Sequence[str] = ()

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> ModelOrigin | None:
        """Return the origin in champion.json; None where there is no champion."""
        if facts["version"] is None:
            return None
        return cls(**{name: facts[name] for name in ("digest", "artifacts", "params", "runs")})


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewPage:
    """All that the page shows. `figures`: measure -> its mean for the challenger."""

    outcome: Literal["pass", "fail", "pending"]
    reasons: Sequence[str]
    figures: Mapping[str, object]
    sides: Sequence[Side]
    left: str  # what the images on the left are
    deltas: Sequence[Delta]
    slices: Sequence[Delta]
    human: RatingSummary
    champion_version: str | None
    champion: ModelOrigin | None
    challenger: ModelOrigin


def render_review_page(review: ReviewPage) -> str:
    """Return the page as one HTML document."""
    return pages.page(
        "May this model be champion?",
        pages.verdict(f"{WORDS[review.outcome]}. {_format_opponents(review)}", MOODS[review.outcome]),
        _reasons(review.reasons),
        pages.metric_tiles(review.figures),
        pages.section("Side by side", *_sides(review)),
        pages.section("Measures", *_measures(review.deltas)),
        pages.section("Slices that moved", *_slices(review.slices)),
        pages.section("What people say", *_human(review.human)),
        pages.section("What changed", *_changes(review.champion, review.challenger)),
        pages.section("Where it comes from", *_lineage(review.challenger)),
    )


def _format_opponents(review: ReviewPage) -> str:
    challenger = f"Challenger {_shorten_digest(review.challenger.digest)}"
    if review.champion is None:
        return f"{challenger}; there is no champion yet."
    return (
        f"{challenger} against champion version {review.champion_version}, {_shorten_digest(review.champion.digest)}."
    )


def _reasons(reasons: Sequence[str]) -> Html:
    return Html('<ul class="reasons">' + "".join(f"<li>{escape(reason)}</li>" for reason in reasons) + "</ul>")


def _sides(review: ReviewPage) -> list[Html]:
    if not review.sides:
        return [pages.paragraph("No images were compared.")]
    sides = "".join(_side(side, review.left) for side in review.sides)
    return [
        pages.paragraph(f"Left: {review.left}. Right: the challenger. Same product, prompt and seed."),
        Html(f'<div class="sides">{sides}</div>'),
    ]


def _side(side: Side, left: str) -> str:
    images = (
        pages.image(side.champion, f"{left}: {side.prompt}") if side.champion else "<figure>no image</figure>",
        pages.image(side.challenger, f"challenger: {side.prompt}"),
    )
    # Inside a pair the caption below says it once for both.
    bare = "".join(image.partition("<figcaption>")[0] + "</figure>" for image in images)
    name = ", ".join(filter(None, (side.category, side.prompt)))
    return f'<div class="side">{bare}<p>{escape(name)}</p></div>'


def _measures(deltas: Sequence[Delta]) -> list[Html]:
    if not deltas:
        return [pages.paragraph("Nothing was measured.")]
    return [
        pages.paragraph(
            "Challenger minus champion on the same images, with the 95 % interval; the line is no difference. "
            "A gate watches what is marked with a dot."
        ),
        Html('<div class="deltas">' + "".join(map(_delta, deltas)) + "</div>"),
    ]


def _delta(delta: Delta) -> str:
    mark = "\N{BULLET} " if delta.guarded else ""
    challenger = format_value(delta.challenger)
    values = f"{format_value(delta.champion)} \N{RIGHTWARDS ARROW} {challenger}"
    if delta.difference is None:
        return f'<div class="delta new"><b>{mark}{escape(delta.name)}</b><span>{challenger}</span></div>'
    change = delta.difference
    signed = f"{change.mean:+.3g} [{change.low:+.3g}, {change.high:+.3g}]"
    reach = max(abs(change.low), abs(change.high), abs(change.mean)) or 1.0
    low, mean, high = (50 + 46 * value / reach for value in (change.low, change.mean, change.high))
    whisker = (
        '<svg viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
        '<line class="zero" x1="50" x2="50" y1="0" y2="12"/>'
        f'<rect x="{low:.2f}" width="{max(high - low, 0.8):.2f}" y="4.5" height="3"/>'
        f'<rect x="{mean - 0.6:.2f}" width="1.2" y="1.5" height="9"/></svg>'
    )
    return (
        f'<div class="delta {delta.change}"><b>{mark}{escape(delta.name)}</b><span>{escape(values)}</span>'
        f"{whisker}<em>{escape(signed)}, {delta.change}</em></div>"
    )


def _slices(slices: Sequence[Delta]) -> list[Html]:
    moved = [delta for delta in slices if delta.change in ("better", "worse")]
    if not moved:
        counted = sum(delta.change == "same" for delta in slices)
        return [
            pages.paragraph(f"None of {counted} slices moved: every interval holds zero." if counted else "No slices.")
        ]
    worse_first = sorted(moved, key=lambda delta: (delta.change == "better", delta.name))
    return [
        pages.paragraph(f"{len(moved)} of {len(slices)}; about {0.05 * len(slices):.1f} would move by chance."),
        Html('<div class="deltas">' + "".join(map(_delta, worse_first)) + "</div>"),
    ]


def _human(human: RatingSummary) -> list[Html]:
    parts = []
    if human.win_rate is None:
        parts.append(pages.paragraph(f"Nobody has compared it with {human.against} yet: `make rate` opens the packet."))
    else:
        rate, alpha = human.win_rate, human.agreement.alpha
        parts.append(
            pages.metric_tiles(
                {
                    f"wins against {human.against}": _format_interval(rate),
                    "judgments": human.judgments,
                    "raters": human.raters,
                    "agreement (alpha)": alpha and _format_interval(alpha),
                    "same answer twice": human.consistency,
                }
            )
        )
    parts += _agreement(human.agreement)
    if human.strengths:
        rows = [
            {"model": name, "strength (log-odds)": strength.mean, "low": strength.low, "high": strength.high}
            for name, strength in sorted(human.strengths.items(), key=lambda item: -item[1].mean)
        ]
        parts.append(pages.table(rows, "Bradley-Terry strengths"))
    if human.set_aside:
        rows = [{"set aside because": why, "judgments": count} for why, count in human.set_aside.items()]
        parts.append(pages.table(rows))
    return parts


def _agreement(agreement: RewardAgreement) -> list[Html]:
    if agreement.reward is None:
        return []
    text = f"The reward model prefers what people prefer in {_format_interval(agreement.reward)} of cases"
    raters = (
        f"two raters choose the same in {_format_interval(agreement.pair)} of pairs"
        if agreement.pair
        else "no pair has two raters"
    )
    return [pages.paragraph(f"{text}; {raters}.")]


def _format_interval(interval: Interval) -> str:
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _changes(champion: ModelOrigin | None, challenger: ModelOrigin) -> list[Html]:
    if champion is None:
        return [pages.paragraph("There is no champion to compare with.")]
    params = _compare_values(champion.params, challenger.params)
    artifacts = _compare_values(champion.artifacts, challenger.artifacts)
    data = [row for row in artifacts if not str(row["artifact"]).startswith("models/")]
    models = [row for row in artifacts if str(row["artifact"]).startswith("models/")]
    for row in artifacts:
        row.update(
            {side: _shorten_digest(str(row[side])) for side in ("champion", "challenger") if row[side] is not None}
        )
    return [
        _table_or_text(params, "Parameters", "No parameter changed.", "artifact", "parameter"),
        _table_or_text(data, "Data", "The data is the same."),
        _table_or_text(models, "Models", "Every part is the same."),
    ]


def _compare_values(before: Mapping[str, object], after: Mapping[str, object]) -> list[dict[str, object]]:
    names = sorted(before.keys() | after.keys())
    return [
        {"artifact": name, "champion": before.get(name), "challenger": after.get(name)}
        for name in names
        if before.get(name) != after.get(name)
    ]


def _table_or_text(rows: list[dict[str, object]], caption: str, otherwise: str, old: str = "", new: str = "") -> Html:
    if not rows:
        return pages.paragraph(otherwise)
    return pages.table([{new if key == old else key: value for key, value in row.items()} for row in rows], caption)


def _lineage(origin: ModelOrigin) -> list[Html]:
    def linked(path: str) -> str:
        address = origin.runs.get(path, "")
        if not address.startswith(("http://", "https://")):
            return "<td>pinned</td>" if address == "" else "<td></td>"
        return f'<td><a href="{escape(address)}" rel="noreferrer">run</a></td>'

    rows = "\n".join(
        f"<tr><td>{escape(path)}</td><td><code>{escape(_shorten_digest(digest))}</code></td>{linked(path)}</tr>"
        for path, digest in origin.artifacts.items()
    )
    table = (
        f"<table><thead><tr><th>artifact</th><th>content</th><th>made by</th></tr></thead><tbody>{rows}</tbody></table>"
    )
    tree = "\n".join(escape(line) for line in origin.tree)
    return [
        Html(f'<div class="scroll">{table}</div>'),
        pages.details("The whole tree", Html(f'<pre class="scroll">{tree}</pre>')),
    ]


def _shorten_digest(digest: str) -> str:
    return digest[:DIGEST_CHARACTERS]
