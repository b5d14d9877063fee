"""Every artifact of the lifecycle, once: its place, and in the docstring what it holds.

Tables are directories of Parquet parts; their column types stand in `canvas.data.tables`. Stages add
*sidecar* tables keyed by `pin_id` and never copy pixels.
"""

from __future__ import annotations

from lifecycle.stage import Dataset, Metrics, Model, Picture, Plot, Report, Site

# Data


class RawData(Dataset):
    """What the catalogue's owner delivers: for the demo, unmodified package files; pinned by data.dvc."""

    path = "data"
    pinned = True


class Pins(Dataset):
    """One row a pin: encoded image, size, text, board, product, engagement, split (tables.PINS)."""

    path = "artifacts/pins"


class Truth(Dataset):
    """What the showroom knows of each pin it rendered: scene, camera, true alpha, planted defect
    (tables.TRUTH). Empty for a real catalogue. Only for scoring and tests."""

    path = "artifacts/truth"


class Quarantine(Dataset):
    """Rows of the source that could not become pins, each with its reason (tables.QUARANTINE)."""

    path = "artifacts/quarantine"


class IngestMetrics(Metrics):
    """Counts of pins by kind, split and quarantine reason."""

    path = "reports/ingest.json"


class IngestSheet(Picture):
    """A contact sheet of pins of every kind."""

    path = "reports/ingest.png"


class ValidationMetrics(Metrics):
    """Expectations met and failed, by table and severity."""

    path = "reports/validation.json"


class ValidationReport(Report):
    """What was expected of each table and what was found, with links to the Data Docs."""

    path = "reports/validation.html"


class DataDocs(Site):
    """Great Expectations' own site of the last validation (index.html inside)."""

    path = "reports/data_docs"


class TablesMetrics(Metrics):
    """Expectations met and failed of the sidecar tables."""

    path = "reports/validation_tables.json"


class TablesReport(Report):
    """What was expected of each sidecar table and what was found."""

    path = "reports/validation_tables.html"


class TablesDocs(Site):
    """Great Expectations' own site of the sidecars' last validation (index.html inside)."""

    path = "reports/data_docs_tables"


class Kept(Dataset):
    """One row a pin: kept or not, the first reason against it, every score (tables.KEPT)."""

    path = "artifacts/kept"


class FilterMetrics(Metrics):
    """Rows and drops by filter, precision and recall for each planted defect, pins per second."""

    path = "reports/filter.json"


class FilterReport(Report):
    """Funnel, scores against planted defects, one contact sheet a reason."""

    path = "reports/filter.html"


class FilterFunnel(Plot):
    """Pins left after each filter."""

    path = "reports/filter_funnel.csv"
    x = "pins"
    y = "filter"
    template = "bar_horizontal_sorted"


class DriftMetrics(Metrics):
    """Drift verdict and distance of each column and image statistic."""

    path = "reports/drift.json"


class DriftReport(Report):
    """Evidently's report of reference against current pins."""

    path = "reports/drift.html"


# Masks and captions


class Segmenter(Model):
    """Salient-product segmenter: image -> foreground probability."""

    path = "models/segmenter"
    registered = "canvas-segmenter"


class SegmenterMetrics(Metrics):
    """Held-out IoU and boundary F-score with intervals."""

    path = "reports/segmenter.json"


class SegmenterLosses(Plot):
    """Training loss by step."""

    path = "reports/segmenter_loss.csv"
    x = "step"
    y = "loss"


class Masks(Dataset):
    """One row a kept pin: hard mask, soft alpha, confidence, box, rejection reason (tables.MASKS)."""

    path = "artifacts/masks"


class MaskMetrics(Metrics):
    """Masks made and rejected by reason; IoU and boundary F-score against truth where it is known."""

    path = "reports/mask.json"


class MaskSheet(Picture):
    """Pins with their masks drawn in, best and worst."""

    path = "reports/mask.png"


class Captioner(Model):
    """Image-to-text model: pin -> "{product}, {background}"."""

    path = "models/captioner"
    registered = "canvas-captioner"


class CaptionerMetrics(Metrics):
    """Held-out caption scores: scene right, category right, with intervals."""

    path = "reports/captioner.json"


class CaptionerLosses(Plot):
    """Training loss by step."""

    path = "reports/captioner_loss.csv"
    x = "step"
    y = "loss"


class Captions(Dataset):
    """Several rows a kept pin: caption and its source, title, description, alt or generated (tables.CAPTIONS)."""

    path = "artifacts/captions"


class CaptionMetrics(Metrics):
    """Captions by source, tokens a caption; scene and category accuracy against truth where it is known."""

    path = "reports/caption.json"


class CaptionSheet(Picture):
    """Pins with their generated captions."""

    path = "reports/caption.png"


# The report of it all


class Index(Report):
    """The page that a person opens after a run: every stage's figures and pictures."""

    path = "reports/index.html"
