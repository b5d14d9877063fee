"""Stage `evaluate`: candidates in, every score of every one out, and what they come to by model and slice."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from canvas.clip.spec import TextSpec
from canvas.pins.frames import FrameSpec
from canvas.pins.tables import CANDIDATE_MODELS, SPLITS
from canvas.ranges import Count
from canvas.segmenter.spec import EdgeSpec
from components import artifacts
from evaluation.generator.metrics import FeatureChoice
from evaluation.tables.drift import DriftLimits
from lifecycle.declare.stage import Input, Output, Report, stage

if TYPE_CHECKING:
    import pandas as pd

    from canvas.pins.scene_views import Views
    from evaluation.generator.comparison import Delta
    from evaluation.generator.metrics import FeatureName
    from evaluation.judges.judges import Judges
    from evaluation.measures.distances import Features
    from evaluation.tables.drift import Drift

Row = Mapping[str, Any]
Sets = Mapping[str, Mapping["FeatureName", "Features"]]

HELD_OUT = tuple(split for split in SPLITS if split != "train")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateParams:
    features: FeatureChoice  # of the distances of whole sets
    agreement: Literal["first", "second"]  # text-image encoder that compares picture and prompt
    real_pins: Count  # held-out ones that painted pictures are compared with
    distance_side: int  # pixels in which pictures of one item are compared, a multiple of 32
    seam_reach: Count  # pixels of the model's frame on each side of the product's edge
    mask_sizes: tuple[float, float]  # shares of the picture from which a product is medium, large
    slices: tuple[str, ...]  # columns of the evaluation
    min_items: Count  # of a slice that is compared with the champion's
    drift: DriftLimits  # of the challenger's pictures from the champion's training data
    worst: Count  # pictures shown
    batch_size: Count
    seed: int

    def __post_init__(self) -> None:
        if self.distance_side < 32 or self.distance_side % 32:
            raise ValueError(f"evaluate.distance_side is {self.distance_side}: the judge needs a multiple of 32")
        if not 0 < self.mask_sizes[0] < self.mask_sizes[1] < 1:
            raise ValueError(f"evaluate.mask_sizes are {self.mask_sizes}: give two shares of the picture that rise")
        if unknown := set(self.slices) - {"category", "scene", "mask_size"}:
            raise ValueError(f"evaluate.slices has {sorted(unknown)}: it may have category, scene, mask_size")


@stage(machine="gpu")
def evaluate(
    evaluate: EvaluateParams,
    edges: EdgeSpec,
    frames: FrameSpec,
    text: TextSpec,
    candidates: Input[artifacts.Candidates],
    champion: Input[artifacts.Champion],
    pins: Input[artifacts.Pins],
    kept: Input[artifacts.Kept],
    judges: Input[artifacts.SceneJudges],
    masks: Input[artifacts.Masks],
    captions: Input[artifacts.Captions],
    clip: Input[artifacts.Clip],
    segmenter: Input[artifacts.Segmenter],
    reward: Input[artifacts.RewardModel],
    evaluation: Output[artifacts.Evaluation],
    statistics: Output[artifacts.TrainingStatistics],
    metrics: Output[artifacts.EvaluationMetrics],
    report: Output[Report],
    drift: Output[Report],
) -> None:
    """Score every candidate; compare models by measure, slice and whole set; measure drift of what is painted."""
    import pyarrow as pa

    from canvas.pins import tables
    from evaluation.generator.comparison import select_model
    from evaluation.generator.metrics import compute_model_metrics, compute_set_metrics, compute_slice_metrics
    from evaluation.judges.judges import Judges
    from evaluation.pages.evaluation import EvaluationPage, render_evaluation_page
    from evaluation.tables.drift import read_training_statistics

    params, clock = evaluate, time.perf_counter()
    asked = tables.read(candidates.path).to_pylist()
    paths = pins.path, kept.path, masks.path, captions.path
    by = Judges.load(judges.path)
    rows, sets = _scored(params, edges, frames, text, asked, paths, by, clip.path, segmenter.path, reward.path)
    scored = time.perf_counter()
    tables.write(evaluation.path, [pa.Table.from_pylist(rows, tables.EVALUATION)], tables.EVALUATION)
    learnt_from = read_training_statistics(pins.path, kept.path)
    schema = tables.TRAINING_STATISTICS
    tables.write(statistics.path, [pa.Table.from_pandas(learnt_from, schema, preserve_index=False)], schema)

    models = {model: select_model(rows, model) for model in CANDIDATE_MODELS if select_model(rows, model)}
    figures: dict[str, Any] = {
        model: compute_model_metrics(own) | compute_set_metrics(sets["real"], sets[model], params.features)
        for model, own in models.items()
    }
    by_slice = compute_slice_metrics(models["challenger"], params.slices)
    moved = _drifted(params, models["challenger"], champion.path, learnt_from)
    drift_figures = {
        "share": len(moved.drifted) / len(moved.distances),
        "drifted": len(moved.drifted),
        "columns": len(moved.distances),
        "distance": dict(moved.distances),
    }
    seconds = {"score": scored - clock, "compare": time.perf_counter() - scored}
    everything = figures | {"slices": by_slice, "drift": drift_figures, "judge": dict(by.accuracy), "seconds": seconds}
    metrics.write(everything)
    drift.write(moved.page)
    shown = EvaluationPage(
        models=figures,
        slices=by_slice,
        deltas=_deltas(params, models),
        drift=drift_figures,
        drift_page="drift.html",
        worst=_worst(params, models["challenger"]),
        worst_by="reward_overall",
    )
    report.write(render_evaluation_page(shown))


def _scored(
    params: EvaluateParams,
    edges: EdgeSpec,
    frames: FrameSpec,
    text: TextSpec,
    asked: Sequence[Row],
    paths: tuple[Path, Path, Path, Path],
    judges: Judges,
    clip: Path,
    segmenter: Path,
    reward: Path,
) -> tuple[list[Row], Sets]:
    """Rows of tables.EVALUATION; features of every model's pictures and of real ones ("real").
    ValueError if the challenger painted nothing, or a pin is not there."""
    import numpy as np
    from tqdm import tqdm

    from canvas.clip.model import TextTower, load_clip
    from canvas.device import default_device
    from canvas.pins.products import load_product_pins
    from canvas.pins.scene_views import crop_center_square
    from canvas.reward.model import load_reward
    from canvas.segmenter.model import load_segmenter
    from evaluation.generator.candidates import Scorer, embed_images
    from evaluation.judges.features import choose_view_side, extract_trunk_features

    if not any(row["model"] == "challenger" for row in asked):
        raise ValueError("the candidates hold no picture of the challenger: there is nothing to evaluate")
    pins, kept, masks, captions = paths
    device = default_device()
    clips = {name: load_clip(clip / name).eval().to(device) for name in ("first", "second")}
    scorer = Scorer(
        judges=judges,
        segmenter=load_segmenter(segmenter).to(device),
        edges=edges,
        clip=clips[params.agreement],
        tower=TextTower.from_clip(clips[params.agreement], getattr(text, params.agreement)).to(device),
        reward=load_reward(reward).to(device),
        view_side=choose_view_side(frames.side),
        seam_side=frames.side,
        distance_side=params.distance_side,
        seam_reach=params.seam_reach,
        mask_sizes=params.mask_sizes,
        batch_size=params.batch_size,
    )

    def features(views: Views, seen: Features) -> dict[FeatureName, Features]:
        return {
            name: seen if name == "trunk" else embed_images(clips[name], views, params.batch_size)
            for name in sorted(params.features.names)
        }

    real_pins = load_product_pins(pins, kept, masks, captions, splits=HELD_OUT, count=params.real_pins)
    real = np.stack([crop_center_square(pin.image, choose_view_side(frames.side)) for pin in real_pins])
    sets: dict[str, Mapping[FeatureName, Features]] = {"real": features(real, extract_trunk_features(real))}
    found: dict[str, tuple[Row, Any, Any]] = {}
    by_pin: dict[str, list[Row]] = {}
    for row in asked:
        by_pin.setdefault(row["pin_id"], []).append(row)
    with tqdm(total=len(asked), desc="evaluate", unit="picture") as bar:
        for pin_id, original in _originals(pins, by_pin).items():
            own = scorer.scored(by_pin[pin_id], original)
            found |= {row["candidate_id"]: (row, view, seen) for row, view, seen in zip(*own, strict=True)}
            bar.update(len(by_pin[pin_id]))
    if missing := sorted(by_pin.keys() - {row["pin_id"] for row, _, _ in found.values()}):
        raise ValueError(f"candidates show pin {missing[0]}, which the pins table lacks: sample them again")
    ordered = [found[row["candidate_id"]] for row in asked]
    for model in {row["model"] for row in asked}:
        own_rows = [one for one in ordered if one[0]["model"] == model]
        sets[model] = features(np.stack([view for _, view, _ in own_rows]), np.stack([seen for _, _, seen in own_rows]))
    return [row for row, _, _ in ordered], sets


def _originals(pins: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The products' pictures as they came, RGB, by pin."""
    from canvas.pins import tables
    from canvas.pins.images import composite_on_white, decode_image

    return {
        row["pin_id"]: composite_on_white(decode_image(row["image"]))
        for batch in tables.read_batches(pins, ["pin_id", "image"])
        for row in batch.to_pylist()
        if row["pin_id"] in wanted
    }


