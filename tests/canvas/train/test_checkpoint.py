from __future__ import annotations

from pathlib import Path

import pytest
import torch

from canvas.train.checkpoint import (
    DamagedError,
    delete_old_checkpoints,
    get_step_directory,
    list_steps,
    read_checkpoint,
    read_last_checkpoint,
    write_checkpoint,
)


def written(parent: Path, step: int, value: float = 0.0) -> Path:
    directory = get_step_directory(parent, step)
    write_checkpoint(directory, {"model": {"w": torch.full((1000,), value + step)}, "optimizer": {}}, {"step": step})
    return directory


def flip_a_bit(directory: Path) -> None:
    path = directory / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut_in_half(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_a_file(directory: Path) -> None:
    (directory / "model.safetensors").unlink()


def lose_the_state(directory: Path) -> None:
    (directory / "state.json").unlink()


def cut_the_state(directory: Path) -> None:
    (directory / "state.json").write_text('{"checksums": {')


DAMAGES = [flip_a_bit, cut_in_half, lose_a_file, lose_the_state, cut_the_state]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    files, state = read_checkpoint(written(tmp_path, 7))
    assert torch.equal(files["model"]["w"], torch.full((1000,), 7.0))
    assert files["optimizer"] == {}
    assert state == {"step": 7}
    assert sorted(path.suffix for path in get_step_directory(tmp_path, 7).iterdir()) == [".json", *[".safetensors"] * 2]


def test_a_directory_is_replaced(tmp_path: Path) -> None:
    written(tmp_path, 7)
    files, _ = read_checkpoint(written(tmp_path, 7, value=1.0))
    assert files["model"]["w"][0] == 8


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path: Path, damage) -> None:
    written(tmp_path, 10)
    damage(written(tmp_path, 20))
    with pytest.raises(DamagedError):
        read_checkpoint(get_step_directory(tmp_path, 20))
    with pytest.warns(UserWarning, match="step-00000020 is passed over"):
        checkpoint = read_last_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint[0] == 10
    assert checkpoint[1]["model"]["w"][0] == 10


def test_damaged_snapshots_make_a_checkpoint_damaged(tmp_path: Path) -> None:
    for step in (10, 20):
        write_checkpoint(get_step_directory(tmp_path / "ema", step), {"model": {"w": torch.zeros(9)}}, {})
        write_checkpoint(get_step_directory(tmp_path, step), {}, {"snapshots": "ema"})
    flip_a_bit(get_step_directory(tmp_path / "ema", 20))
    with pytest.warns(UserWarning, match="passed over"):
        checkpoint = read_last_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint[0] == 10


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert read_last_checkpoint(tmp_path / "absent") is None
    (tmp_path / ".step-00000003.partial").mkdir()
    assert read_last_checkpoint(tmp_path) is None


def test_the_last_two_are_kept_and_no_abandoned_future(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        written(tmp_path, step)
    delete_old_checkpoints(tmp_path, 30)
    assert list_steps(tmp_path) == [20, 30]
