"""Where denoisers come from: params, a stage's directory, the hub; and those that pass through their stages."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from canvas.denoiser.dit.family import DIT
from canvas.denoiser.family import Denoiser, DenoiserFamily
from canvas.denoiser.process import build_training_scheduler
from canvas.denoiser.schedulers import is_flow, load_scheduler
from canvas.denoiser.spec import DenoiserSpec, DiffusionSpec
from canvas.denoiser.unet.family import UNET
from canvas.hub import SOURCE_FILE, fetch_snapshot, link_files, link_model, record_source
from canvas.loading import load_safetensors
from canvas.vae.model import compute_scale_factor

FAMILIES: tuple[DenoiserFamily, ...] = (UNET, DIT)
"""All families; the only list of them."""

PREDICTIONS = {"epsilon": "eps", "v_prediction": "v"}
"""Those of diffusers' schedulers, by ours."""


def get_family(model: Denoiser) -> DenoiserFamily:
    """Return the family of a model, also of one that is sharded or has adapters."""
    return next(family for family in FAMILIES if isinstance(model, family.model_class))


def get_spec_family(spec: DenoiserSpec) -> DenoiserFamily:
    """Return the family that params describe."""
    return next(family for family in FAMILIES if family.kind == spec.kind)


def build_denoiser(spec: DenoiserSpec, **sizes: int) -> Denoiser:
    """Build a text-to-image denoiser, random or from `spec.init_from`.

    Args:
        spec: Family, widths and depths.
        sizes: As `DenoiserFamily.build_config` takes them.

    Raises:
        ValueError: The public weights are of another architecture: the spec's values would be ignored.
    """
    family = get_spec_family(spec)
    config = family.build_config(spec.sizes, **sizes)
    if spec.init_from is None:
        new: Denoiser = family.model_class(**config)
        family.initialize_weights(new, spec.sizes)
        return new
    model = load_safetensors(family.model_class, fetch_denoiser(spec.init_from, family))
    family.check_architecture(model.config, config, spec.init_from)
    if family.has_inpaint_channels(model.config):
        raise ValueError(
            f"{spec.init_from!r} has {model.config['in_channels']} input channels, those of inpainting: set "
            "train_base.train to null, train_inpaint trains it further"
        )
    return model


def load_denoiser(source: str | Path, dtype: torch.dtype | None = None) -> Denoiser:
    """Load the denoiser in a directory or hub repository of diffusers: the model, or a pipeline with it in a folder."""
    family, folder = find_denoiser(source)
    return load_safetensors(family.model_class, folder, dtype)


def add_inpaint_channels(model: Denoiser, cell: int) -> Denoiser:
    """Give a text-to-image denoiser the inputs of inpainting, in place, at zero, if it has none; returns it. `cell`:
    pixels of a latent cell's side."""
    family = get_family(model)
    return model if family.has_inpaint_channels(model.config) else family.add_inpaint_channels(model, cell)


def save_denoiser(model: Denoiser, directory: Path) -> None:
    """Write a denoiser into its folder in a stage's directory, as `load_denoiser` reads it."""
    model.save_pretrained(directory / get_family(model).component)


def is_inpaint_denoiser(source: str | Path) -> bool:
    """Return whether the denoiser in a directory reads hole and masked latents, too."""
    family, config = load_denoiser_config(source)
    return family.has_inpaint_channels(config)


def load_denoiser_config(source: str | Path) -> tuple[DenoiserFamily, dict[str, Any]]:
    """Return family and config of the denoiser in a directory or hub repository."""
    family, folder = find_denoiser(source)
    return family, family.model_class.load_config(folder)


def find_denoiser(source: str | Path) -> tuple[DenoiserFamily, Path]:
    """Return family and folder of the denoiser in a directory or hub repository; ValueError if it holds none."""
    for family in FAMILIES:
        folder = fetch_snapshot(str(source), subfolder=family.component).folder
        if _read_class_name(folder) == family.model_class.__name__:
            return family, folder
    names = " or ".join(f"a {family.model_class.__name__} of diffusers" for family in FAMILIES)
    raise ValueError(f"{source} holds no denoiser: name {names}, or a pipeline with one")


