"""How near reconstructed images are to their originals. Images are (B, 3, H, W) in [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from canvas.features.perceptual import Distance, FeatureDistance
from canvas.pins.frames import FrameSpec
from canvas.pins.image_batches import FrameBatch, batch_by_frame, select_evenly
from canvas.pins.images import bytes_to_tensor, draw_contact_sheet, encode_png, tensor_to_bytes
from canvas.vae.model import Vae, compute_posterior, decode_latents
from evaluation.statistics.intervals import compute_mean_metrics

PIXEL_RANGE = 2.0  # width of the range [-1, 1]


def psnr(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the peak signal-to-noise ratio in dB, (B,)."""
    error = (images.clamp(-1, 1) - targets).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(PIXEL_RANGE**2 / error)


def ssim(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the structural similarity on luma, (B,), Gaussian window 11, sigma 1.5 (Wang et al. 2004, eq. 13)."""
    luma = torch.tensor([0.299, 0.587, 0.114]).to(images)
    x, y = ((batch.clamp(-1, 1) * luma[:, None, None]).sum(dim=1, keepdim=True) for batch in (images, targets))
    offset = torch.arange(11, device=x.device, dtype=x.dtype) - 5
    gaussian = torch.exp(-offset.square() / (2 * 1.5**2))
    window = torch.outer(gaussian, gaussian)[None, None] / gaussian.sum() ** 2

    def mean(values: torch.Tensor) -> torch.Tensor:
        return F.conv2d(values, window)

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    small, medium = (0.01 * PIXEL_RANGE) ** 2, (0.03 * PIXEL_RANGE) ** 2
    similarity = ((2 * mean_x * mean_y + small) * (2 * covariance + medium)) / (
        (mean_x**2 + mean_y**2 + small) * (var_x + var_y + medium)
    )
    return similarity.flatten(1).mean(dim=1)


class ReconstructionScores:
    """Scores of reconstructions, a batch at a time, and a sheet of the first `sheet_each` of each size."""

    def __init__(self, distance: Distance, sheet_each: int) -> None:
        self._distance = distance
        self._sheet_each = sheet_each
        self._scores: dict[str, dict[str, list[float]]] = {}  # split -> measure -> values
        self._pairs: dict[tuple[int, ...], list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def add(self, images: torch.Tensor, reconstructions: torch.Tensor, splits: Sequence[str]) -> None:
        """Take in images and their reconstructions, each with its pin's split."""
        reconstructions = reconstructions.float().clamp(-1, 1)
        measures = {
            "psnr_db": psnr(reconstructions, images),
            "ssim": ssim(reconstructions, images),
            "perceptual_distance": self._distance(reconstructions, images),
        }
        for name, values in measures.items():
            for split, value in zip(splits, values.tolist(), strict=True):
                self._scores.setdefault(split, {}).setdefault(name, []).append(value)
        pairs = self._pairs.setdefault(tuple(images.shape[1:]), [])
        room = max(0, self._sheet_each - len(pairs))
        pairs += zip(images[:room], reconstructions[:room], strict=True)

    def compute_metrics(self) -> dict[str, object]:
        """Compute means with 95 % intervals over all images, and means by split; `ValueError` if there are none."""
        if not self._scores:
            raise ValueError("no held-out image to score: the filter kept none outside of the train split")
        metrics: dict[str, object] = {"pins": sum(len(scores["psnr_db"]) for scores in self._scores.values())}
        for name in ("psnr_db", "ssim", "perceptual_distance"):
            metrics |= compute_mean_metrics(name, [value for scores in self._scores.values() for value in scores[name]])
        for split, scores in sorted(self._scores.items()):
            metrics[split] = {name: sum(values) / len(values) for name, values in scores.items()}
        return metrics

    def draw_sheet(self) -> bytes:
        """Draw originals, below each its reconstruction, as PNG."""
        images, labels = [], []
        for pairs in self._pairs.values():
            for label, side in (("held out", 0), ("reconstructed", 1)):
                row = [Image.fromarray(tensor_to_bytes(pair[side]).permute(1, 2, 0).cpu().numpy()) for pair in pairs]
                blank = [Image.new("RGB", row[0].size, "white")] * (self._sheet_each - len(row))
                images += row + blank
                labels += [label] * len(row) + [""] * len(blank)
        return encode_png(draw_contact_sheet(images, labels, columns=self._sheet_each, cell=128))


def score_reconstructions(
    autoencoder: Vae, distance: FeatureDistance, batches: Iterable[FrameBatch], sheet_each: int
) -> ReconstructionScores:
    """Score the reconstructions of framed pins (canvas.pins.image_batches.batch_by_frame), on the autoencoder's
    device."""
    scores = ReconstructionScores(distance.to(autoencoder.device), sheet_each)
    for batch in batches:
        images = bytes_to_tensor(batch["images"].to(autoencoder.device))
        reconstructions = decode_latents(autoencoder, compute_posterior(autoencoder, images).mode())
        scores.add(images, reconstructions, batch["split"])
    return scores


def build_sampler(
    pins: Path,
    held_out: Mapping[str, str],
    frames: FrameSpec,
    distance: FeatureDistance,
    count: int,
    batch_size: int,
    log_image: Callable[[str, bytes], None],
) -> Callable[[nn.Module, int], None]:
    """Build the `sample` of a training: it logs a sheet of the same held-out pins every time.

    Args:
        pins: Table of the pins.
        held_out: pin_id -> split, of the pins to choose from.
        frames: Whose square frame is used.
        distance: The perceptual distance by which they are scored.
        count: Pins of the sheet.
        batch_size: Images that go through the network at once.
        log_image: Gets the sheet's name and PNG.
    """
    square = replace(frames, buckets=((frames.side, frames.side),))
    chosen = {pin_id: held_out[pin_id] for pin_id in select_evenly(held_out, count)}
    batches = list(batch_by_frame(pins, chosen, square, batch_size))

    def sample(autoencoder: nn.Module, step: int) -> None:
        scores = score_reconstructions(cast(Vae, autoencoder), distance, batches, count)
        log_image(f"samples-{step:06d}", scores.draw_sheet())

    return sample
