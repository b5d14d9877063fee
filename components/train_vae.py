"""Stage `train_vae`: images in, an autoencoder with the statistics of its latents out."""

from __future__ import annotations

import time

from canvas.pins.frames import FrameSpec
from canvas.train.spec import Training
from canvas.vae.spec import PerceptualSpec, TrainVaeParams, VaeSpec
from components.artifacts import Clip, Kept, Pins, SceneJudges, Truth, Vae
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage


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
    model: Output[Vae],
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

    from canvas.clip.model import load_feature_distance
    from canvas.device import default_device
    from canvas.hub import record_source
    from canvas.pins import tables
    from canvas.pins.fallbacks import Notes, choose_held_out
    from canvas.pins.image_batches import batch_by_frame
    from canvas.train.state import eval_mode
    from canvas.vae.model import build_vae, store_latent_statistics
    from canvas.vae.objective import fit_autoencoder, fit_patches_to_epoch, load_crops
    from evaluation.judges.judges import Judges
    from evaluation.judges.reconstructions import load_unseen_scenes, score_reconstructed_scenes
    from evaluation.measures.reconstructions import build_sampler, score_reconstructions

    params, clock, result, notes = train_vae, time.perf_counter(), None, Notes()
    train, held_out = tables.read_train_and_held_out(pins.path, kept.path)
    held_out = choose_held_out(train | held_out, notes)
    distance = load_feature_distance(clip.path / perceptual.encoder, perceptual.layers)
    torch.manual_seed(training.seed)
    autoencoder = build_vae(vae, sample_size=frames.side)
    if params.train is not None and params.objective is not None:
        objective, spec = params.objective.scale(training), training.resolve(params.train)
        crops = load_crops(pins.path, train, frames.side, objective.crops, spec)
        if vae.init_from is None:
            fit_patches_to_epoch(autoencoder, crops)
        sample = build_sampler(pins.path, held_out, frames, distance, params.sheet_each, params.score_batch, log.image)
        checkpoints = scratch.path / "checkpoints"
        result = fit_autoencoder(autoencoder, crops, objective, spec, distance, checkpoints, log.metrics, sample)
    trained = time.perf_counter()
    with eval_mode(autoencoder.to(default_device())):
        if result is not None:  # public denoisers know a public autoencoder's latents by its own scale
            store_latent_statistics(autoencoder, batch_by_frame(pins.path, train, frames, params.score_batch))
        autoencoder.save_pretrained(model.path)
        record_source(vae.init_from, model.path, subfolder="vae")
        batches = batch_by_frame(pins.path, held_out, frames, params.score_batch)
        scores = score_reconstructions(autoencoder, distance, batches, params.sheet_each)
        scenes = load_unseen_scenes(pins.path, kept.path, truth.path, frames.side, params.scored_views)
        scene_scores = score_reconstructed_scenes(autoencoder, Judges.load(judges.path), *scenes, params.score_batch)
    seconds = {"train": trained - clock, "score": time.perf_counter() - trained}
    figures: dict[str, object] = {"images_per_second": result.images_per_second} if result else {}
    metrics.write(figures | {**scores.compute_metrics(), **scene_scores, "seconds": seconds, **notes.to_metrics()})
    sheet.write(scores.draw_sheet())
    losses.write(result.losses if result else [])
