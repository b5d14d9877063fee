"""What people said, as a section of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.pages.html import Html, details, metric_tiles, paragraph, section, table
from evaluation.ratings.agreement import (
    NO_MODEL,
    compute_consistency,
    compute_win_rate,
    fit_strengths,
    krippendorff_alpha,
    select_counted,
)

Judgment = Mapping[str, Any]


def render_ratings_section(rows: Sequence[Judgment], names: Mapping[str, str]) -> Html:
    """Agreement, win rates and who was set aside. `names`: what readers call a model, by its digest."""
    said = select_counted(rows)
    human = [row for row in rows if row["source"] == "human"]
    aside = _exclusions(human)
    if not said:
        return section("What people say", paragraph("No judgment counts yet."), *aside)
    tiles: dict[str, object] = {
        "judgments that count": len(said),
        "raters": len({row["rater"] for row in said}),
        "set aside": sum(row["set_aside"] is not None for row in human),
    }
    for question in dict.fromkeys(row["question"] for row in said):
        if (alpha := krippendorff_alpha(rows, question)) is not None:
            tiles[f"agreement on {question} (Krippendorff's alpha)"] = str(alpha)
    if (same := compute_consistency(rows)) is not None:
        tiles["same answer when asked again"] = same
    return section("What people say", metric_tiles(tiles), *_wins(rows, names), *_strengths(rows, names), *aside)


def _wins(rows: Sequence[Judgment], names: Mapping[str, str]) -> list[Html]:
    met = {(row["first_model"], row["second_model"]) for row in select_counted(rows) if row["second"] is not None}
    # Each two once; a model stands before what no model painted.
    pairs = sorted({(one, other) if one and one > (other or "") else (other, one) for one, other in met}, key=str)
    lines = []
    for question in dict.fromkeys(row["question"] for row in select_counted(rows)):
        for one, other in pairs:
            if one and (won := compute_win_rate(rows, one, other, question=question)) is not None:
                lines.append(
                    {
                        "model": _get_model_name(one, names),
                        "against": _get_model_name(other, names),
                        "question": question,
                        "wins": str(won.rate),
                        "pairs": won.pairs,
                        "judgments": won.judgments,
                        "raters": won.raters,
                    }
                )
    return [table(lines, "How often the first is preferred; a tie is half a win; 95 % intervals over pairs")]


def _strengths(rows: Sequence[Judgment], names: Mapping[str, str]) -> list[Html]:
    fitted = fit_strengths(rows)
    if len(fitted) < 3:
        return []  # of two models the win rate says it all
    ranked = sorted(fitted.items(), key=lambda item: -item[1].mean)
    return [
        table([{"model": _get_model_name(m, names), "strength": str(s)} for m, s in ranked], "Bradley-Terry log-odds")
    ]


def _exclusions(human: Sequence[Judgment]) -> list[Html]:
    reasons = Counter((row["rater"], row["set_aside"]) for row in human if row["set_aside"] is not None)
    lines = [{"rater": who, "reason": why, "judgments": n} for (who, why), n in sorted(reasons.items())]
    return [details(f"{sum(reasons.values())} judgments set aside", table(lines))] if lines else []


def _get_model_name(model: str | None, names: Mapping[str, str]) -> str:
    return names.get(model, model[:12]) if model and model != NO_MODEL else "pasted products"
