"""Denoisers that pass through the stages which would train them."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel

from canvas.denoiser.process import build_training_scheduler
from canvas.denoiser.schedulers import is_flow, load_scheduler
from canvas.denoiser.spec import DiffusionSpec, UNetSpec
from canvas.denoiser.unet import (
    add_inpaint_channels,
    build_unet_config,
    check_architecture,
    fetch_unet,
    has_inpaint_channels,
    load_denoiser,
)
from canvas.hub import SOURCE_FILE, fetch_snapshot, link_files, link_model, record_source
from canvas.vae.model import compute_scale_factor

PREDICTIONS = {"epsilon": "eps", "v_prediction": "v"}
"""Those of diffusers' schedulers, by ours."""


def link_initial_denoiser(
    spec: UNetSpec, diffusion: DiffusionSpec, target: Path, *, vae: Path, side: int, text_width: int, pooled_width: int
) -> Counter[str]:
    """Put the UNet of `spec.init_from` as it is into a new directory, with the scheduler beside it or that of
    `diffusion`; return how many files are links and copies.

    Args:
        side: Pixels of the square frame, which the UNet's sample size must be in cells of the autoencoder `vae`.

    Raises:
        ValueError: There is none, or it is of another architecture, size or prediction than the params say.
    """
    if spec.init_from is None:
        raise ValueError("train_base.train is null: the denoiser needs training, or name denoiser.init_from")
    unet = fetch_unet(spec.init_from)
    config, autoencoder = UNet2DConditionModel.load_config(unet), AutoencoderKL.load_config(vae)
    expected = build_unet_config(
        spec,
        latent_channels=autoencoder["latent_channels"],
        sample_size=side // compute_scale_factor(autoencoder),
        text_width=text_width,
        pooled_width=pooled_width,
    )
    check_architecture(config, expected, spec.init_from)
    scheduler = _find_scheduler(spec.init_from, diffusion)
    counts = link_model(unet, target / "unet")
    if scheduler is None:
        build_training_scheduler(diffusion).save_pretrained(target / "scheduler")
    else:
        counts.update(link_files([scheduler], target / "scheduler"))
    record_source(spec.init_from, target, subfolder="unet")
    return counts


def _find_scheduler(source: str, diffusion: DiffusionSpec) -> Path | None:
    """Return the config of the scheduler beside the weights, if there is one."""
    file = fetch_snapshot(source, subfolder="scheduler").folder / "scheduler_config.json"
    if not file.is_file():
        return None
    scheduler = load_scheduler(file.parent)
    own = scheduler.config.get("prediction_type", "epsilon")
    prediction = "flow" if is_flow(scheduler) else PREDICTIONS.get(own, own)
    if prediction != diffusion.prediction:
        raise ValueError(
            f"{source} predicts {prediction}, diffusion.prediction is {diffusion.prediction}: make them agree"
        )
    return file


def link_inpaint_denoiser(base: Path, target: Path) -> tuple[str, Counter[str]]:
    """Put the base's UNet and scheduler into a new directory: as they are, or where it has the inputs of
    text-to-image, with those of inpainting at zero. Return what was done, and how many files are links and copies."""
    counts = link_files([base / "scheduler" / "scheduler_config.json"], target / "scheduler")
    copy_source(base, target)
    if has_inpaint_channels(UNet2DConditionModel.load_config(base / "unet")):
        counts.update(link_model(base / "unet", target / "unet"))
        return "the base has the inputs of inpainting and passes through", counts
    add_inpaint_channels(load_denoiser(base)).save_pretrained(target / "unet")
    return "the base gets the inputs of inpainting, at zero", counts


def copy_source(model: Path, target: Path) -> None:
    """Keep where public weights came from, in a model that was made of them."""
    if (model / SOURCE_FILE).is_file():
        shutil.copyfile(model / SOURCE_FILE, target / SOURCE_FILE)
