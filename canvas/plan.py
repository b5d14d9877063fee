"""What a run needs before it is started: parameters, memory of each GPU, bytes of each pin, with the arithmetic.

`python -m canvas.plan --profile FILE`: every model is built on the meta device, where tensors have shapes and no
memory; activations are counted by running the denoiser there.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import TypeAdapter
from ruamel.yaml import YAML
from torch import nn

from canvas.activations import Activations, activations
from canvas.data.encoding_spec import EncodingSpec
from canvas.data.frames import FrameSpec
from canvas.diffusion.training_spec import LoraSpec
from canvas.embedding_plan import embedding_plan, source_width
from canvas.models.adapters import add_lora
from canvas.models.decoder import ConditionalDecoder
from canvas.models.decoder_spec import DecoderSpec
from canvas.models.denoiser import SIZE_IDS, add_inpaint_channels, build_denoiser
from canvas.models.denoiser_spec import DenoiserSpec
from canvas.models.image_prompt import TOKENS
from canvas.models.text import build_clip, text_widths
from canvas.models.text_spec import ClipSpec, TextSpec
from canvas.models.uve_spec import UveSpec
from canvas.models.vae import build_vae
from canvas.models.vae_spec import VaeSpec
from canvas.train.distributed import shard_units
from canvas.train.spec import TrainSpec

T = TypeVar("T")
GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The sizes of a run: from the profile, but for the GPUs and the pins."""

    side: int  # pixels of the training pictures
    gpus: int
    batch: int  # pictures a GPU works on at once
    captions: int  # of each pin
    masks: int  # precomputed masked latents of each pin
    averages: int  # EMA copies
    lora_rank: int
    image_width: int  # of the embedding that image prompts read
    pins: int


@dataclasses.dataclass(frozen=True, slots=True)
class Models:
    """All networks of the system, on the meta device."""

    denoiser: nn.Module
    inpaint: nn.Module
    lora: nn.Module
    vae: nn.Module
    decoder: nn.Module
    clips: tuple[nn.Module, nn.Module]


@dataclasses.dataclass(frozen=True, slots=True)
class Specs:
    """The model sections of a profile."""

    denoiser: DenoiserSpec
    vae: VaeSpec
    decoder: DecoderSpec
    text: TextSpec


def sections_in(profile: Path) -> Callable[[str, type[T]], T]:
    """A reader of the profile's sections: (dotted name, type) -> value. It raises ValueError for a missing one."""
    sections = YAML(typ="safe", pure=True).load(profile.read_text(encoding="utf-8"))

    def section(name: str, kind: type[T]) -> T:
        found = sections
        for key in name.split("."):
            if not isinstance(found, dict) or key not in found:
                raise ValueError(f"{profile} has no section {name!r}")
            found = found[key]
        return TypeAdapter(kind).validate_python(found)

    return section


def specs_in(profile: Path) -> Specs:
    """The model sections of a params file."""
    section = sections_in(profile)
    return Specs(
        section("denoiser", DenoiserSpec),
        section("vae", VaeSpec),
        section("decoder", DecoderSpec),
        section("text", TextSpec),
    )


def run_in(profile: Path, gpus: int, pins: int) -> Run:
    """The sizes of the profile's inpainting run on so many GPUs."""
    section = sections_in(profile)
    train, encoding = section("train_inpaint.train", TrainSpec), section("encode", EncodingSpec)
    if train.batch_size % (gpus * train.accumulate):
        raise ValueError(
            f"train_inpaint.train.batch_size is {train.batch_size}: {gpus} GPUs x {train.accumulate} accumulated "
            "passes do not divide it"
        )
    return Run(
        side=section("frames", FrameSpec).side,
        gpus=gpus,
        batch=train.batch_size // (gpus * train.accumulate),
        captions=encoding.captions,
        masks=encoding.random_masks + encoding.product_masks,
        averages=len(train.ema),
        lora_rank=section("train_backdrop.lora", LoraSpec).rank,
        image_width=source_width(
            section("uve", UveSpec), section("text.second", ClipSpec), section("train_ip_adapter.source", str)
        ),
        pins=pins,
    )


def models_of(specs: Specs, run: Run) -> Models:
    """The networks of `specs`, random and without memory: nothing is loaded."""
    text = [dataclasses.replace(spec, init_from=None) for spec in (specs.text.first, specs.text.second)]
    width, pooled = text_widths(text)
    denoiser = dataclasses.replace(specs.denoiser, init_from=None)
    vae = dataclasses.replace(specs.vae, init_from=None)
    size = {
        "latent_channels": vae.latent_channels,
        "sample_size": run.side // vae.factor,
        "text_width": width,
        "pooled_width": pooled,
    }
    with torch.device("meta"):
        autoencoder = build_vae(vae, sample_size=run.side)
        return Models(
            denoiser=build_denoiser(denoiser, **size),
            inpaint=add_inpaint_channels(build_denoiser(denoiser, **size)),
            lora=add_lora(add_inpaint_channels(build_denoiser(denoiser, **size)), rank=run.lora_rank, alpha=1),
            vae=autoencoder,
            decoder=ConditionalDecoder.of(autoencoder, specs.decoder),
            clips=(build_clip(text[0]), build_clip(text[1])),
        )


def parameters(module: nn.Module, trainable: bool = False) -> int:
    """Number of parameters, or of those that are trained."""
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad or not trainable)


