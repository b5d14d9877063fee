"""Metrics, funnel and page of a run of the filters."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from canvas.pins import tables
from canvas.pins.images import decode_image, draw_contact_sheet, encode_png
from evaluation.measures.detection import Detection, compute_good_pass_rate, score_detections
from evaluation.pages import html as pages

if TYPE_CHECKING:
    import pandas as pd

    from canvas.filters.chain import FilterChain

SHEET_COLUMNS, SHEET_CELL = 8, 132
SCORES = [
    "short_side",
    "sharpness",
    "brightness",
    "clipped",
    "entropy",
    "similarity",
    "relevance",
    "nsfw",
    "text_overlay",
]
"""Columns of tables.KEPT that the page shows by planted defect."""


def compute_filter_metrics(chain: FilterChain, truth: Path) -> dict[str, Any]:
    """Compute counts, speeds and, where truth is known, precision and recall by planted defect."""
    rows, reasons = chain.scores, chain.scores["reason"].dropna()
    seconds = sum(each.seconds for each in chain.passes.values())
    figures: dict[str, Any] = {
        "pins": len(rows),
        "kept": len(rows) - len(reasons),
        "left_after": dict(chain.left),
        "dropped": {str(reason): int(count) for reason, count in reasons.value_counts().sort_index().items()},
        "seconds": seconds,
        "pins_per_second": len(rows) / seconds,
        "pins_per_second_of": {name: each.pins / each.seconds for name, each in chain.passes.items() if each.pins},
    }
    planted = read_planted_defects(chain, truth)
    if planted:
        detections = score_defect_detection(chain, planted)
        figures["good_pins_kept"] = compute_good_pass_rate(list(planted.values()), _select_reasons(chain, planted))
        for rate in ("precision", "recall"):
            values = {each.defect: getattr(each, rate) for each in detections}
            figures[rate] = {defect: value for defect, value in values.items() if math.isfinite(value)}
    return figures


def read_planted_defects(chain: FilterChain, truth: Path) -> dict[str, str | None]:
    """Read pin_id -> planted defect of the pins in the truth table; empty for a real catalogue."""
    rows = tables.read(truth, ["pin_id", "defect"])
    defects = dict(zip(rows["pin_id"].to_pylist(), rows["defect"].to_pylist(), strict=True))
    return {pin: defects[pin] for pin in chain.scores.index if pin in defects}


def score_defect_detection(chain: FilterChain, planted: Mapping[str, str | None]) -> list[Detection]:
    """Score how well the reasons match the planted defects, by name."""
    defects = sorted({defect for defect in planted.values() if defect})
    return score_detections(list(planted.values()), _select_reasons(chain, planted), defects)


def format_funnel_csv(chain: FilterChain) -> str:
    """Format the columns `filter` and `pins`: how many pins are left after each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["filter", "pins"])
    writer.writerows([("all pins", len(chain.scores)), *chain.left.items()])
    return text.getvalue()


def render_filter_page(chain: FilterChain, truth: Path, sheet_each: int) -> str:
    """Render the report: funnel, scores against planted defects, speed, and a contact sheet of each reason."""
    planted = read_planted_defects(chain, truth)
    kept, total = len(chain.survivors), len(chain.scores)
    return pages.page(
        "Filter",
        pages.verdict(f"{kept:,} of {total:,} pins are fit for training ({kept / total:.1%})."),
        pages.section("Funnel", pages.bars({"all pins": total, **chain.left}, "Pins left after each filter")),
        *([_truth_section(chain, planted)] if planted else []),
        pages.section("Speed", pages.table(_speeds(chain), "A pass starts with loading its model.")),
        *_sheets(chain, planted, sheet_each),
    )


def _truth_section(chain: FilterChain, planted: Mapping[str, str | None]) -> str:
    share = compute_good_pass_rate(list(planted.values()), _select_reasons(chain, planted))
    return pages.section(
        "Planted defects",
        pages.paragraph(f"{share:.1%} of the pins without a planted defect are kept."),
        pages.table(
            [asdict(each) for each in score_defect_detection(chain, planted)],
            "precision and recall: dropped for this very reason; dropped: for any.",
        ),
        pages.table(_scores_by_defect(chain, planted), "Median [5 %, 95 %] of each score; a dash: not measured."),
    )


