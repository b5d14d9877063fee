"""Stage `assemble`: every part of the generator in, one pipeline out."""

from __future__ import annotations

import shutil

from canvas.align.spec import EVIDENCE_FILE, is_for
from canvas.clip.spec import TextSpec
from canvas.denoiser.spec import RecommendedSampling
from canvas.pins.frames import FrameSpec
from canvas.reward.spec import REWARD_FOLDER
from canvas.safety.spec import SafetySpec
from canvas.segmenter.spec import EdgeSpec
from canvas.styles.table import STYLES_FOLDER
from components import artifacts
from lifecycle.declare.skipping import is_made
from lifecycle.declare.stage import Input, Output, stage
from lifecycle.workspace.digest import digest


@stage(machine="cpu")
def assemble(
    edges: EdgeSpec,
    frames: FrameSpec,
    text: TextSpec,
    sampling: RecommendedSampling,
    safety: SafetySpec,
    raw: Input[artifacts.RawData],
    base: Input[artifacts.BaseModel],
    clips: Input[artifacts.Clip],
    towers: Input[artifacts.TextEncoders],
    vae: Input[artifacts.Vae],
    inpaint: Input[artifacts.InpaintModel],
    backdrop: Input[artifacts.BackdropLora],
    engaged: Input[artifacts.EngagedLora],
    aligned: Input[artifacts.AlignedLora],
    adapter: Input[artifacts.IpAdapter],
    uve: Input[artifacts.Uve],
    styles: Input[artifacts.Styles],
    decoder: Input[artifacts.Decoder],
    upscaler: Input[artifacts.Upscaler],
    segmenter: Input[artifacts.Segmenter],
    light: Input[artifacts.Light],
    reward: Input[artifacts.RewardModel],
    model: Output[artifacts.CanvasModel],
) -> None:
    """Put all parts that stages made into one pipeline, the mined styles and the reward model beside it."""
    from canvas.checksums import write_checksums
    from canvas.inference.assembly.stage_parts import assemble_pipeline

    folders = {
        "data": raw.path,
        "base": base.path,
        "clip": clips.path,
        "text": towers.path,
        "vae": vae.path,
        "inpaint": inpaint.path,
        "backdrop_lora": backdrop.path,
        "engaged_lora": engaged.path,
        "ip_adapter": adapter.path,
        "uve": uve.path,
        "styles": styles.path,
        "decoder": decoder.path,
        "upscaler": upscaler.path,
        "segmenter": segmenter.path,
        "light": light.path,
        "reward": reward.path,
    }
    if is_aligned := is_for(aligned.path, "backdrop"):
        folders["aligned_lora"] = aligned.path
    digests = {name: digest(folder) for name, folder in folders.items()}
    made = {name: folder for name, folder in folders.items() if is_made(folder)}
    pipeline = assemble_pipeline(made, digests, text=text, frames=frames, edges=edges, sampling=sampling, safety=safety)
    pipeline.save_pretrained(model.path)
    if is_aligned:
        shutil.copyfile(aligned.path / EVIDENCE_FILE, model.path / EVIDENCE_FILE)
    shutil.copytree(styles.path, model.path / STYLES_FOLDER)
    if is_made(reward.path):
        shutil.copytree(reward.path, model.path / REWARD_FOLDER)
    write_checksums(model.path)
