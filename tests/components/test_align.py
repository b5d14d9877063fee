from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image

from canvas.align.guard import GoldScore
from canvas.align.spec import EVIDENCE_FILE, is_for
from canvas.clip.model import build_clip, save_clip
from canvas.denoiser.loading import add_inpaint_channels, build_denoiser, load_denoiser, save_denoiser
from canvas.denoiser.lora import add_lora, list_lora_names, load_lora, save_lora
from canvas.denoiser.process import build_training_scheduler
from canvas.denoiser.spec import DenoiserSpec, DiffusionSpec
from canvas.reward.model import build_reward, load_prompt_tower
from canvas.reward.spec import RewardSpec
from canvas.segmenter.model import build_segmenter
from canvas.segmenter.spec import UNetSpec
from canvas.vae.model import PixelAutoencoder
from components.align import align
from components.encode import encode
from evaluation.judges import alignment
from evaluation.judges.alignment import AlignmentJudge
from evaluation.judges.judges import fit_judges
from lifecycle.declare.params import load_sections, read_section, read_stage_params
from lifecycle.declare.profiles import merge_sections
from lifecycle.declare.skipping import NOTICE_FILE, is_made
from lifecycle.declare.stage import Input, Output, Scratch
from tests.components.mugs import ROOT, Log, tiny, write_catalogue
from tests.components.sidecars import write_sidecars

DIT = {
    "frames": {"buckets": [[64, 64], [80, 48], [48, 80]]},
    "encode": {"holes": "pixels"},
    "denoiser": {
        "kind": "dit",
        "unet": None,
        "dit": {"heads": 2, "head_width": 16, "double_blocks": 1, "single_blocks": 1, "zero_modulation": False}
        | {"rope_widths": [4, 6, 6]},
    },
}
REWARDS = {"prompt": 1.0, "aesthetics": 1.0, "defects": 0.5, "growth": 1.0, "diversity": 1.0, "parity": 1.0}
PPO = {
    "objective": "ppo",
    "nft": None,
    "ppo": {"noise": 1.0, "timesteps": 1, "clip": 1e-4},
}
TIMED = {"seconds", "images_per_second", "peak_memory_mb"}
INPUTS = (
    *("pins", "kept", "masks", "captions", "shards", "clip", "vae", "base", "inpaint"),
    *("backdrop", "engaged", "segmenter", "reward", "judges"),
)