def _scores_by_defect(chain: FilterChain, planted: Mapping[str, str | None]) -> list[dict[str, str]]:
    groups = chain.scores.loc[list(planted)].groupby([defect or "none" for defect in planted.values()])
    return [
        {"planted": str(name), **{score: _format_quantiles(rows[score]) for score in SCORES}} for name, rows in groups
    ]


def _format_quantiles(values: pd.Series[float]) -> str:
    if values.notna().sum() == 0:
        return ""
    low, middle, high = values.quantile([0.05, 0.5, 0.95])
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]"


def _speeds(chain: FilterChain) -> list[dict[str, object]]:
    return [
        {"filter": name, "pins": each.pins, "seconds": each.seconds, "pins per second": each.pins / each.seconds}
        for name, each in chain.passes.items()
    ]


def _sheets(chain: FilterChain, planted: Mapping[str, str | None], each: int) -> list[str]:
    """Return a section for each reason; pins dropped without a planted defect come first, for a person to judge."""
    pins_by_reason: dict[str, list[str]] = {}
    for reason, rows in chain.scores.groupby("reason", sort=True):
        names = sorted(rows.index, key=lambda pin: (planted.get(pin) is not None, pin))
        pins_by_reason[str(reason)] = names[:each]
    thumbnails = _read_thumbnails(chain.pins, {pin for names in pins_by_reason.values() for pin in names})
    sections: list[str] = []
    for reason, names in pins_by_reason.items():
        labels = [_format_label(chain, reason, pin, planted) for pin in names]
        sheet = draw_contact_sheet([thumbnails[pin] for pin in names], labels, SHEET_COLUMNS, SHEET_CELL)
        caption = f"{len(names)} of {(chain.scores['reason'] == reason).sum()}"
        sections.append(pages.section(f"Dropped: {reason}", pages.image(encode_png(sheet), caption)))
    return sections


def _format_label(chain: FilterChain, reason: str, pin: str, planted: Mapping[str, str | None]) -> str:
    """Format the evidence in a few signs, and the planted defect."""
    row = chain.scores.loc[pin]
    evidence = {
        "near_duplicate": f"like {row['duplicate_of']}",
        "text_overlay": str(row["overlay_text"]),
        "unrelated_text": f"{row['relevance']:.2f}",
        "unsafe": f"{row['nsfw']:.2f}",
        "blurred": f"{row['sharpness']:.2f}",
        "tiny": f"{row['short_side']:.0f} px",
        "elongated": f"{row['aspect']:.1f}",
        "plain": f"{row['entropy']:.1f} bits",
    }.get(reason, f"{row['brightness']:.2f}" if reason in ("overexposed", "underexposed") else "")
    defect = planted.get(pin)
    return evidence if defect == reason or pin not in planted else f"{defect or 'good'}? {evidence}"


def _read_thumbnails(pins: Path, pin_ids: set[str]) -> dict[str, Image.Image]:
    """Read the images of those pins; a grey square for one that cannot be decoded."""
    thumbnails = {}
    for batch in tables.read_batches(pins, ["pin_id", "image"]):
        for pin, data in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if pin in pin_ids:
                thumbnails[pin] = _decode_thumbnail(data)
    return thumbnails


def _decode_thumbnail(data: bytes) -> Image.Image:
    try:
        image = decode_image(data)
    except ValueError:
        return Image.new("RGB", (SHEET_CELL, SHEET_CELL), (200, 200, 200))
    image.thumbnail((SHEET_CELL, SHEET_CELL))
    return image


def _select_reasons(chain: FilterChain, pins: Mapping[str, object] | Sequence[str]) -> list[str | None]:
    return [reason if isinstance(reason, str) else None for reason in chain.scores.loc[list(pins), "reason"]]