def image_prompt_parameters(denoiser: nn.Module, image_width: int) -> int:
    """Number of parameters of the adapter that reads embeddings of so many numbers: the projection to tokens and
    their norm, keys and values of each cross-attention layer."""
    layers = [module for name, module in denoiser.named_modules() if name.endswith("attn2")]
    states = layers[0].to_k.in_features
    return (image_width + 1) * TOKENS * states + 2 * states + sum(2 * states * layer.inner_dim for layer in layers)


def parameter_rows(models: Models, image_width: int) -> list[tuple[str, int]]:
    """Name and number of parameters of each network."""
    rows = [
        ("denoiser, text-to-image", parameters(models.denoiser)),
        ("denoiser, inpainting", parameters(models.inpaint)),
        ("LoRA on all its layers", parameters(models.lora, trainable=True)),
        ("image prompts", image_prompt_parameters(models.inpaint, image_width)),
        ("autoencoder", parameters(models.vae)),
        ("conditional decoder", parameters(models.decoder)),
    ]
    for name, clip in zip(("first", "second"), models.clips, strict=True):
        picture = sum(weight.numel() for key, weight in clip.named_parameters() if key.startswith("visual."))
        text = parameters(clip) - picture - 1  # the temperature belongs to neither
        rows += [(f"{name} encoder, text tower", text), (f"{name} encoder, image tower", picture)]
    return rows


def memory_rows(model: nn.Module, used: Activations, run: Run) -> list[tuple[str, str, float]]:
    """Part, arithmetic and bytes on each GPU for training `model` under FSDP2: float32 shards, bfloat16 compute."""
    whole, trained = parameters(model), parameters(model, trainable=True)
    unit = largest_unit(model)
    rows = [
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
    return [*rows, ("total", "", sum(size for _, _, size in rows))]


def pin_rows(specs: Specs, run: Run) -> list[tuple[str, str, int]]:
    """Column, arithmetic and bytes of a pin in the shards; numbers in half precision."""
    cells = (run.side // specs.vae.factor) ** 2
    channels, length = specs.vae.latent_channels, specs.text.first.context_length
    width, pooled = text_widths([specs.text.first, specs.text.second])
    embedding = specs.text.first.embed_dim + specs.text.second.embed_dim
    rows = [
        ("moments", f"2 x {channels} x {cells} x 2 bytes", 2 * channels * cells * 2),
        ("text states", f"{run.captions} x {length} x {width} x 2 bytes", run.captions * length * width * 2),
        ("pooled text", f"{run.captions} x {pooled} x 2 bytes", run.captions * pooled * 2),
        ("masked latents", f"{run.masks} x {channels} x {cells} x 2 bytes", run.masks * channels * cells * 2),
        ("holes", f"{run.masks} x {cells} x 2 bytes", run.masks * cells * 2),
        ("image", f"({specs.text.first.embed_dim} + {specs.text.second.embed_dim}) x 2 bytes", embedding * 2),
        ("sizes", f"{SIZE_IDS} x 4 bytes", SIZE_IDS * 4),
    ]
    return [*rows, ("total", "", sum(size for _, _, size in rows))]


def plan(specs: Specs, run: Run) -> str:
    """The whole plan as text."""
    models = models_of(specs, run)
    lines = ["Parameters", *(f"  {name:28}{count:>16,}" for name, count in parameter_rows(models, run.image_width))]
    for title, model in (
        ("Memory of each GPU, inpainting denoiser, all weights trained", models.inpaint),
        (f"Memory of each GPU, LoRA of rank {run.lora_rank}, base frozen", models.lora),
    ):
        used = activations(model)
        lines += ["", title]
        lines += [f"  {part:14}{size / GIB:>9.2f} GiB  {why}" for part, why, size in memory_rows(model, used, run)]
        saved = run.batch * (used.bytes - used.recomputed_bytes) / GIB
        lines.append(f"  {saved:.2f} GiB less if every block were run again in the backward pass")
    rows = pin_rows(specs, run)
    lines += ["", "Bytes of each pin in the shards"]
    lines += [f"  {name:14}{size:>12,}  {why}" for name, why, size in rows]
    lines += [f"  {run.pins:,} pins: {rows[-1][2] * run.pins / 1e12:,.1f} TB"]
    return "\n".join(lines)


def largest_unit(model: nn.Module) -> int:
    """Parameters of the largest part that FSDP gathers at once; units inside a unit are gathered on their own."""
    counted: set[int] = set()
    sizes = []
    for unit in [*shard_units(model), model]:  # innermost first
        own = [weight for weight in unit.parameters() if id(weight) not in counted]
        counted.update(map(id, own))
        sizes.append(sum(weight.numel() for weight in own))
    return max(sizes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan; the exit status."""
    parser = argparse.ArgumentParser(prog="canvas.plan", description="What a run needs before it is started.")
    parser.add_argument("--profile", type=Path, default=Path("profiles/canvas-xl.yaml"))
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--pins", type=int, default=1_500_000_000)
    parser.add_argument("--vectors", type=int, default=10_000_000, help="pins that are embedded and clustered")
    options = parser.parse_args(arguments)
    try:
        print(plan(specs_in(options.profile), run_in(options.profile, options.gpus, options.pins)), end="\n\n")
        print(embedding_plan(sections_in(options.profile), options.vectors))
    except (ValueError, OSError) as error:
        print(f"canvas.plan: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
