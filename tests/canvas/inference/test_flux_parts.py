"""A generator of public parts of the Flux-Fill class: transformer, T5, guidance as an input, times shifted by size."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxFillPipeline
from ruamel.yaml import YAML

from canvas.__main__ import main
from canvas.denoiser.sampling import LatentSampler, sample_noise
from canvas.inference.assembly.public_parts import assemble_public_parts, read_public_parts
from canvas.inference.conditioning import build_condition, decode_backgrounds, frame_for_pipeline
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_product
from canvas.vae.model import get_latent_scale
from tests.canvas.flux_fill import write_flux_fill
from tests.canvas.inference.test_public_parts import build_cutout
from tests.canvas.public_models import T5_TOKENS

PROFILE = Path(__file__).parents[3] / "profiles/public/flux-fill.yaml"

PROMPT = "mug, in the forest, on a beach, in a city, on the forest"
"""Longer than the first text encoder reads, as Flux's prompts are."""
SCALE, STEPS = 30.0, 3


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "flux-fill"
    write_flux_fill(folder)
    return folder


def write_parts(repository: Path, file: Path, **changes: Any) -> Path:
    """The shipped profile, with that repository in place of the public ones, and whole precision."""
    values = YAML(typ="safe").load(PROFILE.read_text())
    for source in values.values():
        if isinstance(source, dict) and "subfolder" in source:
            source |= {"repository": str(repository), "revision": None}
    values["sampling"] |= {"steps": STEPS}
    YAML().dump(values | {"segmenter": None, "frame_side": 64, "bf16": []} | changes, file)
    return file


