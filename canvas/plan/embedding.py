"""How long it takes to embed a catalogue and to cluster it."""

from __future__ import annotations

import dataclasses

import torch

from canvas.data.clusters import ClusterSpec
from canvas.models.text import build_clip
from canvas.models.text_spec import ClipSpec
from canvas.models.uve import build_uve
from canvas.models.uve_spec import UveSpec
from canvas.plan.gpus import GPU_FLOPS, forward_flops
from canvas.plan.profile import GIB, parameters

CORE_FLOPS = 8e9
"""Of a CPU core in k-means of few clusters, sustained, as bench/styles.py measured; of many it is more."""

PASSES = 10
"""Of MiniBatchKMeans over the vectors until its centres rest, at most about so many."""

Row = tuple[str, str, str]
"""Name, value and arithmetic."""


def embedding_rows(uve: UveSpec, clip: ClipSpec, vectors: int) -> list[Row]:
    """Of embedding so many pins."""
    with torch.device("meta"):
        network = build_uve(dataclasses.replace(uve, init_from=None)).eval()
        tower = build_clip(dataclasses.replace(clip, init_from=None)).eval()
        own = forward_flops(network, torch.zeros(1, 3, uve.image_size, uve.image_size))
        other = forward_flops(tower, torch.zeros(1, 3, clip.image_size, clip.image_size), call=tower.encode_image)
    row = 4 * uve.embed_dim + uve.embed_dim // 8 + 4 * clip.embed_dim
    hours = vectors * (own + other) / GPU_FLOPS / 3600
    return [
        ("UVE, parameters", f"{parameters(network):,}", uve.trunk),
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


def clustering_rows(spec: ClusterSpec, vectors: int, width: int, cores: float) -> list[Row]:
    """Of clustering so many vectors with each of the spec's numbers."""
    passes = PASSES + 1 if spec.batch_size else 30 * spec.restarts
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
