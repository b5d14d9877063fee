"""Options of `python -m canvas generate`, checked before a model is loaded: all that is wrong without its weights."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from canvas.layout.spec import Layout
from canvas.light.shadow.spec import KEPT_SHADOW, NO_SHADOW, check_strength
from canvas.light.spec import KEPT_REFLECTION, NO_LIGHT, SOFT_PHOTOGRAPH

SEED_RANGE = range(-(2**63), 2**64)
"""Seeds that torch's generators take."""
MAX_COUNTS = {"candidates": 1000, "steps": 1000}
"""More is a slip of the pen: candidates are held in memory together, denoisers know 1,000 timesteps."""


def check_numbers(options: argparse.Namespace) -> None:
    """Raise ValueError for numbers that would generate nothing or without end, or that torch refuses."""
    if options.guidance is not None and not math.isfinite(options.guidance):
        raise ValueError(f"--guidance is {options.guidance}: give a finite number")
    if options.guidance is not None and options.guidance < 1:
        raise ValueError(f"--guidance is {options.guidance}: 1 is no guidance, more follows the prompt closer")
    if options.autoguidance is not None and not 0 <= options.autoguidance < math.inf:  # false for NaN
        raise ValueError(f"--autoguidance is {options.autoguidance}: 0 is none, give a number from there")
    for name in ("guidance_rescale", "guidance_stop", "style_typical"):
        value = getattr(options, name)
        if value is not None and not 0 <= value <= 1:  # false for NaN
            raise ValueError(f"--{name.replace('_', '-')} is {value}: it must be from 0 to 1")
    check_strength("--shadow", options.shadow)
    check_strength("--reflection", options.reflection, "reflection")
    if options.max_pixels < 1:
        raise ValueError(f"--max-pixels is {options.max_pixels}: give 1 or more")
    for name, most in MAX_COUNTS.items():
        value = getattr(options, name)
        if value is not None and not 1 <= value <= most:
            limit = "1 or more" if value < 1 else f"{most} at most"
            raise ValueError(f"--{name} is {value}: give {limit}")
    for seed in (options.seed, options.seed + options.candidates - 1):
        if seed not in SEED_RANGE:
            raise ValueError(
                f"--seed {options.seed} is beyond 64 bits, or becomes so with {options.candidates} candidates: "
                f"give one from {SEED_RANGE[0]} to {SEED_RANGE[-1]}"
            )


def check_device(device: str) -> None:
    """Raise ValueError unless torch can compute there."""
    import torch

    devices = ["cpu"]
    if accelerator := torch.accelerator.current_accelerator(check_available=True):
        numbers = range(torch.accelerator.device_count())
        devices += [accelerator.type, *(f"{accelerator.type}:{number}" for number in numbers)]
    if device not in devices:
        raise ValueError(f"--device {device} is not on this machine: use {' or '.join(devices)}")


def check_model(
    options: argparse.Namespace,
    products: list[Image.Image],
    masks: list[Image.Image | None] | None,
    layout: Layout | None,
) -> None:
    """Raise ValueError where the model's folder shows that it cannot do what is asked, or is none.

    Weights are not read: that there is a segmenter for a product that needs one, room for the canvas and the prompts,
    an adapter for a style, a light network, an upscaler, a scheduler of that name, its small files say.
    """
    from canvas.denoiser.adapters import holds_image_prompt
    from canvas.inference.scene.build import asks_for_segmenter
    from canvas.layout.windows import plan_windows

    index = read_model_index(options.model)
    if layout is not None:
        plan_windows(layout.canvas, index.get("max_aspect", 1.0))
    if asks_for_segmenter(products, masks, layout) and not _has_part(index, "segmenter"):
        raise ValueError("the product image has neither alpha channel nor mask, and this model has no segmenter")
    if options.mode == "soft":
        if layout is not None and layout.keeps_photograph:
            raise ValueError(SOFT_PHOTOGRAPH)
        if not _has_part(index, "light"):
            raise ValueError(NO_LIGHT)
    if options.shadow > 0:
        if layout is not None and layout.keeps_photograph:
            raise ValueError(KEPT_SHADOW)
        if not _has_part(index, "shadow"):
            raise ValueError(NO_SHADOW)
    if options.reflection > 0 and layout is not None and layout.keeps_photograph:
        raise ValueError(KEPT_REFLECTION)
    if any(value is not None for value in (options.style, options.board, options.style_cluster)):
        if not holds_image_prompt(options.model):
            raise ValueError("this model has no image-prompt adapter, so it knows no style: assemble it with one")
        if options.style_layers == ["style"] and not index.get("style_layers"):
            raise ValueError("--style-layers is style, but this model has no style layers: use all")
    if (options.upscale or 1) > 1 and not _has_part(index, "upscaler"):
        raise ValueError(f"--upscale is {options.upscale}, but this model has no upscaler: assemble it with one")
    _check_scheduler(options, index)
    _check_prompts(options)


