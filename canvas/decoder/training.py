"""Training of the conditional decoder, and the sheet that shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from canvas.decoder.model import ConditionalDecoder, DecoderObjective
from canvas.decoder.training_data import ConditionedPin, DecoderSample, stack_samples
from canvas.masks.composite import composite_product, erode_mask
from canvas.pins.images import bytes_to_tensor, draw_contact_sheet, encode_png, tensor_to_bytes
from canvas.shards.rows import BucketBatches, group_by_bucket
from canvas.train.data import Batch, PrefetchedBatches
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import TrainSpec
from canvas.vae.model import Vae, decode_latents


def fit_decoder(
    decoder: ConditionalDecoder,
    pins: Sequence[ConditionedPin],
    objective: DecoderObjective,
    spec: TrainSpec,
    checkpoints: Path,
    log: Callable[[Mapping[str, float], int], None],
    sample: Callable[[nn.Module, int], None],
) -> TrainResult:
    """Train the decoder in place on batches of pins of one frame."""
    places = group_by_bucket(replace(pin.row, row=place) for place, pin in enumerate(pins))

    def read(chosen: Sequence[int]) -> Batch:
        return stack_samples([pins[place].load_sample() for place in chosen])

    return fit(
        decoder,
        objective,
        PrefetchedBatches(BucketBatches(read, places, spec.batch_size, spec.seed)),
        spec,
        checkpoints=checkpoints,
        log=log,
        sample=sample,
        adversary=objective.loss.adversary,
    )


def decode_with_baseline(
    decoder: ConditionalDecoder, autoencoder: Vae, sample: DecoderSample
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode (1, 3, H, W) by the conditional decoder, and by the plain one with the product pasted on."""
    device = decoder.device
    images, mask, alpha = (
        column[None].to(device) for column in (bytes_to_tensor(sample.pixels), sample.mask, sample.alpha)
    )
    latents = sample.latents[None].to(device)
    core = erode_mask(mask, decoder.config["erosion"])
    plain = decode_latents(autoencoder.to(device), latents)
    decoded = decoder(latents, images, mask, alpha)
    return decoded.float().cpu(), composite_product(plain, images, core, mask, alpha).float().cpu()


def draw_decoder_sheet(decoder: ConditionalDecoder, autoencoder: Vae, samples: Sequence[DecoderSample]) -> bytes:
    """Draw pins; below each its product decoded with the background, and pasted on it, as PNG."""
    columns = [
        (bytes_to_tensor(sample.pixels[None]), *decode_with_baseline(decoder, autoencoder, sample))
        for sample in samples
    ]
    images, labels = [], []
    for label, row in zip(("held out", "decoded", "pasted"), zip(*columns, strict=True), strict=True):
        images += [Image.fromarray(tensor_to_bytes(batch[0]).permute(1, 2, 0).numpy()) for batch in row]
        labels += [label] * len(samples)
    return encode_png(draw_contact_sheet(images, labels, columns=len(samples), cell=128))


def build_sampler(
    autoencoder: Vae, samples: Sequence[DecoderSample], log_image: Callable[[str, bytes], None]
) -> Callable[[nn.Module, int], None]:
    """Build the `sample` of a training: it logs the sheet of the same samples."""

    def sample(decoder: nn.Module, step: int) -> None:
        assert isinstance(decoder, ConditionalDecoder)
        log_image(f"samples-{step:06d}", draw_decoder_sheet(decoder, autoencoder, samples))

    return sample
