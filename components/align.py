"""Stage `align`: the generator and rewards in, a LoRA out that earns more of them and that the judge prefers."""

from __future__ import annotations

from canvas.align.spec import AlignParams, estimate_align_memory
from canvas.denoiser.spec import DiffusionSpec, RecommendedSampling
from canvas.pins.frames import FrameSpec
from canvas.shards.spec import EncodingSpec
from canvas.train.spec import Training
from canvas.vae.spec import PerceptualSpec
from components import artifacts
from lifecycle.declare.skipping import is_made, write_notice, write_skipped
from lifecycle.declare.stage import Input, Metrics, Output, Plot, Scratch, StepLog, stage


class AlignmentCurve(Plot):
    """Rise of the rewards that are trained on, in deviations, and the judge's gold, by step."""

    x = "step"
    y = ("reward", "gold")


@stage(machine="gpu", memory=estimate_align_memory, skips=True)
def align(
    align: AlignParams,
    training: Training,
    diffusion: DiffusionSpec,
    sampling: RecommendedSampling,
    perceptual: PerceptualSpec,
    encode: EncodingSpec,
    frames: FrameSpec,
    pins: Input[artifacts.Pins],
    kept: Input[artifacts.Kept],
    masks: Input[artifacts.Masks],
    captions: Input[artifacts.Captions],
    shards: Input[artifacts.Shards],
    clip: Input[artifacts.Clip],
    vae: Input[artifacts.Vae],
    base: Input[artifacts.BaseModel],
    inpaint: Input[artifacts.InpaintModel],
    backdrop: Input[artifacts.BackdropLora],
    engaged: Input[artifacts.EngagedLora],
    segmenter: Input[artifacts.Segmenter],
    reward: Input[artifacts.RewardModel],
    judges: Input[artifacts.SceneJudges],
    lora: Output[artifacts.AlignedLora],
    metrics: Output[Metrics],
    curve: Output[AlignmentCurve],
    sheet: Output[artifacts.AlignmentSheet],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train a LoRA on rewards of the generator's own images, until a judge that is no reward finds nothing better;
    where it does not prefer them to the start's, no LoRA is made. The sheet shows both at the same seeds."""
    from canvas.align.training import Aligner, save_alignment
    from canvas.pins.fallbacks import Notes
    from evaluation.generator.pins import load_engaged_images
    from evaluation.judges.alignment import AlignmentJudge
    from evaluation.judges.features import choose_view_side

    params, notes, is_base = align, Notes(), align.generator == "base"
    if params.train is None:
        write_skipped("align.train is null, no LoRA is made", metrics, curve, sheet, lora, plot=AlignmentCurve)
        return
    folders = {"pins": pins.path, "masks": masks.path, "captions": captions.path, "shards": shards.path}
    folders |= {"vae": vae.path, "reward": reward.path, "segmenter": segmenter.path, "clip": clip.path}
    folders["model"] = base.path if is_base else inpaint.path
    real = load_engaged_images(pins.path, kept.path, params.guard.engaged, params.guard.real_pins, notes)
    judge = AlignmentJudge.load(judges.path, real, choose_view_side(frames.side), params.guard.min_diversity)
    aligner = Aligner.load(params, training, diffusion, sampling, folders, judge, encode.sources, notes)
    loras = [] if is_base else [folder for folder in (backdrop.path, engaged.path) if is_made(folder)]
    policy = aligner.load_policy(folders["model"], loras)
    run = aligner.align(policy, scratch.path, log)
    metrics.write(run.figures | run.costs)
    curve.write(run.curve)
    sheet.write(run.sheet)
    if run.is_better:
        save_alignment(policy, params.generator, run, lora.path)
    else:
        write_notice(f"the alignment is left out: {run.reason}", lora)
