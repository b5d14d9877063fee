from __future__ import annotations

import shutil
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
from canvas.clip.public_towers import load_text_tower
from canvas.denoiser.sampling import LatentSampler, sample_noise
from canvas.denoiser.unet.model import add_inpaint_channels
from canvas.inference.assembly.public_parts import assemble_public_parts, read_public_parts
from canvas.inference.conditioning import build_condition, frame_for_pipeline
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_product
from canvas.inference.served import TRUST, ServedPipeline, _load_pyfunc
from canvas.segmenter.spec import MattingSpec
from canvas.upscaler.rrdb import RrdbUpscaler
from canvas.vae.model import get_latent_scale
from tests.canvas import tiny
from tests.canvas.matting_repositories import READING, write_custom_repository, write_graph
from tests.canvas.public_models import write_clip
from tests.canvas.safety_models import write_image_classifier
from tests.canvas.upscaler.test_rrdb import build_rrdb

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
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
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
    values["segmenter"] = None
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
def test_same_image_as_stock_inpainting(repository: Path, pipeline: CanvasPipeline, width: int, height: int) -> None:
    """With the product not put back, the same noise and the same prompts give what stock diffusers gives."""
    framed = frame_for_pipeline(pipeline, build_product(build_cutout(width, height)))
    assert (framed.frame.width, framed.frame.height) == (width, height)
    condition = build_condition(pipeline, framed, "mug, in a forest", "blurred")
    noise = sample_noise((4, height // 8, width // 8), [7], torch.device("cpu"))
    visible = framed.pixels * framed.mask

    stock = StableDiffusionXLInpaintPipeline.from_pretrained(repository)
    stock.set_progress_bar_config(disable=True)
    expected = stock(
        prompt="mug, in a forest",
        negative_prompt="blurred",
        image=visible,
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

    sampler = LatentSampler(
        denoiser=pipeline.unet,
        scheduler=pipeline.get_scheduler(),
        scale=get_latent_scale(pipeline.vae),
        steps=3,
        guidance_scale=8.0,
    )
    raw = sampler.sample(noise, condition)

    torch.testing.assert_close(sampler.scale.normalize(raw), expected, rtol=1e-4, atol=1e-4)


def test_product_core_comes_back_untouched(pipeline: CanvasPipeline) -> None:
    cutout = build_cutout(80, 48)
    output = pipeline(cutout, "mug, in a forest", seed=3)
    core = np.array(cutout)[..., 3] == 255
    np.testing.assert_array_equal(np.array(output.images[0])[core], np.array(cutout)[..., :3][core])
    assert (np.array(output.images[0])[~core] != np.array(cutout)[..., :3][~core]).any()


def test_command_writes_a_model_that_generates(
    parts_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, product = tmp_path / "canvas", tmp_path / "mug.png"
    build_cutout(64, 64).save(product)
    assert main(["assemble", "--from", str(parts_file), "--out", str(model)]) == 0
    assert "openrail++" in capsys.readouterr().out
    made = CanvasPipeline.from_pretrained(model)
    assert made.config["sources"]["denoiser"]["licence"] == "openrail++"
    assert made.recommended_sampling.steps == 3
    arguments = ["generate", "--model", str(model), "--product", str(product), "--prompt", "mug", "--candidates", "1"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "mug-0.png").is_file()


def test_model_is_never_replaced(parts_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["assemble", "--from", str(parts_file), "--out", str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"denoiser": {"repository": "./nowhere"}}, "neither a directory nor a hub id"),
        ({"vea": {"repository": "x/y"}}, "vea"),
        ({"max_aspect": 0.5}, "max_aspect is 0.5"),
        ({"hole_inflation": -1}, "hole_inflation"),
    ],
)
def test_wrong_file_is_one_sentence(
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    message: str,
) -> None:
    file = write_parts(repository, tmp_path / "parts.yaml", **changes)
    assert main(["assemble", "--from", str(file), "--out", str(tmp_path / "model")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "model").exists()


def test_text_to_image_denoiser_is_refused(repository: Path, tmp_path: Path) -> None:
    source = {"repository": str(repository / "base"), "subfolder": "unet"}
    parts = read_public_parts(write_parts(repository, tmp_path / "parts.yaml", denoiser=source))
    with pytest.raises(ValueError, match="4 input channels, inpainting latents of 4 needs 9"):
        assemble_public_parts(parts)


def test_weights_without_safetensors_are_refused(repository: Path, tmp_path: Path) -> None:
    """A pickle beside the config is not read."""
    folder = tmp_path / "text_encoder"
    shutil.copytree(repository / "text_encoder", folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_text_tower(folder, repository / "tokenizer")


def build_photograph() -> Image.Image:
    """A red square on green."""
    pixels = np.full((64, 64, 3), (20, 90, 30), np.uint8)
    pixels[16:48, 16:48] = (220, 40, 40)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def redness() -> torch.nn.Conv2d:
    """A network whose map is high where an image is red."""
    layer = torch.nn.Conv2d(3, 1, 3, padding=1)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    layer.weight.data[0, :, 1, 1] = torch.tensor([4.0, -2.0, -2.0])
    return layer


@pytest.mark.usefixtures("modules_cache")
def test_segmenter_with_code_of_its_own_needs_leave(
    repository: Path,
    redness: torch.nn.Conv2d,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = write_custom_repository(tmp_path / "net", [redness])
    source: dict[str, Any] = {"repository": str(net), "matting": {**READING}}
    file = write_parts(repository, tmp_path / "parts.yaml", segmenter=source)
    assert main(["assemble", "--from", str(file), "--out", str(tmp_path / "model")]) == 1
    assert "read it, then set matting.trust_remote_code to true" in capsys.readouterr().err
    source["matting"]["trust_remote_code"] = True
    file = write_parts(repository, tmp_path / "parts.yaml", segmenter=source)
    assert main(["assemble", "--from", str(file), "--out", str(tmp_path / "model")]) == 0
    assert f"segmenter: {net}, licence: mit" in capsys.readouterr().out

    build_photograph().save(tmp_path / "mug.png")
    arguments = ["generate", "--model", str(tmp_path / "model"), "--product", str(tmp_path / "mug.png")]
    arguments += ["--prompt", "mug", "--candidates", "1", "--out", str(tmp_path)]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "configuration_tiny.py, modeling_tiny.py" in error
    assert error.count("\n") == 1
    assert main([*arguments, "--trust-remote-code"]) == 0
    assert "cut out by its segmenter" in capsys.readouterr().err

    with pytest.raises(ValueError, match="CANVAS_TRUST_REMOTE_CODE=1 to a server"):
        _load_pyfunc(str(tmp_path / "model"))
    monkeypatch.setenv(TRUST, "1")
    assert isinstance(_load_pyfunc(str(tmp_path / "model")), ServedPipeline)


def test_onnx_segmenter_comes_back_with_the_model(repository: Path, redness: torch.nn.Conv2d, tmp_path: Path) -> None:
    matting = READING | {"image_size": 32, "image_mean": [0.7, 0.5, 0.5], "image_std": [0.1, 0.1, 0.1]}
    source = {"repository": str(write_graph(tmp_path / "red.onnx", redness)), "matting": matting}
    pipeline = assemble_public_parts(read_public_parts(write_parts(repository, tmp_path / "p.yaml", segmenter=source)))
    pipeline.save_pretrained(tmp_path / "model")
    again = CanvasPipeline.from_pretrained(tmp_path / "model").to("cpu")
    before, after = (made(build_photograph(), "mug", seed=3) for made in (pipeline, again))
    assert before.product.origin == "segmenter"
    assert 0.2 < (before.product.alpha > 0.5).mean() < 0.3
    np.testing.assert_array_equal(before.images[0], after.images[0])


def test_unknown_key_of_a_matting_model_is_named(repository: Path, tmp_path: Path) -> None:
    source = {"repository": str(repository), "matting": READING | {"trust_remote": True}}
    with pytest.raises(ValueError, match=r"segmenter\..*trust_remote"):
        read_public_parts(write_parts(repository, tmp_path / "parts.yaml", segmenter=source))


def test_shipped_profile_is_read() -> None:
    parts = read_public_parts(PROFILE)
    assert parts.denoiser.repository.endswith("inpainting-0.1")
    assert parts.segmenter is not None
    assert parts.segmenter.matting == MattingSpec(
        output="logits",
        map="last",
        file="onnx/model.onnx",
        image_size=1024,
        image_mean=(0.485, 0.456, 0.406),
        image_std=(0.229, 0.224, 0.225),
        trust_remote_code=False,
    )


def test_reward_is_a_part_that_chooses(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(tmp_path / "clip")
    parts = write_parts(repository, tmp_path / "parts.yaml", reward={"repository": str(tmp_path / "clip")})
    out = tmp_path / "model"
    assert main(["assemble", "--from", str(parts), "--out", str(out)]) == 0
    assert f"reward: {tmp_path / 'clip'}, licence: not stated" in capsys.readouterr().out
    assert CanvasPipeline.from_pretrained(out).config["sources"]["reward"]["repository"] == str(tmp_path / "clip")
    build_cutout(64, 64).save(tmp_path / "mug.png")
    files = ["--product", str(tmp_path / "mug.png"), "--out", str(tmp_path / "out")]
    choosing = ["--prompt", "mug, in a forest", "--steps", "1", "--candidates", "2", "--top", "1"]
    shutil.rmtree(tmp_path / "clip")
    assert main(["generate", "--model", str(out), *files, *choosing]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.split()) == 1
    assert "agreement" in printed.err


def test_safety_models_are_parts_that_judge(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = {"repository": str(write_image_classifier(tmp_path / "image")), "labels": ["nsfw"], "threshold": 1e-6}
    parts = write_parts(repository, tmp_path / "parts.yaml", safety={"prompt": None, "image": image})
    out = tmp_path / "model"
    assert main(["assemble", "--from", str(parts), "--out", str(out)]) == 0
    assert f"image_safety: {tmp_path / 'image'}, licence: not stated" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "image")
    build_cutout(64, 64).save(tmp_path / "mug.png")
    files = ["--product", str(tmp_path / "mug.png"), "--out", str(tmp_path / "out")]
    assert main(["generate", "--model", str(out), *files, "--prompt", "mug", "--steps", "1"]) == 1
    assert "the image of seed 0 is refused" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_key_of_a_safety_model_is_named(repository: Path, tmp_path: Path) -> None:
    image = {"repository": str(repository), "labels": ["nsfw"], "threshold": 0.5, "revision": "main"}
    with pytest.raises(ValueError, match=r"safety\.image\.revision"):
        read_public_parts(write_parts(repository, tmp_path / "p.yaml", safety={"prompt": None, "image": image}))


def test_upscaler_is_a_part_that_enlarges(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, model = tmp_path / "RealESRGAN_x4plus.pth", tmp_path / "model"
    torch.save({"params_ema": build_rrdb().state_dict()}, weights)
    file = write_parts(repository, tmp_path / "parts.yaml", upscaler={"repository": str(weights)})
    assert main(["assemble", "--from", str(file), "--out", str(model)]) == 0
    assert f"upscaler: {weights}, licence: not stated" in capsys.readouterr().out
    made = CanvasPipeline.from_pretrained(model)
    made.set_progress_bar_config(disable=True)
    assert isinstance(made.upscaler, RrdbUpscaler)
    cut = build_cutout(160, 160)
    image, core = np.array(made(cut, "mug", seed=3, upscale=2).images[0]), np.array(cut)[..., 3] == 255
    assert np.array_equal(image[core], np.array(cut)[..., :3][core])
    torch.save({"params_ema": {}}, weights)
    assert main(["assemble", "--from", str(file), "--out", str(tmp_path / "other")]) == 1
    assert "RealESRGAN_x4plus.pth holds no network of the Real-ESRGAN class" in capsys.readouterr().err.splitlines()[-1]
