"""`python -m pipelines.plan --profile NAME`: parameters, memory of GPUs and machines, bytes on disk, hours.

Every model is built on the meta device, where tensors have shapes and no memory; activations and operations are counted
by running it there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from components.artifacts import InpaintModel
from lifecycle.declare.graph import load_stages
from lifecycle.declare.params import load_sections
from pipelines.cluster import Cluster, read_cluster
from pipelines.plan import durations
from pipelines.plan.activations import Activations, measure_activations, run_denoiser
from pipelines.plan.gpus import DecoderTraining, build_replicated_rows, build_sharded_rows, compute_decoder_gpus
from pipelines.plan.profile import (
    GIB,
    Models,
    Profile,
    SizeRow,
    build_models,
    compute_images_per_pass,
    count_image_prompt_parameters,
    count_parameters,
    count_trained_parameters,
)
from pipelines.plan.storage import build_checkpoint_rows, build_generated_rows, build_pin_rows, compute_stage_memory
from pipelines.project import CLUSTER

Block = list[str]  # lines that stand together


def format_parameters(profile: Profile, models: Models) -> Block:
    """Return a line on each network: its parameters, or where it is loaded whole from."""
    width = profile.compute_embedding_width(profile.train_ip_adapter.source)
    rows = [
        ("denoiser, text-to-image", count_parameters(models.denoiser)),
        ("denoiser, inpainting", count_parameters(models.inpaint)),
        ("LoRA on all its layers", count_parameters(models.lora, trainable=True)),
        ("image prompts", count_image_prompt_parameters(models.inpaint, width)),
        ("autoencoder", count_parameters(models.vae)),
        ("conditional decoder", count_parameters(models.decoder)),
        ("reward model", count_parameters(models.reward)),
    ]
    for name, clip in zip(("first", "second"), models.clips, strict=True):
        image = sum(weight.numel() for key, weight in clip.named_parameters() if key.startswith("visual."))
        text = count_parameters(clip) - image - 1  # the temperature belongs to neither
        rows += [(f"{name} encoder, text tower", text), (f"{name} encoder, image tower", image)]
    return ["Parameters", *(f"  {name:28}{count:>16,}" for name, count in rows), *list_uncounted_networks(profile)]


def list_uncounted_networks(profile: Profile) -> Iterator[str]:
    """Yield a line on each network that is loaded whole from elsewhere: params do not say how large it is."""
    for name, spec in (("segmenter", profile.train_segmenter), ("captioner", profile.train_captioner)):
        if spec.init_from is not None:
            how = "as it is" if spec.train is None else "tuned"
            yield f"  {name:28}{'not counted':>16}  {spec.init_from} {how}, on one GPU"


def format_memory(title: str, rows: Sequence[SizeRow], activations: Activations, images: int) -> Block:
    saved = images * (activations.bytes - activations.recomputed_bytes) / GIB
    return [
        f"Memory of each GPU, {title}",
        *(f"  {part:14}{size / GIB:>9.2f} GiB  {why}".rstrip() for part, why, size in rows),
        f"  {saved:.2f} GiB less if every block were run again in the backward pass",
    ]


def format_table(title: str, rows: Iterable[durations.Row]) -> Block:
    return [title, *(f"  {name:18}{value:>18}  {why}" for name, value, why in rows)]


def format_gpus(profile: Profile, models: Models, gpus: int) -> Iterator[Block]:
    """Yield what each of so many GPUs holds that train the denoiser, all of it or a LoRA, where they do."""
    for stage, title, model in (
        ("train_inpaint", "inpainting denoiser, all weights trained", models.inpaint),
        ("train_backdrop", f"LoRA of rank {profile.train_backdrop.lora.rank}, base frozen", models.lora),
    ):
        if (train := profile.resolve(getattr(profile, stage))) is None:
            continue
        images = compute_images_per_pass(stage, train, gpus)
        activations = measure_activations(model, partial(run_denoiser, model))
        rows = build_sharded_rows(model, activations, images=images, gpus=gpus, averages=len(train.ema))
        yield format_memory(title, rows, activations, images)


def format_decoder(profile: Profile, models: Models, machine_gpus: int) -> Iterator[Block]:
    """Yield what each GPU of a machine holds that trains the decoder, if it is trained, and how long they generate what
    it learns on."""
    if profile.train_decoder.train is None:
        return
    spec, (gpus, images) = profile.train_decoder, compute_decoder_gpus(profile, machine_gpus)
    training = DecoderTraining.build(profile, models)
    activations = training.measure_activations()
    rows = build_replicated_rows(training, activations, images, gpus)
    yield format_memory(f"conditional decoder, on {gpus}", rows, activations, images)
    sampling = durations.build_sampling_rows(spec.sampling, spec.painted_pins, spec.scored_pins, models.inpaint, gpus)
    yield format_table("Generating latents for the decoder", sampling)


def format_disk(profile: Profile, models: Models, pins: int) -> Iterator[Block]:
    """Yield the bytes of so many pins in the shards, and what stages keep until they end."""
    rows = build_pin_rows(profile)
    yield [
        "Bytes of each pin in the shards",
        *(f"  {name:14}{size:>12,}  {why}" for name, why, size in rows),
        f"  {pins:,} pins: {rows[-1][2] * pins / 1e12:,.1f} TB",
    ]
    trainings = {
        stage: (train, count)
        for stage, count in count_trained_parameters(profile, models).items()
        if (train := profile.resolve(getattr(profile, stage)))
    }
    written = [*build_checkpoint_rows(trainings), *build_generated_rows(profile)]
    yield [
        "Disk of a stage until it ends",
        *(f"  {name:30}{size / 1e12:>8.3f} TB  {why}" for name, why, size in written),
    ]


def format_machines(
    profile: Profile, models: Models, sections: Mapping[str, Any], cluster: Cluster, vectors: int
) -> Iterator[Block]:
    """Yield what stages hold in their machines where so many pins are embedded, and how long that takes."""
    weights = {InpaintModel.path: count_parameters(models.inpaint)}
    rows = compute_stage_memory(load_stages(), sections, cluster, pins=vectors, weights=weights)
    yield ["Memory of a machine", *(row.format_line() for row in rows)]
    gpus, cores, spec = cluster.machines.gpus.gpus, cluster.machines.memory.cores, profile.mine_styles
    encoding = durations.build_encoding_rows(profile.encode, models, profile.frames.side, vectors, gpus)
    yield format_table(f"Encoding {vectors:,} pins", encoding)
    yield format_table(
        f"Embedding {vectors:,} pins", durations.build_embedding_rows(profile.uve, profile.text.second, vectors)
    )
    mined, width = min(vectors, spec.pins), profile.compute_embedding_width(spec.source)
    yield format_table(
        f"Clustering {mined:,} vectors", durations.build_clustering_rows(spec.clusters, mined, width, cores)
    )


def format_plan(sections: Mapping[str, Any], cluster: Cluster, *, gpus: int, pins: int, vectors: int) -> str:
    """Return the whole plan as text."""
    profile = Profile.read(sections)
    models = build_models(profile)
    blocks = [
        format_parameters(profile, models),
        *format_gpus(profile, models, gpus),
        *format_decoder(profile, models, cluster.machines.gpus.gpus),
        *format_disk(profile, models, pins),
        *format_machines(profile, models, sections, cluster, vectors),
    ]
    return "\n\n".join("\n".join(lines) for lines in blocks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan and return the exit status."""
    parser = argparse.ArgumentParser(prog="pipelines.plan", description="What a run needs before it is started.")
    parser.add_argument("--profile", default="canvas-xl")
    parser.add_argument("--cluster", type=Path, default=CLUSTER, help="what its machines have")
    parser.add_argument("--gpus", type=int, default=64, help="that train a denoiser")
    parser.add_argument("--pins", type=int, default=1_500_000_000, help="in the shards")
    parser.add_argument("--vectors", type=int, default=10_000_000, help="pins that are embedded and clustered")
    options = parser.parse_args(arguments)
    try:
        sections, cluster = load_sections(options.profile), read_cluster(options.cluster)
        print(format_plan(sections, cluster, gpus=options.gpus, pins=options.pins, vectors=options.vectors))
    except (ValueError, OSError) as error:
        print(f"pipelines.plan: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
