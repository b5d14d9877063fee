"""Generated images as files: nothing is replaced unasked, nothing is left half."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from canvas.inference.files import save_beside, save_lossless


def test_a_link_that_leads_nowhere_is_no_free_name(tmp_path: Path):
    (tmp_path / "a.png").symlink_to(tmp_path / "elsewhere.png")
    assert save_beside(Image.new("RGB", (2, 2)), tmp_path / "a.png") == tmp_path / "a_2.png"
    assert not (tmp_path / "elsewhere.png").exists()


def test_half_an_image_leaves_no_file(tmp_path: Path):
    with pytest.raises(ValueError, match="would change the product's pixels"):
        save_beside(Image.new("RGB", (2, 2)), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_overwrite_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save_lossless(Image.new("RGB", (2, 2)), path)
    before = path.read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_lossless(Image.new("RGB", (3, 3)), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    save_lossless(Image.new("RGB", (3, 3)), path)
    assert Image.open(path).size == (3, 3)
    assert list(tmp_path.iterdir()) == [path]
