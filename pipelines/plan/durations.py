"""How long it takes to encode and embed a catalogue, and to cluster it."""

from __future__ import annotations

import dataclasses

import torch

from canvas.clip.model import build_clip
from canvas.clip.spec import ClipSpec
from canvas.shards.spec import EncodingSpec
from canvas.styles.clusters import ClusterSpec
from canvas.uve.model import build_uve
from canvas.uve.spec import UveSpec
from pipelines.plan.gpus import GPU_FLOPS, count_forward_flops
from pipelines.plan.profile import GIB, Models, count_parameters

FLOAT32_SHARE = 0.5
"""Assumed of a GPU in float32: of what it does in half precision."""

CORE_FLOPS = 8e9
"""Of a CPU core in k-means of few clusters, sustained, as bench/styles.py measured; of many it is more."""

KMEANS_PASSES = 10
"""Of MiniBatchKMeans over the vectors until its centres rest, at most about so many."""

Row = tuple[str, str, str]
"""Name, value and arithmetic."""


def build_encoding_rows(spec: EncodingSpec, models: Models, side: int, vectors: int, gpus: int) -> list[Row]:
    """Of encoding so many pins, their pictures of `side` pixels, on a machine of so many GPUs."""
    passes = 1 + spec.random_masks + spec.product_masks
    towers, texts = [], []
    with torch.device("meta"):
        latents = count_forward_flops(models.vae, torch.zeros(1, 3, side, side), call=models.vae.encode)
        for clip in models.clips:
            size = clip.visual.image_size
            height, width = (size, size) if isinstance(size, int) else size
            towers.append(count_forward_flops(clip, torch.zeros(1, 3, height, width), call=clip.encode_image))
            tokens = torch.zeros(1, clip.context_length, dtype=torch.long)
            texts.append(count_forward_flops(clip, tokens, call=clip.encode_text))
    view = passes * latents + sum(towers) + spec.captions * sum(texts)
    speed, format_ = (
        (GPU_FLOPS * FLOAT32_SHARE, "float32") if spec.precision == "fp32" else (GPU_FLOPS, "half precision")
    )
    hours = vectors * spec.views * view / speed / 3600
    gpus = gpus if spec.parallel == "ddp" else 1
    return [
        (
            "of a view",
            f"{view / 1e12:,.2f} TFLOP",
            f"{passes} x {latents / 1e12:,.2f} autoencoder + {sum(towers) / 1e12:,.2f} image towers + "
            f"{spec.captions} x {sum(texts) / 1e12:,.2f} text towers",
        ),
        (
            "all views",
            f"{hours:,.1f} GPU hours",
            f"{vectors:,} x {spec.views} views at {speed / 1e12:.0f} TFLOP/s in {format_}, assumed",
        ),
        ("on the machine", f"{hours / gpus:,.1f} hours", f"{gpus} GPUs that share them"),
    ]


def build_embedding_rows(uve: UveSpec, clip: ClipSpec, vectors: int) -> list[Row]:
    """Of embedding so many pins."""
    with torch.device("meta"):
        network = build_uve(dataclasses.replace(uve, init_from=None)).eval()
        tower = build_clip(dataclasses.replace(clip, init_from=None)).eval()
        own = count_forward_flops(network, torch.zeros(1, 3, uve.image_size, uve.image_size))
        other = count_forward_flops(tower, torch.zeros(1, 3, clip.image_size, clip.image_size), call=tower.encode_image)
    row = 4 * uve.embed_dim + uve.embed_dim // 8 + 4 * clip.embed_dim
    hours = vectors * (own + other) / GPU_FLOPS / 3600
    return [
        ("UVE, parameters", f"{count_parameters(network):,}", uve.trunk),
        (
            "of a picture",
            f"{(own + other) / 1e9:,.1f} GFLOP",
            f"UVE {own / 1e9:,.1f} + CLIP's tower {other / 1e9:,.1f}",
        ),
        ("all pictures", f"{hours:,.1f} GPU hours", f"{vectors:,} pictures at {GPU_FLOPS / 1e12:.0f} TFLOP/s, assumed"),
        (
            "table",
            f"{row * vectors / GIB:,.1f} GiB",
            f"{vectors:,} x ({uve.embed_dim} x 4 + {uve.embed_dim // 8} + {clip.embed_dim} x 4) bytes",
        ),
        ("codes alone", f"{uve.embed_dim // 8 * vectors / GIB:,.2f} GiB", f"{vectors:,} x {uve.embed_dim // 8} bytes"),
    ]


def build_clustering_rows(spec: ClusterSpec, vectors: int, width: int, cores: float) -> list[Row]:
    """Of clustering so many vectors with each of the spec's numbers."""
    passes = KMEANS_PASSES + 1 if spec.batch_size else 30 * spec.restarts
    rows = []
    for number in spec.numbers:
        flops = 2.0 * vectors * number * width * passes
        rows.append(
            (
                f"{number:,} clusters",
                f"{flops / CORE_FLOPS / cores / 60:,.1f} minutes",
                f"2 x {vectors:,} x {number:,} x {width} x {passes} passes on {cores:g} cores at "
                f"{CORE_FLOPS / 1e9:.0f} GFLOP/s each, if all help",
            )
        )
    return rows
