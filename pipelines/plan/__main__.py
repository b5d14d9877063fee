"""`python -m pipelines.plan --profile NAME`: parameters, memory of GPUs and machines, bytes on disk, hours.

Every model is built on the meta device, where tensors have shapes and no memory; activations and operations are counted
by running it there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import nn

from canvas.clip.spec import ClipSpec
from canvas.denoiser.image_prompt import IMAGE_TOKENS
from canvas.denoiser.spec import LoraSpec
from canvas.shards.spec import EncodingSpec
from canvas.styles.clusters import ClusterSpec
from canvas.train.spec import Train
from canvas.uve.spec import UveSpec
from lifecycle.declare.params import load_sections, read_sections
from pipelines.plan.activations import Activations, measure_activations, run_denoiser
from pipelines.plan.disk import build_checkpoint_rows, build_generated_row, build_pin_rows
from pipelines.plan.durations import build_clustering_rows, build_embedding_rows, build_encoding_rows
from pipelines.plan.gpus import (
    MemoryRow,
    build_decoder_training,
    build_replicated_rows,
    build_sampling_rows,
    build_sharded_rows,
    compute_decoder_gpus,
)
from pipelines.plan.machines import Machine, Machines, compute_stage_memory
from pipelines.plan.profile import (
    GIB,
    Models,
    Run,
    Section,
    build_models,
    compute_embedding_width,
    count_parameters,
    denoiser_spec,
    read_run,
    read_specs,
    reader_of,
)

Block = list[str]
"""Lines that stand together."""


def count_image_prompt_parameters(denoiser: nn.Module, image_width: int) -> int:
    """Number of parameters of the adapter that reads embeddings of so many numbers: the projection to tokens and
    their norm, keys and values of each cross-attention layer."""
    layers = [module for name, module in denoiser.named_modules() if name.endswith("attn2")]
    states = layers[0].to_k.in_features
    return (
        (image_width + 1) * IMAGE_TOKENS * states + 2 * states + sum(2 * states * layer.inner_dim for layer in layers)
    )


def build_parameter_rows(models: Models, image_width: int) -> list[tuple[str, int]]:
    """Name and number of parameters of each network."""
    rows = [
        ("denoiser, text-to-image", count_parameters(models.denoiser)),
        ("denoiser, inpainting", count_parameters(models.inpaint)),
        ("LoRA on all its layers", count_parameters(models.lora, trainable=True)),
        ("image prompts", count_image_prompt_parameters(models.inpaint, image_width)),
        ("autoencoder", count_parameters(models.vae)),
        ("conditional decoder", count_parameters(models.decoder)),
        ("reward model", count_parameters(models.reward)),
    ]
    for name, clip in zip(("first", "second"), models.clips, strict=True):
        picture = sum(weight.numel() for key, weight in clip.named_parameters() if key.startswith("visual."))
        text = count_parameters(clip) - picture - 1  # the temperature belongs to neither
        rows += [(f"{name} encoder, text tower", text), (f"{name} encoder, image tower", picture)]
    return rows


def list_uncounted_networks(section: Section) -> Block:
    """A line on each network that is loaded whole from elsewhere: what it is cannot be told from the params."""
    lines = []
    for name in ("segmenter", "captioner"):
        if (source := section(f"train_{name}.init_from", str | None)) is not None:
            how = "as it is" if section(f"train_{name}.train", Train | None) is None else "tuned"
            lines.append(f"  {name:28}{'not counted':>16}  {source} {how}, on one GPU")
    return lines


def count_trained_parameters(section: Section, models: Models, run: Run) -> dict[str, int]:
    """Parameters that the stages train whose averages are kept."""
    lora, prompts = (
        count_parameters(models.lora, trainable=True),
        count_image_prompt_parameters(models.inpaint, run.image_width),
    )
    beside: LoraSpec | None = section("train_ip_adapter.lora", LoraSpec | None)
    return {
        "train_base": count_parameters(models.denoiser),
        "train_inpaint": count_parameters(models.inpaint),
        "train_backdrop": lora,
        "train_ip_adapter": prompts + (lora * beside.rank // run.lora_rank if beside else 0),
    }


def format_memory(title: str, rows: Sequence[MemoryRow], used: Activations, pictures: int) -> Block:
    saved = pictures * (used.bytes - used.recomputed_bytes) / GIB
    return [
        f"Memory of each GPU, {title}",
        *(f"  {part:14}{size / GIB:>9.2f} GiB  {why}".rstrip() for part, why, size in rows),
        f"  {saved:.2f} GiB less if every block were run again in the backward pass",
    ]


def format_table(title: str, rows: Sequence[tuple[str, str, str]]) -> Block:
    return [title, *(f"  {name:18}{value:>18}  {why}" for name, value, why in rows)]


def format_plan(section: Section, machines: Machines, run: Run, vectors: int) -> str:
    """The whole plan as text: for the run, and so many pins that are embedded."""
    specs = read_specs(section)
    models = build_models(specs, run)
    counts = build_parameter_rows(models, run.image_width)
    blocks = [
        ["Parameters", *(f"  {name:28}{count:>16,}" for name, count in counts), *list_uncounted_networks(section)]
    ]

    for title, model in (
        ("inpainting denoiser, all weights trained", models.inpaint),
        (f"LoRA of rank {run.lora_rank}, base frozen", models.lora),
    ):
        used = measure_activations(model, partial(run_denoiser, model))
        blocks.append(format_memory(title, build_sharded_rows(model, used, run), used, run.batch))

    gpus, pictures = compute_decoder_gpus(section, machines("gpus").gpus)
    training = build_decoder_training(section, models, specs.vae, run.side)
    used = training.activations()
    rows = build_replicated_rows(training, used, pictures, gpus)
    blocks.append(format_memory(f"conditional decoder, on {gpus}", rows, used, pictures))
    blocks.append(format_table("Painting latents for the decoder", build_sampling_rows(section, models.inpaint, gpus)))

    of_pin = build_pin_rows(specs, run)
    blocks.append(
        [
            "Bytes of each pin in the shards",
            *(f"  {name:14}{size:>12,}  {why}" for name, why, size in of_pin),
            f"  {run.pins:,} pins: {of_pin[-1][2] * run.pins / 1e12:,.1f} TB",
        ]
    )
    runs = {
        stage: (denoiser_spec(section, stage), count)
        for stage, count in count_trained_parameters(section, models, run).items()
    }
    kept = [*build_checkpoint_rows(runs), build_generated_row(section, training.latents)]
    blocks.append(
        ["Disk of a stage until it ends", *(f"  {name:30}{size / 1e12:>8.3f} TB  {why}" for name, why, size in kept)]
    )
    in_memory = compute_stage_memory(section, machines, count_parameters(models.inpaint), vectors)
    blocks.append(["Memory of a machine", *(one.line() for one in in_memory)])

    rows_of = build_encoding_rows(section("encode", EncodingSpec), models, run.side, vectors, machines("gpus").gpus)
    blocks.append(format_table(f"Encoding {vectors:,} pins", rows_of))
    uve, clip = section("uve", UveSpec), section("text.second", ClipSpec)
    blocks.append(format_table(f"Embedding {vectors:,} pins", build_embedding_rows(uve, clip, vectors)))
    mined = min(vectors, section("mine_styles.pins", int))
    width = compute_embedding_width(section, section("mine_styles.source", str))
    rows_of = build_clustering_rows(
        section("mine_styles.clusters", ClusterSpec), mined, width, machines("memory").cores
    )
    blocks.append(format_table(f"Clustering {mined:,} vectors", rows_of))
    return "\n\n".join("\n".join(lines) for lines in blocks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan; the exit status."""
    parser = argparse.ArgumentParser(prog="pipelines.plan", description="What a run needs before it is started.")
    parser.add_argument("--profile", default="canvas-xl")
    parser.add_argument("--cluster", type=Path, default=Path("pipelines/cluster.yaml"), help="what its machines have")
    parser.add_argument("--gpus", type=int, default=64, help="that train a denoiser")
    parser.add_argument("--pins", type=int, default=1_500_000_000)
    parser.add_argument("--vectors", type=int, default=10_000_000, help="pins that are embedded and clustered")
    options = parser.parse_args(arguments)
    try:
        section = reader_of(load_sections(options.profile), f"profile {options.profile!r}")
        cluster = reader_of(read_sections(options.cluster), str(options.cluster))
        run = read_run(section, options.gpus, options.pins)
        print(format_plan(section, lambda name: cluster(f"cluster.machines.{name}", Machine), run, options.vectors))
    except (ValueError, OSError) as error:
        print(f"pipelines.plan: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
