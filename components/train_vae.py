"""Stage `train_vae`: pictures in, an autoencoder with the statistics of its latents out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from canvas.pins.crops import CropSpec
from canvas.pins.frames import FrameSpec
from canvas.train.spec import TrainableParams, Training, TrainSpec
from canvas.vae.spec import AdversarySpec, PerceptualSpec, ReconstructionSpec, VaeSpec
from components import artifacts
from components.artifacts import Clip, Kept, Pins, SceneJudges, Truth
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage

if TYPE_CHECKING:
    from torch import nn

    from canvas.features.perceptual import FeatureDistance
    from canvas.train.data import Batch
    from canvas.train.loop import TrainResult
    from canvas.vae.model import Vae
    from evaluation.measures.reconstructions import ReconstructionScores


UNSEEN_VIEWS = ("unseen_view", "unseen_both")
"""Splits whose camera sectors no training picture shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeObjective:
    loss: ReconstructionSpec
    kl: float  # weight of the latents' divergence from a normal distribution
    adversary: AdversarySpec | None  # null: none
    crops: CropSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainVaeParams(TrainableParams):
    objective: VaeObjective | None  # null with train: null
    score_batch: int  # pictures at once, when scored
    scored_views: int  # held-out scenes whose reconstructions the judges see; they need truth
    sheet_each: int  # held-out pictures of each frame on the sheet

    refused: ClassVar[Mapping[str, str]] = {
        "parallel": "encode and decode are called, which are not gathered from shards, set it to ddp or none",
        "compile": "encode and decode are called, which are not compiled, set it to false",
    }

    def __post_init__(self) -> None:
        if (self.train is None) != (self.objective is None):
            raise ValueError("train_vae: give both train and objective, or null for both")


