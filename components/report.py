"""Stage `report`: one page with every stage's figures and pictures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lifecycle import catalog
from lifecycle.declare.stage import Input, Output, stage

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
    backdrop: Input[catalog.BackdropMetrics],
    backdrop_grid: Input[catalog.BackdropGrid],
    clip: Input[catalog.ClipMetrics],
    clip_losses: Input[catalog.ClipLosses],
    vae: Input[catalog.VaeMetrics],
    vae_losses: Input[catalog.VaeLosses],
    vae_sheet: Input[catalog.VaeSheet],
    encode: Input[catalog.EncodeMetrics],
    base: Input[catalog.BaseMetrics],
    base_losses: Input[catalog.BaseLosses],
    inpaint: Input[catalog.InpaintMetrics],
    inpaint_losses: Input[catalog.InpaintLosses],
    backdrop_lora: Input[catalog.BackdropLoraMetrics],
    backdrop_lora_losses: Input[catalog.BackdropLoraLosses],
    engaged_lora: Input[catalog.EngagedLoraMetrics],
    engaged_lora_losses: Input[catalog.EngagedLoraLosses],
    decoder: Input[catalog.DecoderMetrics],
    decoder_losses: Input[catalog.DecoderLosses],
    decoder_sheet: Input[catalog.DecoderSheet],
    uve: Input[catalog.UveMetrics],
    uve_losses: Input[catalog.UveLosses],
    uve_sheet: Input[catalog.UveSheet],
    embed: Input[catalog.EmbedMetrics],
    styles: Input[catalog.StyleMetrics],
    ip_adapter: Input[catalog.IpAdapterMetrics],
    ip_adapter_losses: Input[catalog.IpAdapterLosses],
    style_prompts: Input[catalog.StylePromptMetrics],
    style_curve: Input[catalog.StylePromptCurve],
    style_grid: Input[catalog.StylePromptGrid],
    reward: Input[catalog.RewardMetrics],
    reward_losses: Input[catalog.RewardLosses],
    reward_sheet: Input[catalog.RewardSheet],
    candidates_sheet: Input[catalog.CandidateSheet],
    evaluation: Input[catalog.EvaluationMetrics],
    gate: Input[catalog.GateMetrics],
    index: Output[catalog.Index],
) -> None:
    """Gather every stage's figures, curves and pictures on one page."""
    from evaluation.pages import html as pages

    warnings, drifted = _warnings(validation.path, tables_validation.path), _numbers(drift.path)
    outcome = next((name for name, said in _numbers(gate.path).items() if name in OUTCOMES and said), "not judged")
    tables = f"{warnings} warnings of the tables; {drifted['verdict.drifted_columns']} columns drifted"
    concern = warnings or drifted["verdict.drift"] or outcome == "failed"
    sections = [
        pages.verdict(f"The generator: {outcome}; {tables}", "warn" if concern else "good"),
        pages.figures(
            {
                "pins": _numbers(ingest.path)["pins"],
                "left by the filter": min(_funnel(filter_funnel.path).values()),
                "masks": _numbers(masks.path)["pins"],
                "captions": _numbers(captions.path)["rows"],
                "backgrounds that show the scene asked for": _share(_numbers(backdrop.path).get("scene_accuracy")),
                "that show a style picture's scene": _share(_numbers(style_prompts.path).get("scene_follows")),
            }
        ),
        pages.section(
            "Backgrounds",
            _picture(backdrop_grid.path, "Held-out products before prompted scenes; the original on the left"),
            _figures(backdrop.path),
        ),
        pages.section(
            "Styles",
            _picture(style_grid.path, "Held-out products painted without a prompt after the picture on the left"),
            pages.lines(_by_strength(style_curve.path), "By strength of the style: shares and cosines"),
            _figures(style_prompts.path),
        ),
        pages.section(
            "Judgement",
            pages.links({"Review": "review.html", "Evaluation": "evaluation.html", "Drift": "drift_painted.html"}),
            _picture(candidates_sheet.path, "Products, what the generator makes of them, and known-bad pictures"),
            _picture(reward_sheet.path, "What the reward model says of controlled corruptions"),
            _curves("Training loss", reward=reward_losses.path),
            _figures(evaluation.path, gate.path, reward.path),
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
        pages.section(
            "Encoders",
            _picture(vae_sheet.path, "Held-out pins above what the autoencoder makes of them"),
            _curves("Training loss", clip=clip_losses.path, vae=vae_losses.path),
            _figures(clip.path, vae.path, encode.path),
        ),
        pages.section(
            "Embeddings and styles",
            _picture(uve_sheet.path, "Held-out pins on the left, the held-out pins nearest to them beside them"),
            _curves("Training loss", embedding=uve_losses.path),
            _figures(uve.path, embed.path, styles.path),
            pages.links({"Gallery of styles": "styles.html"}),
        ),
        pages.section(
            "Denoiser",
            _curves(
                "Training loss of each stage",
                base=base_losses.path,
                inpaint=inpaint_losses.path,
                backdrop=backdrop_lora_losses.path,
                engaged=engaged_lora_losses.path,
                image_prompts=ip_adapter_losses.path,
            ),
            _figures(base.path, inpaint.path, backdrop_lora.path, engaged_lora.path, ip_adapter.path),
        ),
        pages.section(
            "Decoder",
            _picture(decoder_sheet.path, "Product pixels kept, seams blended"),
            _curves("Training loss", decoder=decoder_losses.path),
            _figures(decoder.path),
        ),
    ]
    index.path.write_text(pages.page("Canvas: what this run made", *sections), encoding="utf-8")


OUTCOMES = ("passed", "failed", "pending")


def _figures(*files: Path) -> str:
    """Each metrics file as a folded table of its numbers."""
    from evaluation.pages import html as pages

    return "\n".join(
        pages.folded(
            f"Figures: {path.name}",
            pages.table([{"figure": name, "value": value} for name, value in _leaves(json.loads(path.read_text()))]),
        )
        for path in files
    )


def _share(value: object) -> str:
    return f"{value:.0%}" if isinstance(value, float) else "not judged"


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
    from evaluation.pages import html as pages

    return pages.picture(path.read_bytes(), caption)


def _rows(path: Path) -> list[dict[str, str]]:
    import csv

    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _funnel(path: Path) -> dict[str, float]:
    return {row["filter"]: float(row["pins"]) for row in _rows(path)}


def _curves(caption: str, **files: Path) -> str:
    """The loss of each file by step; of several encoders in one file, a curve each."""
    from evaluation.pages import html as pages

    series: dict[str, list[tuple[float, float]]] = {}
    for name, path in files.items():
        for row in _rows(path):
            series.setdefault(row.get("encoder") or name, []).append((float(row["step"]), float(row["loss"])))
    return pages.lines(series, caption)


def _by_strength(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Every column of the curve against strength; what was not measured is left out."""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in _rows(path):
        strength = float(row.pop("strength"))
        for name, value in row.items():
            if value:
                series.setdefault(name.replace("_", " "), []).append((strength, float(value)))
    return series
