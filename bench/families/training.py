"""Denoisers of both families, trained on product inpainting from scratch for so many seconds."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench.measurement import ROOT, run_stage
from canvas.clip.model import compute_text_widths
from canvas.denoiser.dit.spec import DitSpec
from canvas.denoiser.family import Denoiser
from canvas.denoiser.loading import add_inpaint_channels, build_denoiser, save_denoiser
from canvas.denoiser.spec import DenoiserSpec, WholeTraining
from canvas.denoiser.training import DenoiserTrainer
from canvas.shards.rows import ShardRows, has_product
from canvas.vae.model import get_scale_factor, load_vae
from lifecycle.declare.graph import load_stage
from lifecycle.declare.params import Sections, load_sections, read_sections, read_stage_params
from lifecycle.declare.profiles import merge_sections
from lifecycle.run.ranks import SilentLog

CALIBRATION_STEPS = 12
"""Steps of the run that tells how many fit into the seconds: the median of four windows."""

MAX_SINGLE_BLOCKS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """A denoiser to train: its name in tables, the params of its profile, and its sizes."""

    name: str
    sections: Sections
    spec: DenoiserSpec
    parameters: int  # of the inpainting form
    text_encoders: Path | None = None  # that its prompts are read with; None: the run's
    shards: Path | None = None  # encoded with them; None: as its params encode


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What one training leaves: a directory that `load_denoiser` and `load_scheduler` read, and its figures."""

    folder: Path
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a finished run lies, and where this bench works."""

    root: Path
    work: Path

    @property
    def vae(self) -> Path:
        """The autoencoder of the run."""
        return self.root / "models" / "vae"

    def find_shards(self, sections: Sections) -> Path:
        """Return shards as these params encode them: the run's, if they are those of its own, or encoded here."""
        if sections["encode"] == load_sections(root=ROOT)["encode"] and (self.root / "artifacts" / "shards").is_dir():
            return self.root / "artifacts" / "shards"
        name = hashlib.sha256(json.dumps(sections["encode"], sort_keys=True).encode()).hexdigest()[:12]
        place = self.work / f"encoded-{name}"
        if not (place / "artifacts" / "shards").is_dir():
            run_stage("encode", sections, place, self.root)
        return place / "artifacts" / "shards"


def read_denoiser_spec(sections: Sections) -> DenoiserSpec:
    """Return the denoiser of params, which starts from random weights here."""
    spec: DenoiserSpec = read_stage_params(load_stage("train_base"), sections)["denoiser"]
    return replace(spec, init_from=None)


def list_contestants(profile: str, sources: Sources) -> list[Contestant]:
    """Return the UNet of a profile, its transformer, and one of the UNet's parameters.

    The family that the profile has not is that of `profiles/unet.yaml` or `profiles/dit.yaml` over it.
    """
    with_unet, with_dit = (load_family_sections(profile, kind) for kind in ("unet", "dit"))
    unet, dit = read_denoiser_spec(with_unet), read_denoiser_spec(with_dit)

    def count(spec: DenoiserSpec) -> int:
        return count_parameters(spec, with_unet, sources.vae)

    equal = match_parameters(dit, count(unet), count)
    return [
        Contestant(name=name, sections=sections, spec=spec, parameters=count(spec))
        for name, sections, spec in (
            ("unet", with_unet, unet),
            ("dit", with_dit, dit),
            ("dit, parameters of unet", with_dit, equal),
        )
    ]


def load_family_sections(profile: str, kind: str) -> Sections:
    """Return the params of a profile with a denoiser of that kind."""
    sections = load_sections(profile, ROOT)
    return sections if sections["denoiser"]["kind"] == kind else load_sections(f"{profile}+{kind}", ROOT)


def list_recipes(profile: str, files: Sequence[Path], sources: Sources) -> list[Contestant]:
    """Return the transformer with each overlay of `files` alone over its profile, named after the file."""
    contestants = []
    for file in files:
        sections = merge_sections(load_family_sections(profile, "dit"), read_sections(file))
        spec = read_denoiser_spec(sections)
        parameters = count_parameters(spec, sections, sources.vae)
        contestants.append(Contestant(name=file.stem, sections=sections, spec=spec, parameters=parameters))
    return contestants


