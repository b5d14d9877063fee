"""Stage `sample_candidates`: the assembled generator in, images to be judged and the rating packet out."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from canvas.denoiser.spec import Backgrounds, PassSpec
from components import artifacts
from evaluation.generator.spec import CandidateSpec, ProductNameSpec
from evaluation.ratings.packets import PacketSpec
from lifecycle.declare.stage import Input, Metrics, Output, Sheet, stage
from lifecycle.workspace.digest import digest


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleCandidatesParams(CandidateSpec):
    """Candidates that are sampled, and the packet of those that people rate."""

    packet: PacketSpec


@stage(machine="gpu")
def sample_candidates(
    sample_candidates: SampleCandidatesParams,
    backgrounds: Backgrounds,
    product_name: ProductNameSpec,
    passes: PassSpec,
    canvas: Input[artifacts.CanvasModel],
    champion: Input[artifacts.Champion],
    pins: Input[artifacts.Pins],
    kept: Input[artifacts.Kept],
    truth: Input[artifacts.Truth],
    masks: Input[artifacts.Masks],
    captions: Input[artifacts.Captions],
    candidates: Output[artifacts.Candidates],
    packet: Output[artifacts.RatingPacket],
    packet_key: Output[artifacts.RatingKey],
    metrics: Output[Metrics],
    sheet: Output[Sheet],
) -> None:
    """Generate held-out products with the challenger, beside the champion's and known-bad images; pack some to rate.

    Certificates of mode soft are verified. The sheet shows products, what both models made of them, known-bad images.
    """
    from canvas.device import default_device
    from canvas.inference.batch import encode_requests, generate_images
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.pins import fallbacks, tables
    from canvas.pins.images import encode_png
    from canvas.pins.products import load_product_pins, read_backdrops
    from canvas.pins.scene_views import list_scenes
    from evaluation.generator import candidate_images
    from evaluation.ratings.packets import write_packet

    params, prompts, scenes = sample_candidates, backgrounds.prompts, list_scenes(truth.path)
    names, clock, notes = product_name.source, time.perf_counter(), fallbacks.Notes()
    sources = pins.path, kept.path, masks.path, captions.path
    products = load_product_pins(*sources, splits=params.splits, count=params.products, names=names, notes=notes)
    originals = {pin.pin_id: pin.image for pin in products}
    pipeline = CanvasPipeline.from_pretrained(canvas.path, trust_remote_code=True).to(default_device())
    pipeline.merge_lora()
    items, requests = candidate_images.build_candidate_requests(pipeline, products, prompts, scenes, params.seeds)
    sampling = pipeline.recommended_sampling.build_spec(passes)
    images = generate_images(pipeline, encode_requests(pipeline, requests), sampling, name="candidates")
    backdrops = read_backdrops(pins.path, kept.path, originals, notes)
    challengers = candidate_images.build_candidates(items, images, "challenger", digest(canvas.path))
    rows = [
        *candidate_images.verify_soft_twins(pipeline, challengers, originals, notes),
        *candidate_images.read_champion_candidates(champion.path / "evaluation", items),
        *candidate_images.build_known_bad_candidates(
            pipeline, items, requests, images, backdrops, params.packet.checks
        ),
    ]
    tables.write_rows(candidates.path, rows, tables.CANDIDATES)
    count = write_packet(rows, originals, params.packet, packet.path, packet_key.path)
    models, seconds = dict(Counter(row["model"] for row in rows)), time.perf_counter() - clock
    metrics.write({"candidates": models, "packet_items": count, "seconds": seconds} | notes.to_metrics())
    sheet.write(encode_png(candidate_images.draw_candidate_sheet(rows, originals, params.sheet_items)))
