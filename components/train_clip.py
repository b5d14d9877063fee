"""Stage `train_clip`: pictures and captions in, two text-image encoders out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from canvas.clip.spec import ClipSpec, TextSpec
from canvas.pins.crops import CropSpec
from canvas.pins.frames import FrameSpec
from canvas.train.spec import TrainableParams, Training, TrainSpec
from components.artifacts import Captions, Clip, Kept, Pins
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, StepLog, stage

if TYPE_CHECKING:
    import open_clip

    from canvas.clip.model import TextTower


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainClipParams(TrainableParams):
    sources: tuple[str, ...]  # of the captions to learn from
    scored_source: str  # of the captions that retrieval is scored with
    crops: CropSpec
    score_batch: int  # pictures at once, when scored

    refused: ClassVar[Mapping[str, str]] = {
        "accumulate": "pairs are told apart within one pass, train on more processes and set it to 1",
        "parallel": "the temperature is one number, which cannot be sharded, set it to ddp or none",
    }


@stage(machine="gpus")
def train_clip(
    train_clip: TrainClipParams,
    training: Training,
    text: TextSpec,
    frames: FrameSpec,
    pins: Input[Pins],
    kept: Input[Kept],
    captions: Input[Captions],
    model: Output[Clip],
    metrics: Output[Metrics],
    losses: Output[Losses],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train the two text-image encoders on pins and their captions; score retrieval on held-out pins."""
    import torch

    from canvas.clip.model import TextTower, build_clip, is_text_encoder, save_clip
    from canvas.device import default_device
    from canvas.pins import tables

    split_of = tables.read_kept_splits(pins.path, kept.path)
    figures: dict[str, Any] = {}
    curve = ["step,encoder,loss"]
    for number, (name, spec) in enumerate((("first", text.first), ("second", text.second))):
        clock = time.perf_counter()
        if train_clip.train is None and (spec.init_from is None or is_text_encoder(spec.init_from)):
            raise ValueError(f"train_clip.train is null: text.{name} needs training, or name its init_from")
        torch.manual_seed(training.seed + number)
        clip = build_clip(spec)
        own: dict[str, Any] = {}
        if train_clip.train is not None:
            train = training.resolve(train_clip.train)
            fitted = _fitted(clip, spec, name, train_clip, train, split_of, pins.path, captions.path, log, scratch)
            curve += [f"{step},{name},{loss:.6g}" for step, loss in fitted.losses]
            own["images_per_second"] = fitted.images_per_second
        clip.eval().to(default_device())  # where training left it
        save_clip(clip, spec, model.path / name)
        trained = time.perf_counter()
        own |= _retrieval(clip, TextTower.from_clip(clip, spec), train_clip, frames, split_of, pins.path, captions.path)
        figures[name] = own | {"seconds": {"train": trained - clock, "score": time.perf_counter() - trained}}
    metrics.write(figures)
    losses.write("\n".join(curve) + "\n")


def _fitted(
    clip: open_clip.CLIP,
    spec: ClipSpec,
    name: str,
    params: TrainClipParams,
    train: TrainSpec,
    split_of: Mapping[str, str],
    pins: Path,
    captions: Path,
    log: StepLog,
    scratch: Scratch,
) -> Any:
    from canvas.clip.model import TextTower, contrastive_objective
    from canvas.clip.training_data import CaptionedBatches
    from canvas.pins.captions import read_captions
    from canvas.pins.image_batches import CropBatches, load_images
    from canvas.train.loop import fit

    wanted = {pin_id for pin_id, split in split_of.items() if split == "train"}
    texts = read_captions(captions, wanted, params.sources)
    ids, pictures = load_images(pins, texts, round(spec.image_size * params.crops.zoom))
    tower = TextTower.from_clip(clip, spec)
    tokens = {pin_id: tower.tokenize(texts[pin_id]) for pin_id in ids}
    crops = CropBatches(ids, pictures, spec.image_size, params.crops, train.batch_size, train.seed)
    prepare = clip.visual.preprocess_cfg
    return fit(
        clip,
        contrastive_objective,
        CaptionedBatches(crops, tokens, prepare["mean"], prepare["std"]),
        train,
        checkpoints=scratch.path / name,
        log=lambda values, step: log.metrics({f"{name}_{key}": value for key, value in values.items()}, step),
    )


def _retrieval(
    clip: open_clip.CLIP,
    tower: TextTower,
    params: TrainClipParams,
    frames: FrameSpec,
    split_of: Mapping[str, str],
    pins: Path,
    captions: Path,
) -> dict[str, Any]:
    """Recall by held-out split."""
    import torch
    from torch.nn import functional as F

    from canvas.features.perceptual import compute_image_embeddings
    from canvas.pins.captions import read_captions
    from canvas.pins.image_batches import batch_by_frame
    from canvas.pins.pixels import bytes_to_tensor
    from evaluation.measures.retrieval import compute_retrieval_metrics

    held_out = {pin_id: split for pin_id, split in split_of.items() if split != "train"}
    texts = read_captions(captions, held_out, [params.scored_source])
    embeddings: dict[str, list[tuple[str, torch.Tensor]]] = {}
    device = clip.logit_scale.device
    tower.to(device)
    with torch.no_grad():
        for batch in batch_by_frame(pins, {pin: held_out[pin] for pin in texts}, frames, params.score_batch):
            found = compute_image_embeddings(clip, bytes_to_tensor(torch.as_tensor(batch["images"]).to(device))).cpu()
            for pin, split, embedding in zip(batch["pin_id"], batch["split"], found, strict=True):
                embeddings.setdefault(split, []).append((pin, embedding))
        figures: dict[str, Any] = {}
        for split, rows in sorted(embeddings.items()):
            said = [texts[pin][0] for pin, _ in rows]
            pooled = [tower(tower.tokenize(said[at : at + 64]))[1].cpu() for at in range(0, len(said), 64)]
            images = torch.stack([embedding for _, embedding in rows])
            figures[split] = compute_retrieval_metrics(
                images.numpy(), F.normalize(torch.cat(pooled), dim=-1).numpy(), said
            )
    return figures
