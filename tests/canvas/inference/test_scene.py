"""The pipeline on a canvas: other aspects, a photograph that is extended, several products."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from canvas.inference.generation.candidates import CanvasOutput
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_product
from canvas.inference.scene.build import build_scene
from canvas.inference.scene.framing import frame_windows
from canvas.layout.formats import Rectangle
from canvas.layout.spec import build_layout
from canvas.layout.windows import plan_windows
from evaluation.measures.canvases.borders import compute_border_gradient_ratio
from tests.canvas.inference.conftest import cutout, split

PROMPT = "a mug, forest"
OPTIONS = {"num_inference_steps": 2, "guidance_scale": 2.0, "seed": 4}


def generate(pipeline: CanvasPipeline, product: object, **options: object) -> tuple[np.ndarray, CanvasOutput]:
    output = pipeline(product, PROMPT, **OPTIONS | options)
    return np.array(output.images[0]), output


def trim(product: Image.Image) -> np.ndarray:
    return np.array(product.crop(product.getchannel("A").getbbox()))


def assert_exact(image: np.ndarray, box: Rectangle, product: Image.Image) -> None:
    """Assert that the product stands in the box, byte for byte."""
    original = trim(product)
    core = original[..., 3] == 255
    assert np.array_equal(image[box.region][core], original[core][:, :3])


@pytest.mark.parametrize("canvas", ["90x160", "160x90", "100x100", "300x80", "80x400"])
@pytest.mark.parametrize("place", ["bottom", "center"])
def test_a_product_stands_exact_on_any_canvas(pipeline, canvas: str, place: str) -> None:
    product = cutout(64, 64)
    image, output = generate(pipeline, product, layout=build_layout(canvas, place=place))
    width, height = map(int, canvas.split("x"))
    assert image.shape == (height, width, 3)
    assert_exact(image, output.boxes[0], product)
    outside = output.product.alpha == 0
    assert image[outside].std() > 3  # something was generated everywhere
    for part in np.array_split(np.where(outside[..., None], image, 0), 4, axis=int(width > height)):
        assert part.any()


def test_a_canvas_of_the_images_size_and_place_is_the_image(pipeline) -> None:
    product = cutout(65, 65)
    box = product.getchannel("A").getbbox()
    text = json.dumps({"canvas": "65x65", "products": [{"left": box[0], "top": box[1]}]})
    expected, _ = generate(pipeline, product)
    assert np.array_equal(generate(pipeline, product, layout=build_layout(layout=text))[0], expected)


def test_several_products_stand_in_one_scene_each_exact(pipeline) -> None:
    products = [cutout(64, 64), cutout(40, 60), cutout(30, 30, soft=True)]
    calls = []
    hook = pipeline.unet.register_forward_pre_hook(lambda module, given: calls.append(len(given[0])))
    try:
        image, output = generate(pipeline, products, layout=build_layout("160x100", layout="row"), guidance_scale=1.0)
    finally:
        hook.remove()
    assert calls == [1, 1]  # one denoising of two steps
    assert image.shape == (100, 160, 3)
    for box, product in zip(output.boxes, products, strict=True):
        assert_exact(image, box, product)


def test_where_products_overlap_the_later_one_is_exact(pipeline) -> None:
    first, second = cutout(64, 64), cutout(40, 60)
    text = json.dumps({"canvas": "100x100", "products": [{"left": 10, "top": 10}, {"left": 30, "top": 30}]})
    layout = build_layout(layout=text)
    image, output = generate(pipeline, [first, second], layout=layout)
    assert_exact(image, output.boxes[1], second)
    owners = build_scene([first, second], layout=layout).owners[output.boxes[0].region]
    original = trim(first)
    visible = owners == 0
    assert 0 < visible.sum() < (original[..., 3] == 255).sum()
    assert np.array_equal(image[output.boxes[0].region][visible], original[visible][:, :3])


@pytest.mark.parametrize("canvas", ["100x160", "64x80", "400x70"])
def test_a_photograph_stays_and_no_old_border_is_seen(pipeline, canvas: str) -> None:
    rows, columns = np.mgrid[:64, :64]
    draw = np.random.default_rng(0).integers(0, 40, (64, 64, 3))
    photograph = Image.fromarray(
        (rows + columns + 60)[..., None].repeat(3, -1).astype(np.uint8) + draw.astype(np.uint8)
    )
    image, output = generate(pipeline, photograph, layout=build_layout(canvas, place="keep"))
    (box,) = output.boxes
    changed = (image[box.region] != np.array(photograph)).any(axis=-1)
    assert not changed[2:-2, 2:-2].any()
    assert changed.any()
    assert output.product.origin == "photograph"
    pasted = image.copy()
    pasted[box.region] = np.array(photograph)
    ratio, hard = (compute_border_gradient_ratio(each, box, reach=2) for each in (image, pasted))
    assert ratio < 1.1 * hard  # what this network draws has edges everywhere


def test_a_long_canvas_is_denoised_in_windows_at_once(pipeline) -> None:
    """Each step is one pass of each window of the longest trained frame; no window's border shows."""
    product, layout = cutout(40, 40), build_layout("480x80")
    plain = CanvasPipeline(**pipeline.components, max_aspect=1.0)
    plain.set_progress_bar_config(disable=True)
    with pytest.raises(ValueError, match="480 x 80 pixels is too long for this model"):
        plain(product, PROMPT, layout=layout, **OPTIONS)
    calls = []
    hook = pipeline.unet.register_forward_pre_hook(lambda module, given: calls.append(tuple(given[0].shape[-2:])))
    try:
        image, _ = generate(pipeline, product, layout=layout, guidance_scale=1.0)
    finally:
        hook.remove()
    windows = len(plan_windows((80, 480), 2.0))
    assert len(calls) == 2 * windows
    assert set(calls) == {(6, 11)}
    parts = [part.astype(int) for part in np.array_split(image, 6, axis=1)]
    for number, part in enumerate(parts):
        for other in parts[:number]:
            assert np.abs(part - other).mean() > 5
    steps = np.abs(np.diff(image.astype(int), axis=1)).mean(axis=(0, 2))
    background = np.delete(steps, np.arange(200, 280))
    assert background.max() < 5 * np.median(background)


