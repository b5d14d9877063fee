"""What it takes to embed a catalogue and to cluster it: arithmetic before anything is started."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from canvas.data.clusters import ClusterSpec
from canvas.models.text import build_clip
from canvas.models.text_spec import ClipSpec
from canvas.models.uve import build_uve
from canvas.models.uve_spec import UveSpec

GIB = 2**30

GPU_FLOPS = 100e12
"""Assumed of a GPU in half precision, sustained: about a third of an A100's peak."""

CORE_FLOPS = 8e9
"""Of a CPU core in k-means of few clusters, sustained, as bench/styles.py measured; of many it is more."""

COPIES = 4
"""Of the descriptors at once: as they are joined, centred, without their products' means, at unit length."""

CORES = 64
"""Of the machine that clusters."""

PASSES = 10
"""Of MiniBatchKMeans over the vectors until its centres rest, at most about so many."""


def forward_flops(module: nn.Module, *arguments: torch.Tensor, call: Callable[..., Any] | None = None) -> int:
    """Floating-point operations of one forward pass, multiplications and additions counted apart; on the meta device
    nothing is computed."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        (call or module)(*arguments)
    return int(counter.get_total_flops())


def embedding_rows(uve: UveSpec, clip: ClipSpec, vectors: int) -> list[tuple[str, str, str]]:
    """Name, value and arithmetic of embedding so many pins."""
    with torch.device("meta"):
        network = build_uve(dataclasses.replace(uve, init_from=None)).eval()
        tower = build_clip(dataclasses.replace(clip, init_from=None)).eval()
        own = forward_flops(network, torch.zeros(1, 3, uve.image_size, uve.image_size))
        other = forward_flops(tower, torch.zeros(1, 3, clip.image_size, clip.image_size), call=tower.encode_image)
    parameters = sum(weight.numel() for weight in network.parameters())
    row = 4 * uve.embed_dim + uve.embed_dim // 8 + 4 * clip.embed_dim
    hours = vectors * (own + other) / GPU_FLOPS / 3600
    return [
        ("UVE, parameters", f"{parameters:,}", uve.trunk),
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


def source_width(uve: UveSpec, clip: ClipSpec, source: str) -> int:
    """Of an embedding "uve", "clip" or "uve+clip"."""
    return sum({"uve": uve.embed_dim, "clip": clip.embed_dim}[name] for name in source.split("+"))


def clustering_rows(
    uve: UveSpec, clip: ClipSpec, source: str, spec: ClusterSpec, vectors: int
) -> list[tuple[str, str, str]]:
    """Name, value and arithmetic of clustering so many vectors with each of the spec's numbers."""
    width = source_width(uve, clip, source)
    stored = 4 * (uve.embed_dim + clip.embed_dim + COPIES * width) * vectors
    rows = [
        (
            "memory",
            f"{stored / GIB:,.1f} GiB",
            f"{vectors:,} x ({uve.embed_dim} + {clip.embed_dim} + {COPIES} x {width}) x 4 bytes: UVE, CLIP, and "
            "descriptors while they are made",
        )
    ]
    passes = PASSES + 1 if spec.batch_size else 30 * spec.restarts
    for number in spec.numbers:
        flops = 2.0 * vectors * number * width * passes
        rows.append(
            (
                f"{number:,} clusters",
                f"{flops / CORE_FLOPS / CORES / 60:,.1f} minutes",
                f"2 x {vectors:,} x {number:,} x {width} x {passes} passes on {CORES} cores at "
                f"{CORE_FLOPS / 1e9:.0f} GFLOP/s each, if all help",
            )
        )
    return rows


def embedding_plan(section: Callable[[str, type[Any]], Any], vectors: int) -> str:
    """The plan as text; `section` reads the profile."""
    uve, clip = section("uve", UveSpec), section("text.second", ClipSpec)
    spec, source = section("mine_styles.clusters", ClusterSpec), section("mine_styles.source", str)
    lines = [f"Embedding {vectors:,} pins"]
    lines += [f"  {name:18}{value:>18}  {why}" for name, value, why in embedding_rows(uve, clip, vectors)]
    lines += ["", f"Clustering {vectors:,} vectors"]
    lines += [
        f"  {name:18}{value:>18}  {why}" for name, value, why in clustering_rows(uve, clip, source, spec, vectors)
    ]
    return "\n".join(lines)
