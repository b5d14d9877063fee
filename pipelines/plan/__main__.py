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
from canvas.denoiser.image_prompt import TOKENS
from canvas.denoiser.training_spec import LoraSpec
from canvas.shards.spec import EncodingSpec
from canvas.styles.clusters import ClusterSpec
from canvas.train.spec import Train
from canvas.uve.spec import UveSpec
from lifecycle.declare.params import load_sections, read_sections
from pipelines.plan.activations import Activations, activations, predict
from pipelines.plan.disk import checkpoint_rows, painted_row, pin_rows
from pipelines.plan.embedding import clustering_rows, embedding_rows, encoding_rows
from pipelines.plan.gpus import (
    MemoryRow,
    decoder_gpus,
    decoder_training,
    painting_rows,
    replicated_rows,
    sharded_rows,
)
from pipelines.plan.machines import Machine, Machines, held
from pipelines.plan.profile import (
    GIB,
    Models,
    Run,
    Section,
    denoiser_spec,
    embedding_width,
    models_of,
    parameters,
    reader_of,
    run_in,
    specs_in,
)

Block = list[str]
"""Lines that stand together."""


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
        ("reward model", parameters(models.reward)),
    ]
    for name, clip in zip(("first", "second"), models.clips, strict=True):
        picture = sum(weight.numel() for key, weight in clip.named_parameters() if key.startswith("visual."))
        text = parameters(clip) - picture - 1  # the temperature belongs to neither
        rows += [(f"{name} encoder, text tower", text), (f"{name} encoder, image tower", picture)]
    return rows


def uncounted(section: Section) -> Block:
    """A line on each network that is loaded whole from elsewhere: what it is cannot be told from the params."""
    lines = []
    for name in ("segmenter", "captioner"):
        if (source := section(f"train_{name}.init_from", str | None)) is not None:
            how = "as it is" if section(f"train_{name}.train", Train | None) is None else "tuned"
            lines.append(f"  {name:28}{'not counted':>16}  {source} {how}, on one GPU")
    return lines


def trained(section: Section, models: Models, run: Run) -> dict[str, int]:
    """Parameters that the stages train whose averages are kept."""
    lora, prompts = parameters(models.lora, trainable=True), image_prompt_parameters(models.inpaint, run.image_width)
    beside: LoraSpec | None = section("train_ip_adapter.lora", LoraSpec | None)
    return {
        "train_base": parameters(models.denoiser),
        "train_inpaint": parameters(models.inpaint),
        "train_backdrop": lora,
        "train_ip_adapter": prompts + (lora * beside.rank // run.lora_rank if beside else 0),
    }


def memory(title: str, rows: Sequence[MemoryRow], used: Activations, pictures: int) -> Block:
    saved = pictures * (used.bytes - used.recomputed_bytes) / GIB
    return [
        f"Memory of each GPU, {title}",
        *(f"  {part:14}{size / GIB:>9.2f} GiB  {why}".rstrip() for part, why, size in rows),
        f"  {saved:.2f} GiB less if every block were run again in the backward pass",
    ]


def table(title: str, rows: Sequence[tuple[str, str, str]]) -> Block:
    return [title, *(f"  {name:18}{value:>18}  {why}" for name, value, why in rows)]


def plan(section: Section, machines: Machines, run: Run, vectors: int) -> str:
    """The whole plan as text: for the run, and so many pins that are embedded."""
    specs = specs_in(section)
    models = models_of(specs, run)
    counts = parameter_rows(models, run.image_width)
    blocks = [["Parameters", *(f"  {name:28}{count:>16,}" for name, count in counts), *uncounted(section)]]

    for title, model in (
        ("inpainting denoiser, all weights trained", models.inpaint),
        (f"LoRA of rank {run.lora_rank}, base frozen", models.lora),
    ):
        used = activations(model, partial(predict, model))
        blocks.append(memory(title, sharded_rows(model, used, run), used, run.batch))

    gpus, pictures = decoder_gpus(section, machines("gpus").gpus)
    training = decoder_training(section, models, specs.vae, run.side)
    used = training.activations()
    rows = replicated_rows(training, used, pictures, gpus)
    blocks.append(memory(f"conditional decoder, on {gpus}", rows, used, pictures))
    blocks.append(table("Painting latents for the decoder", painting_rows(section, models.inpaint, gpus)))

    of_pin = pin_rows(specs, run)
    blocks.append(
        [
            "Bytes of each pin in the shards",
            *(f"  {name:14}{size:>12,}  {why}" for name, why, size in of_pin),
            f"  {run.pins:,} pins: {of_pin[-1][2] * run.pins / 1e12:,.1f} TB",
        ]
    )
    runs = {stage: (denoiser_spec(section, stage), count) for stage, count in trained(section, models, run).items()}
    kept = [*checkpoint_rows(runs), painted_row(section, training.latents)]
    blocks.append(
        ["Disk of a stage until it ends", *(f"  {name:30}{size / 1e12:>8.3f} TB  {why}" for name, why, size in kept)]
    )
    in_memory = held(section, machines, parameters(models.inpaint), vectors)
    blocks.append(["Memory of a machine", *(one.line() for one in in_memory)])

    rows_of = encoding_rows(section("encode", EncodingSpec), models, run.side, vectors, machines("gpus").gpus)
    blocks.append(table(f"Encoding {vectors:,} pins", rows_of))
    uve, clip = section("uve", UveSpec), section("text.second", ClipSpec)
    blocks.append(table(f"Embedding {vectors:,} pins", embedding_rows(uve, clip, vectors)))
    mined = min(vectors, section("mine_styles.pins", int))
    width = embedding_width(section, section("mine_styles.source", str))
    rows_of = clustering_rows(section("mine_styles.clusters", ClusterSpec), mined, width, machines("memory").cores)
    blocks.append(table(f"Clustering {mined:,} vectors", rows_of))
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
        run = run_in(section, options.gpus, options.pins)
        print(plan(section, lambda name: cluster(f"cluster.machines.{name}", Machine), run, options.vectors))
    except (ValueError, OSError) as error:
        print(f"pipelines.plan: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
