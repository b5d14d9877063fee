"""Memory of a GPU, and operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from canvas.decoder.model import ConditionalDecoder
from canvas.decoder.spec import DecoderSpec
from canvas.denoiser.lora import add_lora
from canvas.train.spec import TrainSpec
from canvas.vae.model import build_vae
from canvas.vae.objective import ImageLoss
from canvas.vae.spec import AdversarySpec, ReconstructionSpec, VaeSpec
from pipelines.plan.activations import TEXT_TOKENS, Activations, FusedAttention, measure_activations, run_denoiser
from pipelines.plan.gpus import (
    DecoderTraining,
    build_replicated_rows,
    compute_decoder_gpus,
)
from pipelines.plan.memory import (
    GIB,
    RESERVED,
    build_denoiser_rows,
    count_largest_unit,
    count_parameters,
    explain_misfit,
)
from tests.canvas import tiny
from tests.canvas.train.subject import SPEC

VAE = VaeSpec(
    kind="kl",
    channels=(32, 64),
    layers_per_block=1,
    latent_channels=4,
    patch=None,
    norm_groups=32,
    init_from=None,
)


def measure(denoiser: nn.Module) -> Activations:
    return measure_activations(denoiser, partial(run_denoiser, denoiser, denoiser.config["sample_size"]))


def decoder_training(judged: bool) -> DecoderTraining:
    adversary = AdversarySpec(weight=0.1, start_step=5, learning_rate=1e-4, width=8, layers=2) if judged else None
    with torch.device("meta"):
        spec = DecoderSpec(channels=(32, 64), layers_per_block=1, norm_groups=32, erosion=1, mosaic=None)
        decoder = ConditionalDecoder.from_vae(build_vae(VAE, sample_size=32), spec)
        loss = ImageLoss(ReconstructionSpec(l1=1.0, l2=0.0, spectrum=0.1, features=0.0), adversary=adversary)
    return DecoderTraining(decoder=decoder, features=None, loss=loss, side=32, latents=(4, 16, 16))


class Fused(TorchFunctionMode):
    """Attention as on a GPU: fake tensors take the unfused path."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return (
            FusedAttention.apply(*args[:3]) if func is F.scaled_dot_product_attention else func(*args, **kwargs or {})
        )


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Tensors of a GPU that need not be there, under autocast; weights in half precision, which it does not copy."""
    enabled, half = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with FakeTensorMode(), torch.device("cuda"):
            yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_autocast_enabled("cuda", enabled)
        torch.set_autocast_dtype("cuda", half)


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch knows no CUDA")
def test_activations_are_those_of_cudas_autocast():
    saved: dict[StorageWeakRef, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.setdefault(StorageWeakRef(tensor.untyped_storage()), tensor)
        return tensor

    with fake_gpu():
        real = tiny.denoiser()
        weights = {StorageWeakRef(weight.untyped_storage()) for weight in real.parameters()}
        states, pooled, *rest = (
            torch.zeros(1, *shape, dtype=torch.float32)
            for shape in ((TEXT_TOKENS, tiny.TEXT_WIDTH), (tiny.POOLED_WIDTH,), (6,), (4, 8, 8), ())
        )
        sizes, latents, time = rest
        with Fused(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            real(latents, time, states, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes})
        measured = sum(tensor.nbytes for place, tensor in saved.items() if place not in weights)
    with torch.device("meta"):
        counted = measure(tiny.denoiser())
    assert counted.bytes == pytest.approx(measured, rel=0.03)  # float32 copies of norms' weights
    assert counted.recomputed_bytes < counted.bytes


SHARDED = replace(SPEC, parallel="fsdp", precision="bf16", ema=(0.05,))
ALONE = replace(SHARDED, parallel="none")


def memory(unet: nn.Module, spec: TrainSpec, gpus: int = 1) -> dict[str, float]:
    rows = build_denoiser_rows(unet, measure(unet), spec, images=3, gpus=gpus)
    return {part: size for part, _, size in rows}


def test_shards_add_up(unet):
    rows = memory(unet, SHARDED, gpus=2)
    assert rows["weights"] == count_parameters(unet) * 4 / 2
    assert rows["optimizer"] == 2 * rows["gradients"] == 2 * rows["averages"]
    assert rows["total"] == sum(size for part, size in rows.items() if part != "total")


def test_lora_trains_little(unet):
    whole = count_parameters(unet)
    add_lora(unet, rank=2, alpha=2)
    rows = memory(unet, SHARDED, gpus=2)
    assert rows["gradients"] == count_parameters(unet, trainable=True) * 4 / 2 < 0.2 * whole * 4 / 2


def test_a_gpu_alone_holds_all_and_savings_save(unet):
    whole, plain = count_parameters(unet), memory(unet, ALONE)
    assert plain["weights"] == plain["gradients"] == plain["optimizer"] / 2 == 4 * whole
    assert plain["half copies"] == 2 * whole
    assert memory(unet, replace(ALONE, parallel="ddp"), gpus=2)["gradients"] == 8 * whole
    assert memory(unet, replace(ALONE, optimizer="adamw8bit"))["optimizer"] < 0.26 * plain["optimizer"]
    assert 0.5 * plain["optimizer"] < memory(unet, replace(ALONE, optimizer="muon"))["optimizer"] < plain["optimizer"]
    assert memory(unet, replace(ALONE, gradient_checkpointing=True))["activations"] < plain["activations"]
    assert "half copies" not in memory(unet, replace(ALONE, precision="fp32"))


def test_what_does_not_fit_is_told_the_least_that_does(unet):
    activations, spec = measure(unet), replace(ALONE, batch_size=8)
    need = {
        name: build_denoiser_rows(unet, activations, spec, images=images, gpus=1)[-1][2] + RESERVED
        for name, spec, images in (
            ("plain", spec, 8),
            ("accumulated", spec, 4),
            ("checkpointed", replace(spec, gradient_checkpointing=True), 4),
        )
    }
    assert need["plain"] > need["accumulated"] > need["checkpointed"]

    def explain(gpu_memory: float) -> str:
        return explain_misfit("part", unet, activations, spec, gpus=1, gpu_memory=gpu_memory) or "fits"

    assert explain(need["plain"]) == "fits"
    assert explain(need["plain"] - 1).endswith("set part.train.override {accumulate: 2}")
    checkpointed = "set part.train.override {accumulate: 2, gradient_checkpointing: true}"
    assert explain(need["accumulated"] - 1).endswith(checkpointed)
    assert explain(1 * GIB).endswith(
        "train a LoRA (train_backdrop) with part.train null, or use more GPUs and parallel: fsdp"
    )


def test_units_do_not_count_their_inner_units_again(unet):
    whole = max(count_parameters(block) for block in [*unet.down_blocks, *unet.up_blocks])
    assert 0 < count_largest_unit(unet) < whole


def test_the_decoder_is_whole_on_each_gpu():
    training = decoder_training(judged=True)
    own = count_parameters(training.decoder)
    many, one = (
        {part: size for part, _, size in build_replicated_rows(training, Activations(1000, 100), 3, gpus)}
        for gpus in (2, 1)
    )
    assert many["weights"] == 6 * own
    assert many["optimizer"] == 2 * one["gradients"] == many["gradients"] == 8 * own
    assert many["discriminator"] - one["discriminator"] == 4 * count_parameters(training.discriminator)
    assert many["activations"] == 3000
    assert many["total"] == sum(size for part, size in many.items() if part != "total")
    assert "loss's network" not in many


def test_the_decoders_loss_and_its_judge_count_too():
    judged, alone = decoder_training(judged=True), decoder_training(judged=False)
    activations = judged.measure_activations()
    assert activations.bytes > alone.measure_activations().bytes > activations.recomputed_bytes > 0


def test_gpus_of_the_decoder_are_the_machines(xl):
    assert compute_decoder_gpus(xl, 8) == (8, 2)
    with pytest.raises(ValueError, match=r"train_decoder\.train\.batch_size is 64: 64 GPUs x 4 accumulated passes"):
        compute_decoder_gpus(xl, 64)
