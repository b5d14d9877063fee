"""The page of a drift comparison: which columns moved how far, and how both sides are distributed.

Evidently has a page of its own, but writes texts of the catalogue into its scripts as they come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from evaluation.pages import html as pages
from evaluation.pages.html import Html

BINS = 24  # of a histogram
VALUES = 20  # of a category column, the commonest
TEXT_CHARACTERS = 80  # of a category's name

SIDES = ("reference", "current")


def render_drift_page(
    distances: Mapping[str, float],
    limits: Mapping[str, float],
    drifted: Sequence[str],
    numerical: Sequence[str],
    reference: pd.DataFrame,
    current: pd.DataFrame,
) -> str:
    """Return one self-contained page.

    Args:
        distances: Column -> distance of both sides: normed Wasserstein of `numerical` ones, else Jensen-Shannon.
        limits: Column -> distance from which it has drifted.
        drifted: Columns beyond their limit.
        reference: Rows of one side.
        current: Rows of the other.
    """
    rows = [
        {
            "column": name,
            "distance": distance,
            "limit": limits[name],
            "drifted": name in drifted,
            "measure": "Wasserstein, normed" if name in numerical else "Jensen-Shannon",
        }
        for name, distance in sorted(distances.items(), key=lambda item: (item[0] not in drifted, -item[1]))
    ]
    text = f"{len(drifted)} of {len(distances)} columns drifted" + (f": {', '.join(drifted)}" if drifted else "")
    counts = {side: len(frame) for side, frame in zip(SIDES, (reference, current), strict=True)}
    return pages.page(
        "Drift",
        pages.verdict(text, "warn" if drifted else "good"),
        pages.metric_tiles({f"{side} rows": count for side, count in counts.items()}),
        pages.section("Columns", pages.table(rows)),
        pages.section(
            "Distributions",
            *(
                draw(name, reference[name], current[name])
                for name in (str(row["column"]) for row in rows)
                for draw in (_draw_histograms if name in numerical else _tabulate_shares,)
            ),
        ),
    )


def _draw_histograms(name: str, *sides: pd.Series) -> Html:
    """Draw each side's share of rows by bins that both have in common."""
    values = [side.to_numpy(np.float64) for side in sides]
    finite = [side[np.isfinite(side)] for side in values]
    edges = np.histogram_bin_edges(np.concatenate(finite), BINS)
    middles = (edges[:-1] + edges[1:]) / 2
    lines = {
        side: list(zip(middles.tolist(), (np.histogram(column, edges)[0] / max(1, len(column))).tolist(), strict=True))
        for side, column in zip(SIDES, finite, strict=True)
    }
    return pages.lines(lines, f"{name}: share of rows")


def _tabulate_shares(name: str, *sides: pd.Series) -> Html:
    """Tabulate each side's share of the values that are commonest in both together."""
    shares = [side.dropna().astype(str).value_counts(normalize=True) for side in sides]
    total = shares[0].add(shares[1], fill_value=0).sort_values(ascending=False, kind="stable")
    rows = [
        {name: _shorten(value)}
        | {side: float(side_shares.get(value, 0.0)) for side, side_shares in zip(SIDES, shares, strict=True)}
        for value in total.index[:VALUES]
    ]
    rest = f", the {VALUES} commonest of {len(total)}" if len(total) > VALUES else ""
    return pages.table(rows, f"{name}: share of rows{rest}")


def _shorten(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS else text[: TEXT_CHARACTERS - 1] + "…"
