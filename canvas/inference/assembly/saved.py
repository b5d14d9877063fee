"""The directory of a saved pipeline: what must hold before it is loaded, and where its classes are today."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from canvas.checksums import verify_checksums
from canvas.segmenter.matting import find_remote_code

MOVED = {
    "canvas.models.vae": "canvas.vae.model",
    "canvas.models.text": "canvas.clip.model",
    "canvas.models.decoder": "canvas.decoder.model",
    "canvas.models.segmenter": "canvas.segmenter.model",
    "canvas.models.image_tower": "canvas.clip.image_tower",
    "canvas.models.uve": "canvas.uve.model",
    "canvas.models.style_centres": "canvas.styles.centres",
}
"""Modules that model_index.json of a pipeline saved before version 0.2 names -> where its classes are today."""


def check_saved_pipeline(directory: Path, *, trust_remote_code: bool) -> None:
    """Raise ValueError unless `directory` holds a pipeline whose weights are those that were saved, and whose segmenter
    brings no code or code that is trusted."""
    if not (directory / "model_index.json").is_file():
        raise ValueError(f"{directory} holds no model_index.json: name a directory that the assemble stage wrote")
    code = find_remote_code(directory / "segmenter")
    if code and not trust_remote_code:
        raise ValueError(
            f"the segmenter of {directory} runs Python code of its own ({', '.join(code)}): read it, then give "
            "--trust-remote-code, trust_remote_code=True in Python, or CANVAS_TRUST_REMOTE_CODE=1 to a server"
        )
    verify_checksums(directory)


def rename_moved_modules(config: MutableMapping[str, Any]) -> None:
    """Let the parts in a pipeline's config be of modules where they are today."""
    for name, part in config.items():
        if isinstance(part, list) and part and part[0] in MOVED:
            config[name] = [MOVED[part[0]], *part[1:]]
