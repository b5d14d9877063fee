"""What stages exchange, once: its place, and in the docstring what it holds.

Tables are directories of Parquet parts; their column types stand in `canvas.pins.tables`. Stages add *sidecar* tables
keyed by `pin_id` and never copy pixels. What only people read needs no class: `Output[Metrics]` alone is
`reports/<stage>/<argument>.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lifecycle.declare import pinned
from lifecycle.declare import stage as kinds
from lifecycle.declare.stage import Dataset, Document, Metrics, Report


class Model(kinds.Model):
    """A model that names the public weights in it (canvas.hub)."""

    @classmethod
    def read_sources(cls, folder: Path) -> Mapping[str, Mapping[str, str]]:
        from canvas.hub import read_sources

        return {part or folder.name: source for part, source in read_sources(folder).items()}


# Data


class RawData(pinned.Pinned, path="data"):
    """What the catalogue's owner delivers: for the demo, unmodified package files."""


class Pins(Dataset, path="artifacts/pins"):
    """One row a pin: encoded image, size, text, board, product, engagement, split (tables.PINS)."""


class Truth(Dataset, path="artifacts/truth"):
    """What the showroom knows of each pin it rendered: scene, camera, true alpha, planted defect
    (tables.TRUTH). Empty for a real catalogue. Only for scoring and tests."""


class Quarantine(Dataset, path="artifacts/quarantine"):
    """Rows of the source that could not become pins, each with its reason (tables.QUARANTINE)."""


class ValidationMetrics(Metrics, path="reports/validate/metrics.json"):
    """Expectations met and failed, by table and severity."""


class Kept(Dataset, path="artifacts/kept"):
    """One row a pin: kept or not, the first reason against it, every score (tables.KEPT)."""


# Masks and captions


class Segmenter(Model, path="models/segmenter", registered="canvas-segmenter"):
    """Salient-product segmenter: image -> foreground probability."""


class Masks(Dataset, path="artifacts/masks"):
    """One row a kept pin: hard mask, soft alpha, confidence, box, rejection reason (tables.MASKS)."""


class Captioner(Model, path="models/captioner", registered="canvas-captioner"):
    """Image-to-text model: pin -> "{product}, {background}"."""


class Captions(Dataset, path="artifacts/captions"):
    """Several rows a kept pin: caption and its source, title, description, alt or generated (tables.CAPTIONS)."""


# The generator's encoders, and what they make of the pins


class Clip(Model, path="models/clip", registered="canvas-clip"):
    """The two text-image encoders of open_clip: directories first/ and second/; and t5/, if params name a T5."""


class TextEncoders(Model, path="models/text", registered="canvas-text"):
    """The text encoders that the denoiser reads, laid out as canvas-clip: tuned on the catalogue, with tuning.json
    beside a tuned one; or as they were (canvas.clip.tuning.towers)."""


class SceneJudges(Model, path="models/judges"):
    """The two judges of scenes that score every image; no part of the generator, so never registered."""


class Vae(Model, path="models/vae", registered="canvas-vae"):
    """The autoencoder in diffusers' format, statistics of its latents in its config."""


class Shards(Dataset, path="artifacts/shards"):
    """Training samples of the denoiser, one a kept pin (canvas.shards.files): latents, text states, masks."""


class Decoder(Model, path="models/decoder", registered="canvas-decoder"):
    """The conditional decoder in diffusers' format."""


class Upscaler(Model, path="models/upscaler", registered="canvas-upscaler"):
    """What enlarges generated backgrounds 2 or 4 times round the full-size product, in diffusers' format."""


# Embeddings of images, and the styles mined from them


class Uve(Model, path="models/uve", registered="canvas-uve"):
    """Unified visual embedding: image -> unit vector that knows scene, product, category and board
    (canvas.uve.model)."""


class Embeddings(Dataset, path="artifacts/embeddings"):
    """One row a kept pin: UVE as floats and as binary code, CLIP's second image tower (tables.EMBEDDINGS)."""


