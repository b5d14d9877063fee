"""Metrics, funnel and page of a run of the filters."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from canvas.filters.chain import FilterChain
from canvas.pins import tables
from canvas.pins.images import decode_image, draw_contact_sheet, encode_png
from evaluation.measures.detection import compute_good_pass_rate, score_detections
from evaluation.pages import html as pages

SHEET_COLUMNS, SHEET_CELL = 8, 132
SCORES = (
    *("short_side", "sharpness", "brightness", "clipped", "entropy", "similarity"),
    *("relevance", "nsfw", "text_overlay"),
)
"""Columns of tables.KEPT that the page shows by planted defect."""


class FilterReport:
    """A run of the filters, beside the planted defects where truth is known."""

    def __init__(self, chain: FilterChain, truth: Path) -> None:
        self.chain = chain
        self.counts = {"all pins": len(chain.scores), **chain.left}
        """Filter -> pins left after it."""
        defects = dict(zip(*tables.read(truth, ["pin_id", "defect"]).to_pydict().values(), strict=True))
        self.planted: dict[str, str | None] = {pin: defects[pin] for pin in chain.scores.index if pin in defects}
        """Pin -> its planted defect; empty for a real catalogue."""
        labels, reasons = list(self.planted.values()), chain.scores.loc[list(self.planted), "reason"]
        drops = [reason if isinstance(reason, str) else None for reason in reasons]
        names = sorted({defect for defect in labels if defect})
        self.detections = score_detections(labels, drops, names) if labels else []
        self.good_pins_kept = compute_good_pass_rate(labels, drops)

    def compute_metrics(self) -> dict[str, Any]:
        """Compute counts, speeds and, where truth is known, precision and recall by planted defect."""
        chain, reasons = self.chain, self.chain.scores["reason"].dropna()
        total, seconds = len(chain.scores), sum(each.seconds for each in chain.passes.values())
        metrics: dict[str, Any] = {
            "pins": total,
            "kept": total - len(reasons),
            "left_after": dict(chain.left),
            "dropped": {str(reason): int(count) for reason, count in reasons.value_counts().sort_index().items()},
            "seconds": seconds,
            "pins_per_second": total / seconds,
            "pins_per_second_of": {name: each.pins / each.seconds for name, each in chain.passes.items() if each.pins},
        }
        if self.planted:
            metrics["good_pins_kept"] = self.good_pins_kept
            for rate in ("precision", "recall"):
                values = {each.defect: getattr(each, rate) for each in self.detections}
                metrics[rate] = {defect: value for defect, value in values.items() if math.isfinite(value)}
        return metrics

    def format_funnel_csv(self) -> str:
        """Format the columns `filter` and `pins`: how many pins are left after each."""
        return pd.Series(self.counts, name="pins").to_csv(index_label="filter", lineterminator="\n")

    def render_page(self, sheet_each: int) -> str:
        """Render the report: funnel, scores against planted defects, and a contact sheet of each reason. The same pins
        give the same page; speeds stand in the metrics."""
        kept, total = len(self.chain.survivors), len(self.chain.scores)
        return pages.page(
            "Filter",
            pages.verdict(f"{kept:,} of {total:,} pins are fit for training ({kept / total:.1%})."),
            pages.section("Funnel", pages.bars(self.counts, "Pins left after each filter")),
            *([self._render_detections()] if self.planted else []),
            *self._render_sheets(sheet_each),
        )

    def _render_detections(self) -> str:
        names = [defect or "none" for defect in self.planted.values()]
        groups = self.chain.scores.loc[list(self.planted)].groupby(names)
        scores = [
            {"planted": str(name), **{score: _format_quantiles(rows[score]) for score in SCORES}}
            for name, rows in groups
        ]
        return pages.section(
            "Planted defects",
            pages.paragraph(f"{self.good_pins_kept:.1%} of the pins without a planted defect are kept."),
            pages.table(
                [asdict(each) for each in self.detections],
                "precision and recall: dropped for this very reason; dropped: for any.",
            ),
            pages.table(scores, "Median [5 %, 95 %] of each score; a dash: not measured."),
        )

    def _render_sheets(self, each: int) -> list[str]:
        """Return a section for each reason; pins dropped without a planted defect come first, for a person to judge."""
        dropped = {
            str(reason): sorted(rows.index, key=lambda pin: (self.planted.get(pin) is not None, pin))
            for reason, rows in self.chain.scores.groupby("reason", sort=True)
        }
        on_sheets = {pin for pins in dropped.values() for pin in pins[:each]}
        images = tables.read_column(self.chain.pins, "image", on_sheets)
        thumbnails = {pin: _decode_thumbnail(data) for pin, data in images.items()}
        sections: list[str] = []
        for reason, pins in dropped.items():
            labels = [self._format_label(reason, pin) for pin in pins[:each]]
            sheet = draw_contact_sheet([thumbnails[pin] for pin in pins[:each]], labels, SHEET_COLUMNS, SHEET_CELL)
            image = pages.image(encode_png(sheet), f"{len(labels)} of {len(pins)}")
            sections.append(pages.section(f"Dropped: {reason}", image))
        return sections

    def _format_label(self, reason: str, pin: str) -> str:
        """Format the evidence in a few signs, and the planted defect."""
        row = self.chain.scores.loc[pin]
        evidence = {
            "near_duplicate": f"like {row['duplicate_of']}",
            "text_overlay": str(row["overlay_text"]),
            "unrelated_text": f"{row['relevance']:.2f}",
            "unsafe": f"{row['nsfw']:.2f}",
            "blurred": f"{row['sharpness']:.2f}",
            "tiny": f"{row['short_side']:.0f} px",
            "elongated": f"{row['aspect']:.1f}",
            "plain": f"{row['entropy']:.1f} bits",
            "overexposed": f"{row['brightness']:.2f}",
            "underexposed": f"{row['brightness']:.2f}",
        }.get(reason, "")
        defect = self.planted.get(pin)
        return evidence if defect == reason or pin not in self.planted else f"{defect or 'good'}? {evidence}"


def _format_quantiles(values: pd.Series[float]) -> str:
    if values.notna().sum() == 0:
        return ""
    low, middle, high = values.quantile([0.05, 0.5, 0.95])
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]"


def _decode_thumbnail(data: bytes) -> Image.Image:
    """Decode an image in the size of a cell; a grey square for one that cannot be decoded."""
    try:
        image = decode_image(data)
    except ValueError:
        return Image.new("RGB", (SHEET_CELL, SHEET_CELL), (200, 200, 200))
    image.thumbnail((SHEET_CELL, SHEET_CELL))
    return image
