"""Stage `train_decoder`: the autoencoder's decoder, told the product's pixels, mask and alpha."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from canvas.decoder.spec import DecoderSpec
from canvas.denoiser.spec import DiffusionSpec, SamplingSpec
from canvas.ranges import Count
from canvas.train.spec import Train, TrainableParams, Training, TrainSpec
from canvas.vae.spec import AdversarySpec, PerceptualSpec, ReconstructionSpec
from components.artifacts import Clip, Decoder, InpaintModel, Masks, Pins, Shards, Vae
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn

    from canvas.decoder.model import ConditionalDecoder
    from canvas.decoder.training_data import ConditionedPin, DecoderSample
    from canvas.train.data import Batches
    from canvas.vae.model import Vae as Autoencoder


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainDecoderParams(TrainableParams):
    train: Train
    latent_noise: float  # largest deviation of the noise on encoded latents, which have deviation 1
    loss: ReconstructionSpec
    adversary: AdversarySpec | None  # null: none
    sampling: SamplingSpec  # of latents for the decoder to learn on, beside encoded ones
    pins: Count  # product pins of the train split to learn on, spread evenly, with encoded latents
    painted_pins: Count  # of these, with painted latents too
    scored_pins: Count  # held-out product pins, scored both ways
    seam_reach: Count  # pixels on each side of the product's edge that count as its seam
    sheet_pins: Count

    refused: ClassVar[Mapping[str, str]] = {
        "parallel": "the decoder's blocks are called one by one, not gathered from shards, set it to ddp or none"
    }


@stage(machine="gpus")
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
    """Retrain the decoder on encoded and on painted latents, so that it leaves the product as it is and no seam.

    The sheet shows held-out products pasted on the plain decoder's output, and decoded with it.
    """
    import torch

    from canvas.clip.model import load_clip
    from canvas.decoder.model import ConditionalDecoder, DecoderObjective
    from canvas.decoder.training_data import LatentGenerator, read_conditioned_pins, select_even_runs
    from canvas.denoiser.process import build_training_scheduler
    from canvas.denoiser.unet import load_denoiser
    from canvas.device import default_device
    from canvas.features.perceptual import ClipFeatures, FeatureDistance
    from canvas.pins.images import encode_png
    from canvas.shards.rows import ShardRows, has_product
    from canvas.train.distributed import join_world
    from canvas.train.loop import fit
    from canvas.train.state import eval_mode
    from canvas.vae.latents import get_latent_scale
    from canvas.vae.model import load_vae
    from canvas.vae.objective import ImageLoss, build_adversary

    params, spec, clock = train_decoder, training.resolve(train_decoder.train), time.perf_counter()
    autoencoder = load_vae(vae.path).eval()
    rows = ShardRows(shards.path)
    whole = [row for row in rows.index if has_product(row) and row.view == 0]
    unet = load_denoiser(inpaint.path).to(default_device())
    painter = LatentGenerator(
        unet, build_training_scheduler(diffusion), get_latent_scale(autoencoder), rows, params.sampling, spec.seed
    )
    train, held_out = (
        read_conditioned_pins(
            rows,
            select_even_runs([row for row in whole if (row.split == "train") == of_train], count),
            pins.path,
            masks.path,
        )
        for of_train, count in ((True, params.pins), (False, params.scored_pins))
    )
    with join_world(spec.parallel) as world:
        learnt, judged = (
            painter.painted(chosen, scratch.path / name, world)
            for name, chosen in (
                ("painted", select_even_runs(train, params.painted_pins)),
                ("painted-held-out", held_out),
            )
        )
    samples, scored = [*train, *learnt], [*held_out, *judged]
    unet.to("cpu")  # training has the device to itself
    shown = [pin.known() for pin in select_even_runs(judged, params.sheet_pins)]
    painted = time.perf_counter()
    torch.manual_seed(spec.seed)
    conditional = ConditionalDecoder.from_vae(autoencoder, decoder)

    def sample(model: nn.Module, step: int) -> None:
        log.image(f"samples-{step:06d}", encode_png(_sheet(cast("ConditionalDecoder", model), autoencoder, shown)))

    features = None
    if params.loss.features:
        features = FeatureDistance(ClipFeatures(load_clip(clip.path / perceptual.encoder), perceptual.layers))
    against = params.adversary.scale(training) if params.adversary else None
    adversary = build_adversary(against) if against else None
    loss = ImageLoss(params.loss, features=features, adversary=against, judge=adversary.model if adversary else None)
    fitted = fit(
        conditional,
        DecoderObjective(loss, scale=painter.scale, latent_noise=params.latent_noise),
        _batches(samples, spec),
        spec,
        checkpoints=scratch.path / "checkpoints",
        log=log.metrics,
        sample=sample,
        adversary=adversary,
    )
    conditional.save_pretrained(model.path)
    trained = time.perf_counter()

    with eval_mode(conditional):
        figures = _scores(conditional, autoencoder, decoder, params, scored)
        sheet.write(encode_png(_sheet(conditional, autoencoder, shown)))
    figures["images_per_second"] = fitted.images_per_second
    figures["parameters"] = sum(weight.numel() for weight in conditional.parameters())
    figures["seconds"] = {"paint": painted - clock, "train": trained - painted, "score": time.perf_counter() - trained}
    metrics.write(figures)
    losses.write(fitted.losses)


def _batches(samples: Sequence[ConditionedPin], spec: TrainSpec) -> Batches:
    from canvas.decoder.training_data import stack_samples
    from canvas.shards.rows import BucketBatches
    from canvas.train.data import PrefetchedBatches

    buckets: dict[str, list[int]] = {}
    for place, pin in enumerate(samples):
        buckets.setdefault(pin.row.bucket, []).append(place)
    return PrefetchedBatches(
        BucketBatches(
            lambda places: stack_samples([samples[place].known() for place in places]),
            dict(sorted(buckets.items())),
            spec.batch_size,
            spec.seed,
        )
    )


def _scores(
    conditional: ConditionalDecoder,
    autoencoder: Autoencoder,
    spec: DecoderSpec,
    params: TrainDecoderParams,
    scored: Sequence[ConditionedPin],
) -> dict[str, object]:
    """Of painted pins; of encoded ones under `encoded`."""
    from canvas.pins.pixels import bytes_to_tensor
    from evaluation.measures.decoders import DecoderScores

    of = {painted: DecoderScores(erosion=spec.erosion, reach=params.seam_reach) for painted in (True, False)}
    for pin in (one.known() for one in scored):
        decoded, pasted = _decoded(conditional, autoencoder, pin)
        of[pin.painted].add(decoded, pasted, bytes_to_tensor(pin.pixels[None]), pin.mask[None])
    return {**of[True].metrics(), "encoded": of[False].metrics()}


def _decoded(
    conditional: ConditionalDecoder, autoencoder: Autoencoder, pin: DecoderSample
) -> tuple[torch.Tensor, torch.Tensor]:
    """The picture that the conditional decoder makes (1, 3, H, W), and the product pasted on the plain decoder's."""
    from canvas.masks.composite import composite_product, erode_mask
    from canvas.pins.pixels import bytes_to_tensor
    from canvas.vae.model import decode_latents

    device = conditional.device
    images, mask, alpha = (part[None].to(device) for part in (bytes_to_tensor(pin.pixels), pin.mask, pin.alpha))
    latents = pin.latents[None].to(device)
    core = erode_mask(mask, conditional.config["erosion"])
    plain = decode_latents(autoencoder.to(device), latents)
    found = conditional(latents, images, mask, alpha)
    return found.float().cpu(), composite_product(plain, images, core, mask, alpha).float().cpu()


def _sheet(conditional: ConditionalDecoder, autoencoder: Autoencoder, pins: Sequence[DecoderSample]) -> Image.Image:
    """Pins; below each its product pasted on a painted background, and decoded with it."""
    from PIL import Image

    from canvas.pins.images import draw_contact_sheet
    from canvas.pins.pixels import bytes_to_tensor, tensor_to_bytes

    columns = [(bytes_to_tensor(pin.pixels[None]), *_decoded(conditional, autoencoder, pin)) for pin in pins]
    pictures, labels = [], []
    for label, row in zip(("held out", "decoded", "pasted"), zip(*columns, strict=True), strict=True):
        pictures += [Image.fromarray(tensor_to_bytes(one[0]).permute(1, 2, 0).numpy()) for one in row]
        labels += [label] * len(pins)
    return draw_contact_sheet(pictures, labels, columns=len(pins), cell=128)
