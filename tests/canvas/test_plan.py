from __future__ import annotations

from pathlib import Path

import pytest
import torch

from canvas.activations import activations
from canvas.embedding_plan import forward_flops
from canvas.models.adapters import add_lora
from canvas.models.image_prompt import add_image_prompt, image_prompt_state
from canvas.plan import (
    Run,
    image_prompt_parameters,
    largest_unit,
    main,
    memory_rows,
    parameters,
    pin_rows,
    run_in,
    specs_in,
)
from tests.canvas.models import tiny

XL = Path(__file__).parents[2] / "profiles" / "canvas-xl.yaml"
RUN = Run(side=64, gpus=2, batch=3, captions=2, masks=2, averages=1, lora_rank=2, image_width=24, pins=10)


@pytest.fixture
def unet():
    with torch.device("meta"):
        return tiny.denoiser()


def test_full_size_plan(capsys):
    assert main(["--profile", str(XL), "--gpus", "8"]) == 0
    told = capsys.readouterr().out
    for count in ("2,567,463,684", "83,653,863", "123,650,304", "694,659,840", "355,479,552"):
        assert count in told
    assert "2,567,478,084 x 4 bytes / 8 GPUs" in told


def test_activations_are_those_of_a_real_pass(unet):
    real = tiny.denoiser()
    weights = {weight.untyped_storage().data_ptr() for weight in real.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept.setdefault(place, tensor)
        return tensor

    given = tiny.conditions(batch=1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states = torch.zeros(1, 77, tiny.TEXT_WIDTH)
        added = {"text_embeds": given["text_pooled"], "time_ids": given["sizes"]}
        real(given["latents"], 500, states, added_cond_kwargs=added)
    measured = sum(tensor.numel() for tensor in kept.values()) * 2
    assert activations(unet).bytes == pytest.approx(measured, rel=0.1)
    assert activations(unet).recomputed_bytes < activations(unet).bytes


def test_memory_adds_up(unet):
    rows = {part: size for part, _, size in memory_rows(unet, activations(unet), RUN)}
    assert rows["weights"] == parameters(unet) * 4 / 2
    assert rows["optimizer"] == 2 * rows["gradients"] == 2 * rows["averages"]
    assert rows["total"] == sum(size for part, size in rows.items() if part != "total")


def test_lora_trains_little(unet):
    whole = parameters(unet)
    add_lora(unet, rank=2, alpha=2)
    rows = {part: size for part, _, size in memory_rows(unet, activations(unet), RUN)}
    assert rows["gradients"] == parameters(unet, trainable=True) * 4 / 2 < 0.2 * whole * 4 / 2


def test_image_prompts_have_the_parameters_of_a_real_adapter(unet):
    real = image_prompt_state(add_image_prompt(tiny.denoiser(), 24))
    assert image_prompt_parameters(unet, 24) == sum(weight.numel() for weight in real.values())


def test_units_do_not_count_their_inner_units_again(unet):
    whole = max(parameters(block) for block in [*unet.down_blocks, *unet.up_blocks])
    assert 0 < largest_unit(unet) < whole


def test_bytes_of_a_pin():
    rows = {name: size for name, _, size in pin_rows(specs_in(XL), RUN)}
    assert rows["moments"] == torch.zeros(8, 8, 8, dtype=torch.half).nbytes
    assert rows["text states"] == torch.zeros(2, 77, 2048, dtype=torch.half).nbytes
    assert rows["image"] == torch.zeros(768 + 1280, dtype=torch.half).nbytes
    assert rows["masked latents"] == torch.zeros(2, 4, 8, 8, dtype=torch.half).nbytes
    assert rows["total"] == sum(size for name, size in rows.items() if name != "total")


def test_sizes_of_the_run_are_the_profiles():
    run = run_in(XL, gpus=64, pins=10)
    assert (run.side, run.batch, run.captions, run.masks, run.averages, run.lora_rank) == (1024, 4, 4, 4, 2, 64)
    assert run.image_width == 512 + 1280
    with pytest.raises(ValueError, match="3 GPUs x 8 accumulated passes do not divide it"):
        run_in(XL, gpus=3, pins=10)


def test_a_profile_without_models_is_named(tmp_path: Path, capsys):
    (tmp_path / "p.yaml").write_text("engine:\n  threads: 2\n")
    assert main(["--profile", str(tmp_path / "p.yaml")]) == 1
    assert "has no section 'denoiser'" in capsys.readouterr().err


def test_embedding_and_clustering_are_planned(capsys):
    assert main(["--profile", str(XL), "--gpus", "8", "--vectors", "10000000"]) == 0
    told = capsys.readouterr().out.partition("Embedding 10,000,000 pins")[2]
    assert "86,118,144" in told
    assert "10,000,000 x (512 x 4 + 64 + 1280 x 4) bytes" in told
    assert "2 x 10,000,000 x 5,000 x 512 x 11 passes" in told


def test_flops_are_those_of_the_arithmetic():
    with torch.device("meta"):
        layer = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
        assert forward_flops(layer, torch.zeros(1, 3, 10, 10)) == 2 * 8 * 3 * 9 * 100
