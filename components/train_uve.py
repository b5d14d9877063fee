"""Stage `train_uve`: labelled images in, one embedding for all their labels out."""

from __future__ import annotations

import time

from canvas.train.spec import Training
from canvas.uve.spec import TrainUveParams, UveSpec, estimate_uve_memory
from components.artifacts import Captions, Clip, Kept, Pins, Truth, Uve
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage


@stage(machine="gpus", memory=estimate_uve_memory)
def train_uve(
    train_uve: TrainUveParams,
    training: Training,
    uve: UveSpec,
    pins: Input[Pins],
    kept: Input[Kept],
    truth: Input[Truth],
    captions: Input[Captions],
    clip: Input[Clip],
    model: Output[Uve],
    metrics: Output[Metrics],
    losses: Output[Losses],
    sheet: Output[Sheet],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train one embedding on scene, product, category and board; score the nearest neighbours of held-out pins.

    The sheet shows held-out pins on the left, the held-out pins nearest to them beside them.
    """
    import torch

    from canvas.clip.model import load_clip
    from canvas.device import default_device
    from canvas.pins import tables
    from canvas.pins.fallbacks import Notes, choose_held_out
    from canvas.pins.image_batches import load_square_images, select_evenly
    from canvas.pins.images import encode_png
    from canvas.uve.model import build_uve, pack_codes, record_uve_source, unpack_codes
    from canvas.uve.table import choose_input_side, embed_arrays
    from canvas.uve.training import read_labels, train_uve_model
    from evaluation.measures.recall.neighbours import compute_recalls, draw_neighbour_sheet

    clock = time.perf_counter()
    if train_uve.train is None and uve.init_from is None:
        raise ValueError("train_uve.train is null: the embedding needs training, or name its uve.init_from")
    split_of = tables.read_kept_splits(pins.path, kept.path)
    labels = read_labels(pins.path, truth.path, captions.path, split_of.keys())
    train_pins = [pin for pin, split in split_of.items() if split == "train"]
    torch.manual_seed(training.seed)
    network = build_uve(uve, trains=train_uve.train is not None)
    notes = Notes()
    results: dict[str, object] = {}
    curve: list[tuple[int, float]] = []
    if train_uve.train is not None:
        train = training.resolve(train_uve.train)
        data, work = (pins.path, train_pins, labels), scratch.path
        result = train_uve_model(network, train_uve, train, *data, notes=notes, checkpoints=work, log=log.metrics)
        if result is not None:
            results["images_per_second"], curve = result.images_per_second, result.losses
    network.eval().save_pretrained(model.path)
    record_uve_source(uve, model.path)
    trained = time.perf_counter()
    network.to(default_device())
    tower = load_clip(clip.path / "second").eval().to(default_device())
    held_out = select_evenly(choose_held_out(split_of, notes).keys(), train_uve.scored_pins)
    catalogue = select_evenly(train_pins, train_uve.catalogue_pins)
    ids, images = load_square_images(pins.path, {*held_out, *catalogue}, choose_input_side(network, tower))
    vectors, clip_vectors = embed_arrays(network, tower, images, train_uve.score_batch)
    embeddings = {"uve": vectors, "uve_code": unpack_codes(pack_codes(vectors)), "clip": clip_vectors}
    results |= compute_recalls(ids, embeddings, held_out, labels, split_of)
    queries = select_evenly(held_out, train_uve.sheet_pins)
    sheet.write(encode_png(draw_neighbour_sheet(ids, images, vectors, queries, labels)))
    results["parameters"] = sum(weight.numel() for weight in network.parameters())
    results["seconds"] = {"train": trained - clock, "score": time.perf_counter() - trained}
    metrics.write(results | notes.to_metrics())
    losses.write(curve)
