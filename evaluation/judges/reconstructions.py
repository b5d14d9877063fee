"""Whether an autoencoder keeps what judges of scenes look for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from canvas.pins.images import bytes_to_tensor, tensor_to_bytes
from canvas.pins.scene_views import Views, load_scene_views, stack_views
from canvas.vae.model import Vae, compute_posterior, decode_latents
from evaluation.judges.features import choose_view_side
from evaluation.judges.judges import Judges, compute_scene_accuracy

UNSEEN_VIEW_SPLITS = ("unseen_view", "unseen_both")  # splits whose camera sectors no training image shows


def load_unseen_scenes(pins: Path, kept: Path, truth: Path, side: int, count: int) -> tuple[Views, list[str]]:
    """Load at most `count` scenes without their products, seen as no training image shows them, and their names."""
    return load_scene_views(pins, kept, truth, splits=UNSEEN_VIEW_SPLITS, side=side, count=count, emptied=True)


def score_reconstructed_scenes(
    autoencoder: Vae, judges: Judges, views: Views, scenes: Sequence[str], batch_size: int
) -> dict[str, float]:
    """Compute how often judges are right on views, uint8 (N, side, side, 3), and on their reconstructions.

    Empty where no scene is known.
    """
    if judges.both is None or not scenes:
        return {}
    side = choose_view_side(views.shape[1])
    metrics: dict[str, float] = {}
    for suffix, images in (("real", views), ("reconstructed", _reconstruct(autoencoder, views, batch_size))):
        squares = stack_views([Image.fromarray(image) for image in images], side)
        metrics |= compute_scene_accuracy(judges.both, squares, scenes, suffix)
    return metrics


def _reconstruct(autoencoder: Vae, views: Views, batch_size: int) -> Views:
    batches = []
    for images in torch.split(torch.from_numpy(views).permute(0, 3, 1, 2), batch_size):
        latents = compute_posterior(autoencoder, bytes_to_tensor(images.to(autoencoder.device))).mode()
        batches.append(tensor_to_bytes(decode_latents(autoencoder, latents)).cpu())
    return np.asarray(torch.cat(batches).permute(0, 2, 3, 1))
