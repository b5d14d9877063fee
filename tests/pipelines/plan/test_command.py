"""`python -m pipelines.plan`."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import pytest

from canvas.denoiser.image_prompt import add_image_prompt, get_image_prompt_state
from lifecycle.declare.params import load_sections
from pipelines.plan.__main__ import count_image_prompt_parameters, list_uncounted_networks, main
from pipelines.plan.profile import compute_images_per_pass, denoiser_spec, read_run, reader_of
from tests.canvas import tiny
from tests.pipelines.plan.conftest import CLUSTER, ROOT


@pytest.fixture(scope="module")
def told() -> str:
    """The plan of canvas-xl on 8 GPUs."""
    with redirect_stdout(io.StringIO()) as out:
        assert main(["--cluster", str(CLUSTER), "--gpus", "8", "--vectors", "10000000"]) == 0
    return out.getvalue()


def test_parameters_are_those_of_the_public_models(told):
    for count in ("2,567,463,684", "83,653,863", "123,650,304", "694,659,840", "355,479,552"):
        assert count in told
    assert "2,567,478,084 x 4 bytes / 8 GPUs" in told


def test_embedding_and_clustering_are_planned(told):
    assert "86,118,144" in told
    assert "10,000,000 x (512 x 4 + 64 + 1280 x 4) bytes" in told
    assert "2 x 10,000,000 x 5,000 x 512 x 11 passes on 64 cores" in told


def test_the_decoder_is_planned_for_the_gpus_of_its_machine(told):
    assert "Memory of each GPU, conditional decoder, on 8" in told
    assert "(20,000 + 2,000 held out) x (30 steps + 30 guided) passes" in told


def test_all_fits_its_machine(told):
    for stage in ("encode", "train_base, index", "mine_styles", "evaluate_style", "evaluate_style, scoring"):
        assert f"  {stage} " in told
    assert [line for line in told.splitlines() if "too much" in line] == []


def test_encoding_is_planned(told):
    assert "10,000,000 x 1 views at 50 TFLOP/s in float32, assumed" in told
    assert "image towers + 4 x" in told


def test_public_networks_are_named(xl):
    segmenter, captioner = list_uncounted_networks(xl)
    assert segmenter.endswith("not counted  openmmlab/upernet-convnext-large as it is, on one GPU")
    assert captioner.endswith("not counted  Qwen/Qwen2.5-VL-7B-Instruct as it is, on one GPU")
    assert list_uncounted_networks(reader_of(load_sections("demo", ROOT), "demo")) == []


def test_image_prompts_have_the_parameters_of_a_real_adapter(unet):
    real = get_image_prompt_state(add_image_prompt(tiny.denoiser(), 24))
    assert count_image_prompt_parameters(unet, 24) == sum(weight.numel() for weight in real.values())


def test_sizes_of_the_run_are_the_profiles(xl):
    run = read_run(xl, gpus=64, pins=10)
    assert (run.side, run.batch, run.captions, run.masks, run.averages, run.lora_rank) == (1024, 4, 4, 4, 2, 64)
    assert (run.views, run.image_width) == (1, 512 + 1280)


def test_a_batch_that_the_gpus_do_not_divide_is_refused(xl):
    train = denoiser_spec(xl, "train_inpaint")
    with pytest.raises(ValueError, match=r"part\.batch_size is 2048: 3 GPUs x 8 accumulated passes do not divide it"):
        compute_images_per_pass("part", train, 3)


def test_a_profile_that_is_none_and_a_section_that_is_missing_are_named(capsys):
    assert main(["--profile", "huge"]) == 1
    assert "no profile 'huge': there are demo, canvas-xl, tiny" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"profile p has no section 'engine\.cores'"):
        reader_of({"engine": {"threads": 2}}, "profile p")("engine.cores", int)
