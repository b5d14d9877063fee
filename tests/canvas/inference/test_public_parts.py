from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLInpaintPipeline
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from ruamel.yaml import YAML
from transformers import CLIPTokenizer

from canvas.__main__ import main
from canvas.denoiser.sampling import sample_noise
from canvas.denoiser.unet import add_inpaint_channels
from canvas.inference.conditioning import build_condition, compute_pipeline_frame
from canvas.inference.framed_product import frame_product
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_product
from canvas.inference.public_parts import assemble_public_parts, read_public_parts
from tests.canvas import tiny

PROFILE = Path(__file__).parents[3] / "profiles/public/sdxl.yaml"

README = "---\nlicense: openrail++\n---\n# A tiny model\n"


def build_tokenizer(pad_token: str) -> CLIPTokenizer:
    """CLIP's own tokenizer, from the vocabulary that open_clip ships."""
    ours = SimpleTokenizer()
    vocabulary = {name: number for name, number in ours.encoder.items() if number < 49406}
    return CLIPTokenizer(
        vocab=vocabulary | {"<|startoftext|>": 49406, "<|endoftext|>": 49407},
        merges=list(ours.bpe_ranks),
        pad_token=pad_token,
        model_max_length=12,
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository as diffusers' own SDXL inpainting one: made, and saved, by stock libraries alone."""
    folder = tmp_path_factory.mktemp("hub") / "sdxl-inpainting"
    parts = tiny.public_sdxl(folder / "base").components
    unet = add_inpaint_channels(parts["unet"])
    torch.nn.init.normal_(unet.conv_in.weight, std=0.1)
    stock = StableDiffusionXLInpaintPipeline(
        unet=unet,
        vae=parts["vae"],
        text_encoder=parts["text_encoder"],
        text_encoder_2=parts["text_encoder_2"],
        tokenizer=build_tokenizer("<|endoftext|>"),
        tokenizer_2=build_tokenizer("!"),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
        ),
    )
    stock.save_pretrained(folder)
    (folder / "README.md").write_text(README)
    return folder


def write_parts(repository: Path, file: Path, **changes: Any) -> Path:
    """The shipped profile, with that repository in place of the public ones."""
    values = YAML(typ="safe").load(PROFILE.read_text())
    for name, source in values.items():
        if isinstance(source, dict) and "repository" in source:
            values[name] = {"repository": str(repository), "subfolder": name.replace("denoiser", "unet")}
    values["sampling"] |= {"steps": 3}
    YAML().dump(values | changes, file)
    return file


@pytest.fixture(scope="module")
def parts_file(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(repository, tmp_path_factory.mktemp("parts") / "sdxl.yaml")


@pytest.fixture(scope="module")
def pipeline(parts_file: Path) -> CanvasPipeline:
    return assemble_public_parts(read_public_parts(parts_file))


def build_cutout(width: int, height: int) -> Image.Image:
    """A product of whole latent cells, where stock's nearest-neighbour mask and ours are one."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    pixels[..., 3] = 0
    pixels[16 : height - 16, 16 : width - 16, 3] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (80, 48)])
def test_same_image_as_stock_inpainting(
    repository: Path, pipeline: CanvasPipeline, width: int, height: int
) -> None:
    """With the product not put back, the same noise and the same prompts give what stock diffusers gives."""
    product = build_product(build_cutout(width, height))
    frame = compute_pipeline_frame(pipeline, product)
    assert (frame.width, frame.height) == (width, height)
    framed = frame_product(product, frame, torch.device("cpu"))
    condition = build_condition(pipeline, framed, "mug, in a forest", "blurred")
    noise = sample_noise((4, height // 8, width // 8), [7], torch.device("cpu"))
    shown = framed.pixels * framed.mask

    stock = StableDiffusionXLInpaintPipeline.from_pretrained(repository)
    stock.set_progress_bar_config(disable=True)
    expected = stock(
        prompt="mug, in a forest",
        negative_prompt="blurred",
        image=shown,
        mask_image=1 - framed.mask,
        masked_image_latents=condition.masked_latents,
        latents=noise,
        strength=1.0,
        num_inference_steps=3,
        guidance_scale=8.0,
        height=height,
        width=width,
        output_type="latent",
    ).images

    from canvas.denoiser.sampling import LatentSampler
    from canvas.vae.latents import get_latent_scale

    sampler = LatentSampler(
        unet=pipeline.unet,
        scheduler=pipeline.get_scheduler(),
        scale=get_latent_scale(pipeline.vae),
        steps=3,
        guidance_scale=8.0,
    )
    raw = sampler.sample(noise, condition)

    torch.testing.assert_close(sampler.scale.normalize(raw), expected, rtol=1e-4, atol=1e-4)
