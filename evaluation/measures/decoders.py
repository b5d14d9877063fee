"""What the conditional decoder is worth: exact product pixels, edges without a seam, and backgrounds without a mosaic.

Tensors are (B, 3, H, W) in [-1, 1], masks (B, 1, H, W), 1 = product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from canvas.decoder.model import ConditionalDecoder
from canvas.decoder.training import ConditionedPin, decode_with_baseline
from canvas.masks.composite import compute_seam_gradient, erode_mask
from canvas.pins.images import bytes_to_tensor, tensor_to_bytes
from canvas.vae.model import Vae, get_scale_factor
from evaluation.measures.reconstructions import psnr
from evaluation.statistics.intervals import bootstrap_mean


class DecoderScores:
    """Scores of images decoded round products beside those that the product was pasted on; a batch at a time.

    Args:
        erosion: Pixels between the mask's edge and the core.
        reach: Pixels on each side of the mask's edge that a seam is looked for in.
        grids: Names -> pixels from line to line of what images are generated in, as latent cells and tokens.
    """

    def __init__(self, *, erosion: int, reach: int, grids: Mapping[str, int]) -> None:
        self._erosion = erosion
        self._reach = reach
        self._grids = grids
        self._core = 0
        self._values: dict[str, list[float]] = {}

    def add(self, decoded: torch.Tensor, pasted: torch.Tensor, images: torch.Tensor, mask: torch.Tensor) -> None:
        """Take in images decoded both ways, and the `images` that their products come from."""
        core = erode_mask(mask, self._erosion).expand_as(images)
        difference = (tensor_to_bytes(decoded).int() - tensor_to_bytes(images).int()).abs()[core]
        self._core = max(self._core, int(difference.max()) if difference.numel() else 0)
        real = compute_seam_gradient(images, mask, self._reach)
        there = real > 0  # not where the mask has no edge either, which is NaN
        clamped = [batch.clamp(-1, 1) for batch in (decoded, pasted)]
        ratio, ratio_pasted = ((compute_seam_gradient(batch, mask, self._reach) / real)[there] for batch in clamped)
        psnr_db, psnr_db_pasted = (psnr(batch, images) for batch in clamped)
        values = {
            "seam_gradient_ratio": ratio,
            "psnr_db": psnr_db,
            "seam_gradient_ratio_pasted": ratio_pasted,
            "psnr_db_pasted": psnr_db_pasted,
            "seam_error_gain": (ratio_pasted - 1).abs() - (ratio - 1).abs(),
            "psnr_db_gain": psnr_db - psnr_db_pasted,
        }
        for name, side in self._grids.items():
            for suffix, batch in (("", clamped[0]), ("_real", images)):
                ratios = compute_grid_ratio(batch, mask, side)
                values[f"{name}_gradient_ratio{suffix}"] = ratios[ratios.isfinite()]
        for name, scores in values.items():
            self._values.setdefault(name, []).extend(scores.tolist())

    def compute_metrics(self) -> dict[str, float]:
        """Compute `core_max_abs_diff` in 8-bit steps, mean seam ratios (real pins: 1) and PSNR, with 95 % intervals.

        `cell_gradient_ratio` and its like are those of `compute_grid_ratio`, `_real` of the pins themselves.
        `psnr_db_gain` and `seam_error_gain`, the seam ratio's distance to 1, are mean differences between the two
        images of a pin: above 0 decoding is better than pasting.

        Raises `ValueError` if nothing was added.
        """
        if not self._values:
            raise ValueError("no held-out product to score the decoder on: were all of their masks rejected?")
        metrics: dict[str, float] = {"pins": len(self._values["psnr_db"]), "core_max_abs_diff": self._core}
        for name, values in self._values.items():
            if values:
                metrics |= bootstrap_mean(values).to_metrics(name)
        return metrics


def compute_grid_ratio(images: torch.Tensor, mask: torch.Tensor, side: int) -> torch.Tensor:
    """Return (B,): how much brightness changes across the lines of a grid, over how much it does elsewhere.

    Lines are `side` pixels apart from the upper left corner; a mosaic is above 1. Pairs of neighbours that the product
    has a part in do not count, and it is NaN where nothing is left.
    """
    grey, background = images.mean(dim=1), mask[:, 0] < 0.5
    totals = torch.zeros(2, 2, len(images))  # on lines or not; sum of changes and their number
    for axis in (1, 2):
        size = grey.shape[axis]
        change = grey.diff(dim=axis).abs()
        counts = background.narrow(axis, 0, size - 1) & background.narrow(axis, 1, size - 1)
        on_line = torch.arange(1, size, device=images.device) % side == 0
        lines = on_line[:, None] if axis == 1 else on_line
        for number, chosen in enumerate((counts & lines, counts & ~lines)):
            sums = [(change * chosen).flatten(1).sum(dim=1), chosen.flatten(1).sum(dim=1)]
            totals[number] += torch.stack(sums).cpu()
    (change_on, count_on), (change_off, count_off) = totals
    return (change_on / count_on) / (change_off / count_off)


def score_decoder(
    decoder: ConditionalDecoder, autoencoder: Vae, pins: Sequence[ConditionedPin], reach: int, patch: int = 1
) -> dict[str, object]:
    """Score the decoder on pins with generated latents, and under `encoded` on those with encoded ones.

    `patch`: latent cells of a side that the denoiser reads as one token.
    """
    cell = get_scale_factor(autoencoder)
    grids = {"cell": cell} | ({"token": patch * cell} if patch > 1 else {})
    generated, encoded = (DecoderScores(erosion=decoder.config["erosion"], reach=reach, grids=grids) for _ in range(2))
    for sample in (pin.load_sample() for pin in pins):
        scores = generated if sample.is_generated else encoded
        images = bytes_to_tensor(sample.pixels[None])
        scores.add(*decode_with_baseline(decoder, autoencoder, sample), images, sample.mask[None])
    return {**generated.compute_metrics(), "encoded": encoded.compute_metrics()}
