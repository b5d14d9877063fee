"""`python -m pipelines.plan --profile NAME`: parameters, memory of GPUs and machines, bytes on disk, hours.

Every model is built on the meta device, where tensors have shapes and no memory; activations and operations are counted
by running it there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.artifacts import InpaintModel
from lifecycle.declare.graph import load_stages
from lifecycle.declare.params import load_sections
from lifecycle.terminal import ignore_broken_pipe
from pipelines.cluster import Cluster, PlannedRun, parse_quantity, read_cluster
from pipelines.plan import durations
from pipelines.plan.activations import Activations
from pipelines.plan.alignment import AlignmentPlan, list_alignment_misfits
from pipelines.plan.memory import GIB, SizeRow, count_parameters
from pipelines.plan.profile import (
    Models,
    Profile,
    build_models,
    count_image_prompt_parameters,
    count_trained_parameters,
)
from pipelines.plan.storage import build_checkpoint_rows, build_generated_rows, build_pin_rows, compute_stage_memory
from pipelines.plan.trainings import (
    DecoderRun,
    DenoiserRun,
    build_denoiser_runs,
    list_late_stages,
    list_misfits,
    parse_hours,
)
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
    if models.t5 is not None:
        rows.append(("T5's encoder", count_parameters(models.t5)))
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


def format_gpus(runs: Sequence[DenoiserRun], gpus: int) -> Iterator[Block]:
    """Yield what each of so many GPUs holds that train the denoiser, by stage."""
    for run in runs:
        rows, images = run.build_memory_rows(gpus)
        yield format_memory(f"{run.stage}, {run.title}", rows, run.activations, images)


def format_decoder(profile: Profile, models: Models, decoder: DecoderRun) -> Iterator[Block]:
    """Yield what each GPU of a machine holds that trains the decoder, and how long they generate what it learns on."""
    title = f"conditional decoder, on {decoder.gpus}"
    yield format_memory(title, decoder.build_memory_rows(), decoder.activations, decoder.images)
    yield format_table("Generating latents for the decoder", plan_decoder_sampling(profile, models, decoder))


def plan_decoder_sampling(profile: Profile, models: Models, decoder: DecoderRun) -> list[durations.Row]:
    spec = profile.train_decoder
    pins = spec.painted_pins, spec.scored_pins
    return durations.build_sampling_rows(
        spec.sampling,
        *pins,
        models.inpaint,
        side=profile.latent_side,
        gpus=decoder.gpus,
        text_tokens=profile.text_tokens,
    )


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a run needs, and why it cannot be had."""

    text: str
    refusals: list[str]


def build_plan(sections: Mapping[str, Any], cluster: Cluster, run: PlannedRun) -> Plan:
    """Return the plan of a profile's run."""
    profile, stages, machines = Profile.read(sections), load_stages(), cluster.machines
    models, gpus = build_models(profile), run.gpus
    denoisers, decoder = build_denoiser_runs(profile, models), DecoderRun.build(profile, models, machines.gpus.gpus)
    weights = {InpaintModel.path: count_parameters(models.inpaint)}
    memory = list(compute_stage_memory(stages, sections, cluster, pins=run.vectors, weights=weights))
    encoding = durations.build_encoding_rows(
        profile.encode, models, profile.frames.side, run.vectors, machines.gpus.gpus, profile.text_tokens
    )
    embedding = durations.build_embedding_rows(profile.uve, profile.text.second, run.vectors)
    spec = profile.mine_styles
    mined, width = min(run.vectors, spec.pins), profile.compute_embedding_width(spec.source)
    hours = {run.stage: run.compute_hours(gpus) for run in denoisers}
    hours |= {"encode": (parse_hours(encoding), "see above"), "embed": (parse_hours(embedding), "see above")}
    blocks = [format_parameters(profile, models), *format_gpus(denoisers, gpus)]
    if decoder is not None:
        blocks += format_decoder(profile, models, decoder)
        trained, why = decoder.compute_hours()
        hours["train_decoder"] = trained + parse_hours(plan_decoder_sampling(profile, models, decoder)), why
    alignment = AlignmentPlan.build(profile, models)
    if alignment is not None:
        aligning = alignment.build_duration_rows()
        images = alignment.train.batch_size
        blocks.append(format_memory("align", alignment.build_memory_rows(), alignment.activations, images))
        blocks.append(format_table("Alignment with rewards", aligning))
        hours["align"] = parse_hours(aligning), "see above"
    blocks += [
        *format_disk(profile, models, run.pins),
        ["Memory of a machine", *(row.format_line() for row in memory)],
        format_table(f"Encoding {run.vectors:,} pins", encoding),
        format_table(f"Embedding {run.vectors:,} pins", embedding),
        format_table(
            f"Clustering {mined:,} vectors",
            durations.build_clustering_rows(spec.clusters, mined, width, machines.memory.cores),
        ),
        format_table(
            "Hours of a stage", ((stage, f"{value:,.1f} hours", why) for stage, (value, why) in hours.items())
        ),
    ]
    return Plan(
        text="\n\n".join("\n".join(lines) for lines in blocks),
        refusals=[
            *list_misfits(denoisers, decoder, gpus=gpus, gpu_memory=parse_quantity(run.gpu_memory)),
            *list_alignment_misfits(alignment, parse_quantity(run.gpu_memory)),
            *(row.format_refusal() for row in memory if row.share > 1),
            *list_late_stages({stage: value for stage, (value, _) in hours.items()}, stages, cluster),
        ],
    )


def choose_run(profile: str, cluster: Cluster, changes: Mapping[str, Any]) -> PlannedRun:
    """Return what the profile's run is taken to be: cluster.yaml says it, or one GPU; options change it."""
    memory = cluster.machines.gpus.gpu_memory
    assert memory is not None, "a class with GPUs says their memory"
    alone = PlannedRun(gpus=1, gpu_memory=memory, pins=2500, vectors=2500)
    return replace(cluster.runs.get(profile, alone), **{key: x for key, x in changes.items() if x is not None})


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan and return the exit status."""
    parser = argparse.ArgumentParser(prog="pipelines.plan", description="What a run needs before it is started.")
    parser.add_argument("--profile", default="canvas-xl")
    parser.add_argument("--cluster", type=Path, default=CLUSTER, help="what its machines have")
    parser.add_argument(
        "--gpus", type=int, help="that train a denoiser; default, as of those below: cluster.yaml's runs"
    )
    parser.add_argument("--gpu-memory", help="of each GPU, as 24Gi")
    parser.add_argument("--pins", type=int, help="in the shards")
    parser.add_argument("--vectors", type=int, help="pins that are embedded and clustered")
    options = parser.parse_args(arguments)
    try:
        sections, cluster = load_sections(options.profile), read_cluster(options.cluster)
        changes = {key: getattr(options, key) for key in PlannedRun.__slots__}
        plan = build_plan(sections, cluster, choose_run(options.profile, cluster, changes))
        with ignore_broken_pipe():
            print(plan.text)
    except (ValueError, OSError) as error:
        print(f"pipelines.plan: {error}", file=sys.stderr)
        return 1
    for refusal in plan.refusals:
        print(f"pipelines.plan: {refusal}", file=sys.stderr)
    return 1 if plan.refusals else 0


if __name__ == "__main__":
    sys.exit(main())
