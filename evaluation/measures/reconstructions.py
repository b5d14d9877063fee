"""How near reconstructed images are to their originals. Images are (B, 3, H, W) in [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from PIL import Image

from evaluation.statistics.intervals import bootstrap_mean

if TYPE_CHECKING:
    import torch
    from torch import nn

    from canvas.features.perceptual import Distance, FeatureDistance
    from canvas.pins.frames import FrameSpec
    from canvas.pins.image_batches import FrameBatch
    from canvas.vae.model import Vae


class ReconstructionScores:
    """Scores of reconstructions, a batch at a time, and a sheet of the first `sheet_each` of each size."""

    def __init__(self, distance: Distance, sheet_each: int) -> None:
        self._distance = distance
        self._sheet_each = sheet_each
        self._scores: dict[str, dict[str, list[float]]] = {}  # split -> measure -> values
        self._pairs: dict[tuple[int, ...], list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def add(self, images: torch.Tensor, reconstructions: torch.Tensor, splits: Sequence[str]) -> None:
        """Take in images and their reconstructions, each with its pin's split."""
        from evaluation.measures.similarity import psnr, ssim

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
            interval = bootstrap_mean([value for scores in self._scores.values() for value in scores[name]])
            metrics |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
        for split, scores in sorted(self._scores.items()):
            metrics[split] = {name: sum(values) / len(values) for name, values in scores.items()}
        return metrics

    def draw_sheet(self) -> bytes:
        """Draw originals, below each its reconstruction, as PNG."""
        from canvas.pins.images import draw_contact_sheet, encode_png, tensor_to_bytes

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

    from canvas.pins.images import bytes_to_tensor
    from canvas.vae.model import compute_posterior, decode_latents

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
    """Build the `sample` of a training: it logs the sheet of the same `count` held-out pins, in the square frame."""
    from canvas.pins.image_batches import batch_by_frame, select_evenly

    square = replace(frames, buckets=((frames.side, frames.side),))
    chosen = {pin_id: held_out[pin_id] for pin_id in select_evenly(held_out, count)}
    batches = list(batch_by_frame(pins, chosen, square, batch_size))

    def sample(autoencoder: nn.Module, step: int) -> None:
        scores = score_reconstructions(cast("Vae", autoencoder), distance, batches, count)
        log_image(f"samples-{step:06d}", scores.draw_sheet())

    return sample
