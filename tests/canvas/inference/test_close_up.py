from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from canvas.inference.batch import Request, encode_requests, iterate_images
from canvas.inference.close_up import CLOSE_SHARE, CloseUp, find_close_up
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import Frame, build_product, compute_frame, frame_product
from tests.canvas.inference.conftest import cutout, sampling, split

PROMPT = "a mug, forest"
OPTIONS = {"num_inference_steps": 2, "guidance_scale": 3.0, "seed": 4}


def place(side: int, height: int, width: int, top: int, left: int) -> Image.Image:
    """A hard product of noise in that box of a square image."""
    pixels = np.random.default_rng(side).integers(0, 256, (height, width, 4), np.uint8)
    pixels[..., 3] = 255
    image = Image.new("RGBA", (side, side))
    image.paste(Image.fromarray(pixels, "RGBA"), (left, top))
    return image


def glow(side: int) -> Image.Image:
    """One opaque pixel, and light round it that is nowhere half product."""
    rows, columns = np.mgrid[:side, :side]
    away = np.hypot(rows - side // 2, columns - side // 2)
    alpha = np.where(away == 0, 255, 110 * np.exp(-((away / side * 30) ** 2)))
    return Image.merge("RGBA", [Image.new("L", (side, side), level) for level in (250, 220, 90)] + [_grey(alpha)])


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


def frame_of(product: Image.Image, max_aspect: float = 2.0) -> Frame:
    return compute_frame(product.height, product.width, side=64, multiple=8, max_aspect=max_aspect)


SMALL = {
    "6 pixels at the model's size": place(640, 60, 60, 290, 300),
    "in the corner": place(400, 30, 20, 370, 0),
    "less than a pixel at the model's size": place(900, 9, 9, 500, 200),
    "glowing": glow(320),
}


@pytest.fixture(params=SMALL.values(), ids=SMALL)
def small(request: pytest.FixtureRequest) -> Image.Image:
    return request.param


def window_of(product: Image.Image) -> CloseUp:
    close_up = find_close_up(build_product(product), frame_of(product))
    assert close_up is not None
    return close_up


def generate_whole(pipeline: CanvasPipeline, product: Image.Image, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The image without its close-up."""
    with monkeypatch.context() as patch:
        patch.setattr("canvas.inference.close_up.SMALL_SHARE", 0.0)
        return np.array(pipeline(product, PROMPT, **OPTIONS).images[0])


def test_the_product_stays_exact_and_its_neighbourhood_alone_is_made_again(pipeline, small, monkeypatch):
    image = np.array(pipeline(small, PROMPT, **OPTIONS).images[0])
    pixels = np.array(small)
    core = pixels[..., 3] == 255
    assert image.shape == (*core.shape, 3)
    assert np.array_equal(image[core], pixels[core][:, :3])
    whole, close_up = generate_whole(pipeline, small, monkeypatch), window_of(small)
    inside = np.zeros(core.shape, bool)
    close_up.crop(inside)[:] = True
    assert np.array_equal(image[~inside], whole[~inside])
    assert np.abs(image[inside & ~core].astype(int) - whole[inside & ~core]).mean() > 3


def test_no_border_shows(pipeline, small, monkeypatch):
    image = np.array(pipeline(small, PROMPT, **OPTIONS).images[0]).astype(float)
    whole = generate_whole(pipeline, small, monkeypatch).astype(float)
    close_up = window_of(small)
    rows, columns = (close_up.top, close_up.top + close_up.height), (close_up.left, close_up.left + close_up.width)
    for axis, edges, along in ((0, rows, columns), (1, columns, rows)):
        made, before = (np.swapaxes(pixels, 0, axis)[:, slice(*along)] for pixels in (image, whole))
        inner = np.abs(np.diff(made[slice(*edges)], axis=0)).mean()
        for edge in edges:
            if 0 < edge < len(made):
                step = np.abs(made[edge] - made[edge - 1]).mean()
                assert step <= np.abs(before[edge] - before[edge - 1]).mean() + 1
                assert step <= 1.5 * inner


def test_many_are_generated_as_the_pipeline_generates_each(pipeline):
    products = [SMALL["in the corner"], cutout(64, 64), SMALL["glowing"], SMALL["in the corner"]]
    requests = [
        Request(product=build_product(product), prompt=prompt, seed=seed)
        for seed, (product, prompt) in enumerate(
            zip(products, (PROMPT, PROMPT, "shoes, desert", "a lamp"), strict=True)
        )
    ]
    encoded = encode_requests(pipeline, requests)
    made = dict(iterate_images(pipeline, encoded, sampling(steps=2, guidance_scale=3.0, batch_size=3)))
    for seed, product in enumerate(products):
        alone = pipeline(product, requests[seed].prompt, **OPTIONS | {"seed": seed}).images[0]
        assert np.abs(made[seed].astype(int) - np.array(alone)).max() <= 1


def test_candidates_are_the_same_images_however_many(pipeline):
    product, steps = SMALL["in the corner"], []

    def callback(pipe, step, time, tensors):
        steps.append(step)
        return {}

    three = pipeline(product, PROMPT, num_candidates=3, callback_on_step_end=callback, **OPTIONS)
    assert steps == [0, 1] * 2  # the whole background, then the closer frame
    again = pipeline(product, PROMPT, num_candidates=3, **OPTIONS)
    assert [image.tobytes() for image in three.images] == [image.tobytes() for image in again.images]
    last = pipeline(product, PROMPT, num_candidates=3, selectors={1: lambda product, images: [2]}, **OPTIONS)
    assert last.candidates == [2]
    assert np.abs(np.array(last.images[0]).astype(int) - np.array(three.images[2])).max() <= 1


@pytest.mark.parametrize("scheduler", ["heun", "dpm++"])
def test_with_other_schedulers(pipeline, scheduler: str, monkeypatch):
    product, options = SMALL["in the corner"], OPTIONS | {"scheduler": scheduler, "num_inference_steps": 4}
    image = np.array(pipeline(product, PROMPT, **options).images[0])
    monkeypatch.setattr("canvas.inference.close_up.STRENGTH", 0.0)  # the background as it is, decoded in the window
    kept = np.array(pipeline(product, PROMPT, **options).images[0])
    core = np.array(product)[..., 3] == 255
    assert np.array_equal(image[core], np.array(product)[core][:, :3])
    assert np.abs(image.astype(int) - kept).max() > 3


def test_without_conditional_decoder(pipeline):
    plain = CanvasPipeline(**{name: part for name, part in pipeline.components.items() if name != "decoder"})
    plain.set_progress_bar_config(disable=True)
    product = SMALL["in the corner"]
    core = np.array(product)[..., 3] == 255
    assert np.array_equal(np.array(plain(product, PROMPT, **OPTIONS).images[0])[core], np.array(product)[core][:, :3])


@pytest.mark.parametrize(
    "product",
    [
        cutout(64, 64),
        place(640, 64, 64, 0, 0),  # a tenth of the frame
        place(640, 300, 4, 0, 0),  # long and thin: no closer frame shows more of it
        place(64, 5, 5, 30, 30),  # the image has no more pixels than the frame
        place(50, 2, 2, 30, 30),
        place(6000, 50, 500, 0, 700).crop((0, 0, 6000, 60)),  # longer than any window of this image
    ],
)
def test_no_closer_frame(product: Image.Image):
    assert find_close_up(build_product(product), frame_of(product)) is None


@pytest.mark.parametrize("size", [(640, 640), (640, 900), (300, 1500), (2000, 300)])
@pytest.mark.parametrize("at", [(0.0, 0.0), (0.5, 0.5), (1.0, 0.3)])
def test_the_closer_frame_holds_the_product_and_lies_in_the_image(size, at):
    pixels = np.zeros((*size, 4), np.uint8)
    top, left = (round(share * (side - 12)) for share, side in zip(at, size, strict=True))
    pixels[top : top + 12, left : left + 10] = 255
    product = build_product(Image.fromarray(pixels, "RGBA"))
    frame = compute_frame(*size, side=64, multiple=8, max_aspect=2.0)
    close_up = find_close_up(product, frame)
    assert close_up is not None
    assert close_up.crop(product.alpha).sum() == product.alpha.sum()
    assert close_up.crop(product.alpha).shape == (close_up.height, close_up.width)
    assert close_up.width / close_up.height == pytest.approx(frame.width / frame.height, rel=0.03)
    assert (close_up.frame.height, close_up.frame.width) == (frame.height, frame.width)
    closer = frame_product(build_product(Image.fromarray(close_up.crop(pixels), "RGBA")), close_up.frame).mask
    assert closer.mean() > 4 * frame_product(product, frame).mask.mean()
    assert closer[0, 0].any(dim=1).sum() <= CLOSE_SHARE * frame.height + 1


def test_what_is_new_fades_where_background_goes_on():
    close_up = window_of(SMALL["in the corner"])
    assert close_up.inner_sides == (True, False, False, True)
    weight = close_up.compute_weight(close_up.height, close_up.width)
    assert weight[0].max() < 0.01
    assert weight[:, -1].max() < 0.01
    assert weight[-1, 0] == weight.max() == 1


def test_an_empty_mask_is_refused_in_one_sentence(pipeline):
    rgb, mask = split(SMALL["in the corner"])
    with pytest.raises(ValueError, match=r"^the mask is empty: nothing to keep$"):
        pipeline(rgb, PROMPT, mask=mask.point(lambda value: 0), **OPTIONS)
