"""Stage `report`: one page with the data half's figures and pictures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lifecycle import catalog
from lifecycle.stage import Input, Output, stage

if TYPE_CHECKING:
    from pathlib import Path


@stage()
def report(
    ingest: Input[catalog.IngestMetrics],
    ingest_sheet: Input[catalog.IngestSheet],
    validation: Input[catalog.ValidationMetrics],
    filter_metrics: Input[catalog.FilterMetrics],
    filter_funnel: Input[catalog.FilterFunnel],
    drift: Input[catalog.DriftMetrics],
    segmenter: Input[catalog.SegmenterMetrics],
    segmenter_losses: Input[catalog.SegmenterLosses],
    masks: Input[catalog.MaskMetrics],
    mask_sheet: Input[catalog.MaskSheet],
    captioner: Input[catalog.CaptionerMetrics],
    captioner_losses: Input[catalog.CaptionerLosses],
    captions: Input[catalog.CaptionMetrics],
    caption_sheet: Input[catalog.CaptionSheet],
    tables_validation: Input[catalog.TablesMetrics],
    index: Output[catalog.Index],
) -> None:
    """Gather the figures, curves and pictures of the data half on one page."""
    from evaluation import pages

    warnings, drifted = _warnings(validation.path, tables_validation.path), _numbers(drift.path)
    verdict = f"{warnings} warnings of the tables; {drifted['verdict.drifted_columns']} columns drifted"
    sections = [
        pages.verdict(verdict, "warn" if warnings or drifted["verdict.drift"] else "good"),
        pages.figures(
            {
                "pins": _numbers(ingest.path)["pins"],
                "left by the filter": min(_funnel(filter_funnel.path).values()),
                "masks": _numbers(masks.path)["pins"],
                "captions": _numbers(captions.path)["rows"],
            }
        ),
        pages.section("Pins", _picture(ingest_sheet.path, "Pins of every kind and defect"), _figures(ingest.path)),
        pages.section(
            "Validation",
            _figures(validation.path, tables_validation.path),
            pages.links({"Pins": "validation.html", "Sidecars": "validation_tables.html"}),
        ),
        pages.section(
            "Filter",
            pages.bars(_funnel(filter_funnel.path), "Pins left after each filter"),
            _figures(filter_metrics.path),
            pages.links({"The whole report": "filter.html"}),
        ),
        pages.section("Drift", _figures(drift.path), pages.links({"Evidently's report": "drift.html"})),
        pages.section(
            "Masks",
            _picture(mask_sheet.path, "Best and worst masks"),
            _curves("Training loss", segmenter=segmenter_losses.path),
            _figures(segmenter.path, masks.path),
        ),
        pages.section(
            "Captions",
            _picture(caption_sheet.path, "Generated captions"),
            _curves("Training loss", captioner=captioner_losses.path),
            _figures(captioner.path, captions.path),
        ),
    ]
    index.path.write_text(pages.page("Canvas: what this run made", *sections), encoding="utf-8")


def _figures(*files: Path) -> str:
    """Each metrics file as a folded table of its numbers."""
    from evaluation import pages

    return "\n".join(
        pages.folded(
            f"Figures: {path.name}",
            pages.table([{"figure": name, "value": value} for name, value in _leaves(json.loads(path.read_text()))]),
        )
        for path in files
    )


def _numbers(path: Path) -> dict[str, object]:
    """The leaves of a metrics file by dotted name."""
    return dict(_leaves(json.loads(path.read_text())))


def _warnings(*files: Path) -> int:
    """Warnings of all tables in files of validation metrics."""
    return sum(counts["warnings"] for path in files for counts in json.loads(path.read_text()).values())


def _leaves(values: object, name: str = "") -> list[tuple[str, object]]:
    if not isinstance(values, dict):
        return [(name, values)]
    return [leaf for key, value in values.items() for leaf in _leaves(value, f"{name}.{key}" if name else key)]


def _picture(path: Path, caption: str) -> str:
    from evaluation import pages

    return pages.picture(path.read_bytes(), caption)


def _rows(path: Path) -> list[dict[str, str]]:
    import csv

    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _funnel(path: Path) -> dict[str, float]:
    return {row["filter"]: float(row["pins"]) for row in _rows(path)}


def _curves(caption: str, **files: Path) -> str:
    """The loss of each file by step."""
    from evaluation import pages

    series = {name: [(float(row["step"]), float(row["loss"])) for row in _rows(path)] for name, path in files.items()}
    return pages.lines(series, caption)
