"""The transformer: the generator of a finished run against diffusers' Flux inpainting pipeline.

Both have the same weights, the LoRAs merged, the same noise, noise levels and text encoders, and one precision.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from bench.families import judging
from bench.families.training import Sources
from bench.generation.stock import StockGenerator
from bench.measurement import ROOT, measure_in_turns, measure_seconds
from canvas.denoiser.dit.family import DIT
from canvas.denoiser.spec import PassSpec, RecommendedSampling, ReuseSpec
from canvas.inference.batch import encode_requests, generate_images
from canvas.inference.pipeline import CanvasPipeline
from canvas.train.precision import get_autocast_dtype, resolve_precision
from canvas.train.spec import Precision
from lifecycle.declare.params import load_sections

CANDIDATES = 8

STOCK = "diffusers, all steps guided"
EQUAL = "diffusers, as many calls as ours"
OURS = "ours"
RECOMMENDED = "as the model recommends"

PLAIN: Mapping[str, Any] = {
    "steps": 12,
    "guidance_scale": 4.0,
    "guidance_stop": 0.7,
    "autoguidance_scale": 0.0,
    "reuse": None,
    "scheduler": None,
}
"""Sampling of OURS: but for the steps without guidance, all that diffusers' pipeline does, too."""

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    OURS: {},
    "all steps guided": {"guidance_stop": 1.0},
    "guided in half of the steps": {"guidance_stop": 0.5},
    "guidance of every other step": {"reuse": ReuseSpec(guidance=2, blocks=1)},
    "guidance of every third step": {"reuse": ReuseSpec(guidance=3, blocks=1)},
    "blocks of every other step": {"reuse": ReuseSpec(guidance=1, blocks=2)},
    "10 steps": {"steps": 10},
    "8 steps": {"steps": 8},
    "10 steps of dpm++": {"steps": 10, "scheduler": "dpm++"},
    "8 steps of dpm++": {"steps": 8, "scheduler": "dpm++"},
}
"""PLAIN, each with one thing changed."""

ALL_SETTINGS = (*SETTINGS, RECOMMENDED)


def load_generator(root: Path, precision: Precision) -> CanvasPipeline:
    """Return the generator of a finished run as `generate` loads it."""
    pipeline = CanvasPipeline.from_pretrained(root / "models" / "canvas", trust_remote_code=True)
    pipeline.merge_lora()
    pipeline.set_precision(precision)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def use_sampling(pipeline: CanvasPipeline, changes: Mapping[str, Any]) -> Iterator[RecommendedSampling]:
    """Within the context the pipeline recommends its own sampling with `changes`."""
    before = pipeline.config["sampling"]
    sampling = replace(pipeline.recommended_sampling, **changes)
    pipeline.register_to_config(sampling=asdict(sampling))
    try:
        yield sampling
    finally:
        pipeline.register_to_config(sampling=before)


def get_sampling(name: str, recommended: RecommendedSampling) -> Mapping[str, Any]:
    """Return what a setting has otherwise than PLAIN."""
    if name != RECOMMENDED:
        return SETTINGS[name]
    return {field: getattr(recommended, field) for field in PLAIN}


def measure_speed(
    pipeline: CanvasPipeline,
    stock: StockGenerator,
    jury: judging.Jury,
    rounds: int,
    settings: Mapping[str, Mapping[str, Any]],
) -> dict[str, list[float]]:
    """Return the seconds of `rounds` calls for one product, of every contender in turn."""
    request, sampling, pin = jury.list_requests(pipeline, 0)[0], pipeline.recommended_sampling, jury.pins[0]
    prompt, mask = str(request.prompt), Image.fromarray((pin.mask * 255).astype(np.uint8))

    def generate(changes: Mapping[str, Any], *patches: Any) -> object:
        with use_sampling(pipeline, changes), ExitStack() as stack:
            for each in (no_upscaler(), *patches):
                stack.enter_context(each)
            return pipeline(pin.image, prompt, mask=mask, num_candidates=CANDIDATES, seed=request.seed)

    def generate_stock(stop: float) -> object:
        return stock.generate(
            request.product, prompt, seed=request.seed, candidates=CANDIDATES, sampling=sampling, guidance_stop=stop
        )

    no_upscaler = partial(patch.object, pipeline, "upscaler", None)  # diffusers' pipeline enlarges nothing
    no_decoder = partial(patch.object, pipeline, "decoder", None)
    model_pass = partial(patch.object, type(DIT), "choose_preparation", lambda family, model: None)
    runs: dict[str, Callable[[], object]] = {
        STOCK: lambda: generate_stock(1.0),
        EQUAL: lambda: generate_stock(sampling.guidance_stop),
        f"{OURS}, plain decoder": lambda: generate({}, no_decoder()),
        f"{OURS}, plain decoder, the model's own forward pass": lambda: generate({}, no_decoder(), model_pass()),
        **{name: partial(generate, changes) for name, changes in settings.items()},
    }
    return measure_in_turns({name: partial(measure_seconds, run) for name, run in runs.items()}, rounds)


