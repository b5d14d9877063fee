"""`python -m pipelines.plan`."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import pytest

from canvas.denoiser.image_prompt import add_image_prompt, get_image_prompt_state
from lifecycle.declare.params import load_sections
from pipelines.cluster import read_cluster
from pipelines.plan.__main__ import format_plan, list_uncounted_networks, main
from pipelines.plan.profile import Profile, compute_images_per_pass, count_image_prompt_parameters
from tests.canvas import tiny
from tests.pipelines.plan.conftest import CLUSTER, ROOT


@pytest.fixture(scope="module")
def plan() -> str:
    """The plan of canvas-xl on 8 GPUs."""
    with redirect_stdout(io.StringIO()) as out:
        assert main(["--cluster", str(CLUSTER), "--gpus", "8", "--vectors", "10000000"]) == 0
    return out.getvalue()


def test_parameters_are_those_of_the_public_models(plan):
    for count in ("2,567,463,684", "83,653,863", "123,650,304", "694,659,840", "355,479,552"):
        assert count in plan
    assert "2,567,478,084 x 4 bytes / 8 GPUs" in plan


def test_embedding_and_clustering_are_planned(plan):
    assert "86,118,144" in plan
    assert "10,000,000 x (512 x 4 + 64 + 1280 x 4) bytes" in plan
    assert "2 x 10,000,000 x 5,000 x 512 x 11 passes on 64 cores" in plan


def test_the_decoder_is_planned_for_the_gpus_of_its_machine(plan):
    assert "Memory of each GPU, conditional decoder, on 8" in plan
    assert "(20,000 + 2,000 held out) x (30 steps + 30 guided) passes" in plan


def test_all_fits_its_machine(plan):
    for stage in ("encode", "train_base, index", "mine_styles", "evaluate_style", "evaluate_style, scoring"):
        assert f"  {stage} " in plan
    assert [line for line in plan.splitlines() if "too much" in line] == []


def test_encoding_is_planned(plan):
    assert "10,000,000 x 1 views at 50 TFLOP/s in float32, assumed" in plan
    assert "image towers + 4 x" in plan


def test_skipped_trainings_need_nothing():
    sections = load_sections("tiny", ROOT)
    for stage in ("train_base", "train_inpaint", "train_backdrop", "train_ip_adapter", "train_decoder", "train_reward"):
        sections[stage] |= {"train": None}
    text = format_plan(sections, read_cluster(CLUSTER), gpus=1, pins=100, vectors=100)
    assert "Memory of each GPU" not in text
    assert "averages" not in text
    assert "train_decoder" not in text
    assert "train_reward" not in text
    assert "LoRA on all its layers" in text


def test_public_networks_are_named(xl):
    segmenter, captioner = list_uncounted_networks(xl)
    assert segmenter.endswith("not counted  openmmlab/upernet-convnext-large as it is, on one GPU")
    assert captioner.endswith("not counted  Qwen/Qwen2.5-VL-7B-Instruct as it is, on one GPU")
    assert list(list_uncounted_networks(Profile.read(load_sections("demo", ROOT)))) == []


def test_image_prompts_have_the_parameters_of_a_real_adapter(unet):
    real = get_image_prompt_state(add_image_prompt(tiny.denoiser(), 24))
    assert count_image_prompt_parameters(unet, 24) == sum(weight.numel() for weight in real.values())


def test_sizes_of_the_run_are_the_profiles(xl):
    train = xl.resolve(xl.train_inpaint)
    assert (compute_images_per_pass("train_inpaint", train, 64), xl.masks, len(train.ema)) == (4, 4, 2)
    assert xl.compute_embedding_width(xl.train_ip_adapter.source) == 512 + 1280


def test_a_batch_that_the_gpus_do_not_divide_is_refused(xl):
    train = xl.resolve(xl.train_inpaint)
    with pytest.raises(ValueError, match=r"part\.train\.batch_size is 2048: 3 GPUs x 8 accumulated passes do not"):
        compute_images_per_pass("part", train, 3)


def test_a_profile_that_is_none_and_a_section_that_is_missing_are_named(capsys):
    assert main(["--profile", "huge"]) == 1
    assert "no profile 'huge': there are demo, canvas-xl, tiny" in capsys.readouterr().err
    sections = load_sections("demo", ROOT)
    del sections["frames"]
    with pytest.raises(ValueError, match="params section 'frames' is missing"):
        Profile.read(sections)
