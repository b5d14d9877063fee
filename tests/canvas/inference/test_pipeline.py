from __future__ import annotations

import copy
import io
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from canvas.denoiser.lora import add_lora, list_lora_names
from canvas.inference.files import save_lossless
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_product, derive_seed
from tests.canvas.inference.conftest import cutout, split
from tests.canvas.reward.test_model import build_tiny_reward

PROMPT = "a mug, forest"


def _pixels(image: Image.Image) -> np.ndarray:
    return np.array(image).astype(int)


@pytest.mark.parametrize("size", [(64, 64), (33, 257), (500, 90), (3, 40), (300, 300)])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_product_core_is_exact_at_every_size_in_every_lossless_format(pipeline, size, soft, tmp_path: Path):
    product = cutout(*size, soft=soft)
    made = pipeline(product, PROMPT, num_inference_steps=1, seed=0)
    image = made.images[0]
    assert image.size == product.size
    core = np.array(product)[..., 3] == 255
    assert core.any()
    for suffix in ("png", "webp"):
        save_lossless(image, tmp_path / f"out.{suffix}")
        saved = _pixels(Image.open(tmp_path / f"out.{suffix}").convert("RGB"))
        assert np.abs(saved - _pixels(product)[..., :3])[core].max() == 0
    outside = np.array(product)[..., 3] == 0
    if outside.any():
        assert np.abs(_pixels(image) - _pixels(product)[..., :3])[outside].max() > 0


def test_mask_in_place_of_alpha_channel(pipeline):
    rgb, mask = split(cutout(120, 80))
    made = pipeline(rgb, PROMPT, mask=mask, num_inference_steps=1, seed=0)
    assert np.abs(_pixels(made.images[0]) - _pixels(rgb))[made.product.core].max() == 0
    assert made.product.core.sum() > 0.8 * (np.array(mask) > 0).sum()


def test_same_seed_same_images_however_many(pipeline):
    product = cutout(64, 64)
    three = pipeline(product, PROMPT, num_inference_steps=2, num_candidates=3, seed=5).images
    again = pipeline(product, PROMPT, num_inference_steps=2, num_candidates=3, seed=5).images
    assert all(a.tobytes() == b.tobytes() for a, b in zip(three, again, strict=True))
    second = pipeline(product, PROMPT, num_inference_steps=2, seed=6).images[0]
    assert np.abs(_pixels(second) - _pixels(three[1])).max() <= 1
    assert np.abs(_pixels(three[0]) - _pixels(three[1])).max() > 20
    one_by_one = pipeline(product, PROMPT, num_inference_steps=2, num_candidates=3, candidates_per_pass=1, seed=5)
    assert all(np.abs(_pixels(a) - _pixels(b)).max() <= 1 for a, b in zip(three, one_by_one.images, strict=True))


def test_a_seed_of_the_products_own(pipeline):
    product = cutout(64, 64)

    def generate(seed: int, **options: object) -> bytes:
        return pipeline(product, PROMPT, num_inference_steps=1, seed=seed, **options).images[0].tobytes()

    own = generate(5, seed_by_product=True)
    assert own == generate(5, seed_by_product=True) == generate(derive_seed(5, build_product(product)))
    assert len({own, generate(5), generate(6, seed_by_product=True)}) == 3


def test_prompt_negative_prompt_guidance_and_scheduler_matter(pipeline):
    product = cutout(64, 64)

    def made(prompt: str = PROMPT, **options: object) -> np.ndarray:
        return _pixels(pipeline(product, prompt, num_inference_steps=3, seed=0, **options).images[0])

    base = made()
    changes = [
        made("shoes, desert"),
        made(negative_prompt="snow"),
        made(guidance_scale=1.0),
        made(guidance_rescale=0.9),
        made(scheduler="heun"),
    ]
    assert all(np.abs(change - base).max() > 0 for change in changes)
    assert np.array_equal(made(scheduler="euler"), base)


def test_guidance_may_stop_before_the_last_step(pipeline):
    product, rows = cutout(64, 64), []
    hook = pipeline.unet.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))

    def render(**options) -> bytes:
        made = pipeline(product, PROMPT, num_inference_steps=4, seed=0, num_candidates=2, **options)
        return b"".join(image.tobytes() for image in made.images)

    try:
        half = render(guidance_scale=6.0, guidance_stop=0.5)
    finally:
        hook.remove()
    assert rows == [4, 4, 2, 2]
    whole = render(guidance_scale=6.0)
    assert render(guidance_scale=6.0, guidance_stop=1.0) == whole
    assert render(guidance_scale=6.0, guidance_stop=0.0) == render(guidance_scale=1.0)
    assert len({half, whole, render(guidance_scale=1.0)}) == 3


