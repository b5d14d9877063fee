from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from PIL import Image

from canvas.denoiser.image_prompt import WEIGHTS_FILE, get_image_processors
from canvas.denoiser.lora import STYLE_LORA, add_lora, list_lora_names, load_lora, save_lora, set_style_lora
from canvas.features.perceptual import compute_image_embeddings
from canvas.inference.batch import Request, encode_requests, iterate_images
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_product
from canvas.inference.style import MAX_STYLE_IMAGES, build_style_prompt, encode_style_images
from canvas.styles.centres import StyleCentres
from canvas.uve.model import compute_embeddings
from tests.canvas import tiny
from tests.canvas.inference.conftest import cutout, sampling

PROMPT = "red mug, in a forest"


def noise(seed: int, height: int = 40, width: int = 60) -> Image.Image:
    """An image of one colour with noise on it."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 200, 3) + random.integers(0, 55, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def render(pipeline: CanvasPipeline, prompt: str | None = PROMPT, **options) -> np.ndarray:
    made = pipeline(cutout(60, 60), prompt, num_inference_steps=2, guidance_scale=2.0, seed=0, **options)
    return np.array(made.images[0])


def test_without_a_style_and_at_strength_zero_it_is_the_model_without_adapter(pipeline, styled_pipeline):
    plain = render(pipeline)
    assert np.array_equal(render(styled_pipeline), plain)
    style = encode_style_images(styled_pipeline, [noise(1)], strength=0.0)
    assert np.array_equal(render(styled_pipeline, style=style), plain)


def test_a_style_moves_the_background_and_never_the_product(styled_pipeline):
    product, core = cutout(60, 60), np.array(cutout(60, 60))[..., 3] == 255
    plain = render(styled_pipeline)
    for prompt in (PROMPT, None):
        made = [
            render(styled_pipeline, prompt, style=encode_style_images(styled_pipeline, [noise(seed)]))
            for seed in (1, 2)
        ]
        assert not np.array_equal(made[0], made[1])
        assert not np.array_equal(made[0], plain)
        for image in made:
            assert np.array_equal(image[core], np.array(product)[core][:, :3])
    assert np.array_equal(render(styled_pipeline), plain)  # nothing of it is left behind


def test_the_embedding_is_of_the_whole_image(styled_pipeline):
    style = encode_style_images(styled_pipeline, [noise(1, 32, 32)])
    images = torch.from_numpy(np.array(noise(1, 32, 32))).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        clip = compute_image_embeddings(styled_pipeline.image_tower.clip, images)
    torch.testing.assert_close(
        style.embeddings, torch.cat([compute_embeddings(styled_pipeline.uve, images), clip], dim=1)
    )


def test_images_are_averaged_by_weight_or_stand_apart(styled_pipeline):
    both = [noise(1), noise(2)]
    alone = encode_style_images(styled_pipeline, both[:1])
    first = encode_style_images(styled_pipeline, both, weights=[1.0, 0.0])
    torch.testing.assert_close(first.embeddings, alone.embeddings)
    assert encode_style_images(styled_pipeline, both).embeddings.shape == (1, alone.embeddings.shape[1])
    apart = encode_style_images(styled_pipeline, both, weights=[0.25, 0.75], apart=True, strength=2.0)
    assert apart.embeddings.shape == (2, alone.embeddings.shape[1])
    assert [set(scales.values()) for scales in apart.scales] == [{0.5}, {1.5}]
    same = encode_style_images(styled_pipeline, [noise(1)] * 3, apart=True)
    difference = render(styled_pipeline, style=same).astype(int) - render(styled_pipeline, style=alone)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(("prompt", "counted"), [(PROMPT, 0.75), (None, 1.5)])
def test_half_of_it_counts_beside_a_prompt(styled_pipeline, prompt: str | None, counted: float):
    seen = set()

    def on_step(pipeline, step, time, values):
        seen.update(scale for processor in get_image_processors(pipeline.unet).values() for scale in processor.scale)
        return values

    render(
        styled_pipeline,
        prompt,
        style=encode_style_images(styled_pipeline, [noise(1)], strength=1.5),
        callback_on_step_end=on_step,
    )
    assert seen == {counted}


def test_where_it_is_injected(styled_pipeline):
    layers = list(get_image_processors(styled_pipeline.unet))

    def generate_with(where) -> np.ndarray:
        return render(styled_pipeline, style=encode_style_images(styled_pipeline, [noise(1)], layers=where))

    style_layers = {"up_blocks.0.attentions.1": 1.0}
    assert np.array_equal(generate_with("style"), generate_with(style_layers))
    assert np.array_equal(generate_with("all"), generate_with(dict.fromkeys(layers, 1.0)))
    assert not np.array_equal(generate_with("all"), generate_with("style"))


def test_the_style_layers_of_a_model_that_has_none(styled_pipeline):
    pipe = CanvasPipeline(**styled_pipeline.components, image_source="uve+clip", style_layers=[])
    with pytest.raises(ValueError, match="layers is 'style', but this model has no style layers: use 'all'"):
        encode_style_images(pipe, [noise(1)], layers="style")
    assert set(encode_style_images(pipe, [noise(1)], layers="all").strengths.values()) == {1.0}


def test_many_at_once_equal_one_at_a_time(styled_pipeline):
    product = build_product(cutout(60, 60))
    styles = [
        encode_style_images(styled_pipeline, [noise(1)]),
        None,
        encode_style_images(styled_pipeline, [noise(2)]),
        encode_style_images(styled_pipeline, [noise(2), noise(3)], apart=True),
    ]
    prompts = [PROMPT, PROMPT, None, None]
    requests = [
        encode_requests(styled_pipeline, [Request(product=product, prompt=prompt, seed=7, style=style)])[0]
        for prompt, style in zip(prompts, styles, strict=True)
    ]
    images = dict(iterate_images(styled_pipeline, requests, sampling(steps=2, guidance_scale=2.0, batch_size=4)))
    for place, (prompt, style) in enumerate(zip(prompts, styles, strict=True)):
        alone = styled_pipeline(
            cutout(60, 60), prompt, style=style, num_inference_steps=2, guidance_scale=2.0, seed=7
        ).images[0]
        assert np.abs(images[place].astype(int) - np.array(alone)).max() <= 1


def test_a_lora_of_image_prompts_is_on_while_there_is_one(pipeline, styled_pipeline, tmp_path: Path):
    save_lora(learnt(add_lora(copy.deepcopy(pipeline.unet), rank=2, alpha=2)), tmp_path / "lora")
    style = encode_style_images(styled_pipeline, [noise(1)])
    weak = encode_style_images(styled_pipeline, [noise(1)], strength=0.2)
    nothing = encode_style_images(styled_pipeline, [noise(1)], strength=0.0)
    strong, faint, plain = (render(styled_pipeline, None, style=of) for of in (style, weak, nothing))
    pipe = CanvasPipeline(**copy.deepcopy(styled_pipeline.components), max_aspect=2.0, image_source="uve+clip")
    pipe.set_progress_bar_config(disable=True)
    load_lora(pipe.unet, tmp_path / "lora", STYLE_LORA)
    set_style_lora(pipe.unet, None)
    prompted = render(styled_pipeline)
    assert np.array_equal(render(pipe), prompted)
    assert np.array_equal(render(pipe, None, style=nothing), plain)
    moved = [
        np.abs(render(pipe, None, style=of).astype(int) - was).mean() for of, was in ((style, strong), (weak, faint))
    ]
    assert moved[0] > moved[1] > 0
    assert np.array_equal(render(pipe), prompted)  # nothing of it is left behind

    load_lora(pipe.unet, tmp_path / "lora", "engaged")
    set_style_lora(pipe.unet, None)
    before = render(pipe), render(pipe, None, style=style)
    assert not np.array_equal(before[0], prompted)
    pipe.save_pretrained(tmp_path / "whole")
    again = CanvasPipeline.from_pretrained(tmp_path / "whole")
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(render(again), before[0])
    assert np.array_equal(render(again, None, style=style), before[1])
    again.merge_lora()
    assert list_lora_names(again.unet) == [STYLE_LORA]
    assert np.abs(render(again).astype(int) - before[0]).max() <= 1
    assert np.abs(render(again, None, style=style).astype(int) - before[1]).max() <= 1


def test_a_lora_of_image_prompts_counts_where_the_image_does(styled_pipeline):
    unet = learnt(add_lora(copy.deepcopy(styled_pipeline.unet), rank=2, alpha=2, name=STYLE_LORA))

    def counted(**options) -> dict[str, float]:
        set_style_lora(unet, encode_style_images(styled_pipeline, [noise(1)], **options).strengths)
        return {name: layer.scaling[STYLE_LORA] for name, layer in unet.named_modules() if isinstance(layer, LoraLayer)}

    assert set(counted(strength=0.4).values()) == {0.4}
    assert set(counted(strength=2.0).values()) == {1.0}
    block = "up_blocks.0.attentions.1"
    only = counted(layers="style", strength=0.7)
    assert {scale for name, scale in only.items() if name.startswith(f"{block}.")} == {0.7}
    assert {scale for name, scale in only.items() if not name.startswith(f"{block}.")} == {0.0}
    assert unet.active_adapters() == [STYLE_LORA]


def learnt(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    for name, weight in unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return unet


def test_the_whole_survives_the_disk(styled_pipeline, tmp_path: Path):
    style = encode_style_images(styled_pipeline, [noise(1)])
    before = render(styled_pipeline, style=style)
    styled_pipeline.save_pretrained(tmp_path)
    assert (tmp_path / "ip_adapter" / WEIGHTS_FILE).is_file()
    assert not list(tmp_path.rglob("*.bin"))
    assert np.array_equal(render(styled_pipeline, style=style), before)
    again = CanvasPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    read = encode_style_images(again, [noise(1)])  # torch sums in another order where weights lie otherwise in memory
    assert torch.allclose(read.embeddings, style.embeddings, atol=1e-6)
    assert np.abs(render(again, style=read).astype(int) - before).max() <= 1
    assert np.abs(render(again).astype(int) - render(styled_pipeline)).max() <= 1


def test_images_are_drawn_to_the_nearest_centre_unless_told_not_to(styled_pipeline, tmp_path: Path):
    centres = StyleCentres(2, 16, tiny.OTHER_CLIP.embed_dim)
    first, second = (encode_style_images(styled_pipeline, [noise(seed)]).embeddings[0] for seed in (1, 2))
    for row, own in enumerate((second, -first)):
        centres.uve[row], centres.clip[row] = own[:16], own[16:]
    styled_pipeline.register_modules(style_centres=centres)
    try:
        styled_pipeline.save_pretrained(tmp_path / "model")
    finally:
        styled_pipeline.register_modules(style_centres=None)
    again = CanvasPipeline.from_pretrained(tmp_path / "model")
    embeddings = {
        pull: encode_style_images(again, [noise(1), noise(1)], apart=True, centre_pull=pull).embeddings
        for pull in (0.0, 0.5, 1.0)
    }
    torch.testing.assert_close(embeddings[0.0], first.expand(2, -1), atol=1e-4, rtol=0)
    torch.testing.assert_close(embeddings[1.0], second.expand(2, -1), atol=1e-4, rtol=0)
    middle = (first + second)[:16]
    torch.testing.assert_close(embeddings[0.5][0, :16], middle / middle.norm(), atol=1e-4, rtol=0)
    torch.testing.assert_close(encode_style_images(again, [noise(1)]).embeddings[0], embeddings[0.5][0])
    product = np.array(cutout(60, 60))
    image = render(again, None, style=encode_style_images(again, [noise(1)]))
    assert np.array_equal(image[product[..., 3] == 255], product[product[..., 3] == 255][:, :3])


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (0, {}, "0 style images were given: give 1 to 16"),
        (100, {}, "100 style images were given: give 1 to 16"),
        (2, {"weights": [0.5, 0.6]}, r"sum to 1\.1: give 0 or more each, 1 together"),
        (2, {"weights": [1.5, -0.5]}, "give 0 or more each"),
        (2, {"weights": [float("nan"), 0.5]}, "sum to nan"),
        (3, {"weights": [0.5, 0.5]}, "2 style weights were given for 3 images"),
        (1, {"strength": -1.0}, "style strength is -1"),
        (1, {"strength": 5.0}, "from 0, no style, to 4"),
        (1, {"strength": float("nan")}, "style strength is nan"),
        (1, {"centre_pull": 1.5}, r"nearest cluster is 1\.5: it must be from 0, the image itself, to 1, the cluster"),
        (1, {"centre_pull": float("nan")}, "nearest cluster is nan"),
        (1, {"layers": {"up_blocks.0": float("nan")}}, r"factor up_blocks\.0=nan must be from 0 to 4"),
        (1, {"layers": {"up_blocks.0": -1.0}}, "must be from 0 to 4"),
        (1, {"layers": {"up_blocks.7": 1.0}}, "no image layer is called up_blocks.7: there are down_blocks"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(styled_pipeline, images, options, message):
    assert MAX_STYLE_IMAGES == 16
    with pytest.raises(ValueError, match=message) as error:
        encode_style_images(styled_pipeline, [noise(1)] * images, **options)
    assert "\n" not in str(error.value)


def test_a_model_without_adapter_and_a_request_for_nothing(pipeline, styled_pipeline):
    with pytest.raises(ValueError, match="no image-prompt adapter"):
        encode_style_images(pipeline, [noise(1)])
    with pytest.raises(ValueError, match="no image-prompt adapter"):
        build_style_prompt(pipeline, {"uve": np.zeros((1, 16), np.float32)})
    with pytest.raises(ValueError, match="neither a prompt nor a style"):
        styled_pipeline(cutout(60, 60))