def _drifted(params: EvaluateParams, challenger: Sequence[Row], champion: Path, own: pd.DataFrame) -> Drift:
    """Drift of the challenger's pictures from what the champion, or without one it itself, learnt from."""
    import pandas as pd

    from canvas.pins import tables
    from evaluation.generator.candidates import measure_image_statistics
    from evaluation.tables.drift import measure_drift

    place = champion / "training_statistics"
    reference = tables.read(place).to_pandas() if place.is_dir() else own
    return measure_drift(reference, pd.DataFrame([measure_image_statistics(row) for row in challenger]), params.drift)


def _deltas(params: EvaluateParams, models: Mapping[str, Sequence[Row]]) -> list[Delta]:
    """Every measure of challenger against champion, over all and by slice; none without a champion."""
    from evaluation.generator.comparison import compute_deltas, compute_slice_deltas
    from evaluation.generator.measure_names import LOWER_IS_BETTER, MEASURES

    if "champion" not in models:
        return []
    both = models["challenger"], models["champion"]
    direction: dict[str, Any] = {"lower_is_better": LOWER_IS_BETTER, "guarded": MEASURES}
    found = [delta for delta in compute_deltas(*both, **direction) if delta.difference is not None]
    return found + compute_slice_deltas(*both, params.slices, min_items=params.min_items, **direction)


def _worst(params: EvaluateParams, challenger: Sequence[Row]) -> bytes:
    from canvas.pins.images import decode_image, draw_contact_sheet, encode_png
    from evaluation.generator.metrics import select_worst

    rows = select_worst(challenger, "reward_overall", params.worst)
    labels = [f"{row['reward_overall']:.2f} {row['prompt']}" for row in rows]
    return encode_png(draw_contact_sheet([decode_image(row["image"]) for row in rows], labels, columns=6, cell=150))
