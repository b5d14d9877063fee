"""From the directories that stages wrote to one generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from canvas.clip.image_tower import ImageTower
from canvas.clip.model import TextTower, load_clip
from canvas.clip.spec import TextSpec
from canvas.decoder.model import ConditionalDecoder
from canvas.denoiser.image_prompt import AdapterConfig, load_image_prompt
from canvas.denoiser.lora import STYLE_LORA, load_lora, set_style_lora
from canvas.denoiser.schedulers import load_scheduler
from canvas.denoiser.spec import RecommendedSampling
from canvas.denoiser.unet import load_denoiser
from canvas.inference.pipeline import CanvasPipeline
from canvas.pins.frames import FrameSpec
from canvas.segmenter.model import load_segmenter
from canvas.segmenter.spec import EdgeSpec
from canvas.styles.centres import StyleCentres
from canvas.styles.table import read_styles
from canvas.uve.model import load_uve
from canvas.vae.model import load_vae


def assemble_pipeline(
    folders: Mapping[str, Path],
    digests: Mapping[str, str],
    *,
    text: TextSpec,
    frames: FrameSpec,
    edges: EdgeSpec,
    sampling: RecommendedSampling,
) -> CanvasPipeline:
    """Return the generator of the parts in `folders`; `digests` of what it was made from go into its config.

    Raises:
        ValueError: For a recommended scheduler that does not fit the denoiser, and as the parts' loaders do.
    """
    unet = load_denoiser(folders["inpaint"])
    load_lora(unet, folders["backdrop_lora"], "backdrop")
    load_lora(unet, folders["engaged_lora"], "engaged")
    adapter = folders["ip_adapter"]
    if (adapter / "lora").is_dir():
        load_lora(unet, adapter / "lora", STYLE_LORA)
    set_style_lora(unet, None)
    load_image_prompt(unet, adapter)
    image_prompt = AdapterConfig.load(adapter)
    second = load_clip(folders["clip"] / "second")
    segmenter = load_segmenter(folders["segmenter"])
    pipeline = CanvasPipeline(
        unet=unet.eval(),
        vae=load_vae(folders["vae"]).eval(),
        text_encoder=TextTower.from_clip(load_clip(folders["clip"] / "first"), text.first),
        text_encoder_2=TextTower.from_clip(second, text.second),
        scheduler=load_scheduler(folders["inpaint"]),
        decoder=ConditionalDecoder.from_pretrained(folders["decoder"]).eval(),
        segmenter=segmenter.network,
        segmenter_processor=segmenter.processor,
        image_tower=ImageTower.from_clip(second, text.second),
        uve=load_uve(folders["uve"]),
        style_centres=StyleCentres.from_styles(read_styles(folders["styles"])),
        hole_inflation=frames.hole_inflation,
        max_aspect=frames.max_aspect,
        edge_radius=edges.radius,
        edge_epsilon=edges.epsilon,
        image_source=image_prompt.source,
        style_layers=list(image_prompt.style_layers),
        sampling=asdict(sampling),
        parts=dict(digests),
    )
    pipeline.get_scheduler()
    return pipeline
