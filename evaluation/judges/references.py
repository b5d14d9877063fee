"""Reference judges: frozen networks that no stage trains, named in params and pinned by the digest of their files.

A challenger that brings its own segmenter or text-image encoder would be measured by what it changed itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from canvas.hub import fetch_snapshot
from canvas.loading import load_with_processor
from canvas.pins.images import composite_on_white
from canvas.segmenter.model import Segmenter, load_public_segmenter
from evaluation.judges.spec import ReferenceSegmenterSpec, ReferenceSpec

PINNED_SUFFIXES = (".safetensors", ".json", ".txt", ".model")
"""Weights, configs and tokenizers: what a digest is of."""


class TextImageReference:
    """A text-image model of transformers with projections of one width for both, as CLIP and SigLIP."""

    def __init__(self, network: Any, processor: Any) -> None:
        self._network, self._processor = network.eval(), processor

    def to(self, device: torch.device) -> TextImageReference:
        self._network.to(device)
        return self

    @torch.inference_mode()
    def compute_agreement(self, images: Sequence[Image.Image], prompts: Sequence[str], batch_size: int) -> list[float]:
        """Return the cosine, -1..1, of each image with its prompt."""
        cosines: list[float] = []
        for first in range(0, len(images), batch_size):
            rows = slice(first, first + batch_size)
            inputs = self._processor(
                images=[composite_on_white(image) for image in images[rows]],
                text=list(prompts[rows]),
                padding="max_length",
                truncation=True,
                return_tensors="pt",
            )
            output = self._network(**inputs.to(self._network.device))
            image, text = (
                torch.nn.functional.normalize(values.float(), dim=1)
                for values in (output.image_embeds, output.text_embeds)
            )
            cosines += (image * text).sum(dim=1).cpu().tolist()
        return cosines


def load_reference_segmenter(spec: ReferenceSegmenterSpec) -> Segmenter:
    """Load the reference segmenter. Raises `ValueError` if it cannot be fetched or is not the one that was pinned."""
    return load_public_segmenter(str(fetch_pinned(spec, "segmenter")), spec.background or None)


def load_reference_text_image(spec: ReferenceSpec) -> TextImageReference:
    """Load the reference text-image model. Raises `ValueError` as `load_reference_segmenter` does."""
    from transformers import AutoModel, AutoProcessor

    folder = fetch_pinned(spec, "text_image")
    return TextImageReference(*load_with_processor(AutoModel, AutoProcessor, folder, "text-image"))


def fetch_pinned(spec: ReferenceSpec, name: str) -> Path:
    """Return the folder of a reference's files; `ValueError` unless they have the digest that params pin."""
    folder = fetch_snapshot(spec.repository).folder
    if (digest := compute_files_digest(folder)) != spec.digest:
        raise ValueError(
            f"evaluate.references.{name}.digest is {spec.digest!r}, but the files of {spec.repository} have {digest}: "
            "write that one if these are the files that you trust"
        )
    return folder


def compute_files_digest(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of a model's files; what says nothing of it, as a README, is out."""
    total = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.suffix in PINNED_SUFFIXES and file.is_file()):
        with file.open("rb") as data:
            content = hashlib.file_digest(data, "sha256").hexdigest()
        total.update(f"{file.relative_to(folder).as_posix()} {content}\n".encode())
    return total.hexdigest()
