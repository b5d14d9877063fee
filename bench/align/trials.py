"""Runs of the arms: all start from one generator and are judged on the same prompts and seeds, the start once."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.align.arms import UNGUARDED, build_sections
from canvas.align.guard import FINAL_STREAM, Check, GoldScore, Guard, JudgedImages
from canvas.align.policy import Policy
from canvas.align.prompts import EROSION
from canvas.align.rewards import RewardSet, load_rewards
from canvas.align.spec import AlignParams
from canvas.align.training import Aligner
from canvas.decoder.training import DecoderSample
from canvas.device import default_device
from canvas.masks.composite import erode_mask
from canvas.pins.fallbacks import Notes
from canvas.segmenter.model import load_segmenter
from canvas.train.checkpoint import get_step_directory
from canvas.vae.model import load_vae
from evaluation.generator.background_scores import measure_growth
from evaluation.generator.pins import load_engaged_images
from evaluation.judges.alignment import AlignmentJudge
from evaluation.judges.features import choose_view_side
from evaluation.measures.distances import Features
from lifecycle.declare.graph import load_stage
from lifecycle.declare.params import read_stage_params
from lifecycle.declare.skipping import is_made
from lifecycle.run.ranks import SilentLog


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgment:
    """What the judge and measures say of one generator's images at one seed, in the order of the images."""

    images: JudgedImages
    score: GoldScore
    features: Features
    columns: Mapping[str, NDArray[np.float64]]  # gold, scene, sharp, growth; NaN: does not count
    core_difference: int  # largest change of a byte on a product's core


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One arm at one seed."""

    arm: str
    seed: int
    judgment: Judgment
    is_better: bool  # whether the stage would keep it
    reason: str
    checks: list[Check]
    best_step: int
    images_sampled: int
    images_a_step: float
    seconds: float  # of rollouts and steps, without checks
    checking_seconds: float


class Trials:
    """What all runs share: data, judge and start."""

    def __init__(self, sections: Mapping[str, Any], changes: Mapping[str, Any], source: Path) -> None:
        self.sections, self.changes, self.source = sections, changes, source
        stage = load_stage("align")
        self._paths = {name: source / artifact.path for name, artifact in stage.inputs.items()}
        self._stage = stage
        self._work = tempfile.TemporaryDirectory()
        self._starts: dict[int, Judgment] = {}
        self._samples: dict[int, DecoderSample] = {}

    @cached_property
    def _first(self) -> Aligner:
        """The aligner of the first arm: others share its data and judge."""
        params = self._read_params("nft", 0)
        align, paths, notes = params["align"], self._paths, Notes()
        spec = align.guard
        real = load_engaged_images(paths["pins"], paths["kept"], spec.engaged, spec.real_pins, notes)
        side = choose_view_side(params["frames"].side)
        judge = AlignmentJudge.load(paths["judges"], real, side, spec.min_diversity)
        names = ("pins", "masks", "captions", "shards", "vae", "reward", "segmenter", "clip")
        folders = {name: paths[name] for name in names} | {"model": self._model}
        return Aligner.load(
            align,
            params["training"],
            params["diffusion"],
            params["sampling"],
            folders,
            judge,
            params["encode"].sources,
            notes,
        )

    @cached_property
    def _judged_rewards(self) -> RewardSet:
        """What held-out images are scored by in every arm: the rewards of all."""
        params = self._first.params
        return self._load_rewards(replace(params, rewards={**params.rewards, "diversity": 1.0}))

    @property
    def judge(self) -> AlignmentJudge:
        """What judges the images of all."""
        assert isinstance(self._first.judge, AlignmentJudge)
        return self._first.judge

    @property
    def _model(self) -> Path:
        return self._paths["base" if self.sections["align"]["generator"] == "base" else "inpaint"]

    def get_start(self, seed: int) -> Judgment:
        """Return the judgment of the generator before it is aligned, at the noises of this seed."""
        if seed not in self._starts:
            aligner = self._build_aligner("nft", seed)
            policy = self._load_policy(aligner)
            guard = self._build_guard(aligner, self._get_start_checks(seed))
            guard(policy, 0)
            self._starts[seed] = self._judge(guard, policy)
        return self._starts[seed]

    def run(self, arm: str, seed: int) -> Trial:
        """Align by one arm at one seed, and judge what comes of it."""
        start, aligner = self.get_start(seed), self._build_aligner(arm, seed)
        policy = self._load_policy(aligner)
        with tempfile.TemporaryDirectory() as name:
            guard = self._build_guard(aligner, Path(name) / "checks")
            for checks in self._get_start_checks(seed).iterdir():  # the first check is that of the start
                shutil.copytree(checks, guard.folder / checks.name)
            assert get_step_directory(guard.folder, 0).is_dir()
            clock, checking = time.perf_counter(), 0.0

            def check(policy: Policy, step: int) -> bool:
                nonlocal checking
                began = time.perf_counter()
                stops = guard(policy, step)
                checking += time.perf_counter() - began
                return stops

            aligner.train(policy, Path(name) / "checkpoints", SilentLog(), aligner.rewards, check)
            if not guard.is_exhausted:
                check(policy, aligner.spec.steps)
            seconds = time.perf_counter() - clock - checking
            if arm != UNGUARDED:
                guard.load_best(policy)
            judgment = self._judge(guard, policy)
        verdict = self.judge.compare(start.score, judgment.score, judgment.images)
        sampled = aligner.count_images(max(guard.checks))
        return Trial(
            arm=arm,
            seed=seed,
            judgment=judgment,
            is_better=verdict.is_better,
            reason=verdict.reason,
            checks=sorted(guard.checks.values(), key=lambda check: check.step),
            best_step=guard.best.step,
            images_sampled=sampled,
            images_a_step=sampled / max(max(guard.checks), 1),
            seconds=seconds,
            checking_seconds=checking,
        )

    def _read_params(self, arm: str, seed: int) -> Mapping[str, Any]:
        return read_stage_params(self._stage, build_sections(arm, seed, self.sections, self.changes))

    def _build_aligner(self, arm: str, seed: int) -> Aligner:
        params, first = self._read_params(arm, seed), self._first
        align = params["align"]
        spec = params["training"].resolve(align.train)
        rewards = first.rewards if align.kinds == first.params.kinds else self._load_rewards(align)
        return replace(first, params=align, spec=spec, rewards=rewards)

    def _load_rewards(self, params: AlignParams) -> RewardSet:
        networks = {name: self._paths[name] for name in ("reward", "segmenter", "clip")}
        return load_rewards(params, load_vae(self._paths["vae"]).eval(), **networks, device=default_device())

    def _load_policy(self, aligner: Aligner) -> Policy:
        folders = (self._paths[name] for name in ("backdrop", "engaged"))
        loras = [] if aligner.params.generator == "base" else [folder for folder in folders if is_made(folder)]
        return aligner.load_policy(self._model, loras).to(default_device())

    def _build_guard(self, aligner: Aligner, folder: Path) -> Guard:
        folder.mkdir(parents=True, exist_ok=True)
        return aligner.build_guard(folder, SilentLog(), self._judged_rewards)

    def _get_start_checks(self, seed: int) -> Path:
        return Path(self._work.name) / f"checks-{seed}"

    def _judge(self, guard: Guard, policy: Policy) -> Judgment:
        """Sample and judge images of the policy after the prompts of the verdict."""
        images = guard.sampler.sample(policy, self._first.data.final, FINAL_STREAM)
        features, scene_features = self.judge.extract_features(images)
        score = self.judge.score(images, features, scene_features)
        nothing = (np.nan,) * len(images.images)
        columns = {
            "gold": np.array(score.values),
            "scene": np.array(score.columns.get("scene_accuracy", nothing)),
            "sharp": np.array(score.columns.get("scene_accuracy_sharp", nothing)),
        }
        growth, core = self._measure_products(images)
        if growth is not None:
            columns["growth"] = growth
        return Judgment(images=images, score=score, features=features, columns=columns, core_difference=core)

    def _measure_products(self, images: JudgedImages) -> tuple[NDArray[np.float64] | None, int]:
        """Return by how much of its area each product grew, and the largest change on a core; of text-to-image None."""
        pins = self._first.data.held_out.pins
        if not pins:
            return None, 0
        segmenter = load_segmenter(self._paths["segmenter"]).to(default_device()).eval()
        edges = read_stage_params(load_stage("assemble"), self.sections)["edges"]
        alphas = []
        size = self._first.params.rollouts.batch_size
        for first in range(0, len(images.images), size):
            batch = [Image.fromarray(image) for image in images.images[first : first + size]]
            alphas += segmenter.predict_alphas(batch, edges)
        growth, core = [], 0
        for image, row, alpha in zip(images.images, images.rows, alphas, strict=True):
            if row not in self._samples:
                self._samples[row] = pins[row].load_sample()
            sample = self._samples[row]
            is_core = erode_mask(sample.mask[None], EROSION)[0, 0].numpy()
            difference = np.abs(image.astype(int) - sample.pixels.permute(1, 2, 0).numpy())
            core = max(core, int(difference[is_core].max(initial=0)))
            is_product = sample.mask[0].numpy() > 0
            growth.append(measure_growth(is_product, alpha >= 0.5)[0] if is_product.any() else np.nan)
        return np.array(growth), core