def test_windows_are_those_of_the_frame_and_cover_it(pipeline) -> None:
    for canvas in ((80, 480), (480, 80), (50, 300)):
        windows = plan_windows(canvas, 2.0)
        frame, places = frame_windows(pipeline, canvas, windows)
        covered = np.zeros((frame.height, frame.width), bool)
        for place in places:
            covered[place.region] = True
            assert place.top % 8 == place.left % 8 == 0
        assert covered.all()
        assert frame.width / frame.height == pytest.approx(canvas[1] / canvas[0], rel=0.15)


def test_candidates_on_a_long_canvas_are_the_same_images_however_many(pipeline) -> None:
    product, options = cutout(40, 40), {"layout": build_layout("300x80")}
    _, three = generate(pipeline, product, num_candidates=3, **options)
    last = pipeline(product, PROMPT, **OPTIONS | {"seed": 6}, **options).images[0]
    assert np.abs(np.array(three.images[2]).astype(int) - np.array(last)).max() <= 1
    chosen = pipeline(
        product, PROMPT, num_candidates=3, selectors={1: lambda product, images: [2]}, **OPTIONS, **options
    )
    assert chosen.candidates == [2]
    assert np.abs(np.array(chosen.images[0]).astype(int) - np.array(last)).max() <= 1


def test_outer_windows_follow_the_background_alone(pipeline, monkeypatch) -> None:
    read = []
    encode = CanvasPipeline.check_prompts  # the whole prompt alone is judged
    monkeypatch.setattr(
        CanvasPipeline, "check_prompts", lambda self, *given: read.append(given) or encode(self, *given)
    )
    from canvas.inference import conditioning

    texts = []
    encode_prompts = conditioning.encode_prompts
    monkeypatch.setattr(
        conditioning, "encode_prompts", lambda towers, prompts: texts.append(prompts) or encode_prompts(towers, prompts)
    )
    generate(pipeline, cutout(40, 40), layout=build_layout("480x80"))
    assert texts == [[PROMPT], ["forest"]]
    assert read == [(PROMPT, None)]


def test_without_conditional_decoder(pipeline) -> None:
    plain = CanvasPipeline(**{name: part for name, part in pipeline.components.items() if name != "decoder"})
    plain.set_progress_bar_config(disable=True)
    product = cutout(40, 40)
    image, output = generate(plain, product, layout=build_layout("200x80"))
    assert_exact(image, output.boxes[0], product)


def test_a_segmenter_cuts_each_product_out(segmenting_pipeline) -> None:
    images = [split(cutout(64, 64))[0]] * 2
    layout = build_layout("300x200", layout="row")
    image, output = generate(segmenting_pipeline, images, layout=layout)
    assert output.product.origin == "segmenter"
    assert np.array_equal(image[output.product.core], output.product.pixels[output.product.core])


@pytest.mark.parametrize(
    ("product", "options", "message"),
    [
        ([], {"layout": build_layout("90x90")}, "0 products were given for one scene: give 1 to 12"),
        ([cutout(64, 64)] * 100, {"layout": build_layout("900x900")}, "100 products were given for one scene"),
        ([cutout(64, 64)] * 2, {}, "2 products were given: say with a layout how they stand together"),
        (
            cutout(640, 640),
            {"layout": build_layout("90x90")},
            "the canvas has 90 x 90: give a larger canvas, or a scale",
        ),
        (cutout(64, 64), {"layout": build_layout("90x90", place="keep")}, "but this image is cut out"),
        (
            Image.new("RGB", (64, 64)),
            {"layout": build_layout("64x64", place="keep")},
            "the photograph covers the canvas",
        ),
        (cutout(64, 64), {"layout": build_layout("4000x90")}, "4000 x 90 pixels is too long for this model"),
        (
            [cutout(64, 64), cutout(64, 64).convert("RGB")],
            {"layout": build_layout("290x90", layout="row")},
            "product 2: the product image has neither alpha channel nor mask, and this model has no segmenter",
        ),
        (
            [cutout(64, 64).convert("RGB")] * 2,
            {"layout": build_layout("290x90", layout="row"), "mask": cutout(64, 64).getchannel("A")},
            "1 masks were given for 2 products: give one each, - for a cut-out, or none",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(pipeline, product, options, message) -> None:
    with pytest.raises(ValueError, match=message) as error:
        pipeline(product, PROMPT, **OPTIONS, **options)
    assert "\n" not in str(error.value)


def test_one_image_without_a_layout_is_what_it_was(pipeline) -> None:
    scene = build_scene([cutout(64, 64, soft=True)])
    expected = build_product(cutout(64, 64, soft=True))
    assert np.array_equal(scene.product.pixels, expected.pixels)
    assert np.array_equal(scene.product.alpha, expected.alpha)
    assert scene.boxes == []


def test_noise_of_a_generator_does_as_well(pipeline) -> None:
    made = [
        pipeline(
            cutout(40, 40),
            PROMPT,
            num_inference_steps=1,
            generator=torch.Generator().manual_seed(3),
            layout=build_layout("300x80"),
        ).images[0]
        for _ in range(2)
    ]
    assert made[0].tobytes() == made[1].tobytes()
