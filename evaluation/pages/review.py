"""The page on which a lead decides: verdict first, then what it rests on.

Plain data in, one self-contained page out; readable on a phone. Everywhere the champion stands left, the challenger
right, and what is better for the challenger is green.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from evaluation.generator.comparison import Delta, Side
from evaluation.metrics import CANDIDATE_MEASURES, describe_measures
from evaluation.pages import html as pages
from evaluation.pages.html import Html, format_value
from evaluation.ratings.summary import RatingSummary

DIGEST_CHARACTERS = 10
QUESTIONS_READ = (
    "Alone: the mean of what people say of an image that they see alone, 0 worst, 1 best. The reward agrees by chance "
    "in 0.50 of cases."
)


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
    """All that the page shows."""

    outcome: Literal["pass", "fail", "pending"]
    reasons: Sequence[str]
    figures: Mapping[str, object]  # CANDIDATE_MEASURES -> the challenger's mean
    sides: Sequence[Side]
    left: str  # what the images on the left are
    deltas: Sequence[Delta]
    slices: Sequence[Delta]
    human: RatingSummary
    alignment: bytes | None  # held-out prompts before and after an alignment with rewards, as PNG; None: there was none
    champion_version: str | None
    champion: ModelOrigin | None
    challenger: ModelOrigin


def render_review_page(review: ReviewPage) -> str:
    """Return the page as one HTML document."""
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in review.reasons)
    opponents = f"Challenger {review.challenger.digest[:DIGEST_CHARACTERS]}" + (
        f" against champion version {review.champion_version}, {review.champion.digest[:DIGEST_CHARACTERS]}."
        if review.champion
        else "; there is no champion yet."
    )
    return pages.page(
        "May this model be champion?",
        pages.verdict(f"{review.outcome.capitalize()}. {opponents}", pages.MOODS[review.outcome]),
        Html(f'<ul class="reasons">{reasons}</ul>'),
        pages.metric_tiles({CANDIDATE_MEASURES[name].title: value for name, value in review.figures.items()}),
        pages.section("Side by side", *_render_sides(review.sides, review.left)),
        *_render_alignment(review.alignment),
        pages.section("Measures", *_render_measures(review.deltas)),
        pages.section("Slices that moved", *_render_slices(review.slices)),
        pages.section("What people say", *_render_ratings(review.human)),
        pages.section("What changed", *_render_changes(review.champion, review.challenger)),
        pages.section("Where it comes from", *_render_lineage(review.challenger)),
    )


def _render_alignment(sheet: bytes | None) -> list[Html]:
    if sheet is None:
        return []
    caption = "Above: before. Below: after. Held-out products and captions, the same seeds."
    return [pages.section("The alignment with rewards", pages.image(sheet, caption))]


def _render_sides(sides: Sequence[Side], left: str) -> list[Html]:
    if not sides:
        return [pages.paragraph("No images were compared.")]
    return [
        pages.paragraph(f"Left: {left}. Right: the challenger. Same product, prompt and seed."),
        Html(f'<div class="sides">{"".join(_render_side(side, left) for side in sides)}</div>'),
    ]


def _render_side(side: Side, left: str) -> str:
    images = (
        pages.image(side.champion, f"{left}: {side.prompt}") if side.champion else "<figure>no image</figure>",
        pages.image(side.challenger, f"challenger: {side.prompt}"),
    )
    # Inside a pair the caption below says it once for both.
    bare = "".join(image.partition("<figcaption>")[0] + "</figure>" for image in images)
    name = ", ".join(filter(None, (side.category, side.prompt)))
    return f'<div class="side">{bare}<p>{escape(name)}</p></div>'


def _render_measures(deltas: Sequence[Delta]) -> list[Html]:
    if not deltas:
        return [pages.paragraph("Nothing was measured.")]
    return [
        pages.paragraph(
            "Challenger minus champion on the same images, with the 95 % interval; the line is no difference. "
            "A gate watches what is marked with a dot."
        ),
        _draw_deltas(deltas),
        pages.details("What the measures mean", pages.table(describe_measures(delta.name for delta in deltas))),
    ]


def _draw_deltas(deltas: Iterable[Delta]) -> Html:
    return Html('<div class="deltas">' + "".join(map(_draw_delta, deltas)) + "</div>")


def _draw_delta(delta: Delta) -> str:
    name = ("\N{BULLET} " if delta.guarded else "") + escape(delta.name)
    challenger = format_value(delta.challenger)
    if delta.difference is None:
        return f'<div class="delta new"><b>{name}</b><span>{challenger}</span></div>'
    change = delta.difference
    reach = max(abs(change.low), abs(change.high), abs(change.mean)) or 1.0
    low, mean, high = (50 + 46 * value / reach for value in (change.low, change.mean, change.high))
    return (
        f'<div class="delta {delta.change}"><b>{name}</b>'
        f"<span>{format_value(delta.champion)} \N{RIGHTWARDS ARROW} {challenger}</span>"
        '<svg viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
        '<line class="zero" x1="50" x2="50" y1="0" y2="12"/>'
        f'<rect x="{low:.2f}" width="{max(high - low, 0.8):.2f}" y="4.5" height="3"/>'
        f'<rect x="{mean - 0.6:.2f}" width="1.2" y="1.5" height="9"/></svg>'
        f"<em>{change:+.3g}, {delta.change}</em></div>"
    )


def _render_slices(slices: Sequence[Delta]) -> list[Html]:
    moved = [delta for delta in slices if delta.change in ("better", "worse")]
    if not moved:
        count = sum(delta.change == "same" for delta in slices)
        text = f"None of {count} slices moved: every interval holds zero." if count else "No slices."
        return [pages.paragraph(text)]
    return [
        pages.paragraph(f"{len(moved)} of {len(slices)}; about {0.05 * len(slices):.1f} would move by chance."),
        _draw_deltas(sorted(moved, key=lambda delta: (delta.change == "better", delta.name))),
    ]


def _render_ratings(human: RatingSummary) -> list[Html]:
    if human.win_rate is None:
        text = f"Too few people have compared it with {human.against} yet: `make rate` opens the packet."
        parts = [pages.paragraph(text)]
    else:
        alpha = human.agreement.alpha
        tiles = {
            f"wins against {human.against}": f"{human.win_rate:.2f}",
            "judgments": human.judgments,
            "raters": human.raters,
            "agreement (alpha)": alpha and f"{alpha:.2f}",
            "same answer twice": human.consistency,
        }
        parts = [pages.metric_tiles(tiles)]
    if (reward := human.agreement.reward) is not None:
        pair = human.agreement.pair
        raters = f"two raters choose the same in {pair:.2f} of pairs" if pair else "no pair has two raters"
        text = f"The reward model prefers what people prefer in {reward:.2f} of cases; {raters}."
        parts.append(pages.paragraph(text))
    if human.questions:
        parts.append(pages.table(_tabulate_questions(human), "Question by question"))
        parts.append(pages.paragraph(QUESTIONS_READ))
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


def _tabulate_questions(human: RatingSummary) -> list[dict[str, object]]:
    return [
        {
            "question": asked.question,
            "wins in pairs": asked.wins and f"{asked.wins:.2f}",
            "challenger alone": asked.challenger and f"{asked.challenger:.2f}",
            f"{human.against} alone": asked.opponent and f"{asked.opponent:.2f}",
            "agreement (alpha)": asked.alpha and f"{asked.alpha:.2f}",
            "reward agrees, pairs": asked.reward_in_pairs and f"{asked.reward_in_pairs:.2f}",
            "reward agrees, alone": asked.reward_alone and f"{asked.reward_alone:.2f}",
        }
        for asked in human.questions
    ]


def _render_changes(champion: ModelOrigin | None, challenger: ModelOrigin) -> list[Html]:
    if champion is None:
        return [pages.paragraph("There is no champion to compare with.")]
    artifacts = _compare_values("artifact", champion.artifacts, challenger.artifacts)
    for row in artifacts:
        row |= {side: str(row[side])[:DIGEST_CHARACTERS] for side in ("champion", "challenger") if row[side]}
    models = [row for row in artifacts if str(row["artifact"]).startswith("models/")]
    tables = {
        ("Parameters", "No parameter changed."): _compare_values("parameter", champion.params, challenger.params),
        ("Data", "The data is the same."): [row for row in artifacts if row not in models],
        ("Models", "Every part is the same."): models,
    }
    return [pages.table(rows, title) if rows else pages.paragraph(same) for (title, same), rows in tables.items()]


def _compare_values(kind: str, before: Mapping[str, object], after: Mapping[str, object]) -> list[dict[str, object]]:
    """Return rows of the values that differ, by name."""
    return [
        {kind: name, "champion": before.get(name), "challenger": after.get(name)}
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _render_lineage(origin: ModelOrigin) -> list[Html]:
    rows = "\n".join(
        f"<tr><td>{escape(path)}</td><td><code>{escape(digest[:DIGEST_CHARACTERS])}</code></td>"
        f"<td>{_link_run(origin.runs.get(path, ''))}</td></tr>"
        for path, digest in origin.artifacts.items()
    )
    head = "<thead><tr><th>artifact</th><th>content</th><th>made by</th></tr></thead>"
    tree = "\n".join(escape(line) for line in origin.tree)
    return [
        Html(f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>'),
        pages.details("The whole tree", Html(f'<pre class="scroll">{tree}</pre>')),
    ]


def _link_run(address: str) -> str:
    if not address.startswith(("http://", "https://")):
        return "" if address else "pinned"
    return f'<a href="{escape(address)}" rel="noreferrer">run</a>'