def fetch_denoiser(source: str, family: DenoiserFamily) -> Path:
    """Return the folder of a family's denoiser in a directory or hub repository; ValueError if it holds none."""
    folder = fetch_snapshot(source, subfolder=family.component).folder
    name, expected = _read_class_name(folder), family.model_class.__name__
    if name != expected:
        content = "no config.json" if name is None else f"a {name}"
        raise ValueError(
            f"{source} holds {content}, and denoiser.kind is {family.kind}: name a {expected} of diffusers, or a "
            f"pipeline with one in {family.component}/"
        )
    return folder


def _read_class_name(folder: Path) -> str | None:
    file = folder / "config.json"
    return str(json.loads(file.read_text(encoding="utf-8")).get("_class_name")) if file.is_file() else None


def link_initial_denoiser(
    spec: DenoiserSpec,
    diffusion: DiffusionSpec,
    target: Path,
    *,
    vae: Path,
    side: int,
    text_width: int,
    pooled_width: int,
) -> Counter[str]:
    """Put the denoiser of `spec.init_from` as it is into a new directory, with the scheduler beside it or that of
    `diffusion`; return how many files are links and copies.

    Args:
        side: Pixels of the square frame, which the denoiser's sample size must be in cells of the autoencoder `vae`.

    Raises:
        ValueError: There is none, or it is of another architecture, size or prediction than the params say.
    """
    if spec.init_from is None:
        raise ValueError("train_base.train is null: the denoiser needs training, or name denoiser.init_from")
    family = get_spec_family(spec)
    folder = fetch_denoiser(spec.init_from, family)
    config, autoencoder = family.model_class.load_config(folder), AutoencoderKL.load_config(vae)
    cells = side // compute_scale_factor(autoencoder)
    expected = family.build_config(
        spec.sizes,
        latent_channels=autoencoder["latent_channels"],
        sample_size=cells,
        text_width=text_width,
        pooled_width=pooled_width,
    )
    family.check_architecture(config, expected, spec.init_from)
    scheduler = _find_scheduler(spec.init_from, diffusion)
    counts = link_model(folder, target / family.component)
    if scheduler is None:
        build_training_scheduler(diffusion.resolve_shift(cells**2)).save_pretrained(target / "scheduler")
    else:
        counts.update(link_files([scheduler], target / "scheduler"))
    record_source(spec.init_from, target, subfolder=family.component)
    return counts


def _find_scheduler(source: str, diffusion: DiffusionSpec) -> Path | None:
    """Return the config of the scheduler beside the weights, if there is one."""
    file = fetch_snapshot(source, subfolder="scheduler").folder / "scheduler_config.json"
    if not file.is_file():
        return None
    scheduler = load_scheduler(file.parent)
    prediction_type = scheduler.config.get("prediction_type", "epsilon")
    prediction = "flow" if is_flow(scheduler) else PREDICTIONS.get(prediction_type, prediction_type)
    if prediction != diffusion.prediction:
        raise ValueError(
            f"{source} predicts {prediction}, diffusion.prediction is {diffusion.prediction}: make them agree"
        )
    return file


def link_inpaint_denoiser(base: Path, vae: Path, target: Path) -> tuple[str, Counter[str]]:
    """Put the base's denoiser and scheduler into a new directory: as they are, or where it has the inputs of
    text-to-image, with those of inpainting at zero. Return what was done, and how many files are links and copies."""
    counts = link_files([base / "scheduler" / "scheduler_config.json"], target / "scheduler")
    copy_source(base, target)
    family, folder = find_denoiser(base)
    if is_inpaint_denoiser(base):
        counts.update(link_model(folder, target / family.component))
        return "the base has the inputs of inpainting and passes through", counts
    cell = compute_scale_factor(AutoencoderKL.load_config(vae))
    save_denoiser(add_inpaint_channels(load_denoiser(base), cell), target)
    return "the base gets the inputs of inpainting, at zero", counts


def copy_source(model: Path, target: Path) -> None:
    """Keep where public weights came from, in a model that was made of them."""
    if (model / SOURCE_FILE).is_file():
        shutil.copyfile(model / SOURCE_FILE, target / SOURCE_FILE)
