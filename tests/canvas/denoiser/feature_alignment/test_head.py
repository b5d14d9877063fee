"""Hidden states drawn to a frozen network's features (REPA): when they are, what learns, and that nothing stays."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel

from canvas.denoiser.family import Denoiser
from canvas.denoiser.feature_alignment.head import NAME, align_denoiser, compute_gap, set_active
from canvas.denoiser.feature_alignment.spec import FeatureAlignment
from canvas.denoiser.loading import get_family
from canvas.denoiser.objective import DenoisingObjective
from canvas.train.data import TensorBatches
from canvas.train.draws import Draws
from canvas.train.loop import fit
from canvas.vae.model import LatentScale
from tests.canvas.denoiser.subject import build, columns
from tests.canvas.denoiser.test_process import FLOW
from tests.canvas.train.subject import SPEC

WIDTH = 6
SPECS = {
    "transformer": FeatureAlignment(layer="transformer_blocks.0", weight=0.5, width=8, share=0.5),
    "inpaint": FeatureAlignment(layer="mid_block", weight=0.5, width=8, share=0.5),
}
FAMILIES = pytest.mark.parametrize("stage", SPECS)


def build_objective(spec: FeatureAlignment, steps: int) -> DenoisingObjective:
    return DenoisingObjective(
        FLOW,
        LatentScale(torch.zeros(4), torch.ones(4), 1.0),
        captions=3,
        caption_dropout=0.2,
        inpaint=True,
        alignment_weight=spec.weight,
        aligned_steps=spec.count_steps(steps),
    )


def build_columns(denoiser: Denoiser, places: int = 4) -> dict[str, torch.Tensor | list[str]]:
    made = columns(get_family(denoiser).count_hole_channels(8))
    draw = torch.Generator().manual_seed(3)
    return made | {"features": torch.randn(len(made["pin_id"]), WIDTH, places, places, generator=draw)}


def take_batch(denoiser: Denoiser, size: int = 4, places: int = 4) -> dict[str, torch.Tensor | list[str]]:
    return {name: column[:size] for name, column in build_columns(denoiser, places).items()}


@FAMILIES
def test_features_count_for_a_share_of_the_steps(stage: str) -> None:
    denoiser, spec = build(stage).train(), SPECS[stage]
    objective, plain = build_objective(spec, 10), build_objective(replace(spec, share=1e-9), 10)
    batch = take_batch(denoiser)
    with align_denoiser(denoiser, spec, WIDTH, seed=0):
        for step, counts in ((0, True), (4, True), (5, False), (9, False)):
            loss, logged = objective(denoiser, batch, Draws(0, step, 0, 4))
            alone, _ = plain(denoiser, batch, Draws(0, step, 0, 4))
            assert ("alignment" in logged) == counts
            if counts:
                torch.testing.assert_close(loss - alone, 0.5 * logged["alignment"])
                assert 0.5 < logged["alignment"] < 1.5  # 1: at random
            else:
                assert torch.equal(loss, alone)
        _, scored = objective(denoiser.eval(), batch, Draws(0, 0, 0, 4))  # as held-out losses are
        assert "alignment" not in scored


@FAMILIES
def test_the_gap_teaches_the_block_and_what_is_before_it(stage: str) -> None:
    denoiser, spec = build(stage).train(), SPECS[stage]
    batch = take_batch(denoiser)
    with align_denoiser(denoiser, spec, WIDTH, seed=0):
        set_active(denoiser, True)
        objective = build_objective(spec, 10)
        objective.alignment_weight = 1e6  # beside which the denoising loss is nothing
        objective(denoiser, batch, Draws(0, 0, 0, 4))[0].backward()
        gradients = {name: weight.grad for name, weight in denoiser.named_parameters() if weight.grad is not None}
        assert all(gradients[f"{NAME}.layers.{layer}.weight"].abs().max() > 0 for layer in (0, 2, 4))
        before, after = ("x_embedder", "proj_out") if stage == "transformer" else ("conv_in", "conv_out")
        assert gradients[f"{before}.weight"].abs().max() > 1e3 * gradients[f"{after}.weight"].abs().max()


def test_the_gap_is_the_cosine_at_each_place() -> None:
    denoiser, spec = build("transformer"), SPECS["transformer"]
    with align_denoiser(denoiser, spec, WIDTH, seed=0):
        features = torch.randn(2, WIDTH, 4, 6)
        for form in (features.flatten(2), features):  # tokens row by row, or a map
            for sign, gap in ((3.0, 0.0), (-0.5, 2.0)):
                denoiser.alignment_head.projected = sign * form
                torch.testing.assert_close(compute_gap(denoiser, features), torch.full((2,), gap), atol=1e-5, rtol=0)
        turned = features.flip(3)
        denoiser.alignment_head.projected = turned.flatten(2)
        assert compute_gap(denoiser, features).min() > 0.1


@FAMILIES
@pytest.mark.parametrize("places", [2, 8])
def test_features_may_be_coarser_or_finer_than_hidden_states(stage: str, places: int) -> None:
    denoiser, spec = build(stage).train(), SPECS[stage]
    with align_denoiser(denoiser, spec, WIDTH, seed=0):
        _, logged = build_objective(spec, 10)(denoiser, take_batch(denoiser, places=places), Draws(0, 0, 0, 4))
    assert 0.5 < logged["alignment"] < 1.5


def test_finer_features_are_averaged_over_a_token() -> None:
    denoiser = build("transformer")
    with align_denoiser(denoiser, SPECS["transformer"], WIDTH, seed=0):
        tokens = torch.randn(2, WIDTH, 4, 6)
        denoiser.alignment_head.projected = tokens.flatten(2)
        finer = tokens.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        torch.testing.assert_close(compute_gap(denoiser, finer), torch.zeros(2), atol=1e-5, rtol=0)


def test_the_head_rests_while_samples_are_drawn() -> None:
    denoiser, spec = build("transformer").train(), SPECS["transformer"]
    objective, batch = build_objective(spec, 10), take_batch(denoiser)
    with align_denoiser(denoiser, spec, WIDTH, seed=0):
        objective(denoiser, batch, Draws(0, 0, 0, 4))
        objective(denoiser.eval(), batch, Draws(0, 0, 0, 4))
        assert denoiser.alignment_head.projected is None


@FAMILIES
def test_blocks_that_run_again_give_the_same_gradients(stage: str) -> None:
    spec, gradients = SPECS[stage], []
    for checkpointing in (False, True):
        denoiser = build(stage).train()
        if checkpointing:
            denoiser.enable_gradient_checkpointing()
        with align_denoiser(denoiser, spec, WIDTH, seed=0):
            objective, batch = build_objective(spec, 10), take_batch(denoiser)
            for step in range(2):
                objective(denoiser, batch, Draws(0, step, 0, 4))[0].backward()
            gradients.append({name: weight.grad for name, weight in denoiser.named_parameters()})
    assert gradients[1][f"{NAME}.layers.0.weight"].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0])


@FAMILIES
def test_nothing_of_it_stays(stage: str, tmp_path: Path) -> None:
    denoiser = build(stage).eval()
    names, random_state = list(denoiser.state_dict()), torch.random.get_rng_state()
    with align_denoiser(denoiser, SPECS[stage], WIDTH, seed=0):
        assert len(denoiser.state_dict()) > len(names)
        twin = copy.deepcopy(denoiser)  # as under fsdp
        set_active(twin, True)
        twin.train()
        objective = build_objective(SPECS[stage], 10)
        objective(twin, take_batch(denoiser), Draws(0, 0, 0, 4))[0].backward()
        assert twin.alignment_head.layers[0].weight.grad is not None
        assert denoiser.alignment_head.layers[0].weight.grad is None
    assert list(denoiser.state_dict()) == names
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert not any(module._forward_hooks for module in denoiser.modules())
    denoiser.save_pretrained(tmp_path)
    if stage == "transformer":
        assert list(FluxTransformer2DModel.from_pretrained(tmp_path).state_dict()) == names


def test_a_killed_run_continues_to_the_bit(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    spec = replace(SPEC, steps=6, learning_rate=1e-3, checkpoint_every=2, ema=(0.05, 0.1))

    def train() -> tuple[list[float], list[set[str]], dict[str, bytes]]:
        denoiser, logged = build("transformer"), []
        with align_denoiser(denoiser, SPECS["transformer"], WIDTH, seed=0):
            objective = build_objective(SPECS["transformer"], spec.steps)
            batches = TensorBatches(build_columns(denoiser), spec.batch_size, spec.seed)
            fitted = fit(
                denoiser,
                objective,
                batches,
                spec,
                checkpoints=tmp_path,
                log=lambda values, _: logged.append(set(values)),
            )
        files = {file.name: file.read_bytes() for file in (tmp_path / "step-00000006").glob("*.safetensors")}
        return [loss for _, loss in fitted.losses], logged, files

    losses, logged, files = train()
    assert ["alignment" in names for names in logged] == [True] * 3 + [False] * 3
    shutil.rmtree(tmp_path / "step-00000006")
    resumed, logged, again = train()
    assert len(logged) == 2
    assert (resumed, again) == (losses, files)


def test_a_world_of_shards_aligns_as_one(tmp_path: Path) -> None:
    results = []
    for parallel in ("none", "fsdp"):
        denoiser = build("transformer")
        spec = replace(SPEC, steps=4, learning_rate=1e-3, checkpoint_every=4, parallel=parallel)
        with align_denoiser(denoiser, SPECS["transformer"], WIDTH, seed=0):
            fitted = fit(
                denoiser,
                build_objective(SPECS["transformer"], spec.steps),
                TensorBatches(build_columns(denoiser), spec.batch_size, spec.seed),
                spec,
                checkpoints=tmp_path / parallel,
                log=lambda *_: None,
            )
        results.append([loss for _, loss in fitted.losses])
    assert results[1] == pytest.approx(results[0], abs=1e-4)


@pytest.mark.parametrize(
    ("stage", "layer", "known"),
    [
        ("transformer", "mid_block", "transformer_blocks.0, transformer_blocks.1, single_transformer_blocks.0"),
        ("transformer", "transformer_blocks.2", "the denoiser has transformer_blocks.0"),
        ("inpaint", "transformer_blocks.0", "down_blocks.0, down_blocks.1, mid_block"),
    ],
)
def test_a_block_that_is_not_there_is_refused(stage: str, layer: str, known: str) -> None:
    denoiser = build(stage)
    with (
        pytest.raises(ValueError, match=rf"feature_alignment\.layer is '{layer}'.*{known}"),
        align_denoiser(denoiser, replace(SPECS[stage], layer=layer), WIDTH, seed=0),
    ):
        pass
    assert not hasattr(denoiser, NAME)


def test_blocks_that_go_down_have_their_own_widths() -> None:
    unet = build("inpaint").train()
    for layer, width in (("down_blocks.0", 32), ("down_blocks.1", 64)):
        spec = replace(SPECS["inpaint"], layer=layer)
        with align_denoiser(unet, spec, WIDTH, seed=0):
            assert unet.alignment_head.layers[0].in_features == width
            build_objective(spec, 4)(unet, take_batch(unet), Draws(0, 0, 0, 4))[0].backward()


def test_the_share_is_rounded_to_steps() -> None:
    spec = SPECS["transformer"]
    assert [replace(spec, share=share).count_steps(10) for share in (0.01, 0.25, 0.5, 1.0)] == [0, 2, 5, 10]
