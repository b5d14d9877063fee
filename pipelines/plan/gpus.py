"""What each GPU holds while it trains, and how long it paints what the decoder learns on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from canvas.denoiser.spec import SamplingSpec
from canvas.features.perceptual import ClipFeatures, FeatureDistance
from canvas.train.distributed import list_shard_units
from canvas.vae.objective import ImageLoss
from canvas.vae.spec import AdversarySpec, PerceptualSpec, ReconstructionSpec, VaeSpec
from pipelines.plan.activations import Activations, measure_activations, run_denoiser
from pipelines.plan.profile import Models, Run, Section, compute_images_per_pass, count_parameters, train_spec

GPU_FLOPS = 100e12
"""Assumed of a GPU in half precision, sustained: about a third of an A100's peak."""

MemoryRow = tuple[str, str, float]
"""Part, arithmetic and bytes on each GPU."""


def append_total(rows: list[MemoryRow]) -> list[MemoryRow]:
    return [*rows, ("total", "", sum(size for _, _, size in rows))]


def build_sharded_rows(model: nn.Module, used: Activations, run: Run) -> list[MemoryRow]:
    """Training `model` under FSDP2: float32 shards, bfloat16 compute."""
    whole, trained = count_parameters(model), count_parameters(model, trainable=True)
    unit = count_largest_unit(model)
    return append_total(
        [
            ("weights", f"{whole:,} x 4 bytes / {run.gpus} GPUs", whole * 4 / run.gpus),
            ("gradients", f"{trained:,} x 4 bytes / {run.gpus} GPUs", trained * 4 / run.gpus),
            ("optimizer", f"{trained:,} x 2 moments x 4 bytes / {run.gpus} GPUs", trained * 8 / run.gpus),
            (
                "averages",
                f"{trained:,} x {run.averages} x 4 bytes / {run.gpus} GPUs",
                trained * 4 * run.averages / run.gpus,
            ),
            ("gathered unit", f"{unit:,} x 2 bytes x 2 (this and the next)", unit * 4),
            ("activations", f"{run.batch} x {used.bytes:,} bytes", run.batch * used.bytes),
        ]
    )


def count_largest_unit(model: nn.Module) -> int:
    """Parameters of the largest part that FSDP gathers at once; units inside a unit are gathered on their own."""
    counted: set[int] = set()
    sizes = []
    for unit in [*list_shard_units(model), model]:  # innermost first
        own = [weight for weight in unit.parameters() if id(weight) not in counted]
        counted.update(map(id, own))
        sizes.append(sum(weight.numel() for weight in own))
    return max(sizes)


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderTraining:
    """The conditional decoder and what its loss asks of others, on the meta device."""

    decoder: nn.Module
    features: nn.Module | None  # the frozen network
    loss: ImageLoss
    side: int  # pixels of a picture
    latents: tuple[int, int, int]

    def once(self) -> None:
        """The loss of one picture."""
        with torch.device("meta"):
            images, mask = (torch.empty(1, channels, self.side, self.side) for channels in (3, 1))
            found = self.decoder(torch.empty(1, *self.latents), images, mask, mask)
            self.loss(found, images, self.loss.adversary.start_step if self.loss.adversary else 0)

    @property
    def discriminator(self) -> nn.Module | None:
        """The discriminator, if the loss has one."""
        return self.loss.adversary.model if self.loss.adversary else None

    def activations(self) -> Activations:
        """Of one picture, the loss included."""
        networks = [one for one in (self.decoder, self.discriminator, self.features) if one is not None]
        return measure_activations(nn.ModuleList(networks), self.once)


def build_decoder_training(section: Section, models: Models, vae: VaeSpec, side: int) -> DecoderTraining:
    """What the profile's stage train_decoder trains with, on pictures of so many pixels."""
    weights: ReconstructionSpec = section("train_decoder.loss", ReconstructionSpec)
    adversary: AdversarySpec | None = section("train_decoder.adversary", AdversarySpec | None)
    perceptual: PerceptualSpec = section("perceptual", PerceptualSpec)
    tower = models.clips[("first", "second").index(perceptual.encoder)]
    with torch.device("meta"):
        features = FeatureDistance(ClipFeatures(tower, perceptual.layers)) if weights.features else None
        loss = ImageLoss(weights, features=features, adversary=adversary)
    cells = side // vae.factor
    return DecoderTraining(
        decoder=models.decoder,
        features=features,
        loss=loss,
        side=side,
        latents=(vae.latent_channels, cells, cells),
    )


def build_replicated_rows(training: DecoderTraining, used: Activations, pictures: int, gpus: int) -> list[MemoryRow]:
    """Training the decoder under DDP, or on one GPU: all of it on each, float32, with autocast's copies of weights."""
    own, copies = count_parameters(training.decoder), " x 2 (DDP's buckets)" if gpus > 1 else ""
    rows = [
        ("weights", f"{own:,} x (4 + 2) bytes: and autocast's copies", own * 6.0),
        ("gradients", f"{own:,} x 4 bytes{copies}", own * (8.0 if copies else 4.0)),
        ("optimizer", f"{own:,} x 2 moments x 4 bytes", own * 8.0),
    ]
    if training.discriminator is not None:
        count, each = count_parameters(training.discriminator), 22 if copies else 18
        rows.append(("discriminator", f"{count:,} x {each} bytes: likewise", count * float(each)))
    if training.features is not None:
        count = count_parameters(training.features)
        rows.append(("loss's network", f"{count:,} x (4 + 2) bytes: frozen", count * 6.0))
    rows.append(("activations", f"{pictures} x {used.bytes:,} bytes", float(pictures * used.bytes)))
    return append_total(rows)


def compute_decoder_gpus(section: Section, gpus: int) -> tuple[int, int]:
    """GPUs that train the decoder, of so many that its machine has, and pictures that each works on at once."""
    train = train_spec(section, "train_decoder")
    gpus = gpus if train.parallel == "ddp" else 1
    return gpus, compute_images_per_pass("train_decoder.train", train, gpus)


def count_forward_flops(module: nn.Module, *arguments: torch.Tensor, call: Callable[..., Any] | None = None) -> int:
    """Floating-point operations of one forward pass, multiplications and additions counted apart; on the meta device
    nothing is computed."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        (call or module)(*arguments)
    return int(counter.get_total_flops())


def build_sampling_rows(section: Section, denoiser: nn.Module, gpus: int) -> list[tuple[str, str, str]]:
    """Name, value and arithmetic of painting the latents that the decoder learns on and is scored on."""
    spec: SamplingSpec = section("train_decoder.sampling", SamplingSpec)
    learnt, scored = (section(f"train_decoder.{name}", int) for name in ("painted_pins", "scored_pins"))
    guided = round(spec.guidance_stop * spec.steps) if spec.guidance_scale != 1 else 0
    flops = count_forward_flops(denoiser, call=lambda: run_denoiser(denoiser))
    hours = (learnt + scored) * (spec.steps + guided) * flops / GPU_FLOPS / 3600
    return [
        ("of a pass", f"{flops / 1e12:,.2f} TFLOP", "inpainting denoiser, one picture"),
        (
            "all pictures",
            f"{hours:,.1f} GPU hours",
            f"({learnt:,} + {scored:,} held out) x ({spec.steps} steps + {guided} guided) passes at "
            f"{GPU_FLOPS / 1e12:.0f} TFLOP/s, assumed",
        ),
        ("on the machine", f"{hours / gpus:,.1f} hours", f"{gpus} GPUs that share them"),
    ]