def test_the_product_matters_and_what_is_hidden_does_not(pipeline):
    product = cutout(64, 64)
    hidden = np.array(product)
    hidden[hidden[..., 3] == 0] = (1, 2, 3, 0)
    one, same = (
        _pixels(pipeline(image, PROMPT, num_inference_steps=1, seed=0).images[0])
        for image in (product, Image.fromarray(hidden, "RGBA"))
    )
    assert np.array_equal(one, same)
    other = np.array(product)
    other[..., :3] = 255 - other[..., :3]
    outside = other[..., 3] == 0
    changed = _pixels(pipeline(Image.fromarray(other, "RGBA"), PROMPT, num_inference_steps=1, seed=0).images[0])
    assert np.abs(changed - one)[outside].max() > 0


def test_callback_sees_steps_and_may_change_latents(pipeline):
    seen = []

    def callback(pipe, step, time, tensors):
        seen.append((step, float(time), tuple(tensors["latents"].shape)))
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 2 else {}

    product = cutout(64, 64)
    a, b = (
        pipeline(product, PROMPT, num_inference_steps=3, seed=seed, callback_on_step_end=callback).images[0]
        for seed in (0, 1)
    )
    assert [step for step, _, _ in seen] == [0, 1, 2] * 2
    assert seen[0] == (0, 1000.0, (1, 6, 8, 8))
    assert np.array_equal(_pixels(a), _pixels(b))


@pytest.mark.parametrize(("scheduler", "steps"), [("euler", 3), ("heun", 5), ("dpm++", 3)])
def test_progress_is_of_the_steps_that_the_scheduler_takes(pipeline, scheduler: str, steps: int):
    pipe, printed, seen = CanvasPipeline(**pipeline.components), io.StringIO(), []
    pipe.set_progress_bar_config(file=printed)

    def callback(pipe, step, time, tensors):
        seen.append(step)
        return {}

    options = {"num_candidates": 2, "candidates_per_pass": 1, "scheduler": scheduler}
    pipe(cutout(64, 64), PROMPT, num_inference_steps=3, seed=0, callback_on_step_end=callback, **options)
    assert seen == [*range(steps)] * 2
    assert f" {2 * steps}/{2 * steps} [" in printed.getvalue()


def test_known_part_is_encoded_once_and_text_once(pipeline, monkeypatch):
    counts = {"known": 0, "encode": 0, "text": 0}
    for owner, name, key in (
        (pipeline.decoder, "encode_condition", "known"),
        (pipeline.vae, "encode", "encode"),
        (pipeline.text_encoder, "forward", "text"),
    ):
        original = getattr(owner, name)

        def counted(*args, original=original, key=key, **kwargs):
            counts[key] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)
    pipeline(cutout(64, 64), PROMPT, num_inference_steps=3, num_candidates=4, candidates_per_pass=2, seed=0)
    assert counts == {"known": 1, "encode": 1, "text": 1}


def test_without_conditional_decoder_the_core_is_exact_too(pipeline):
    parts = {name: part for name, part in pipeline.components.items() if name != "decoder"}
    plain = CanvasPipeline(**parts)
    plain.set_progress_bar_config(disable=True)
    product = cutout(100, 100)
    image = plain(product, PROMPT, num_inference_steps=1, seed=0).images[0]
    core = np.array(product)[..., 3] == 255
    assert np.abs(_pixels(image) - _pixels(product)[..., :3])[core].max() == 0