@pytest.fixture(scope="module")
def pipeline(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> CanvasPipeline:
    file = write_parts(repository, tmp_path_factory.mktemp("parts") / "flux-fill.yaml")
    made = assemble_public_parts(read_public_parts(file))
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize(("width", "height"), [(64, 64), (80, 48)])
def test_same_image_as_stock_fill(repository: Path, pipeline: CanvasPipeline, width: int, height: int) -> None:
    """With the product not put back, the same noise and prompt give what stock diffusers gives: latents to 1e-4, and
    pixels to one level of 255."""
    framed = frame_for_pipeline(pipeline, build_product(build_cutout(width, height)))
    assert (framed.frame.width, framed.frame.height) == (width, height)
    noise = sample_noise((16, height // 8, width // 8), [7], torch.device("cpu"))
    stock = FluxFillPipeline.from_pretrained(repository)
    stock.set_progress_bar_config(disable=True)

    def generate(scale: float, output_type: str) -> Any:
        return stock(
            prompt=PROMPT,
            image=(framed.pixels + 1) / 2,
            mask_image=1 - framed.mask,
            latents=stock._pack_latents(noise, 1, 16, height // 8, width // 8),
            guidance_scale=scale,
            num_inference_steps=STEPS,
            max_sequence_length=T5_TOKENS,
            height=height,
            width=width,
            output_type=output_type,
        ).images

    def generate_ours(scale: float) -> torch.Tensor:
        sampler = LatentSampler(
            denoiser=pipeline.transformer,
            scheduler=pipeline.get_scheduler(),
            scale=get_latent_scale(pipeline.vae),
            steps=STEPS,
            guidance_scale=scale,
        )
        with torch.no_grad():
            return sampler.sample(noise, build_condition(pipeline, framed, PROMPT))

    raw = generate_ours(SCALE)
    latents = get_latent_scale(pipeline.vae).normalize(raw)
    packed = stock._pack_latents(latents, 1, 16, height // 8, width // 8)
    torch.testing.assert_close(packed, generate(SCALE, "latent"), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        (background,) = decode_backgrounds(pipeline, raw, None, framed.frame)
    expected = np.rint(255 * generate(SCALE, "np")[0])
    assert np.abs(background.pixels - expected).max() <= 1

    unguided = generate_ours(1.0)
    assert (unguided - raw).abs().max() > 1e-3
    packed = stock._pack_latents(get_latent_scale(pipeline.vae).normalize(unguided), 1, 16, height // 8, width // 8)
    torch.testing.assert_close(packed, generate(1.0, "latent"), rtol=1e-4, atol=1e-4)


def test_product_core_comes_back_untouched(pipeline: CanvasPipeline) -> None:
    cutout = build_cutout(80, 48)
    output = pipeline(cutout, PROMPT, seed=3)
    core = np.array(cutout)[..., 3] == 255
    np.testing.assert_array_equal(np.array(output.images[0])[core], np.array(cutout)[..., :3][core])
    assert (np.array(output.images[0])[~core] != np.array(cutout)[..., :3][~core]).any()


def test_guidance_stops_where_it_is_told(pipeline: CanvasPipeline) -> None:
    """Without it the denoiser reads scale 1; a step is one pass either way."""
    seen: list[list[float]] = []
    embedder = pipeline.transformer.time_text_embed.guidance_embedder

    def record(_: Any, inputs: tuple[torch.Tensor]) -> None:
        seen.append([len(inputs[0])])

    def generate(stop: float) -> np.ndarray:
        return np.array(pipeline(build_cutout(64, 64), PROMPT, seed=3, guidance_stop=stop).images[0])

    hook = embedder.register_forward_pre_hook(record)
    try:
        whole, half, none = (generate(stop) for stop in (1.0, 0.34, 0.0))
    finally:
        hook.remove()
    assert seen == [[1]] * 3 * STEPS
    unguided = np.array(pipeline(build_cutout(64, 64), PROMPT, seed=3, guidance_scale=1.0).images[0])
    np.testing.assert_allclose(none.astype(int), unguided, atol=1)  # two ways of rounding
    assert (whole != half).any()
    assert (half != none).any()


def test_command_writes_a_model_that_generates(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In half precision, as the shipped profile says."""
    parts = write_parts(repository, tmp_path / "parts.yaml", bf16=["denoiser", "text_encoder_2"])
    model, product = tmp_path / "canvas", tmp_path / "mug.png"
    build_cutout(64, 64).save(product)
    assert main(["assemble", "--from", str(parts), "--out", str(model)]) == 0
    assert "openrail++" in capsys.readouterr().out
    made = CanvasPipeline.from_pretrained(model)
    assert made.transformer.dtype == made.text_encoder_2.dtype == torch.bfloat16
    assert made.vae.dtype == made.text_encoder.dtype == torch.float32
    assert made.recommended_sampling.guidance_scale == SCALE
    for name in ("dtype", "torch_dtype"):
        assert CanvasPipeline.from_pretrained(model, **{name: torch.float32}).transformer.dtype == torch.float32
    arguments = ["generate", "--model", str(model), "--product", str(product), "--candidates", "1"]
    assert main([*arguments, "--prompt", PROMPT, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "mug-0.png").is_file()
    capsys.readouterr()
    long = "mug, " + "in the forest " * 20 + "at last"
    assert main([*arguments, "--prompt", long, "--out", str(tmp_path)]) == 1
    assert "its end would be cut off: 'in the forest in the" in capsys.readouterr().err
    assert main([*arguments, "--prompt", "mug", "--scheduler", "heun", "--out", str(tmp_path)]) == 1
    assert "scheduler 'heun' does not shift by the image's size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negative_prompt": "blurred"}, "negative_prompt is 'blurred': this denoiser was distilled with guidance"),
        ({"guidance_rescale": 0.5}, "guidance_rescale is 0.5: this denoiser was distilled with guidance"),
    ],
)
def test_options_of_two_passes_are_refused(pipeline: CanvasPipeline, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(build_cutout(64, 64), PROMPT, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_side": None}, "frame_side is null, and a transformer says no size"),
        ({"bf16": ["vae"]}, "bf16 names vae: only denoiser and text_encoder_2"),
    ],
)
def test_wrong_file_is_one_sentence(repository: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assemble_public_parts(read_public_parts(write_parts(repository, tmp_path / "parts.yaml", **changes)))


def test_a_text_encoder_of_another_model_is_refused(repository: Path, tmp_path: Path) -> None:
    """Two CLIPs, as SDXL has them, beside a Flux transformer."""
    values = {
        "text_encoder_2": {"repository": str(repository), "subfolder": "text_encoder"},
        "tokenizer_2": {"repository": str(repository), "subfolder": "tokenizer"},
    }
    parts = read_public_parts(write_parts(repository, tmp_path / "parts.yaml", **values))
    message = "reads text states of 48 numbers and a pooled text of 32, text_encoder and text_encoder_2 give 64 and 32"
    with pytest.raises(ValueError, match=message):
        assemble_public_parts(parts)


def test_a_shift_by_size_is_of_one_scheduler(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scheduler"
    shutil.copytree(repository / "scheduler", folder)
    config = folder / "scheduler_config.json"
    config.write_text(config.read_text().replace("FlowMatchEuler", "FlowMatchHeun"))
    source = {"repository": str(folder)}
    parts = read_public_parts(write_parts(repository, tmp_path / "parts.yaml", scheduler=source))
    with pytest.raises(ValueError, match="use_dynamic_shifting: only FlowMatchEulerDiscreteScheduler may"):
        assemble_public_parts(parts)


def test_shipped_profile_is_read() -> None:
    parts = read_public_parts(PROFILE)
    assert parts.denoiser.repository == "black-forest-labs/FLUX.1-Fill-dev"
    assert parts.get_dtype("text_encoder_2") == torch.bfloat16
    assert parts.frame_side == 1024
