from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from canvas.align.spec import PretrainingSpec
from canvas.denoiser.family import Denoiser
from canvas.train.checkpoint import list_steps
from tests.canvas.align.parts import CELL, OBJECTIVES
from tests.canvas.align.subject import Log, RedReward, build_aligner, build_policy, measure_red, run
from tests.components.generator_parts import write_random_shards

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random shards with the holes of each family."""
    root = tmp_path_factory.mktemp("shards")
    for kind, channels in (("unet", 1), ("dit", CELL**2)):
        (root / kind).mkdir()
        write_random_shards(root / kind / "shards", hole_channels=channels)
    return {kind: root / kind / "shards" for kind in ("unet", "dit")}


@pytest.mark.parametrize(("kind", "generator"), [("unet", "backdrop"), ("dit", "base"), ("dit", "backdrop")])
@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_images_become_redder_where_red_is_rewarded_and_less_red_where_it_is_not(
    shards: dict[str, Path], tmp_path: Path, objective: str, kind: str, generator: str
) -> None:
    nothing = PretrainingSpec(weight=0.0, own_step=False, captions=1, caption_dropout=0.1)
    aligner = build_aligner(shards[kind], objective, generator, 20, nothing)
    before = measure_red(aligner, build_policy(aligner, kind))
    after = {}
    for sign in (1.0, -1.0):
        policy, log = build_policy(aligner, kind), Log()
        frozen = _sum_frozen(policy.denoiser)
        aligner.train(policy, tmp_path / str(sign), log, RedReward(sign), None)
        after[sign] = measure_red(aligner, policy)
        assert _sum_frozen(policy.denoiser) == frozen  # the generator itself stays
        assert {"denoising_loss", "policy_loss", "reward_aesthetics"} <= log.values.keys()
    assert after[1.0] > before > after[-1.0]


def _sum_frozen(denoiser: Denoiser) -> float:
    return float(sum(weight.double().sum() for weight in denoiser.parameters() if not weight.requires_grad))


def test_killed_runs_continue_to_the_bit(shards: dict[str, Path], tmp_path: Path) -> None:
    """Checkpoints lie within rounds: their images are sampled again, by the policy that was."""
    job = {"shards": str(shards["dit"]), "objective": "nft", "generator": "backdrop", "kind": "dit", "steps": 15}
    command = [sys.executable, "-m", "tests.canvas.align.subject"]
    slow = json.dumps(job | {"checkpoints": str(tmp_path / "killed"), "seconds": 0.3})
    process = subprocess.Popen([*command, slow], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while len(list_steps(tmp_path / "killed")) < 2:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < list_steps(tmp_path / "killed")[-1] < 15
    resumed, straight = (run(job | {"checkpoints": str(tmp_path / place)}) for place in ("killed", "straight"))
    assert resumed["losses"] == straight["losses"]
    assert all(torch.equal(resumed["weights"][name], weight) for name, weight in straight["weights"].items())
