"""Training of the upscaler on crops of images at full size, and the sheet of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, TypedDict

import cv2
import numpy as np
import torch
from PIL import Image

from canvas.features.perceptual import FeatureDistance
from canvas.features.photographs import load_photo_features
from canvas.pins.images import Pixels, bytes_to_tensor, draw_contact_sheet, encode_png
from canvas.pins.masks import blend_pixels
from canvas.train.data import select_batch_rows
from canvas.train.draws import Draws, mix_seed
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import TrainSpec
from canvas.upscaler.diffusion import DiffusionUpscaler, compute_size
from canvas.upscaler.examples import Examples
from canvas.upscaler.loading import AnyUpscaler
from canvas.upscaler.model import Upscaler, compute_factor
from canvas.upscaler.spec import FACTORS, UpscalerSpec
from canvas.upscaler.tiles import enlarge
from canvas.vae.objective import ReconstructionLoss
from canvas.vae.spec import ReconstructionSpec

FEATURE_LAYERS = (0, 1, 2)
"""Layers of canvas.features.photographs, at strides 2, 4 and 8. Scores ask another network."""
LEAST_TIME = 0.02
"""Share of noise below which there is nothing to learn."""
FLOW_WEIGHT = 0.1
"""Weight of the losses of flow and spread beside the regression's; none of its weights learns from them."""
FILTER_BATCH = 4
"""Images at once in the least squares of the linear filter."""


class UpscalerBatch(TypedDict):
    """Crops of one factor, at the same places."""

    pin_id: list[str]
    small: torch.Tensor  # uint8 (B, 3, c, c)
    images: torch.Tensor  # uint8 (B, 3, s * c, s * c)
    alpha: torch.Tensor  # uint8 (B, 1, s * c, s * c)


class UpscalerBatches:
    """Random crops, half of them mirrored; the factors take turns, a step each."""

    def __init__(self, examples: Examples, crop: int, batch_size: int, seed: int) -> None:
        self.examples, self.crop = examples, crop
        self.batch_size, self.seed = batch_size, seed

    def __call__(self, step: int, rank: int, world: int) -> UpscalerBatch:
        large, factor = self.examples.large, FACTORS[step % len(FACTORS)]
        rows = select_batch_rows(len(large), self.batch_size, self.seed, step, rank, world)
        columns: dict[str, list[torch.Tensor]] = {"small": [], "images": [], "alpha": []}
        sources = {"small": self.examples.small[factor], "images": large.images, "alpha": large.alphas}
        room = sources["small"].shape[-1] - self.crop + 1
        for place, row in enumerate(rows, rank * len(rows)):
            rng = np.random.default_rng(mix_seed(self.seed, step, place))
            top, left = (int(at) for at in rng.integers(room, size=2))
            mirrored = rng.random() < 0.5
            for name, source in sources.items():
                scale = 1 if name == "small" else factor
                down, across = (slice(scale * at, scale * (at + self.crop)) for at in (top, left))
                part = source[row, :, down, across]
                columns[name].append(part.flip(-1) if mirrored else part)
        return {
            "pin_id": [large.names[row] for row in rows],
            "small": torch.stack(columns["small"]),
            "images": torch.stack(columns["images"]),
            "alpha": torch.stack(columns["alpha"]),
        }


