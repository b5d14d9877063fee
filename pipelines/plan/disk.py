"""What is written to disk: the shards, and what a run keeps until its stage ends."""

from __future__ import annotations

from collections.abc import Mapping

from canvas.clip.model import compute_text_widths
from canvas.denoiser.unet import SIZE_IDS
from canvas.train.checkpoint import MAX_CHECKPOINTS
from canvas.train.spec import TrainSpec
from pipelines.plan.profile import Run, Section, Specs

DiskRow = tuple[str, str, int]
"""Name, arithmetic and bytes."""


def build_pin_rows(specs: Specs, run: Run) -> list[DiskRow]:
    """Columns of a pin in the shards; numbers in half precision. Each view of a pin has all of them."""
    cells = (run.side // specs.vae.factor) ** 2
    channels, length = specs.vae.latent_channels, specs.text.first.context_length
    width, pooled = compute_text_widths([specs.text.first, specs.text.second])
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
    view = sum(size for _, _, size in rows)
    return [*rows, ("total", f"{view:,} bytes x {run.views}, its views if it is of the train split", run.views * view)]


def build_generated_row(section: Section, latents: tuple[int, int, int]) -> DiskRow:
    """Latents of float32 that the decoder learns on and is scored on."""
    learnt, scored = (section(f"train_decoder.{name}", int) for name in ("painted_pins", "scored_pins"))
    channels, height, width = latents
    why = f"({learnt:,} + {scored:,} held out) x {channels} x {height * width} x 4 bytes"
    return "train_decoder, painted", why, (learnt + scored) * channels * height * width * 4


def build_checkpoint_rows(trained: Mapping[str, tuple[TrainSpec, int]]) -> list[DiskRow]:
    """Averages, which are kept at every checkpoint, and the checkpoints themselves, of stages that train so many
    float32 parameters."""
    rows = []
    for stage, (train, count) in trained.items():
        times, lengths = train.steps // train.checkpoint_every, len(train.ema)
        rows += [
            (
                f"{stage}, averages",
                f"{train.steps:,} / {train.checkpoint_every:,} steps x {lengths} x {count:,} x 4 bytes",
                times * lengths * count * 4,
            ),
            (
                f"{stage}, checkpoints",
                f"({MAX_CHECKPOINTS} + 1 being written) x {count:,} x (4 + 2 moments x 4) bytes",
                (MAX_CHECKPOINTS + 1) * count * 12,
            ),
        ]
    return rows