def write_inputs(folder: Path, kind: str) -> None:
    """What the stage reads: the painted catalogue encoded by random networks, and random models."""
    write_catalogue(folder)
    write_sidecars(folder)
    torch.manual_seed(0)
    sections = merge_sections(load_sections("tiny", ROOT), DIT if kind == "dit" else {})
    params = read_stage_params(encode, sections)
    for name, spec in (("first", params["text"].first), ("second", params["text"].second)):
        save_clip(build_clip(spec), spec, folder / "clip" / name)
    vae = PixelAutoencoder((16, 16), 1, 4, 4, 8)
    vae.register_to_config(latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    vae.save_pretrained(folder / "vae")
    encode(
        **params,
        **{name: Input(folder / name) for name in ("pins", "kept", "masks", "captions", "clip", "vae")},
        towers=Input(folder / "clip"),
        shards=Output(folder / "shards"),
        metrics=Output(folder / "encode.json"),
        scratch=Scratch(folder / "scratch"),
    )
    denoiser = read_section(DenoiserSpec, "denoiser", sections)
    sizes = {"latent_channels": 4, "sample_size": 8, "text_width": 32, "pooled_width": 16}
    save_denoiser(build_denoiser(denoiser, **sizes), folder / "base")
    for name in ("base", "inpaint"):
        build_training_scheduler(read_section(DiffusionSpec, "diffusion", sections)).save_pretrained(
            folder / name / "scheduler"
        )
    inpaint = add_inpaint_channels(build_denoiser(denoiser, **sizes), 8)
    save_denoiser(inpaint, folder / "inpaint")
    save_lora(add_lora(inpaint, rank=2, alpha=2), folder / "backdrop")
    (folder / "engaged").mkdir()
    (folder / "engaged" / NOTICE_FILE).write_text('{"skipped": "no pin has engagement"}\n', encoding="utf-8")
    build_segmenter(UNetSpec(image_size=64, channels=(8, 8, 8, 16))).save(folder / "segmenter")
    spec = read_section(RewardSpec, "reward", sections)
    build_reward(spec, load_prompt_tower(folder / "clip", spec, params["text"])).save_pretrained(folder / "reward")
    tables = (folder / name for name in ("pins", "kept", "truth"))
    fit_judges(*tables, side=64, images=12, held_out_count=4, seed=0).save(folder / "judges")


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unet")
    write_inputs(folder, "unet")
    return folder


@pytest.fixture(scope="module")
def dit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dit")
    write_inputs(folder, "dit")
    return folder


def run(
    data: Path, out: Path, *, scratch: Path | None = None, scheduler: str | None = None, **changes: Any
) -> tuple[dict[str, Any], Log]:
    out.mkdir(exist_ok=True)
    log, params = Log(), tiny(align, **changes)
    params["sampling"] = replace(params["sampling"], scheduler=scheduler)
    align(
        **params,
        **{name: Input(data / name) for name in INPUTS},
        lora=Output(out / "lora"),
        metrics=Output(out / "metrics.json"),
        curve=Output(out / "curve.csv"),
        sheet=Output(out / "sheet.png"),
        log=log,
        scratch=Scratch(scratch or out / "scratch"),
    )
    return json.loads((out / "metrics.json").read_text()), log


def prefer_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one product be enough and gold rise by 1: four steps improve nothing."""
    monkeypatch.setattr(alignment, "MIN_PRODUCTS", 1)
    compare = AlignmentJudge.compare

    def compare_mildly(judge: AlignmentJudge, before: Any, after: Any, images: Any) -> Any:
        figures = after.figures | {"kid_engaged": -1.0, "diversity": 9.0}
        better = GoldScore(after.gold, tuple(value + 1 for value in before.values), figures=figures)
        return compare(judge, before, better, images)

    monkeypatch.setattr(AlignmentJudge, "compare", compare_mildly)


def test_an_alignment_that_the_judge_does_not_prefer_is_recorded_and_left_out(unet: Path, tmp_path: Path) -> None:
    figures, log = run(unet, tmp_path, rewards=REWARDS, attribute=["at night", "at noon"], guard={"patience": 1})
    assert figures["better"] == 0
    assert figures["gold_gain_low"] <= figures["gold_gain"] <= figures["gold_gain_high"]
    assert not is_made(tmp_path / "lora")
    assert "the alignment is left out: " in (tmp_path / "lora" / NOTICE_FILE).read_text()
    assert not is_for(tmp_path / "lora", "backdrop")
    for kind in REWARDS:
        assert {f"reward_{kind}_before", f"reward_{kind}_after"} <= figures.keys()
    assert figures["kid_engaged_before"] != 0
    header, first, *_ = (tmp_path / "curve.csv").read_text().splitlines()
    assert header == "step,reward,gold"
    assert first.startswith("0,0.0,")
    assert log.pictures[0] == "samples-000000"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 2 * 128


@pytest.mark.parametrize("generator", ["backdrop", "base"])
@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_a_preferred_alignment_is_a_lora_with_its_evidence(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, generator: str
) -> None:
    data = request.getfixturevalue(kind)
    prefer_everything(monkeypatch)
    figures, _ = run(data, tmp_path, generator=generator)
    assert figures["better"] == 1
    assert is_for(tmp_path / "lora", generator)
    evidence = json.loads((tmp_path / "lora" / EVIDENCE_FILE).read_text())
    assert evidence["figures"]["gold_gain"] == pytest.approx(1)
    assert not TIMED & evidence["figures"].keys()  # the LoRA's digest would be another at every run
    assert figures.keys() >= TIMED
    denoiser = load_denoiser(data / ("base" if generator == "base" else "inpaint"))
    assert list_lora_names(load_lora(denoiser, tmp_path / "lora", "aligned")) == ["aligned"]


def test_a_finished_run_is_judged_again_to_the_bit(unet: Path, tmp_path: Path) -> None:
    first, _ = run(unet, tmp_path / "first", scratch=tmp_path / "scratch")
    again, log = run(unet, tmp_path / "again", scratch=tmp_path / "scratch")
    assert log.steps == []  # nothing was trained or checked twice
    assert {name: value for name, value in again.items() if name not in TIMED} == {
        name: value for name, value in first.items() if name not in TIMED
    }


def test_images_are_judged_as_the_generator_recommends_to_sample_them(unet: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown scheduler 'ddim': this denoiser samples with euler, heun"):
        run(unet, tmp_path, scheduler="ddim")


def test_images_are_sampled_by_the_scheduler_beside_the_denoiser(dit: Path, tmp_path: Path) -> None:
    """A public one shifts its times by the number of tokens, which section `diffusion` cannot say."""
    data = tmp_path / "data"
    data.mkdir()
    for name in INPUTS:
        (data / name).symlink_to(dit / name)
    (data / "inpaint").unlink()
    shutil.copytree(dit / "inpaint", data / "inpaint")
    shifting = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=3.0, max_shift=4.0)
    shifting.save_pretrained(data / "inpaint" / "scheduler")
    figures = {
        (objective, source): run(source, tmp_path / f"{objective}-{source.name}", **changes)[0]
        for objective, changes in {"nft": {}, "ppo": PPO}.items()
        for source in (dit, data)
    }
    for objective in ("nft", "ppo"):
        own, shifted = figures[objective, dit], figures[objective, data]
        assert own["reward_overall_before"] != shifted["reward_overall_before"]  # judged images
        assert own["trained_parameters"] == shifted["trained_parameters"]


def test_without_training_no_lora_is_made(unet: Path, tmp_path: Path) -> None:
    figures, log = run(unet, tmp_path, train=None)
    assert figures == {"skipped": "align.train is null, no LoRA is made"}
    assert not is_made(tmp_path / "lora")
    assert (tmp_path / "curve.csv").read_text() == "step,reward,gold\n"
    assert log.steps == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "ppo"}, "align.ppo is null, but align.objective is ppo: give its values"),
        ({"awm": {"power": 0.25, "clip": 0.2}}, "align.awm is given, but align.objective is nft: use null"),
        ({"rewards": {"beauty": 1.0}}, "beauty"),
        ({"turns": {"prompt": 0.5}}, "the shares in align.turns sum to 0.5: give 1 in all"),
        ({"turns": {"growth": 1.0}}, "turns to some of them"),
        ({"attribute": ["at night", "at noon"]}, "give two or more values with the reward parity"),
        ({"rewards": {"parity": 1.0}}, r"align.attribute is \[\]"),
        ({"generator": "base", "rewards": {"growth": 1.0}}, "which keeps no product: drop it"),
        ({"train": {"override": {"accumulate": 2}}}, "accumulate is 2: the steps of a round"),
        ({"train": {"override": {"parallel": "ddp"}}}, "rollouts are sampled by one process"),
        ({"train": {"batch_size": 16}}, "a round has 4 samples"),
        ({"rewards": {"diversity": 1.0}, "encoder": "second"}, "need one that no loss uses"),
        ({"rollouts": {"images": 1}}, "'images' in section 'align.rollouts' is 1"),
        (
            {"objective": "ppo", "nft": None, "ppo": {"noise": 1.0, "timesteps": 2, "clip": 1e-4}},
            "it must be below the 2 steps of rollouts",
        ),
    ],
)
def test_what_cannot_be_done_is_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(align, **changes)


def test_diversity_is_not_seen_by_a_network_that_the_denoiser_is_aligned_with() -> None:
    features = {"encode": {"features": {"network": "first", "layer": 0, "cells": 2}}}
    changes = {"align": {"rewards": {"diversity": 1.0}, "encoder": "first"}}
    sections = merge_sections(load_sections("tiny", ROOT), changes)
    assert read_stage_params(align, sections)["align"].encoder == "first"
    with pytest.raises(ValueError, match=r"encoder is first, .* \(encode\.features\.network\)"):
        read_stage_params(align, merge_sections(sections, features))


def test_a_reward_that_was_never_trained_is_an_error(unet: Path, tmp_path: Path) -> None:
    for name in INPUTS:
        if name != "reward":
            (tmp_path / name).symlink_to(unet / name)
    (tmp_path / "reward").mkdir()
    (tmp_path / "reward" / NOTICE_FILE).write_text('{"skipped": "no reward"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"there is no reward model: give train_reward\.train"):
        run(tmp_path, tmp_path / "out")