class Styles(Dataset, path="artifacts/styles"):
    """One row a style: clusters of the embedding space and boards, dropped ones with their reason (tables.STYLES)."""


# The generator's denoiser, from text-to-image to engaged backdrops


class BaseModel(Model, path="models/base", registered="canvas-base"):
    """Text-to-image denoiser in diffusers' format: unet/ or transformer/, and scheduler/."""


class InpaintModel(Model, path="models/inpaint", registered="canvas-inpaint"):
    """The denoiser with the inputs of inpainting, in diffusers' format: unet/ or transformer/, and scheduler/."""


class BackdropLora(Model, path="models/backdrop_lora", registered="canvas-backdrop-lora"):
    """LoRA on every layer of the inpainting denoiser, trained on product masks; diffusers' format."""


class EngagedLora(Model, path="models/engaged_lora", registered="canvas-engaged-lora"):
    """LoRA on top of the backdrop LoRA, trained on promoted pins with high engagement; diffusers' format."""


class AlignedLora(Model, path="models/aligned_lora", registered="canvas-aligned-lora"):
    """LoRA on top of the others, trained on rewards of the generator's own images; diffusers' format. alignment.json
    beside it: which generator it is for, and what the judge said of it."""


class AlignmentSheet(kinds.Sheet, path="reports/align/sheet.png"):
    """Held-out prompts before and after the alignment, at the same seeds."""


class IpAdapter(Model, path="models/ip_adapter", registered="canvas-ip-adapter"):
    """Image prompts of the denoiser: ip_adapter.safetensors, which stock diffusers loads, config.json, and lora/ if a
    LoRA was trained with it (canvas.denoiser.image_prompt)."""


class Light(Model, path="models/light", registered="canvas-light"):
    """The network that predicts the gain of a scene's light on a product (canvas.light.model); mode soft needs it. In
    shadow/ the one that predicts a product's shadow (canvas.light.shadow.model)."""


class CanvasModel(Model, path="models/canvas", registered="canvas-background"):
    """The whole generator as one diffusers pipeline (canvas.inference.pipeline), whose config names what it was made
    from by digest; in reward/ the reward model that chooses among its images."""

    composite = True
    example = 'python -m canvas generate --model models/canvas --product YOUR.png --prompt "mug, in a forest"'

    @classmethod
    def read_sources(cls, folder: Path) -> Mapping[str, Mapping[str, str]]:
        index = folder / "model_index.json"
        return (json.loads(index.read_text(encoding="utf-8")).get("sources") or {}) if index.is_file() else {}


# Judgement


class Champion(pinned.PinnedChampion, path="champion"):
    """What is known of the registry's champion (champion.json: version, digests, params), its evaluation/ and
    training_statistics/; {"version": null} when there is none. `python -m lifecycle champion pull` writes it."""


class Ratings(pinned.PinnedRatings, path="ratings"):
    """People's judgments (tables.JUDGMENTS). `python -m lifecycle ratings pull` writes it."""

    @classmethod
    def write_empty(cls, folder: Path) -> None:
        from canvas.pins import tables

        tables.write_rows(folder, [], tables.JUDGMENTS)

    @classmethod
    def write_ratings(
        cls, folder: Path, before: Path, answers: Sequence[Mapping[str, Any]], key: Mapping[str, Any]
    ) -> list[str]:
        from canvas.pins import tables
        from evaluation.ratings import judgments

        fresh = judgments.build_judgments(answers, key)
        rows = judgments.merge_judgments(tables.read(before).to_pylist(), fresh)
        tables.write_rows(folder, rows, tables.JUDGMENTS)
        kept = sum(row["item_id"] in key["items"] for row in rows) - len(fresh)
        note = f"; {kept} more of it were pulled before and are no longer there, they are kept" if kept > 0 else ""
        return [f"{len(rows)} judgments, {len(fresh)} of this packet{note}", *judgments.describe_raters(fresh)]


