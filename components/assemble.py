"""Stage `assemble`: every part of the generator in, one pipeline out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from canvas.data.frames import FrameSpec
from canvas.models.reward_spec import REWARD_FOLDER
from canvas.models.segmenter_spec import EdgeSpec
from canvas.models.text_spec import TextSpec
from lifecycle import catalog
from lifecycle.catalog import BackdropLora, CanvasModel, Clip, EngagedLora, InpaintModel, Vae
from lifecycle.digest import digest
from lifecycle.stage import Input, Output, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class AssembleParams:
    edges: EdgeSpec  # of the mattes of products that come without mask or alpha


@stage(machine="cpu")
def assemble(
    assemble: AssembleParams,
    frames: FrameSpec,
    text: TextSpec,
    clips: Input[Clip],
    vae: Input[Vae],
    inpaint: Input[InpaintModel],
    backdrop: Input[BackdropLora],
    engaged: Input[EngagedLora],
    decoder: Input[catalog.Decoder],
    segmenter: Input[catalog.Segmenter],
    reward: Input[catalog.RewardModel],
    model: Output[CanvasModel],
) -> None:
    """Put all parts of the generator into one diffusers pipeline, beside it the reward model that chooses for it."""
    import shutil

    from canvas.diffusion.samplers import load_scheduler
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.models.adapters import load_lora
    from canvas.models.decoder import ConditionalDecoder
    from canvas.models.denoiser import load_denoiser
    from canvas.models.segmenter import load_segmenter
    from canvas.models.text import TextTower, load_clip
    from canvas.models.vae import load_vae

    unet = load_denoiser(inpaint.path)
    load_lora(unet, backdrop.path, "backdrop")
    load_lora(unet, engaged.path, "engaged")
    unet.set_adapters(["backdrop", "engaged"])
    cutter = load_segmenter(segmenter.path)
    parts: dict[str, Input[Any]] = {
        "clip": clips,
        "vae": vae,
        "inpaint": inpaint,
        "backdrop_lora": backdrop,
        "engaged_lora": engaged,
        "decoder": decoder,
        "segmenter": segmenter,
        "reward": reward,
    }
    CanvasPipeline(
        unet=unet.eval(),
        vae=load_vae(vae.path).eval(),
        text_encoder=TextTower.of(load_clip(clips.path / "first"), text.first),
        text_encoder_2=TextTower.of(load_clip(clips.path / "second"), text.second),
        scheduler=load_scheduler(inpaint.path),
        decoder=ConditionalDecoder.from_pretrained(decoder.path).eval(),
        segmenter=cutter.network,
        segmenter_processor=cutter.processor,
        hole_inflation=frames.hole_inflation,
        max_aspect=frames.max_aspect,
        edge_radius=assemble.edges.radius,
        edge_epsilon=assemble.edges.epsilon,
        parts={name: digest(part.path) for name, part in parts.items()},
    ).save_pretrained(model.path)
    shutil.copytree(reward.path, model.path / REWARD_FOLDER)