def match_parameters(spec: DenoiserSpec, target: int, count: Callable[[DenoiserSpec], int]) -> DenoiserSpec:
    """Return the transformer with the number of single blocks at which its parameters are nearest to `target`."""
    assert isinstance(spec.dit, DitSpec)
    candidates = (replace(spec, dit=replace(spec.dit, single_blocks=number)) for number in range(MAX_SINGLE_BLOCKS))
    return min(candidates, key=lambda candidate: abs(count(candidate) - target))


def count_parameters(spec: DenoiserSpec, sections: Sections, vae: Path) -> int:
    """Return the parameters of the inpainting denoiser, which is built without memory."""
    autoencoder = load_vae(vae)
    params = read_stage_params(load_stage("encode"), sections)
    text_width, pooled_width = compute_text_widths(params["text"])
    with torch.device("meta"):
        model = build_new(
            spec,
            side=params["frames"].side,
            vae=autoencoder,
            text_width=text_width,
            pooled_width=pooled_width,
        )
    return sum(weight.numel() for weight in model.parameters())


def build_new(spec: DenoiserSpec, *, side: int, vae: Any, text_width: int, pooled_width: int) -> Denoiser:
    """Return an inpainting denoiser of random weights for frames of `side` pixels."""
    cell = get_scale_factor(vae)
    network = build_denoiser(
        spec,
        latent_channels=vae.config["latent_channels"],
        sample_size=side // cell,
        text_width=text_width,
        pooled_width=pooled_width,
    )
    return add_inpaint_channels(network, cell)


def train_for_seconds(contestant: Contestant, seconds: float, seed: int, sources: Sources) -> Trained:
    """Train a contestant with the params of train_inpaint on product masks: so many steps that they take `seconds`.

    How many is measured first, by a short run of its own. The learning rate's schedule goes over all steps.
    """
    params = read_stage_params(load_stage("train_inpaint"), contestant.sections)
    rows = ShardRows(contestant.shards or sources.find_shards(contestant.sections))
    side = read_stage_params(load_stage("encode"), contestant.sections)["frames"].side
    training = replace(params["training"], seed=seed, effort=1.0)

    def run(steps: int, place: Path) -> tuple[Denoiser, DenoiserTrainer, Any]:
        trainer = DenoiserTrainer(
            shorten_training(params["train_inpaint"], steps),
            training,
            params["held_out"],
            params["sample_sheet"],
            params["diffusion"],
            vae_path=sources.vae,
            rows=rows,
            masks="product",
            selects=has_product,
            alignment=params["train_inpaint"].feature_alignment,
        )
        torch.manual_seed(seed)
        widths = {"text_width": rows.get_shape("text_states")[-1], "pooled_width": rows.get_shape("text_pooled")[-1]}
        network = build_new(contestant.spec, side=side, vae=trainer.vae, **widths)
        return network, trainer, trainer.train(network, place, SilentLog())

    place = sources.work / f"{contestant.name.replace(', ', '-').replace(' ', '-')}-{seed}"
    _, _, short = run(CALIBRATION_STEPS, place / "calibration")
    batch = params["train_inpaint"].train.batch_size
    steps = max(1, round(seconds * short.result.images_per_second / batch))
    clock = time.perf_counter()
    network, trainer, training_run = run(steps, place / "training")
    wall = time.perf_counter() - clock
    save_denoiser(network, place / "model")
    trainer.scheduler.save_pretrained(place / "model" / "scheduler")
    figures = {
        "steps": float(steps),
        "images": float(steps * batch),
        "images_per_second": training_run.result.images_per_second,
        "training_seconds": steps * batch / training_run.result.images_per_second,
        "wall_seconds": wall,  # with the held-out losses and the sheet of samples
        "held_out_loss": training_run.held_out_losses[training_run.average],
    }
    return Trained(folder=place / "model", figures=figures)


def shorten_training(params: WholeTraining, steps: int) -> WholeTraining:
    """Return the params of a training of exactly so many steps, with one checkpoint and sample, both at its end."""
    assert params.train is not None, "a stage without training has nothing to shorten"
    warmup = min(round(params.train.warmup_steps * steps / params.train.steps), steps)
    override: Any = {**params.train.override, "checkpoints": 1, "samples": 1, "log_every": min(20, max(1, steps // 4))}
    return replace(params, train=replace(params.train, steps=steps, warmup_steps=warmup, override=override))