@stage(machine="gpus")
def train_vae(
    train_vae: TrainVaeParams,
    training: Training,
    perceptual: PerceptualSpec,
    vae: VaeSpec,
    frames: FrameSpec,
    pins: Input[Pins],
    kept: Input[Kept],
    truth: Input[Truth],
    judges: Input[SceneJudges],
    clip: Input[Clip],
    model: Output[artifacts.Vae],
    metrics: Output[Metrics],
    losses: Output[Losses],
    sheet: Output[Sheet],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train the autoencoder on crops of pins; score its reconstructions of held-out pins.

    The sheet shows held-out pins above their reconstructions.
    """
    import torch

    from canvas.clip.model import load_clip
    from canvas.device import default_device
    from canvas.features.perceptual import ClipFeatures, FeatureDistance
    from canvas.pins import tables
    from canvas.train.state import eval_mode
    from canvas.vae.model import build_vae

    params, clock = train_vae, time.perf_counter()
    if params.train is None and vae.init_from is None:
        raise ValueError("train_vae.train is null: the autoencoder needs training, or name vae.init_from")
    frames.check_cells(vae.factor)
    split_of = tables.read_kept_splits(pins.path, kept.path)
    encoder = load_clip(clip.path / perceptual.encoder)
    distance = FeatureDistance(ClipFeatures(encoder, perceptual.layers))
    torch.manual_seed(training.seed)
    autoencoder = build_vae(vae, sample_size=frames.side)
    curve: list[tuple[int, float]] = []
    figures: dict[str, object] = {}
    if params.train is not None and params.objective is not None:
        objective = params.objective
        if objective.adversary is not None:
            objective = replace(objective, adversary=objective.adversary.scale(training))
        fresh, spec = vae.init_from is None, training.resolve(params.train)
        sample = _sampler(distance, params, frames, split_of, pins.path, log)
        fitted = _fitted(
            autoencoder, fresh, objective, spec, frames.side, distance, split_of, pins.path, log, scratch, sample
        )
        curve, figures["images_per_second"] = fitted.losses, fitted.images_per_second
    trained = time.perf_counter()
    autoencoder.to(default_device())  # where training left it
    with eval_mode(autoencoder):
        if params.train is not None:  # public denoisers know a public autoencoder's latents by its own scale
            _store_statistics(autoencoder, params, frames, split_of, pins.path)
        autoencoder.save_pretrained(model.path)
        figures |= _scores(autoencoder, distance, params, frames, split_of, pins.path, sheet.path)
        figures |= _scenes(autoencoder, params, frames.side, pins.path, kept.path, truth.path, judges.path)
    figures["seconds"] = {"train": trained - clock, "score": time.perf_counter() - trained}
    metrics.write(figures)
    losses.write(curve)


def _fitted(
    autoencoder: Vae,
    fresh: bool,
    objective: VaeObjective,
    spec: TrainSpec,
    side: int,
    distance: FeatureDistance,
    split_of: Mapping[str, str],
    pins: Path,
    log: StepLog,
    scratch: Scratch,
    sample: Callable[[nn.Module, int], None],
) -> TrainResult:
    import torch

    from canvas.pins.image_batches import CropBatches, load_images
    from canvas.pins.pixels import bytes_to_tensor
    from canvas.train.loop import fit
    from canvas.vae.model import PixelAutoencoder
    from canvas.vae.objective import ImageLoss, ReconstructionObjective, build_adversary

    wanted = {pin_id for pin_id, split in split_of.items() if split == "train"}
    ids, pictures = load_images(pins, wanted, round(side * objective.crops.zoom))
    crops = CropBatches(ids, pictures, side, objective.crops, spec.batch_size, spec.seed)
    if fresh and isinstance(autoencoder, PixelAutoencoder):
        epoch = max(len(ids) // spec.batch_size, 1)
        autoencoder.fit_patches(
            lambda: (bytes_to_tensor(torch.as_tensor(crops(step, 0, 1)["images"])) for step in range(epoch))
        )
    adversary = build_adversary(objective.adversary) if objective.adversary else None
    loss = ImageLoss(
        objective.loss,
        features=distance if objective.loss.features else None,
        adversary=objective.adversary,
        judge=adversary.model if adversary else None,
    )
    return fit(
        autoencoder,
        ReconstructionObjective(loss, kl=objective.kl),
        crops,
        spec,
        checkpoints=scratch.path / "checkpoints",
        log=log.metrics,
        sample=sample,
        adversary=adversary,
    )


def _sampler(
    distance: FeatureDistance,
    params: TrainVaeParams,
    frames: FrameSpec,
    split_of: Mapping[str, str],
    pins: Path,
    log: StepLog,
) -> Callable[[nn.Module, int], None]:
    """Logs the sheet of the same few held-out pins, all in the square frame, as the autoencoder is at a step."""
    from canvas.pins.image_batches import batch_by_frame, select_evenly
    from canvas.pins.images import encode_png

    shown = select_evenly([pin_id for pin_id, split in split_of.items() if split != "train"], params.sheet_each)
    square = replace(frames, buckets=((frames.side, frames.side),))
    batches = list(batch_by_frame(pins, {pin_id: split_of[pin_id] for pin_id in shown}, square, params.score_batch))

    def sample(autoencoder: nn.Module, step: int) -> None:
        found = _reconstructions(cast("Vae", autoencoder), distance, batches, params.sheet_each)
        log.image(f"samples-{step:06d}", encode_png(found.sheet()))

    return sample


def _store_statistics(
    autoencoder: Vae, params: TrainVaeParams, frames: FrameSpec, split_of: Mapping[str, str], pins: Path
) -> None:
    """Mean and deviation of the latents of the train split, into the autoencoder's config."""
    import torch

    from canvas.pins.image_batches import batch_by_frame
    from canvas.pins.pixels import bytes_to_tensor
    from canvas.vae.latents import LatentMoments
    from canvas.vae.model import compute_posterior

    moments = LatentMoments()
    train = {pin_id: split for pin_id, split in split_of.items() if split == "train"}
    for batch in batch_by_frame(pins, train, frames, params.score_batch):
        moments.add(
            compute_posterior(autoencoder, bytes_to_tensor(torch.as_tensor(batch["images"]).to(autoencoder.device)))
        )
    moments.store(autoencoder)


def _scores(
    autoencoder: Vae,
    distance: FeatureDistance,
    params: TrainVaeParams,
    frames: FrameSpec,
    split_of: Mapping[str, str],
    pins: Path,
    sheet: Path,
) -> Mapping[str, object]:
    """PSNR, SSIM and perceptual distance of held-out pins, overall and by split; writes the sheet."""
    from canvas.pins.image_batches import batch_by_frame
    from canvas.pins.images import encode_png

    held_out = {pin_id: split for pin_id, split in split_of.items() if split != "train"}
    batches = batch_by_frame(pins, held_out, frames, params.score_batch)
    found = _reconstructions(autoencoder, distance, batches, params.sheet_each)
    sheet.write_bytes(encode_png(found.sheet()))
    return found.metrics()


def _reconstructions(
    autoencoder: Vae, distance: FeatureDistance, batches: Iterable[Batch], shown: int
) -> ReconstructionScores:
    """Of framed pins, scored where the autoencoder is."""
    import torch

    from canvas.pins.pixels import bytes_to_tensor
    from canvas.vae.model import compute_posterior, decode_latents
    from evaluation.measures.reconstructions import ReconstructionScores

    found = ReconstructionScores(distance.to(autoencoder.device), shown)
    for batch in batches:
        images = bytes_to_tensor(torch.as_tensor(batch["images"]).to(autoencoder.device))
        found.add(
            images, decode_latents(autoencoder, compute_posterior(autoencoder, images).mode()), list(batch["split"])
        )
    return found


def _scenes(
    autoencoder: Vae, params: TrainVaeParams, side: int, pins: Path, kept: Path, truth: Path, judges: Path
) -> Mapping[str, float]:
    """How often judges see the right scene in real held-out views and in their reconstructions; nothing where nobody
    knows a scene."""
    import numpy as np
    import torch
    from PIL import Image

    from canvas.pins.pixels import bytes_to_tensor, tensor_to_bytes
    from canvas.pins.scene_views import crop_center_square, load_scene_views
    from canvas.vae.model import compute_posterior, decode_latents
    from evaluation.judges.features import choose_view_side
    from evaluation.judges.judges import Judges
    from evaluation.judges.scenes import compute_scene_accuracy

    both = Judges.load(judges).both
    real, scenes = load_scene_views(
        pins, kept, truth, splits=UNSEEN_VIEWS, side=side, count=params.scored_views, emptied=True
    )
    if both is None or not scenes:
        return {}
    again = []
    for images in torch.from_numpy(real).permute(0, 3, 1, 2).split(params.score_batch):
        latents = compute_posterior(autoencoder, bytes_to_tensor(images.to(autoencoder.device))).mode()
        again.append(tensor_to_bytes(decode_latents(autoencoder, latents)).cpu())
    reconstructed = torch.cat(again).permute(0, 2, 3, 1).numpy()
    shown = [
        np.stack([crop_center_square(Image.fromarray(view), choose_view_side(side)) for view in views])
        for views in (real, reconstructed)
    ]
    return {
        **compute_scene_accuracy(both, shown[0], scenes, "real"),
        **compute_scene_accuracy(both, shown[1], scenes, "reconstructed"),
    }
