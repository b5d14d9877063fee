"""How long it takes to encode and embed a catalogue, to cluster it, and to generate what the decoder learns on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from canvas.clip.model import build_clip
from canvas.clip.spec import ClipSpec
from canvas.denoiser.family import Denoiser
from canvas.denoiser.spec import SamplingSpec, count_comparisons
from canvas.features.transformers_trunk import NAME as TRANSFORMERS
from canvas.shards.spec import EncodingSpec
from canvas.styles.spec import ClusterSpec
from canvas.uve.model import build_uve
from canvas.uve.spec import UveSpec
from pipelines.plan.activations import TEXT_TOKENS, run_denoiser
from pipelines.plan.memory import GIB, count_parameters
from pipelines.plan.profile import Models

GPU_FLOPS = 100e12  # assumed of a GPU in half precision, sustained: about a third of an A100's peak

FLOAT32_SHARE = 0.5  # assumed of a GPU in float32: of what it does in half precision

CORE_FLOPS = 8e9  # of a CPU core in k-means of few clusters, sustained, as bench/styles.py measured; of many it is more
KMEANS_PASSES = 10  # of MiniBatchKMeans over the vectors until its centres rest, at most about so many

Row = tuple[str, str, str]  # name, value and arithmetic


def count_forward_flops(module: nn.Module, *arguments: torch.Tensor, call: Callable[..., Any] | None = None) -> int:
    """Return the floating-point operations of one forward pass, multiplications and additions counted apart.

    On the meta device nothing is computed.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        (call or module)(*arguments)
    return int(counter.get_total_flops())


def build_sampling_rows(
    spec: SamplingSpec,
    learnt: int,
    scored: int,
    denoiser: Denoiser,
    *,
    side: int,
    gpus: int,
    text_tokens: int = TEXT_TOKENS,
) -> list[Row]:
    """Return the hours of generating the latents that the decoder learns on, and those that it is scored on;
    `side`: their cells on a side."""
    guided = count_comparisons(spec)
    flops = count_forward_flops(denoiser, call=lambda: run_denoiser(denoiser, side, text_tokens))
    hours = (learnt + scored) * (spec.steps + guided) * flops / GPU_FLOPS / 3600
    passes = f"({learnt:,} + {scored:,} held out) x ({spec.steps} steps + {guided} guided) passes"
    return [
        ("of a pass", f"{flops / 1e12:,.2f} TFLOP", "inpainting denoiser, one image"),
        ("all images", f"{hours:,.1f} GPU hours", f"{passes} at {GPU_FLOPS / 1e12:.0f} TFLOP/s, assumed"),
        ("on the machine", f"{hours / gpus:,.1f} hours", f"{gpus} GPUs that share them"),
    ]


def build_encoding_rows(
    spec: EncodingSpec, models: Models, side: int, pins: int, gpus: int, text_tokens: int = TEXT_TOKENS
) -> list[Row]:
    """Return the hours of encoding so many pins, their images of `side` pixels, on a machine of so many GPUs; T5 reads
    texts of so many tokens."""
    passes = 1 + spec.random_masks + spec.product_masks
    towers, texts = 0, 0
    with torch.device("meta"):
        latents = count_forward_flops(models.vae, torch.zeros(1, 3, side, side), call=models.vae.encode)
        for clip in models.clips:
            size = clip.visual.image_size
            height, width = (size, size) if isinstance(size, int) else size
            towers += count_forward_flops(clip, torch.zeros(1, 3, height, width), call=clip.encode_image)
            if models.t5 is None or clip is models.clips[0]:
                tokens = torch.zeros(1, clip.context_length, dtype=torch.long)
                texts += count_forward_flops(clip, tokens, call=clip.encode_text)
        if models.t5 is not None:
            texts += count_forward_flops(models.t5, torch.zeros(1, text_tokens, dtype=torch.long))
    view = passes * latents + towers + spec.captions * texts
    single = spec.precision == "fp32"
    speed, precision = (GPU_FLOPS * FLOAT32_SHARE, "float32") if single else (GPU_FLOPS, "half precision")
    hours, gpus = pins * spec.views * view / speed / 3600, gpus if spec.parallel == "ddp" else 1
    return [
        (
            "of a view",
            f"{view / 1e12:,.2f} TFLOP",
            f"{passes} x {latents / 1e12:,.2f} autoencoder + {towers / 1e12:,.2f} image towers + "
            f"{spec.captions} x {texts / 1e12:,.2f} text towers",
        ),
        (
            "all views",
            f"{hours:,.1f} GPU hours",
            f"{pins:,} x {spec.views} views at {speed / 1e12:.0f} TFLOP/s in {precision}, assumed",
        ),
        ("on the machine", f"{hours / gpus:,.1f} hours", f"{gpus} GPUs that share them"),
    ]


def build_embedding_rows(uve: UveSpec, clip: ClipSpec, pins: int) -> list[Row]:
    """Return the hours of embedding so many pins, and the size of their table."""
    side, width = uve.get_sizes()
    uve_flops, parameters = 0, "not counted"  # where the sizes stand with the weights, which a plan does not fetch
    with torch.device("meta"):
        if uve.trunk != TRANSFORMERS:
            network = build_uve(replace(uve, init_from=None)).eval()
            uve_flops = count_forward_flops(network, torch.zeros(1, 3, side, side))
            parameters = f"{count_parameters(network):,}"
        tower = build_clip(replace(clip, init_from=None)).eval()
        clip_flops = count_forward_flops(
            tower, torch.zeros(1, 3, clip.image_size, clip.image_size), call=tower.encode_image
        )
    code = width // 8
    row, hours = 4 * width + code + 4 * clip.embed_dim, pins * (uve_flops + clip_flops) / GPU_FLOPS / 3600
    table = f"{pins:,} x ({width} x 4 + {code} + {clip.embed_dim} x 4) bytes"
    return [
        ("UVE, parameters", parameters, uve.trunk),
        (
            "of an image",
            f"{(uve_flops + clip_flops) / 1e9:,.1f} GFLOP",
            f"UVE {uve_flops / 1e9:,.1f} + CLIP's tower {clip_flops / 1e9:,.1f}",
        ),
        ("all images", f"{hours:,.1f} GPU hours", f"{pins:,} images at {GPU_FLOPS / 1e12:.0f} TFLOP/s, assumed"),
        ("table", f"{row * pins / GIB:,.1f} GiB", table),
        ("codes alone", f"{code * pins / GIB:,.2f} GiB", f"{pins:,} x {code} bytes"),
    ]


def build_clustering_rows(spec: ClusterSpec, vectors: int, width: int, cores: float) -> Iterator[Row]:
    """Yield the minutes of clustering so many vectors with each of the spec's numbers."""
    passes = KMEANS_PASSES + 1 if spec.batch_size else 30 * spec.restarts
    for number in spec.numbers:
        minutes = 2.0 * vectors * number * width * passes / CORE_FLOPS / cores / 60
        yield (
            f"{number:,} clusters",
            f"{minutes:,.1f} minutes",
            f"2 x {vectors:,} x {number:,} x {width} x {passes} passes on {cores:g} cores at "
            f"{CORE_FLOPS / 1e9:.0f} GFLOP/s each, if all help",
        )
