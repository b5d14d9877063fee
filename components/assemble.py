"""Stage `assemble`: every part of the generator in, one pipeline out."""

from __future__ import annotations

from typing import Any

from canvas.clip.spec import TextSpec
from canvas.pins.frames import FrameSpec
from canvas.reward.spec import REWARD_FOLDER
from canvas.segmenter.spec import EdgeSpec
from canvas.styles.table import STYLES_FOLDER, read_styles
from components.artifacts import (
    BackdropLora,
    BaseModel,
    CanvasModel,
    Clip,
    Decoder,
    EngagedLora,
    InpaintModel,
    IpAdapter,
    RawData,
    RewardModel,
    Segmenter,
    Styles,
    Uve,
    Vae,
)
from lifecycle.declare.stage import Input, Output, stage
from lifecycle.workspace.digest import digest


@stage(machine="cpu")
def assemble(
    edges: EdgeSpec,
    frames: FrameSpec,
    text: TextSpec,
    raw: Input[RawData],
    base: Input[BaseModel],
    clips: Input[Clip],
    vae: Input[Vae],
    inpaint: Input[InpaintModel],
    backdrop: Input[BackdropLora],
    engaged: Input[EngagedLora],
    adapter: Input[IpAdapter],
    uve: Input[Uve],
    styles: Input[Styles],
    decoder: Input[Decoder],
    segmenter: Input[Segmenter],
    reward: Input[RewardModel],
    model: Output[CanvasModel],
) -> None:
    """Put text towers, autoencoder, denoiser, LoRAs, image prompts, decoder and segmenter into one diffusers pipeline;
    beside it the mined styles, and the reward model that chooses for it."""
    import shutil

    from canvas.clip.image_tower import ImageTower
    from canvas.clip.model import TextTower, load_clip
    from canvas.decoder.model import ConditionalDecoder
    from canvas.denoiser.image_prompt import AdapterConfig, load_image_prompt
    from canvas.denoiser.lora import STYLE_LORA, load_lora, set_style_lora
    from canvas.denoiser.schedulers import load_scheduler
    from canvas.denoiser.unet import load_denoiser
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.segmenter.model import load_segmenter
    from canvas.styles.centres import StyleCentres
    from canvas.uve.model import load_uve
    from canvas.vae.model import load_vae

    unet = load_denoiser(inpaint.path)
    load_lora(unet, backdrop.path, "backdrop")
    load_lora(unet, engaged.path, "engaged")
    if (adapter.path / "lora").is_dir():
        load_lora(unet, adapter.path / "lora", STYLE_LORA)
    set_style_lora(unet, None)
    load_image_prompt(unet, adapter.path)
    prompts = AdapterConfig.load(adapter.path)
    second = load_clip(clips.path / "second")
    cutter = load_segmenter(segmenter.path)
    parts: dict[str, Input[Any]] = {
        "data": raw,
        "base": base,
        "clip": clips,
        "vae": vae,
        "inpaint": inpaint,
        "backdrop_lora": backdrop,
        "engaged_lora": engaged,
        "ip_adapter": adapter,
        "uve": uve,
        "styles": styles,
        "decoder": decoder,
        "segmenter": segmenter,
        "reward": reward,
    }
    CanvasPipeline(
        unet=unet.eval(),
        vae=load_vae(vae.path).eval(),
        text_encoder=TextTower.from_clip(load_clip(clips.path / "first"), text.first),
        text_encoder_2=TextTower.from_clip(second, text.second),
        scheduler=load_scheduler(inpaint.path),
        decoder=ConditionalDecoder.from_pretrained(decoder.path).eval(),
        segmenter=cutter.network,
        segmenter_processor=cutter.processor,
        image_tower=ImageTower.from_clip(second, text.second),
        uve=load_uve(uve.path),
        style_centres=StyleCentres.from_styles(read_styles(styles.path)),
        hole_inflation=frames.hole_inflation,
        max_aspect=frames.max_aspect,
        edge_radius=edges.radius,
        edge_epsilon=edges.epsilon,
        image_source=prompts.source,
        style_layers=list(prompts.style_layers),
        parts={name: digest(part.path) for name, part in parts.items()},
    ).save_pretrained(model.path)
    shutil.copytree(styles.path, model.path / STYLES_FOLDER)
    shutil.copytree(reward.path, model.path / REWARD_FOLDER)
