"""The denoiser's adapters beside the pipeline that they belong to: LoRAs in lora/NAME/, image prompts in
ip_adapter/."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from canvas.denoiser.family import Denoiser
from canvas.denoiser.image_prompt import (
    AdapterConfig,
    has_image_prompt,
    load_image_prompt,
    remove_image_prompt,
    save_image_prompt,
    set_scale,
)
from canvas.denoiser.lora import list_lora_names, load_lora, save_lora, set_style_lora


def detach_adapters(denoiser: Denoiser, directory: Path, config: AdapterConfig) -> None:
    """Write the adapters into `directory` and leave the bare denoiser; `attach_adapters` undoes it."""
    names = list_lora_names(denoiser)
    for name in names:
        save_lora(denoiser, directory / "lora" / name, name)
    if names:
        denoiser.unload_lora()
    if has_image_prompt(denoiser):
        save_image_prompt(denoiser, config, directory / "ip_adapter")
        remove_image_prompt(denoiser)


def holds_image_prompt(directory: Path) -> bool:
    """Whether the pipeline in `directory` reads style images."""
    return (directory / "ip_adapter").is_dir()


def attach_adapters(denoiser: Denoiser, directory: Path) -> None:
    """Load what `detach_adapters` wrote: LoRAs count; image prompts and their LoRA do not, until a style is used."""
    for folder in sorted((directory / "lora").glob("*")):
        load_lora(denoiser, folder, folder.name)
    set_style_lora(denoiser, None)
    if holds_image_prompt(directory):
        set_scale(load_image_prompt(denoiser, directory / "ip_adapter"), 0.0)


def copy_without_adapters(denoiser: Denoiser) -> Denoiser:
    """Return a copy of the denoiser as it was before its LoRAs and image prompts were added: autoguidance leads away
    from what it says. No LoRA may have been merged before."""
    copied = deepcopy(denoiser)
    if list_lora_names(copied):
        copied.unload_lora()
    if has_image_prompt(copied):
        remove_image_prompt(copied)
    return copied
