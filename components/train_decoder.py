"""Stage `train_decoder`: the autoencoder's decoder, conditioned on the product's pixels, mask and alpha."""

from __future__ import annotations

import time

from canvas.decoder.spec import DecoderSpec, TrainDecoderParams, estimate_decoder_memory
from canvas.denoiser.spec import DiffusionSpec
from canvas.train.spec import Training
from canvas.vae.spec import PerceptualSpec
from components.artifacts import Clip, Decoder, InpaintModel, Masks, Pins, Shards, Vae
from lifecycle.declare.skipping import write_skipped
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage


@stage(machine="gpus", memory=estimate_decoder_memory, skips=True)
def train_decoder(
    train_decoder: TrainDecoderParams,
    training: Training,
    perceptual: PerceptualSpec,
    decoder: DecoderSpec,
    diffusion: DiffusionSpec,
    pins: Input[Pins],
    masks: Input[Masks],
    shards: Input[Shards],
    clip: Input[Clip],
    vae: Input[Vae],
    inpaint: Input[InpaintModel],
    model: Output[Decoder],
    metrics: Output[Metrics],
    losses: Output[Losses],
    sheet: Output[Sheet],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Retrain the decoder on encoded and generated latents, so that it leaves the product as it is and no seam.

    The sheet shows held-out products pasted on the plain decoder's output, and decoded with it."""
    import torch

    from canvas.clip.model import load_feature_distance
    from canvas.decoder import training as decoding
    from canvas.decoder.model import ConditionalDecoder, DecoderObjective
    from canvas.denoiser.loading import get_family, load_denoiser
    from canvas.device import default_device
    from canvas.pins.fallbacks import Notes
    from canvas.shards.rows import ShardRows
    from canvas.train.state import eval_mode
    from canvas.vae.model import get_latent_scale, load_vae
    from canvas.vae.objective import ImageLoss
    from evaluation.measures.decoders import score_decoder

    if train_decoder.train is None:
        write_skipped("train_decoder.train is null, the autoencoder's own decodes", metrics, losses, sheet, model)
        return
    params, spec, clock, notes = train_decoder, training.resolve(train_decoder.train), time.perf_counter(), Notes()
    autoencoder, network = load_vae(vae.path).eval(), load_denoiser(inpaint.path).to(default_device())
    scale = get_latent_scale(autoencoder)
    generator = decoding.LatentGenerator(network, diffusion, scale, ShardRows(shards.path), params.sampling, spec.seed)
    paths = pins.path, masks.path, scratch.path
    train, scored = decoding.read_decoder_pins(generator, *paths, params, spec.parallel, notes)
    samples = decoding.load_generated_samples(scored, params.sheet_pins)
    sampled = time.perf_counter()
    torch.manual_seed(spec.seed)
    conditional = ConditionalDecoder.from_vae(autoencoder, decoder)
    sample = decoding.build_sampler(autoencoder, samples, log.image)
    encoder = clip.path / perceptual.encoder
    features = load_feature_distance(encoder, perceptual.layers) if params.loss.features else None
    loss = ImageLoss(params.loss, features=features, adversary=params.adversary and params.adversary.scale(training))
    objective = DecoderObjective(loss, scale=scale, latent_noise=params.latent_noise)
    run = decoding.fit_decoder(conditional, train, objective, spec, scratch.path / "checkpoints", log.metrics, sample)
    conditional.save_pretrained(model.path)
    trained = time.perf_counter()
    with eval_mode(conditional):
        figures = score_decoder(conditional, autoencoder, scored, params.seam_reach, get_family(network).patch)
        sheet.write(decoding.draw_decoder_sheet(conditional, autoencoder, samples))
    figures |= {"images_per_second": run.images_per_second, "parameters": conditional.num_parameters()}
    figures["seconds"] = {"paint": sampled - clock, "train": trained - sampled, "score": time.perf_counter() - trained}
    metrics.write(figures | notes.to_metrics())
    losses.write(run.losses)
