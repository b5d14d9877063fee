from __future__ import annotations

from pathlib import Path

import pytest

from canvas.checksums import FILE, verify_checksums, write_checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "model.safetensors").write_bytes(b"\0" * 1000)
    (tmp_path / "config.json").write_text("{}")
    write_checksums(tmp_path)
    return tmp_path


def test_whole_weights_pass_whatever_stands_in_configs(folder: Path) -> None:
    (folder / "config.json").write_text('{"edited": true}')
    verify_checksums(folder)
    write_checksums(folder)
    verify_checksums(folder)


def test_one_flipped_bit_is_named(folder: Path) -> None:
    file = folder / "unet" / "model.safetensors"
    file.write_bytes(b"\0" * 500 + b"\1" + b"\0" * 499)
    with pytest.raises(ValueError, match=r"unet/model\.safetensors is damaged"):
        verify_checksums(folder)
    (folder / FILE).unlink()  # as the message says to who changed it
    verify_checksums(folder)


def test_missing_weights_and_a_damaged_list_are_named(folder: Path) -> None:
    (folder / "unet" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"unet/model\.safetensors is missing"):
        verify_checksums(folder)
    (folder / FILE).write_bytes(b"\0" * 100)
    with pytest.raises(ValueError, match=r"checksums\.json is damaged"):
        verify_checksums(folder)
    (folder / FILE).write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"checksums\.json is damaged"):
        verify_checksums(folder)