def test_saves_and_loads_with_and_without_lora(pipeline, tmp_path: Path):
    product = cutout(64, 64)
    pipe = CanvasPipeline(**copy.deepcopy(pipeline.components), max_aspect=1.5, hole_inflation=1)
    pipe.set_progress_bar_config(disable=True)
    for lora in (False, True):
        if lora:
            add_lora(pipe.unet, rank=2, alpha=2, name="engaged")
            for name, weight in pipe.unet.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(weight, std=0.05)
        directory = tmp_path / str(lora)
        before = _pixels(pipe(product, PROMPT, num_inference_steps=2, seed=0).images[0])
        pipe.save_pretrained(directory)
        assert np.array_equal(_pixels(pipe(product, PROMPT, num_inference_steps=2, seed=0).images[0]), before)
        again = CanvasPipeline.from_pretrained(directory)
        again.set_progress_bar_config(disable=True)
        assert list_lora_names(again.unet) == (["engaged"] if lora else [])
        assert again.config["max_aspect"] == 1.5
        assert np.array_equal(_pixels(again(product, PROMPT, num_inference_steps=2, seed=0).images[0]), before)
        weights = [path for path in directory.rglob("*") if path.suffix in (".safetensors", ".bin", ".pt", ".pkl")]
        assert {path.suffix for path in weights} == {".safetensors"}
    again.merge_lora()
    assert not list_lora_names(again.unet)
    merged = _pixels(again(product, PROMPT, num_inference_steps=2, seed=0).images[0])
    assert np.abs(merged - before).max() <= 1


def test_segmenter_cuts_the_product_out(segmenting_pipeline, tmp_path: Path):
    pipe = segmenting_pipeline
    pipe.save_pretrained(tmp_path)
    again = CanvasPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    rgb, _ = split(cutout(64, 64))
    made = [each(rgb, PROMPT, num_inference_steps=1, seed=0) for each in (pipe, again)]
    assert made[0].product.origin == "segmenter"
    assert np.array_equal(_pixels(made[0].images[0]), _pixels(made[1].images[0]))
    assert np.abs(_pixels(made[0].images[0]) - _pixels(rgb))[made[0].product.core].max() == 0