def read_model_index(model: Path) -> dict[str, Any]:
    """Return what the folder says of its model; ValueError if it holds none."""
    try:
        index = json.loads((model / "model_index.json").read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(f"{model} holds no model_index.json: name a directory that the assemble stage wrote") from None
    except (ValueError, RecursionError):  # brackets nested too deep
        raise ValueError(f"{model}/model_index.json is no JSON: assemble the model again") from None
    if not isinstance(index, dict):
        raise ValueError(f"{model}/model_index.json is no JSON object: assemble the model again")
    return index


def _has_part(index: dict[str, Any], name: str) -> bool:
    part = index.get(name)
    return isinstance(part, list) and None not in part


def _check_scheduler(options: argparse.Namespace, index: dict[str, Any]) -> None:
    from canvas.denoiser.schedulers import build_scheduler, check_droppable, load_scheduler

    if not (options.model / "scheduler" / "scheduler_config.json").is_file():
        return
    trained = load_scheduler(options.model)
    name = options.scheduler or (index.get("sampling") or {}).get("scheduler")
    scheduler = trained if name is None else build_scheduler(name, trained)
    if options.drop_early:
        check_droppable(scheduler)


def _check_prompts(options: argparse.Namespace) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    from canvas.clip.model import check_overflow, find_overflow
    from canvas.clip.t5 import find_t5_overflow

    texts = {"prompt": options.prompt, "negative prompt": options.negative_prompt}
    for name, text in texts.items():
        _check_letters(name, text or "")
    if (words := options.model / "tokenizer_2").is_dir():  # beside a T5 it alone must have room
        from transformers import T5TokenizerFast

        t5 = T5TokenizerFast.from_pretrained(words, trust_remote_code=False)
        for name, text in texts.items():
            check_overflow(name, find_t5_overflow(text or "", t5))
        return
    configs = [options.model / part / "config.json" for part in ("text_encoder", "text_encoder_2")]
    read = [json.loads(config.read_text(encoding="utf-8")) for config in configs if config.is_file()]
    lengths = {config["context_length"] for config in read if "context_length" in config}
    tokenizer = SimpleTokenizer()
    for name, text in texts.items():
        for length in lengths if text is not None else ():
            check_overflow(name, find_overflow(text, length, tokenizer))


def _check_letters(name: str, text: str) -> None:
    """Raise ValueError for bytes that are no UTF-8, which Python hides as half characters: towers would drop them."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        near = text[max(0, error.start - 20) : error.start]
        raise ValueError(
            f"the {name} is not UTF-8 after {near!r}: give it in UTF-8, and look what `locale` says of the terminal"
        ) from None


def check_out(options: argparse.Namespace, names: Sequence[str]) -> None:
    """Raise `OSError` or ValueError if files of these names cannot be written to the folder of --out, or would replace
    an image that was given.

    Whether a folder can be made is known when it was: it is taken away again, so that a refusal leaves nothing.
    """
    from canvas.inference.files import find_free_name, name_certificate

    out: Path = options.out
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]  # innermost first
    try:
        if out.is_symlink() and not out.exists():
            raise ValueError(f"--out {out} is a link that leads nowhere: name another folder")
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK | os.X_OK):
            raise ValueError(f"--out {out} is not writable: name another folder")
        most = os.pathconf(out, "PC_NAME_MAX")
        for name in names:
            _check_length(name, most)
            path = out / name if options.overwrite else find_free_name(out / name)
            _check_length(path.name, most)
            if options.mode == "soft":
                _check_length(name_certificate(path).name, most)
            for given in (*options.product, *(options.mask or ()), *(options.style or ())):
                if options.overwrite and path.exists() and path.samefile(given):
                    raise ValueError(f"--overwrite would replace {given}, which was given: name another folder")
    finally:
        for folder in missing:
            with suppress(OSError):  # it was not made, or somebody else uses it by now
                folder.rmdir()


def _check_length(name: str, most: int) -> None:
    if (length := len(os.fsencode(name))) > most:
        raise ValueError(
            f"the image would be called {name[:40]}..., {length} bytes where names have {most} at most: "
            "rename the product's file"
        )
