"""What stages exchange, once: its place, and in the docstring what it holds.

Tables are directories of Parquet parts; their column types stand in `canvas.pins.tables`. Stages add *sidecar* tables
keyed by `pin_id` and never copy pixels. What only people read needs no class: `Output[Metrics]` alone is
`reports/<stage>/<argument>.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lifecycle.declare import stage as kinds
from lifecycle.declare.stage import Dataset, Document, Metrics, Model, Pinned, Report

# Data


class RawData(Pinned):
    """What the catalogue's owner delivers: for the demo, unmodified package files."""

    path = "data"


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


class ValidationMetrics(Metrics):
    """Expectations met and failed, by table and severity."""

    path = "reports/validate/metrics.json"


class Kept(Dataset):
    """One row a pin: kept or not, the first reason against it, every score (tables.KEPT)."""

    path = "artifacts/kept"


# Masks and captions


class Segmenter(Model):
    """Salient-product segmenter: image -> foreground probability."""

    path = "models/segmenter"
    registered = "canvas-segmenter"


class Masks(Dataset):
    """One row a kept pin: hard mask, soft alpha, confidence, box, rejection reason (tables.MASKS)."""

    path = "artifacts/masks"


class Captioner(Model):
    """Image-to-text model: pin -> "{product}, {background}"."""

    path = "models/captioner"
    registered = "canvas-captioner"


class Captions(Dataset):
    """Several rows a kept pin: caption and its source, title, description, alt or generated (tables.CAPTIONS)."""

    path = "artifacts/captions"


# The generator's encoders, and what they make of the pins


class Clip(Model):
    """The two text-image encoders of open_clip: directories first/ and second/."""

    path = "models/clip"
    registered = "canvas-clip"


class SceneJudges(Model):
    """The two judges of scenes that score every image; no part of the generator, so never registered."""

    path = "models/judges"


class Vae(Model):
    """The autoencoder in diffusers' format, statistics of its latents in its config."""

    path = "models/vae"
    registered = "canvas-vae"


class Shards(Dataset):
    """Training samples of the denoiser, one a kept pin (canvas.shards.files): latents, text states, masks."""

    path = "artifacts/shards"


class Decoder(Model):
    """The conditional decoder in diffusers' format."""

    path = "models/decoder"
    registered = "canvas-decoder"


# Embeddings of images, and the styles mined from them


class Uve(Model):
    """Unified visual embedding: image -> unit vector that knows scene, product, category and board
    (canvas.uve.model)."""

    path = "models/uve"
    registered = "canvas-uve"


class Embeddings(Dataset):
    """One row a kept pin: UVE as floats and as binary code, CLIP's second image tower (tables.EMBEDDINGS)."""

    path = "artifacts/embeddings"


class Styles(Dataset):
    """One row a style: clusters of the embedding space and boards, dropped ones with their reason (tables.STYLES)."""

    path = "artifacts/styles"


# The generator's denoiser, from text-to-image to engaged backdrops


class BaseModel(Model):
    """Text-to-image denoiser in diffusers' format: unet/ and scheduler/."""

    path = "models/base"
    registered = "canvas-base"


class InpaintModel(Model):
    """The denoiser with the inputs of inpainting, in diffusers' format: unet/ and scheduler/."""

    path = "models/inpaint"
    registered = "canvas-inpaint"


class BackdropLora(Model):
    """LoRA on every layer of the inpainting denoiser, trained on product masks; diffusers' format."""

    path = "models/backdrop_lora"
    registered = "canvas-backdrop-lora"


class EngagedLora(Model):
    """LoRA on top of the backdrop LoRA, trained on promoted pins with high engagement; diffusers' format."""

    path = "models/engaged_lora"
    registered = "canvas-engaged-lora"


class IpAdapter(Model):
    """Image prompts of the denoiser: ip_adapter.safetensors, which stock diffusers loads, config.json, and lora/ if a
    LoRA was trained with it (canvas.denoiser.image_prompt)."""

    path = "models/ip_adapter"
    registered = "canvas-ip-adapter"