def test_a_cast_that_is_meant_is_not_warned_of(pipeline, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    pipe = CanvasPipeline(**{**pipeline.components, "unet": copy.deepcopy(pipeline.unet)})
    pipe.set_precision("bf16")
    assert {weight.dtype for weight in pipe.unet.parameters()} == {torch.bfloat16}
    assert not caplog.messages
    pipe.unet.to(torch.bfloat16)
    assert "should be kept in float32" in caplog.text  # so it would have been heard


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_candidates": -1}, "num_candidates is -1"),
        ({"candidates_per_pass": 0}, "candidates_per_pass is 0"),
        ({"guidance_scale": 0.5}, r"guidance_scale is 0\.5"),
        ({"guidance_stop": 1.5}, r"guidance_stop is 1\.5"),
        ({"autoguidance_scale": 0.5}, r"autoguidance_scale is 0\.5, but this denoiser has no LoRAs"),
        ({"autoguidance_scale": -1.0}, r"autoguidance_scale is -1\.0: 0 is none"),
        ({"autoguidance_scale": float("nan")}, "autoguidance_scale is nan: 0 is none"),
        ({"guidance_rescale": 1.5}, r"guidance_rescale is 1\.5: it must be from 0"),
        ({"guidance_rescale": -0.1}, r"guidance_rescale is -0\.1"),
        ({"scheduler": "ddim"}, "unknown scheduler 'ddim'"),
        ({"seed": 1, "generator": torch.Generator()}, "seed and generator"),
        (
            {"prompt": "one two three four five six seven eight nine ten eleven twelve"},
            "the prompt is too long, its end would be cut off: 'eleven twelve'",
        ),
        (
            {"negative_prompt": " ".join("abcdefghijkl")},
            "the negative prompt is too long, its end would be cut off: 'k l'",
        ),
        ({"product": Image.new("RGB", (8, 8))}, "no segmenter"),
        (
            {"generator": torch.Generator(), "seed_by_product": True},
            "seed_by_product was given without a seed: give one",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(pipeline, options, message):
    arguments = {"product": cutout(64, 64), "prompt": PROMPT, "num_inference_steps": 1, "seed": None} | options
    if "generator" not in options and arguments["seed"] is None:
        arguments["seed"] = 0
    with pytest.raises(ValueError, match=message) as error:
        pipeline(**arguments)
    assert "\n" not in str(error.value)


def test_a_speck_is_kept(pipeline):
    speck = np.zeros((2000, 2000, 4), np.uint8)
    speck[5, 5] = (200, 100, 50, 255)
    image = pipeline(Image.fromarray(speck, "RGBA"), PROMPT, num_inference_steps=1, seed=0).images[0]
    assert image.getpixel((5, 5)) == (200, 100, 50)


def test_parts_that_do_not_fit_are_refused(pipeline):
    from tests.canvas import tiny

    with pytest.raises(ValueError, match="the denoiser has 4 input channels, inpainting latents of 6 needs 13"):
        CanvasPipeline(**{**pipeline.components, "unet": tiny.denoiser()})


def test_lossy_formats_are_refused(tmp_path: Path):
    for name in ("a.jpg", "a.jpeg", "a.gif", "a"):
        with pytest.raises(ValueError, match="use png or webp"):
            save_lossless(Image.new("RGB", (2, 2)), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_command_line(pipeline, tmp_path: Path, capsys):
    from canvas.__main__ import main

    pipeline.save_pretrained(tmp_path / "model")
    rgb, mask = split(cutout(90, 70))
    rgb.save(tmp_path / "mug.png")
    mask.save(tmp_path / "mask.png")
    common = ["generate", "--model", str(tmp_path / "model"), "--prompt", PROMPT, "--steps", "1", "--seed", "3"]
    arguments = [*common, "--product", str(tmp_path / "mug.png"), "--mask", str(tmp_path / "mask.png")]
    assert main([*arguments, "--candidates", "2", "--format", "webp", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert [Path(line).name for line in printed.out.split()] == ["mug-3.webp", "mug-4.webp"]
    assert "cut out by its mask" in printed.err
    saved = _pixels(Image.open(tmp_path / "out" / "mug-3.webp").convert("RGB"))
    inner = np.array(mask) > 0
    inner[:, 1:-1] &= inner[:, 2:] & inner[:, :-2]
    inner[1:-1] &= inner[2:] & inner[:-2]
    assert np.mean(np.abs(saved - _pixels(rgb)).max(axis=-1)[inner] == 0) > 0.9

    torch.manual_seed(0)
    build_tiny_reward().save_pretrained(tmp_path / "model" / "reward")
    choosing = [*arguments, "--candidates", "4", "--top", "2", "--out", str(tmp_path / "best")]
    assert main(choosing) == 0
    printed = capsys.readouterr()
    chosen = [Path(line).name for line in printed.out.split()]
    assert len(chosen) == 2
    assert set(chosen) < {f"mug-{seed}.png" for seed in range(3, 7)}
    assert "8 denoiser calls, 4 images scored" in printed.err
    (tmp_path / "model" / "reward").rename(tmp_path / "reward")
    assert main([*choosing, "--reward", str(tmp_path / "reward"), "--drop-early", "--steps", "8"]) == 0
    assert "40 denoiser calls" in capsys.readouterr().err  # of 64: 4 * 2 steps, 2 * 6 steps, each twice

    (tmp_path / "text.jpg").write_text("not a picture")
    buffer = io.BytesIO()
    rgb.save(buffer, "PNG")
    (tmp_path / "half.png").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    without_product = [*common, "--out", str(tmp_path / "out")]
    for changed, message in (
        (["--product", str(tmp_path / "text.jpg")], "text.jpg cannot be used: not a JPEG, PNG or WEBP image"),
        (["--product", str(tmp_path / "half.png")], "half.png cannot be used: broken"),
        (["--product", str(tmp_path / "none.png")], "cannot read"),
        (["--format", "jpg"], "--format jpg is refused"),
        (["--model", str(tmp_path)], "holds no model_index.json"),
        (["--top", "1"], "model holds no reward: name a directory or hub id of one with --reward"),
        (["--top", "3", "--candidates", "2", "--reward", str(tmp_path / "reward")], "top is 3"),
        (["--drop-early"], "say with --top how many to keep"),
    ):
        assert main([*(without_product if "--product" in changed else arguments), *changed]) == 1
        error = capsys.readouterr().err.strip()
        assert error.startswith("canvas generate: ")
        assert message in error
        assert "\n" not in error


def test_load_lora_weights_works_as_in_stock_pipelines(pipeline, tmp_path: Path):
    from canvas.denoiser.lora import save_lora

    trained = add_lora(copy.deepcopy(pipeline.unet), rank=2, alpha=2)
    for name, weight in trained.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    save_lora(trained, tmp_path)
    pipe = CanvasPipeline(**{**pipeline.components, "unet": copy.deepcopy(pipeline.unet)})
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(tmp_path)
    wanted = CanvasPipeline(**{**pipeline.components, "unet": trained})
    wanted.set_progress_bar_config(disable=True)
    made = [_pixels(each(cutout(64, 64), PROMPT, num_inference_steps=2, seed=0).images[0]) for each in (pipe, wanted)]
    assert np.array_equal(*made)
