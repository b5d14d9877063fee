"""Python files that somebody put into a model's folder do not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from canvas.inference.pipeline import CanvasPipeline

EVIL = """
from pathlib import Path

Path({ran!r}).touch()


class Evil:
    from_pretrained = classmethod(lambda *_, **__: 0)
"""


@pytest.mark.parametrize("part", ["unet", "vae", "prompt_safety", "_class_name"])
def test_code_that_a_model_brings_does_not_run(pipeline: CanvasPipeline, tmp_path: Path, part: str) -> None:
    """diffusers would load a part, or the pipeline itself, from a Python file that model_index.json names."""
    model, ran = tmp_path / "model", tmp_path / "ran"
    pipeline.save_pretrained(model)
    index = json.loads((model / "model_index.json").read_text())
    folder = model if part == "_class_name" else model / part
    folder.mkdir(exist_ok=True)
    (folder / "evil.py").write_text(EVIL.format(ran=str(ran)))
    (model / "model_index.json").write_text(json.dumps(index | {part: ["evil", "Evil"]}))
    with pytest.raises((ValueError, OSError)):
        CanvasPipeline.from_pretrained(model)
    assert not ran.exists()
