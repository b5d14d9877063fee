from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from canvas.clip.model import build_clip
from canvas.clip.tuning.neighbours import PinBoardGraph
from canvas.clip.tuning.training import SigmoidHead, TextTuner, build_graph, embed_crops
from canvas.pins.frames import CropSpec
from tests.canvas.clip.contrastive import TINY
from tests.canvas.clip.tuning.example import BOARDS, PARAMS, build_batches, tune
from tests.canvas.train.two_ranks import run_in_two_ranks
from tests.components.mugs import write_catalogue


def test_the_loss_is_siglips() -> None:
    head = SigmoidHead(batch_size=5)
    assert head.bias.item() == pytest.approx(-math.log(4))
    draw = torch.Generator().manual_seed(0)
    texts, images = (torch.randn(3, 8, generator=draw) for _ in range(2))
    right = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 1, 1]]).bool()
    wanted = 0.0
    for width in (8, 4):
        for row in range(3):
            for column in range(3):
                cosine = F.cosine_similarity(texts[row, :width], images[column, :width], dim=0)
                sign = 1 if right[row, column] else -1
                wanted -= F.logsigmoid(sign * (10 * cosine - math.log(4))) / 3 / 2
    assert head(texts, images, right, (8, 4)).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_nothing_but_the_text_half_and_what_is_beside_it_is_trained() -> None:
    tuner = TextTuner(build_clip(TINY), TINY, PARAMS, 8)
    trained = {name for name, parameter in tuner.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith("clip.visual") for name in trained)
    assert {"clip.text_projection", "clip.token_embedding.weight", "turn", "mix", "image_head.bias"} <= trained
    alone = TextTuner(build_clip(TINY), TINY, replace(PARAMS, mix_weight=0.0, neighbours=None), 8)
    names = {name for name, parameter in alone.named_parameters() if parameter.requires_grad}
    assert trained - names == {
        "mix",
        *(f"{head}_head.{name}" for head in ("state", "neighbour") for name in ("log_temperature", "bias")),
        *(f"state_projection.{layer}.{name}" for layer in (0, 1) for name in ("weight", "bias")),
    }


def test_a_sample_is_a_function_of_its_place() -> None:
    batches = build_batches(8)
    whole, halves = batches(3, 0, 1), [batches(3, rank, 2) for rank in (0, 1)]
    for name in ("rows", "tokens", "images", "neighbour_rows", "neighbour_tokens", "related"):
        assert torch.equal(whole[name], torch.cat([half[name] for half in halves])), name
    assert whole["related"].shape == (8, 8)
    boards, others = (whole[name] % BOARDS for name in ("rows", "neighbour_rows"))
    assert torch.equal(boards, others)  # a walk does not leave the board here
    assert torch.equal(whole["related"].bool(), boards[:, None] == others[None, :])
    walks = [(row, end) for step in range(6) for row, end in zip(*_list_walks(batches(step, 0, 1)), strict=True)]
    assert sum(row != end for row, end in walks) > 24  # a walk of two hops may come back


def _list_walks(batch) -> tuple[list[int], list[int]]:
    return batch["rows"].tolist(), batch["neighbour_rows"].tolist()


def test_loss_falls_and_texts_find_images_of_their_board_at_half_the_width_too(tmp_path: Path) -> None:
    steps = {"steps": 90, "checkpoint_every": 90, "sample_every": 90, "log_every": 10, "batch_size": 24}
    before = measure_recalls(TextTuner(build_clip_of_seed(), TINY, PARAMS, 24))
    tuner, figures = tune("none", tmp_path, learning_rate=3e-3, **steps)
    losses = figures[::2]
    assert losses[-1] < 0.6 * losses[0]
    after = measure_recalls(tuner)
    assert tuner.mix is not None
    assert tuner.mix.tolist() != [1, 0]
    assert before.keys() == after.keys() == {8, 4, 2}
    for width, recall in after.items():
        assert recall > before[width] + (0.25 if width > 2 else 0.1), width


def test_a_mix_that_was_tuned_before_goes_on() -> None:
    tuner = TextTuner(build_clip(TINY), TINY, PARAMS, 8, [0.25, 0.5])
    assert tuner.mix is not None
    assert tuner.mix.tolist() == [0.25, 0.5]
    assert TextTuner(build_clip(TINY), TINY, PARAMS, 8).mix.tolist() == [1, 0]


def build_clip_of_seed():
    torch.manual_seed(0)
    return build_clip(TINY)


@torch.no_grad()
def measure_recalls(tuner: TextTuner) -> dict[int, float]:
    """Width -> share of texts whose nearest image is of the same board."""
    batches = build_batches(24)
    images, texts, _ = tuner.eval()(
        batches.images[:, 0], torch.stack([texts_of_pin[0] for texts_of_pin in batches.tokens])
    )
    boards = torch.arange(len(texts)) % BOARDS
    recalls = {}
    for width in PARAMS.compute_widths(TINY.embed_dim):
        nearest = (F.normalize(texts[:, :width], dim=-1) @ F.normalize(images[:, :width], dim=-1).T).argmax(dim=1)
        recalls[width] = (boards[nearest] == boards).float().mean().item()
    return recalls


def test_folding_leaves_cosines(tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip = build_clip(TINY).eval()
    tuner = TextTuner(clip, TINY, PARAMS, 8)
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        tuner.turn.add_(0.3 * torch.randn_like(tuner.turn))
        wanted = F.normalize(clip.encode_image(pixels, normalize=True) @ tuner.turn, dim=-1)
        tuner.fold()
        torch.testing.assert_close(clip.encode_image(pixels, normalize=True), wanted)
    assert torch.equal(tuner.turn, torch.eye(TINY.embed_dim))


def test_two_processes_lose_what_one_does(tmp_path: Path) -> None:
    (tmp_path / "ranked").mkdir()
    run_in_two_ranks("tests.canvas.clip.tuning.example", str(tmp_path / "ranked"))
    _, figures = tune("none", tmp_path / "alone")
    ranked = json.loads((tmp_path / "ranked" / "figures.json").read_text())
    assert ranked[::2] == pytest.approx(figures[::2], abs=1e-5)
    assert ranked[1::2] == pytest.approx(figures[1::2], rel=1e-4)


def test_crops_are_embedded_by_the_frozen_tower(tmp_path: Path) -> None:
    write_catalogue(tmp_path)
    crops = CropSpec(zoom=1.5, mirror=True)
    clip = build_clip_of_seed()
    first, second = (embed_crops(clip, TINY, tmp_path / "pins", ["p03", "p01"], crops, 3, seed=seed) for seed in (1, 2))
    assert first[0] == ["p01", "p03"]
    assert first[1].shape == (2, 3, TINY.embed_dim)
    torch.testing.assert_close(first[1].norm(dim=-1), torch.ones(2, 3))
    assert not torch.equal(first[1][:, 0], first[1][:, 1])
    assert not torch.equal(first[1], second[1])


def test_neighbours_need_a_shared_board() -> None:
    edges = [("a", "Kitchen"), ("b", "Garden"), ("c", "Garden")]
    graph = build_graph(PARAMS, ["a", "b", "c"], edges)
    assert isinstance(graph, PinBoardGraph)
    assert graph.connected_pins == 2
    assert build_graph(replace(PARAMS, neighbours=None), ["a"], []) is None
    with pytest.raises(ValueError, match=r"no two of 2 pins share a board of at most 10 pins: raise .* name saves, or"):
        build_graph(PARAMS, ["a", "b"], edges)