class RewardModel(Model, path="models/reward", registered="canvas-reward"):
    """Judge of images of products: defects, fidelity, aesthetics, overall; calibrated (canvas.reward.model). Or a
    public text-image model as it is (canvas.reward.preference)."""


class SyntheticJudgments(Dataset, path="artifacts/judgments_synthetic"):
    """Judgments that controlled corruptions imply (tables.JUDGMENTS, source "synthetic"): the reward model learnt from
    them and was scored on them. No gate counts them."""


class Candidates(Dataset, path="artifacts/candidates"):
    """Images of held-out products by the challenger and the champion, and known-bad ones (tables.CANDIDATES)."""


class Preferences(pinned.PinnedFeedback, path="preferences"):
    """Judgments with the images that people saw: the reward model may learn from them (tables.PREFERENCES).
    `python -m lifecycle ratings learn` writes it."""

    empty = "the reward model learns from corruptions alone"
    sources = (Ratings, Candidates, Pins)

    @classmethod
    def write_empty(cls, folder: Path) -> None:
        from canvas.pins import tables

        tables.write_rows(folder, [], tables.PREFERENCES)

    @classmethod
    def write_feedback(cls, folder: Path, before: Path, *sources: Path) -> str:
        from canvas.pins import tables
        from evaluation.ratings import preferences

        fresh = preferences.collect_preferences(*sources)
        if not fresh:
            raise ValueError(
                "no judgment that counts is about the images in artifacts/candidates: `python -m lifecycle ratings "
                "pull` brings what people said of them"
            )
        rows = preferences.merge_preferences(tables.read(before).to_pylist(), fresh)
        tables.write_rows(folder, rows, tables.PREFERENCES)
        judgments = sum(row["judgments"] for row in rows)
        return (
            f"{judgments} judgments of {len(rows)} pairs or images, {len(fresh)} of these candidates; "
            "`dvc repro train_reward` learns from them, and what it assembles has to be rated anew"
        )


class RatingPacket(pinned.RatingPacket, path="artifacts/packet"):
    """What raters see: packet.json (name, questions with their answers' values, items) and items/*.png. It does not say
    which model made an image."""


class RatingKey(pinned.RatingKey, path="artifacts/packet_key"):
    """What must not reach the rating server: key.json holds the candidates of every item of the packet, the answers of
    attention checks, and the rules by which raters count."""


class Evaluation(Dataset, path="artifacts/evaluation"):
    """One row a candidate: its image and every score of it (tables.EVALUATION)."""


class TrainingStatistics(Dataset, path="artifacts/training_statistics"):
    """One row an image that the models were trained on: the filter's measures of it (tables.TRAINING_STATISTICS).
    It stays with a champion, so that images of later models are compared with those that it learnt from."""


class EvaluationMetrics(Metrics, path="reports/evaluate/metrics.json"):
    """By model: every measure's mean with its interval, distances to real images, diversity; the challenger's by
    slice; drift of its images; how good the judges are."""


class HeadlineMetrics(kinds.Headline, path="reports/metrics.json"):
    """The few figures by which whole runs are compared (evaluation.metrics)."""

    @classmethod
    def format_summary(cls, values: Mapping[str, float]) -> list[str]:
        from evaluation import metrics

        return metrics.format_summary(values)


# Gates, registry


class Verdict(kinds.Verdict, path="artifacts/verdict.json"):
    """What the gates decide: outcome, reasons in words, challenger, champion."""


class Review(Report, path="reports/review/report.html"):
    """The page on which a lead decides: verdict, side by side, measures, people, what changed, lineage."""


class Registered(Document, path="artifacts/registered.json"):
    """The versions in the registry: a JSON object of registered model -> name, version, digest."""


class Promoted(Document, path="artifacts/promoted.json"):
    """A JSON object of outcome and reasons, with people's ratings counted, and the move (kind, before, after, who,
    when, why), null if the champion stayed."""