class CanvasModel(Model):
    """The whole generator as one diffusers pipeline (canvas.inference.pipeline), whose config names what it was made
    from by digest; in reward/ the reward model that chooses among its images."""

    path = "models/canvas"
    registered = "canvas-background"
    composite = True
    example = 'python -m canvas generate --model models/canvas --product YOUR.png --prompt "mug, in a forest"'


# Judgement


class Champion(kinds.PinnedChampion):
    """What is known of the registry's champion (champion.json: version, digests, params), its evaluation/ and
    training_statistics/; {"version": null} when there is none. `python -m lifecycle champion pull` writes it."""

    path = "champion"


class Ratings(kinds.PinnedRatings):
    """People's judgments (tables.JUDGMENTS). `python -m lifecycle ratings pull` writes it."""

    path = "ratings"

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
        rows = judgments.merge_judgments(tables.read(before).to_pylist(), fresh, key)
        tables.write_rows(folder, rows, tables.JUDGMENTS)
        return [f"{len(rows)} judgments, {len(fresh)} of this packet", *judgments.describe_raters(fresh)]


class RewardModel(Model):
    """Judge of images of products: defects, fidelity, aesthetics, overall; calibrated (canvas.reward.model)."""

    path = "models/reward"
    registered = "canvas-reward"


class SyntheticJudgments(Dataset):
    """Judgments that controlled corruptions imply (tables.JUDGMENTS, source "synthetic"): the reward model learnt from
    them and was scored on them. No gate counts them."""

    path = "artifacts/judgments_synthetic"


class Candidates(Dataset):
    """Images of held-out products by the challenger and the champion, and known-bad ones (tables.CANDIDATES)."""

    path = "artifacts/candidates"


class Preferences(kinds.PinnedFeedback):
    """Judgments with the images that people saw: the reward model may learn from them (tables.PREFERENCES).
    `python -m lifecycle ratings learn` writes it."""

    path = "preferences"
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


class RatingPacket(kinds.RatingPacket):
    """What raters see: packet.json (name, questions with their answers' values, items) and items/*.png. It does not say
    which model made an image."""

    path = "artifacts/packet"


class RatingKey(kinds.RatingKey):
    """What must not reach the rating server: key.json holds the candidates of every item of the packet, the answers of
    attention checks, and the rules by which raters count."""

    path = "artifacts/packet_key"


class Evaluation(Dataset):
    """One row a candidate: its image and every score of it (tables.EVALUATION)."""

    path = "artifacts/evaluation"


class TrainingStatistics(Dataset):
    """One row an image that the models were trained on: the filter's measures of it (tables.TRAINING_STATISTICS).
    It stays with a champion, so that images of later models are compared with those that it learnt from."""

    path = "artifacts/training_statistics"


class EvaluationMetrics(Metrics):
    """By model: every measure's mean with its interval, distances to real images, diversity; the challenger's by
    slice; drift of its images; how good the judges are; seconds."""

    path = "reports/evaluate/metrics.json"


class HeadlineMetrics(kinds.Headline):
    """The few figures by which whole runs are compared (evaluation.metrics)."""

    path = "reports/metrics.json"

    @classmethod
    def format_summary(cls, values: Mapping[str, float]) -> list[str]:
        from evaluation import metrics

        return metrics.format_summary(values)


# Gates, registry


class Verdict(kinds.Verdict):
    """What the gates decide: outcome, reasons in words, challenger, champion."""

    path = "artifacts/verdict.json"


class Review(Report):
    """The page on which a lead decides: verdict, side by side, measures, people, what changed, lineage."""

    path = "reports/review/report.html"


class Registered(Document):
    """The versions in the registry: a JSON object of registered model -> name, version, digest."""

    path = "artifacts/registered.json"


class Promoted(Document):
    """A JSON object of outcome and reasons, with people's ratings counted, and the move (kind, before, after, who,
    when, why), null if the champion stayed."""

    path = "artifacts/promoted.json"
