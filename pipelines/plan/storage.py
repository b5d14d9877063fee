"""What stages hold in the memory of their machine and write to disk, where it grows with the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from canvas.clip.model import compute_text_widths
from canvas.denoiser.family import SIZE_IDS
from canvas.features.photographs import WIDTHS
from canvas.train.checkpoint import MAX_CHECKPOINTS
from canvas.train.spec import TrainSpec
from lifecycle.declare.stage import Machine, Stage
from lifecycle.run.ranks import is_parallel
from pipelines.cluster import Cluster, MachineClass
from pipelines.plan.memory import GIB, SizeRow
from pipelines.plan.profile import Profile, read_arguments


@dataclass(frozen=True, kw_only=True, slots=True)
class StageMemory:
    """What a stage holds at most, as it states it beside its code."""

    stage: str
    when: str
    bytes: int  # of one process
    arithmetic: str
    processes: int
    kind: Machine
    machine: MachineClass

    @property
    def share(self) -> float:
        """Share of the machine's memory that all its processes hold."""
        return self.bytes * self.processes / self.machine.memory_bytes

    def format_line(self) -> str:
        """Return the line of the plan."""
        name, whole = ", ".join(filter(None, (self.stage, self.when))), self.bytes * self.processes / GIB
        processes = "" if self.processes == 1 else f"{self.processes} processes x "
        room = f"{self.share:.0%} of {self.machine.memory} ({self.kind}){', too much' if self.share > 1 else ''}"
        return f"  {name:24}{whole:>10,.1f} GiB  {processes}{self.arithmetic}: {room}"

    def format_refusal(self) -> str:
        """Return why the stage does not fit its machine, and the fix."""
        return (
            f"{self.stage} holds {self.bytes * self.processes / GIB:,.1f} GiB of a machine {self.kind!r} that has "
            f"{self.machine.memory}: give it fewer pins in params, or the class more memory in cluster.yaml"
        )


def compute_stage_memory(
    stages: Sequence[Stage[Any]], sections: Mapping[str, Any], cluster: Cluster, **sizes: object
) -> Iterator[StageMemory]:
    """Yield what the stages hold that estimate it; `sizes` are `pins` and `weights` (`MemoryEstimate`)."""
    for stage in stages:
        if stage.memory is None:
            continue
        machine: MachineClass = getattr(cluster.machines, stage.machine)
        spread = machine.gpus > 1 and is_parallel({section: sections[section] for section in stage.params})
        for when, size, arithmetic in stage.memory(**read_arguments(stage.memory, sections, **sizes)):
            yield StageMemory(
                stage=stage.name,
                when=when,
                bytes=size,
                arithmetic=arithmetic,
                processes=machine.gpus if spread else 1,
                kind=stage.machine,
                machine=machine,
            )


def build_pin_rows(profile: Profile) -> list[SizeRow]:
    """Return the columns of a pin in the shards, numbers in half precision. Each view of a pin has all of them."""
    first, second, encode, masks = profile.text.first, profile.text.second, profile.encode, profile.masks
    cells, channels = (profile.frames.side // profile.vae.factor) ** 2, profile.vae.latent_channels
    hole = 1 if encode.holes == "cells" else profile.vae.factor**2
    captions, length, (width, pooled) = encode.captions, profile.text_tokens, compute_text_widths(profile.text)
    rows = [
        ("moments", f"2 x {channels} x {cells} x 2 bytes", 2 * channels * cells * 2),
        ("text states", f"{captions} x {length} x {width} x 2 bytes", captions * length * width * 2),
        ("pooled text", f"{captions} x {pooled} x 2 bytes", captions * pooled * 2),
        ("masked latents", f"{masks} x {channels} x {cells} x 2 bytes", masks * channels * cells * 2),
        ("holes", f"{masks} x {hole} x {cells} x 2 bytes", masks * hole * cells * 2),
        ("image", f"({first.embed_dim} + {second.embed_dim}) x 2 bytes", (first.embed_dim + second.embed_dim) * 2),
        ("sizes", f"{SIZE_IDS} x 4 bytes", SIZE_IDS * 4),
    ]
    if (features := encode.features) is not None:
        towers = {"first": first.vision_width, "second": second.vision_width}
        wide = towers.get(features.network) or WIDTHS[features.layer]
        places = cells // features.cells**2
        rows.append(("features", f"{wide} x {places} x 2 bytes", wide * places * 2))
    view = sum(size for _, _, size in rows)
    why = f"{view:,} bytes x {encode.views}, its views if it is of the train split"
    return [*rows, ("total", why, encode.views * view)]


def build_generated_rows(profile: Profile) -> Iterator[SizeRow]:
    """Yield the latents of float32 that the decoder learns on and is scored on, if it is trained."""
    if profile.train_decoder.train is None:
        return
    learnt, scored = profile.train_decoder.painted_pins, profile.train_decoder.scored_pins
    channels, cells = profile.vae.latent_channels, (profile.frames.side // profile.vae.factor) ** 2
    why = f"({learnt:,} + {scored:,} held out) x {channels} x {cells} x 4 bytes"
    yield "train_decoder, generated", why, (learnt + scored) * channels * cells * 4


def build_checkpoint_rows(trainings: Mapping[str, tuple[TrainSpec, int]]) -> Iterator[SizeRow]:
    """Yield averages, which are kept at every checkpoint, and the checkpoints themselves, of stages that train so many
    float32 parameters."""
    for stage, (train, count) in trainings.items():
        yield (
            f"{stage}, averages",
            f"{train.steps:,} / {train.checkpoint_every:,} steps x {len(train.ema)} x {count:,} x 4 bytes",
            train.steps // train.checkpoint_every * len(train.ema) * count * 4,
        )
        yield (
            f"{stage}, checkpoints",
            f"({MAX_CHECKPOINTS} + 1 being written) x {count:,} x (4 + 2 moments x 4) bytes",
            (MAX_CHECKPOINTS + 1) * count * 12,
        )
