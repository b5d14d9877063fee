"""Reference judges: frozen networks that no stage trains, named in params and pinned by the digest of their files.

A challenger that brings its own segmenter or text-image encoder would be measured by what it changed itself.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from canvas.hub import fetch_snapshot
from canvas.reward.preference import TextImageReward, fetch_reward
from canvas.segmenter.model import Segmenter, load_public_segmenter
from evaluation.judges.spec import ReferenceSegmenterSpec, ReferenceSpec

PINNED_SUFFIXES = (".safetensors", ".json", ".txt", ".model")
"""Weights, configs and tokenizers: what a digest is of."""


def load_reference_segmenter(spec: ReferenceSegmenterSpec) -> Segmenter:
    """Load the reference segmenter. Raises `ValueError` if it cannot be fetched or is not the one that was pinned."""
    return load_public_segmenter(str(fetch_pinned(spec, "segmenter")), spec.background or None)


def load_reference_text_image(spec: ReferenceSpec) -> TextImageReward:
    """Load the reference text-image model. Raises `ValueError` as `load_reference_segmenter` does."""
    reference = fetch_reward(fetch_pinned(spec, "text_image"))
    if not isinstance(reference, TextImageReward):
        raise ValueError(
            f"evaluate.references.text_image.repository is {spec.repository}, which train_reward wrote: name a CLIP or "
            "SigLIP of transformers"
        )
    return reference


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
