"""The README's example runs, and its tables name commands that there are."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from canvas.inference.pipeline import CanvasPipeline
from tests.canvas.inference.conftest import pipeline  # noqa: F401

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_example_generates_round_the_product(
    pipeline: CanvasPipeline,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (product_path,) = re.findall(r'Image.open\("(.*?)"\)', code)
    monkeypatch.chdir(tmp_path)
    Path(product_path).parent.mkdir(parents=True)
    product = np.zeros((40, 40, 4), np.uint8)
    product[10:30, 10:30] = (200, 40, 40, 255)
    Image.fromarray(product).save(product_path)
    pipeline.save_pretrained("models/canvas")

    exec(compile(code, "README.md", "exec"), {})

    (made,) = tmp_path.glob("*.png")
    core = np.asarray(Image.open(made))[15:25, 15:25]
    assert (core == product[15:25, 15:25, :3]).all()


def test_command_line_example_is_understood() -> None:
    from canvas.__main__ import _build_parser

    (command,) = re.findall(r"python -m canvas (generate .*?)```", README, re.DOTALL)
    words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command.replace("\\\n", " "))]
    (product,) = _build_parser().parse_args(words).product
    assert product.name.endswith(".png")