def measure_difference(pipeline: CanvasPipeline, stock: StockGenerator, jury: judging.Jury) -> float:
    """Return the mean difference in levels of 255 between both sides' images, of a plain decoder and as many calls."""
    request, sampling, pin = jury.list_requests(pipeline, 0)[0], pipeline.recommended_sampling, jury.pins[0]
    with patch.object(pipeline, "decoder", None), patch.object(pipeline, "upscaler", None):
        mask = Image.fromarray((pin.mask * 255).astype(np.uint8))
        ours = pipeline(pin.image, str(request.prompt), mask=mask, seed=request.seed).images[0]
    theirs = stock.generate(
        request.product,
        str(request.prompt),
        seed=request.seed,
        candidates=1,
        sampling=sampling,
        guidance_stop=sampling.guidance_stop,
    )[0]
    return float(np.abs(stock.composite(request.product, theirs).astype(int) - np.asarray(ours)).mean())


def measure_quality(
    pipeline: CanvasPipeline,
    stock: StockGenerator,
    jury: judging.Jury,
    seeds: Sequence[int],
    settings: Mapping[str, Mapping[str, Any]],
    precision: Precision,
) -> dict[str, list[judging.Verdict]]:
    """Return what the judges say of the same products and prompts by every contender, a verdict a seed."""
    verdicts: dict[str, list[judging.Verdict]] = {}
    passes = PassSpec(batch_size=jury.sampling.batch_size, precision=precision)
    sampling = pipeline.recommended_sampling
    for seed in seeds:
        requests = jury.list_requests(pipeline, seed)
        encoded = encode_requests(pipeline, requests)
        for name, changes in settings.items():
            with use_sampling(pipeline, changes) as setting_sampling:
                images = generate_images(
                    pipeline, encoded, setting_sampling.build_spec(passes), name=f"{name}, seed {seed}"
                )
            verdicts.setdefault(name, []).append(jury.judge(pipeline, images, seed))
        images = []
        for request in tqdm(requests, desc=f"{STOCK}, seed {seed}", unit="image"):
            pixels = stock.generate(
                request.product,
                str(request.prompt),
                seed=request.seed,
                candidates=1,
                sampling=sampling,
                guidance_stop=1.0,
            )[0]
            images.append(stock.composite(request.product, pixels))
        verdicts.setdefault(STOCK, []).append(jury.judge(pipeline, images, seed))
    return verdicts


def measure(
    root: Path,
    work: Path,
    profile: str,
    *,
    rounds: int,
    seeds: Sequence[int],
    products: int | None,
    settings: Sequence[str],
    precision: Precision,
) -> dict[str, Any]:
    """Return speed and quality of every contender.

    Raises:
        ValueError: A setting of that name is not known.
    """
    if unknown := [name for name in settings if name not in ALL_SETTINGS]:
        raise ValueError(f"no setting is called {', '.join(unknown)}: there are {', '.join(ALL_SETTINGS)}")
    names = [OURS, *(name for name in settings if name != OURS)]
    resolved = resolve_precision(precision, torch.device("cpu"))
    pipeline = load_generator(root, resolved)
    recommended = pipeline.recommended_sampling
    chosen = {name: get_sampling(name, recommended) for name in names}
    jury = judging.Jury.read(load_sections(profile, ROOT), products, Sources(root, work))
    stock = StockGenerator(pipeline, get_autocast_dtype(resolved) or torch.float32)
    with use_sampling(pipeline, PLAIN):
        seconds = measure_speed(pipeline, stock, jury, rounds, chosen)
        verdicts = measure_quality(pipeline, stock, jury, seeds, chosen, resolved) if seeds else {}
        levels = measure_difference(pipeline, stock, jury)
    return {
        "threads": torch.get_num_threads(),
        "precision": resolved,
        "candidates": CANDIDATES,
        "sampling": {name: asdict(replace(recommended, **{**PLAIN, **changes})) for name, changes in chosen.items()},
        "images": len(jury.pins) * len(jury.prompts) * len(seeds),
        "levels_apart": levels,
        "seconds": seconds,
        "quality": {name: judging.summarize_verdicts(setting_verdicts) for name, setting_verdicts in verdicts.items()},
        "differences_from_ours": {
            name: judging.compare_verdicts(setting_verdicts, verdicts[OURS])
            for name, setting_verdicts in verdicts.items()
            if name != OURS
        },
    }


def format_page(figures: Mapping[str, Any]) -> str:
    """Return the Markdown table of every contender, and what the differences are."""
    columns = ("sampling", "seconds", "least to most", "of diffusers", "of equal calls", "scene", "sharp", "KID")
    rows = [columns, ("---",) * len(columns)]
    medians = {name: statistics.median(values) for name, values in figures["seconds"].items()}
    for name, values in figures["seconds"].items():
        quality = figures["quality"].get(name, {})
        speed = [f"{medians[other] / medians[name]:.2f}x" for other in (STOCK, EQUAL)]
        judged = [format(quality[key], ".3f") if key in quality else "" for key in ("scene", "sharp", "kid")]
        spread = f"{min(values):.3f} to {max(values):.3f}"
        rows.append((name, f"{medians[name]:.3f}", spread, *speed, *judged))
    lines = [f"| {' | '.join(row)} |" for row in rows]
    for name, gains in figures["differences_from_ours"].items():
        lines.append(f"- {name} over {OURS}: " + ", ".join(f"{key} {gain:+.3f}" for key, gain in gains.items()))
    lines.append(
        f"{CANDIDATES} candidates of one product, {figures['threads']} threads, {figures['precision']}; quality of "
        f"{figures['images']} images; at equal calls both sides' images are {figures['levels_apart']:.2f} levels apart."
    )
    return "\n".join(lines)