class UpscalerObjective:
    """Loss of enlarged images with their product put back, so that only backgrounds teach."""

    def __init__(self, loss: ReconstructionLoss) -> None:
        self.loss = loss

    def __call__(
        self, upscaler: AnyUpscaler, batch: UpscalerBatch, draws: Draws
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        targets, alpha = bytes_to_tensor(batch["images"]), batch["alpha"].float() / 255
        enlarged = upscaler(bytes_to_tensor(batch["small"]), targets, alpha).float()
        loss, terms = self.loss.to(targets.device)(alpha * targets + (1 - alpha) * enlarged, targets)
        return loss, terms


class DiffusionUpscalerObjective:
    """Loss of a diffusion upscaler: its regression's, the squared error of the residuals that its flow says, and how
    unlikely they are of the spread that is said (of a Laplace distribution)."""

    def __init__(self, loss: ReconstructionLoss) -> None:
        self.loss = loss

    def __call__(
        self, upscaler: DiffusionUpscaler, batch: UpscalerBatch, draws: Draws
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        small, targets, alpha = bytes_to_tensor(batch["small"]), bytes_to_tensor(batch["images"]), batch["alpha"] / 255
        factor = compute_factor(small, alpha)
        mean = upscaler.regression(small, targets, alpha).float()
        loss, terms = self.loss.to(targets.device)(alpha * targets + (1 - alpha) * mean, targets)
        mean = mean.detach()
        spread, left = upscaler.measure_spread(mean, targets, alpha, factor).float(), targets - mean
        misfit = ((1 - alpha) * (spread.log() + left.abs() / spread)).mean()  # least where spread is the mean of |left|
        residual = left / spread.detach()
        times = draws.uniform(len(draws)).clamp(min=LEAST_TIME)
        share = times[:, None, None, None]
        sample = (1 - share) * residual + share * draws.normal(*residual.shape)
        predicted = upscaler.flow(sample, times, mean, targets, alpha, factor).float()
        error = ((1 - alpha) * (compute_size(share) / share * (predicted - residual)).square()).mean()
        return loss + FLOW_WEIGHT * (error + misfit), {**terms, "flow": error, "spread": misfit}


def build_objective(
    spec: ReconstructionSpec, kind: Literal["regression", "diffusion"]
) -> UpscalerObjective | DiffusionUpscalerObjective:
    """Build the objective of `spec`; its `features` are those learnt on photographs, at their finest layers."""
    features = FeatureDistance(load_photo_features(FEATURE_LAYERS)) if spec.features else None
    loss = ReconstructionLoss(spec, features)
    return DiffusionUpscalerObjective(loss) if kind == "diffusion" else UpscalerObjective(loss)


def build_fitted_upscaler(spec: UpscalerSpec, examples: Examples) -> Upscaler | DiffusionUpscaler:
    """Build the upscaler of `spec`, its trunks random, its linear filters the best ones of the examples."""
    upscaler = (DiffusionUpscaler if spec.kind == "diffusion" else Upscaler).from_spec(spec)
    regression = upscaler.regression if isinstance(upscaler, DiffusionUpscaler) else upscaler
    for factor in FACTORS:
        regression.fit_filter(_iterate_parts(examples, factor))
        if isinstance(upscaler, DiffusionUpscaler):
            upscaler.measure_residuals(_iterate_parts(examples, factor))
    return upscaler


def _iterate_parts(examples: Examples, factor: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield small images, alphas and the images that are to come out, some at a time."""
    columns = examples.small[factor], examples.large.alphas, examples.large.images
    for small, alphas, images in zip(*(torch.split(column, FILTER_BATCH) for column in columns), strict=True):
        yield bytes_to_tensor(small), alphas.float() / 255, bytes_to_tensor(images)


def fit_upscaler(
    upscaler: AnyUpscaler,
    examples: Examples,
    crop: int,
    objective: UpscalerObjective | DiffusionUpscalerObjective,
    spec: TrainSpec,
    checkpoints: Path,
    log: Callable[[Mapping[str, float], int], None],
    sample: Callable[[AnyUpscaler, int], None],
) -> TrainResult:
    """Train the upscaler in place.

    Args:
        upscaler: As it starts.
        examples: Large images, and the small ones that they are learnt from.
        crop: Side of a training crop of the small images, pixels.
        objective: Weights of the loss, and the adversary's.
        spec: Of the loop.
        checkpoints: Directory of the run's states.
        log: Metrics and step, as the loop calls it.
        sample: The upscaler and the step, likewise.
    """
    batches = UpscalerBatches(examples, crop, spec.batch_size, spec.seed)
    return fit(upscaler, objective, batches, spec, checkpoints=checkpoints, log=log, sample=sample)


def enlarge_with_baseline(upscaler: AnyUpscaler, examples: Examples, factor: int, index: int) -> tuple[Pixels, Pixels]:
    """Return one example enlarged by the upscaler and by a cubic filter, both with the product put back."""
    large = examples.large
    image = large.images[index].permute(1, 2, 0).numpy()
    alpha = large.alphas[index, 0].numpy()
    small = examples.small[factor][index].permute(1, 2, 0).contiguous().numpy()
    ours = enlarge(upscaler, small, image, alpha)
    cubic = cv2.resize(small, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)
    weight = alpha.astype(np.float32) / np.float32(255)
    return blend_pixels(image, weight, ours), blend_pixels(image, weight, np.asarray(cubic, np.uint8))


def draw_upscaler_sheet(upscaler: AnyUpscaler, examples: Examples, count: int) -> bytes:
    """Draw held-out images by a cubic filter, by the upscaler, and as they are, at each factor, as PNG."""
    large, cells, labels = examples.large, [], []
    for index in range(min(count, len(large))):
        for factor in FACTORS:
            ours, cubic = enlarge_with_baseline(upscaler, examples, factor, index)
            cells += [cubic, ours]
            labels += [f"x{factor}, cubic", f"x{factor}, upscaler"]
        cells.append(large.images[index].permute(1, 2, 0).numpy())
        labels.append("as it is")
    images, columns = [Image.fromarray(cell) for cell in cells], 2 * len(FACTORS) + 1
    return encode_png(draw_contact_sheet(images, labels, columns, cell=large.images.shape[-1]))


def build_sampler(
    examples: Examples, count: int, log_image: Callable[[str, bytes], None]
) -> Callable[[AnyUpscaler, int], None]:
    """Build the `sample` of a training: it logs the sheet of the same held-out images."""

    def sample(upscaler: AnyUpscaler, step: int) -> None:
        log_image(f"samples-{step:06d}", draw_upscaler_sheet(upscaler, examples, count))

    return sample
