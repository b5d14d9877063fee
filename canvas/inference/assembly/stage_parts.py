"""From the directories that stages wrote to one generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from canvas.clip.image_tower import ImageTower
from canvas.clip.model import load_clip, name_components
from canvas.clip.spec import TextSpec
from canvas.clip.tuning.towers import load_towers
from canvas.decoder.model import ConditionalDecoder
from canvas.denoiser.image_prompt import AdapterConfig, load_image_prompt
from canvas.denoiser.loading import get_family, load_denoiser
from canvas.denoiser.lora import STYLE_LORA, load_lora, set_style_lora
from canvas.denoiser.passes.stepping import check_reuse
from canvas.denoiser.schedulers import load_scheduler
from canvas.denoiser.spec import RecommendedSampling
from canvas.hub import read_sources
from canvas.inference.pipeline import CanvasPipeline
from canvas.light.model import load_light
from canvas.light.shadow.model import FOLDER as SHADOW_FOLDER
from canvas.light.shadow.model import load_shadow
from canvas.pins.frames import FrameSpec
from canvas.safety.loading import fetch_image_classifier, fetch_prompt_classifier
from canvas.safety.spec import SafetySpec
from canvas.segmenter.model import load_segmenter
from canvas.segmenter.spec import EdgeSpec
from canvas.styles.centres import StyleCentres
from canvas.styles.table import read_styles
from canvas.upscaler.loading import load_upscaler
from canvas.uve.model import load_uve
from canvas.vae.model import load_vae

SOURCES = {"inpaint": "denoiser", "clip.first": "text_encoder", "clip.second": "text_encoder_2", "clip.t5": "t5"}
"""Parts' folders -> their names in a pipeline, where these differ."""


def assemble_pipeline(
    folders: Mapping[str, Path],
    digests: Mapping[str, str],
    *,
    text: TextSpec,
    frames: FrameSpec,
    edges: EdgeSpec,
    sampling: RecommendedSampling,
    safety: SafetySpec,
) -> CanvasPipeline:
    """Return the generator of the parts in `folders`; `digests` of what it was made from go into its config.

    It may have no "backdrop_lora", "engaged_lora", "aligned_lora", "decoder", "upscaler", "light", "text" or
    "ip_adapter"; without "light" it has no mode soft and no shadows, without "text" prompts are read as "clip" was
    trained, without the last it reads no styles.

    Raises:
        ValueError: For a recommended scheduler or reuse that does not fit the denoiser, a safety model that is none,
            and as the parts' loaders do.
    """
    denoiser = load_denoiser(folders["inpaint"])
    for name in ("backdrop", "engaged", "aligned"):
        if lora := folders.get(f"{name}_lora"):
            load_lora(denoiser, lora, name)
    adapter, decoder, upscaler = (folders.get(name) for name in ("ip_adapter", "decoder", "upscaler"))
    light = folders.get("light")
    shadow = light / SHADOW_FOLDER if light else None
    if adapter and (adapter / "lora").is_dir():
        load_lora(denoiser, adapter / "lora", STYLE_LORA)
    set_style_lora(denoiser, None)
    if adapter:
        load_image_prompt(denoiser, adapter)
    image_prompt = AdapterConfig.load(adapter) if adapter else None
    segmenter = load_segmenter(folders["segmenter"])
    pipeline = CanvasPipeline(
        **{get_family(denoiser).component: denoiser.eval()},
        vae=load_vae(folders["vae"]).eval(),
        **name_components(load_towers(folders.get("text", folders["clip"]), text)),
        scheduler=load_scheduler(folders["inpaint"]),
        decoder=ConditionalDecoder.from_pretrained(decoder).eval() if decoder else None,
        upscaler=load_upscaler(upscaler) if upscaler else None,
        segmenter=segmenter.network,
        segmenter_processor=segmenter.processor,
        light=load_light(light) if light else None,
        shadow=load_shadow(shadow) if shadow and shadow.is_dir() else None,
        image_tower=ImageTower.from_clip(load_clip(folders["clip"] / "second"), text.second) if adapter else None,
        uve=load_uve(folders["uve"]) if adapter else None,
        style_centres=StyleCentres.from_styles(read_styles(folders["styles"])) if adapter else None,
        hole_inflation=frames.hole_inflation,
        max_aspect=frames.max_aspect,
        frame_side=frames.side,
        edge_radius=edges.radius,
        edge_epsilon=edges.epsilon,
        image_source=image_prompt.source if image_prompt else None,
        style_layers=list(image_prompt.style_layers) if image_prompt else None,
        sampling=asdict(sampling),
        parts=dict(digests),
        sources=_read_sources(folders) or None,
        bf16=["text_encoder_2"] if text.t5 is not None and text.t5.precision == "bf16" else None,
    )
    pipeline.get_scheduler()
    check_reuse(sampling.reuse, denoiser)
    add_safety(pipeline, safety)
    return pipeline


def add_safety(pipeline: CanvasPipeline, safety: SafetySpec) -> None:
    """Put the safety models that params name into the pipeline, and into its config where they came from.

    Raises:
        ValueError: One cannot be fetched, or is no such model.
    """
    sources = {}
    for name, spec, fetch, processor in (
        ("prompt_safety", safety.prompt, fetch_prompt_classifier, "prompt_safety_tokenizer"),
        ("image_safety", safety.image, fetch_image_classifier, "image_safety_processor"),
    ):
        if spec is not None:
            classifier = fetch(spec)
            pipeline.register_modules(**{name: classifier.network, processor: classifier.processor})
            sources[name] = dict(classifier.network.config.source)
    if sources:
        pipeline.register_to_config(sources={**(pipeline.config["sources"] or {}), **sources})


def _read_sources(folders: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Return where public weights came from, by the names of the pipeline's parts."""
    sources = {}
    names = ["inpaint", "vae", "clip", "upscaler", "segmenter", "reward", *(["uve"] if "ip_adapter" in folders else [])]
    for name in names:
        for part, source in (read_sources(folders[name]) if name in folders else {}).items():
            key = f"{name}.{part}" if part else name
            sources[SOURCES.get(key, key)] = source
    return sources
