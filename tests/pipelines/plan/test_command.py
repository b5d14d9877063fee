"""`python -m pipelines.plan`."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout

import pytest

from canvas.denoiser.image_prompt import add_image_prompt, get_image_prompt_state
from lifecycle.declare.graph import load_stages
from lifecycle.declare.params import load_sections
from pipelines.cluster import PlannedRun, read_cluster
from pipelines.plan.__main__ import Plan, build_plan, list_uncounted_networks, main
from pipelines.plan.memory import count_largest_unit, count_parameters
from pipelines.plan.profile import Profile, build_models, compute_images_per_pass, count_image_prompt_parameters
from pipelines.plan.trainings import DENOISER_STAGES, build_denoiser_runs
from tests.canvas import tiny
from tests.pipelines.plan.conftest import CLUSTER, ROOT


@pytest.fixture(scope="module")
def plan() -> str:
    """The plan of canvas-xl, which its machines can hold and finish."""
    with redirect_stdout(io.StringIO()) as out:
        assert main(["--cluster", str(CLUSTER)]) == 0
    return out.getvalue()


def test_parameters_are_those_of_the_public_models(plan):
    for count in ("2,567,463,684", "83,653,863", "123,650,304", "694,659,840", "355,479,552"):
        assert count in plan
    assert "2,567,478,084 x 4 bytes / 64 GPUs" in plan


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
    for stage in (*DENOISER_STAGES, "align", "train_decoder", "train_reward"):
        sections[stage] |= {"train": None}
    run = PlannedRun(gpus=1, gpu_memory="1Gi", pins=100, vectors=100)
    text = build_plan(sections, read_cluster(CLUSTER), run).text
    assert "Memory of each GPU" not in text
    assert "averages" not in text
    assert "train_decoder" not in text
    assert "align" not in text
    assert "train_reward" not in text
    assert "LoRA on all its layers" in text


def test_an_alignment_is_planned() -> None:
    """2 rounds of 4 images, 2 checks and a start of 4 judged images each, and 8 in the end before and after."""
    sections = load_sections("tiny", ROOT)
    run = PlannedRun(gpus=1, gpu_memory="1Gi", pins=100, vectors=100)
    text = build_plan(sections, read_cluster(CLUSTER), run).text
    assert "Memory of each GPU, align" in text
    assert "x 2 states x 4 bytes" in text
    lines = text.partition("Alignment with rewards\n")[2].partition("\n\n")[0].splitlines()
    assert lines[0].split()[3:6] == ["8", "images", "x"]
    assert "16 samples x" in lines[1]
    assert lines[2].split()[3:5] == ["20", "images"]
    assert read_hours(text)["align"] >= 0
    small = PlannedRun(gpus=1, gpu_memory="1Mi", pins=100, vectors=100)
    refusals = build_plan(sections, read_cluster(CLUSTER), small).refusals
    assert any("align needs " in line and "set gradient_checkpointing to true" in line for line in refusals)


def read_hours(text: str) -> dict[str, float]:
    """Stage -> hours that the plan says."""
    lines = text.partition("Hours of a stage\n")[2].partition("\n\n")[0].splitlines()
    return {line.split()[0]: float(line.split()[1].replace(",", "")) for line in lines}


def test_no_stage_is_stopped_before_it_ends(plan, cluster):
    hours = read_hours(plan)
    classes = {stage.name: getattr(cluster.machines, stage.machine) for stage in load_stages()}
    assert hours.keys() > {"train_base", "train_inpaint", "encode", "embed", "train_decoder"}
    assert all(needed * 3600 <= classes[stage].timeout_seconds for stage, needed in hours.items())


def test_small_fits_one_gpu_and_a_day(capsys):
    assert main(["--profile", "small", "--cluster", str(CLUSTER)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert 10 < sum(read_hours(out).values()) < 24


def test_a_lora_on_public_weights_fits_24_gb(capsys):
    assert main(["--profile", "public-sdxl-lora", "--cluster", str(CLUSTER)]) == 0
    assert "train_backdrop" in read_hours(capsys.readouterr().out)


def test_a_lora_on_flux_fill_fits_80_gb_and_no_40(capsys):
    """The weights are those of the public models, but for the embedding of guidance: 10,229,760."""
    assert read_cluster(CLUSTER).runs["canvas-dit"].gpu_memory == "80Gi"
    assert main(["--profile", "canvas-dit", "--cluster", str(CLUSTER), "--gpu-memory", "40Gi"]) == 1
    out, err = capsys.readouterr()
    for count in ("11,891,178,560", "11,892,161,600", "4,762,310,656", "2 x 256 x 4096 x 2 bytes"):
        assert count in out
    assert 5 < read_hours(out)["train_backdrop"] < 72
    (line,) = err.splitlines()
    needed, fix = line.removeprefix("pipelines.plan: train_backdrop needs ").split(" GiB of a GPU that has 40.0, 44.")
    assert 45 < float(needed) < 80
    assert fix.endswith(" of them for weights: use more GPUs and parallel: fsdp, or one with more memory")


def test_what_cannot_fit_or_end_is_refused(capsys, tmp_path):
    hasty = tmp_path / "cluster.yaml"
    hasty.write_text(CLUSTER.read_text().replace("timeout_seconds: 2592000", "timeout_seconds: 600"))
    assert main(["--profile", "small", "--cluster", str(hasty), "--gpu-memory", "8Gi"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert any(
        line.startswith("pipelines.plan: train_base needs ") and "of a GPU that has 8.0" in line for line in lines
    )
    assert any("machine class 'gpus' stops it after 0: raise its timeout_seconds" in line for line in lines)


def test_transformer_is_planned() -> None:
    """Its blocks are the units of FSDP and checkpointing; a LoRA on it has two factors a linear layer."""
    profile = Profile.read(load_sections("demo", ROOT))
    models = build_models(profile)
    runs = {run.stage: run for run in build_denoiser_runs(profile, models)}
    assert runs.keys() == set(DENOISER_STAGES)
    assert count_largest_unit(models.inpaint) < count_parameters(models.inpaint) / 2
    activations = runs["train_base"].activations
    assert 0 < activations.recomputed_bytes < activations.bytes / 2
    tokens = (profile.latent_side // 2) ** 2
    blocks = profile.denoiser.dit.double_blocks + profile.denoiser.dit.single_blocks
    width = profile.denoiser.dit.heads * profile.denoiser.dit.head_width
    assert activations.recomputed_bytes > blocks * tokens * width * 2
    assert runs["train_base"].forward_flops > 2 * tokens * count_parameters(models.denoiser) / 2
    adapter = count_image_prompt_parameters(models.inpaint, 24)
    real = get_image_prompt_state(add_image_prompt(tiny.transformer(), 24))
    tiny_model = tiny.transformer().to("meta")
    assert count_image_prompt_parameters(tiny_model, 24) == sum(weight.numel() for weight in real.values()) < adapter


def test_public_networks_are_named(xl):
    segmenter, captioner = list_uncounted_networks(xl)
    assert "not counted  ZhengPeng7/BiRefNet@" in segmenter
    assert segmenter.endswith(" as it is, on one GPU")
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
    profiles = "demo, canvas-dit, canvas-xl, dit, public-sdxl-lora, small, text, tiny, unet"
    assert f"no profile 'huge': there are {profiles}" in capsys.readouterr().err
    sections = load_sections("demo", ROOT)
    del sections["frames"]
    with pytest.raises(ValueError, match="params section 'frames' is missing"):
        Profile.read(sections)


def test_a_reader_that_leaves_ends_the_command_quietly(monkeypatch, capsys):
    monkeypatch.setattr("pipelines.plan.__main__.build_plan", lambda *arguments: Plan(text="a plan", refusals=[]))
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as left:
        monkeypatch.setattr(sys, "stdout", left)
        assert main(["--profile", "tiny", "--cluster", str(CLUSTER)]) == 0
    assert capsys.readouterr().err == ""
