"""How near reconstructed pictures are to what they were made from. Images are (B, 3, H, W) in [-1, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from PIL import Image

from evaluation.statistics.intervals import bootstrap_mean

if TYPE_CHECKING:
    import torch

    from canvas.features.perceptual import Distance


class ReconstructionScores:
    """Scores of reconstructions, a batch at a time, and a sheet of the first `shown` of each size."""

    def __init__(self, distance: Distance, shown: int) -> None:
        self._distance = distance
        self._shown = shown
        self._scores: dict[str, dict[str, list[float]]] = {}  # split -> measure -> values
        self._pairs: dict[tuple[int, ...], list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def add(self, images: torch.Tensor, found: torch.Tensor, splits: Sequence[str]) -> None:
        """Take in images and their reconstructions, each with its pin's split."""
        from evaluation.measures.similarity import psnr, ssim

        found = found.float().clamp(-1, 1)
        measures = {
            "psnr_db": psnr(found, images),
            "ssim": ssim(found, images),
            "perceptual_distance": self._distance(found, images),
        }
        for name, values in measures.items():
            for split, value in zip(splits, values.tolist(), strict=True):
                self._scores.setdefault(split, {}).setdefault(name, []).append(value)
        kept = self._pairs.setdefault(tuple(images.shape[1:]), [])
        room = max(0, self._shown - len(kept))
        kept += zip(images[:room], found[:room], strict=True)

    def metrics(self) -> Mapping[str, object]:
        """Means with 95 % intervals over all pictures, and means by split. Raises `ValueError` if none was added."""
        if not self._scores:
            raise ValueError("no held-out picture to score: the filter kept none outside of the train split")
        figures: dict[str, object] = {"pins": sum(len(scores["psnr_db"]) for scores in self._scores.values())}
        for name in ("psnr_db", "ssim", "perceptual_distance"):
            of = bootstrap_mean([value for scores in self._scores.values() for value in scores[name]])
            figures |= {name: of.mean, f"{name}_low": of.low, f"{name}_high": of.high}
        for split, scores in sorted(self._scores.items()):
            figures[split] = {name: sum(values) / len(values) for name, values in scores.items()}
        return figures

    def sheet(self) -> Image.Image:
        """Originals, below each its reconstruction."""
        from canvas.pins.images import draw_contact_sheet
        from canvas.pins.pixels import tensor_to_bytes

        pictures, labels = [], []
        for pairs in self._pairs.values():
            for label, side in (("held out", 0), ("reconstructed", 1)):
                row = [Image.fromarray(tensor_to_bytes(pair[side]).permute(1, 2, 0).cpu().numpy()) for pair in pairs]
                blank = [Image.new("RGB", row[0].size, "white")] * (self._shown - len(row))
                pictures += row + blank
                labels += [label] * len(row) + [""] * len(blank)
        return draw_contact_sheet(pictures, labels, columns=self._shown, cell=128)
