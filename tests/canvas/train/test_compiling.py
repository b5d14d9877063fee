"""Blocks are compiled, each shape once, before they are sharded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.distributed.tensor import DTensor

from canvas.train.compiling import MAX_COMPILED_SHAPES, compile_blocks
from canvas.train.distributed import join_world, shard_model, sync_gradients
from canvas.train.player import checkpoint_blocks
from tests.canvas import tiny
from tests.canvas.train.subject import denoiser, run


def list_compiled(model: nn.Module) -> set[str]:
    return {type(module).__name__ for module in model.modules() if module._compiled_call_impl is not None}


def test_blocks_that_a_model_repeats_are_compiled_and_no_more() -> None:
    unet = tiny.denoiser()
    compile_blocks(unet, backend="eager")
    assert list_compiled(unet) == {"BasicTransformerBlock"}
    alone = nn.Linear(3, 3)
    compile_blocks(alone, backend="eager")
    assert list_compiled(alone) == {"Linear"}


def test_frames_that_take_turns_are_compiled_once_each() -> None:
    torch._dynamo.reset()
    counter, model, plain = CompileCounter(), denoiser().eval(), denoiser().eval()
    compile_blocks(model, backend=counter)
    images = [torch.rand(2, 3, 8 + side, 8) for side in range(12)]  # more than torch's own limit of 8
    with torch.no_grad():
        for image in images:
            torch.testing.assert_close(model(image), plain(image))
        compiled = counter.frame_count
        for image in images:
            model(image)
    assert compiled >= len(images)
    assert counter.frame_count == compiled
    assert torch._dynamo.config.recompile_limit >= MAX_COMPILED_SHAPES


def test_compiled_shards_train_the_same(tmp_path: Path) -> None:
    plain, compiled = (
        [loss for _, loss in run({"checkpoints": str(tmp_path / str(number)), "spec": spec}).losses]
        for number, spec in enumerate(({}, {"parallel": "fsdp", "compile": True}))
    )
    assert compiled == pytest.approx(plain, abs=1e-5)


def test_gradients_between_accumulated_passes_are_shards() -> None:
    with join_world("fsdp") as world:
        model = denoiser()
        shard_model(model, None, world)
        for last in (False, True):
            with sync_gradients(model, last):
                model(torch.rand(2, 3, 8, 8)).square().mean().backward()
            assert all(isinstance(parameter.grad, DTensor) for parameter in model.parameters())


def test_blocks_that_run_again_give_the_same_gradients() -> None:
    gradients = []
    for checkpointed in (False, True):
        unet = tiny.denoiser().train()
        if checkpointed:
            checkpoint_blocks(unet)
            assert unet.is_gradient_checkpointing
        given = tiny.conditions(2)
        added = {"text_embeds": given["text_pooled"], "time_ids": given["sizes"]}
        output = unet(given["latents"], torch.tensor(500.0), given["text_states"], added_cond_kwargs=added).sample
        output.square().mean().backward()
        gradients.append([parameter.grad for parameter in unet.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_a_model_that_cannot_run_blocks_again_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gradient_checkpointing is true, but Denoiser cannot run its blocks again"):
        run({"checkpoints": str(tmp_path), "spec": {"gradient_checkpointing": True}})
