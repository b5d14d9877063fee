"""What a GPU holds while it trains a denoiser: needs torch and the library alone, so `make gpu` can measure it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from canvas.train.distributed import list_shard_units
from canvas.train.optimizers import list_block_parameters
from canvas.train.spec import TrainSpec
from pipelines.plan.activations import Activations

GIB = 2**30

RESERVED = 1.5 * GIB
"""Bytes of a GPU's memory for CUDA's context, libraries' workspaces and gaps between blocks: assumed."""

MOMENT_BYTES = {"adamw": 4.0, "adamw8bit": 1 + 4 / 256, "muon": 4.0}
"""Bytes a number of a moment; those of 8 bits share a float32 scale among 256."""

SizeRow = tuple[str, str, float]  # part, arithmetic and bytes


def append_total(rows: list[SizeRow]) -> list[SizeRow]:
    return [*rows, ("total", "", sum(size for _, _, size in rows))]


def count_parameters(module: nn.Module, trainable: bool = False) -> int:
    """Return the number of parameters, or of those that are trained."""
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad or not trainable)


def build_denoiser_rows(
    model: nn.Module, activations: Activations, train: TrainSpec, *, images: int, gpus: int
) -> list[SizeRow]:
    """Return what each of so many GPUs holds that trains `model` as `train` says, with so many images at once."""
    whole, trained, shared = count_parameters(model), count_parameters(model, trainable=True), train.parallel == "fsdp"
    parts = gpus if shared else 1
    among, moment = (
        (f" / {gpus} GPUs", MOMENT_BYTES[train.optimizer]) if shared else ("", MOMENT_BYTES[train.optimizer])
    )
    rows: list[SizeRow] = [("weights", f"{whole:,} x 4 bytes{among}", whole * 4 / parts)]
    if not shared and gpus > 1:
        rows.append(("gradients", f"{trained:,} x 4 bytes x 2 (DDP's buckets)", trained * 8.0))
    else:
        rows.append(("gradients", f"{trained:,} x 4 bytes{among}", trained * 4 / parts))
    moments = 2 * trained - (count_block_matrices(model) if train.optimizer == "muon" else 0)
    averages, kept = len(train.ema), activations.bytes
    rows += [
        ("optimizer", f"{moments:,} moments x {moment:g} bytes{among}", moments * moment / parts),
        ("averages", f"{trained:,} x {averages} x 4 bytes{among}", trained * 4 * averages / parts),
    ]
    unit = count_largest_unit(model)
    if train.gradient_checkpointing:
        kept = activations.recomputed_bytes
    if shared:
        rows.append(("gathered unit", f"{unit:,} x 2 bytes x 2 (this and the next)", unit * 4.0))
    elif train.precision != "fp32":  # autocast's; of what is frozen the backward pass keeps them, if it keeps a block
        copied = trained + (unit if train.gradient_checkpointing else whole - trained)
        rows.append(("half copies", f"{copied:,} x 2 bytes", copied * 2.0))
    if train.precision == "fp32":
        kept *= 2
    return append_total([*rows, ("activations", f"{images} x {kept:,} bytes", float(images * kept))])


def count_block_matrices(model: nn.Module) -> int:
    """Return the trained parameters of which Muon keeps one moment: matrices of blocks."""
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    return sum(trained[name].numel() for name in list_block_parameters(model, trained) if trained[name].ndim == 2)


def count_largest_unit(model: nn.Module) -> int:
    """Return the parameters of the largest part that FSDP gathers at once; units inside a unit are gathered apart."""
    counted: set[int] = set()
    sizes = []
    for unit in [*list_shard_units(model), model]:  # innermost first
        unit_weights = [weight for weight in unit.parameters() if id(weight) not in counted]
        counted.update(map(id, unit_weights))
        sizes.append(sum(weight.numel() for weight in unit_weights))
    return max(sizes)


def explain_misfit(
    stage: str,
    model: nn.Module,
    activations: Activations,
    train: TrainSpec,
    *,
    gpus: int,
    gpu_memory: float,
) -> str | None:
    """Return why `stage` does not fit GPUs of so many bytes, and the least change that makes it; None: it fits."""

    def compute_need(spec: TrainSpec) -> list[SizeRow]:
        images = spec.batch_size // (gpus * spec.accumulate)
        return build_denoiser_rows(model, activations, spec, images=images, gpus=gpus)

    rows = compute_need(train)
    if rows[-1][2] + RESERVED <= gpu_memory:
        return None
    part, _, size = max(rows[:-1], key=lambda row: row[2])
    needs = (
        f"{stage} needs {(rows[-1][2] + RESERVED) / GIB:.1f} GiB of a GPU that has {gpu_memory / GIB:.1f}, "
        f"{size / GIB:.1f} of them for {part}"
    )
    changes: dict[str, Any] = {}
    for change in list_savings(train, gpus):
        changes |= change
        if compute_need(replace(train, **changes))[-1][2] + RESERVED <= gpu_memory:
            values = ", ".join(f"{key}: {str(value).lower()}" for key, value in changes.items())
            return f"{needs}: set {stage}.train.override {{{values}}}"
    if count_parameters(model, trainable=True) < count_parameters(model):
        return f"{needs}: use more GPUs and parallel: fsdp, or one with more memory"
    return f"{needs}: train a LoRA (train_backdrop) with {stage}.train null, or use more GPUs and parallel: fsdp"


def list_savings(train: TrainSpec, gpus: int) -> Iterator[Mapping[str, Any]]:
    """Yield what saves memory and is not set yet, the cheapest in time first."""
    smallest = train.batch_size // gpus
    for accumulate in range(train.accumulate + 1, smallest + 1):
        if smallest % accumulate == 0 and smallest // accumulate >= 4:
            yield {"accumulate": accumulate}
    if not train.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    if train.optimizer == "adamw" and train.parallel != "fsdp":
        yield {"optimizer": "adamw8bit"}
    for accumulate in range(train.accumulate + 1, smallest + 1):
        if smallest % accumulate == 0 and smallest // accumulate < 4:
            yield {"accumulate": accumulate}
