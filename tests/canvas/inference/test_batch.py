from __future__ import annotations

import numpy as np
import torch

from canvas.denoiser.loading import build_denoiser
from canvas.inference.batch import Request, encode_requests, fit_prompt, group_into_passes, iterate_images
from canvas.inference.product import build_product
from tests.canvas import tiny
from tests.canvas.inference.conftest import cutout, sampling

SIZES = ((64, 64), (100, 160), (64, 64), (80, 80))


def test_many_are_generated_as_the_pipeline_generates_each(pipeline):
    products = [cutout(*size) for size in SIZES]
    prompts = ["a mug, forest", "shoes, desert", "a mug, lobby", "a lamp, forest"]
    requests = encode_requests(
        pipeline,
        [
            Request(product=build_product(product), prompt=prompt, seed=place)
            for place, (product, prompt) in enumerate(zip(products, prompts, strict=True))
        ],
    )
    assert group_into_passes(requests, 2) == [[0, 2], [3], [1]]
    images = dict(iterate_images(pipeline, requests, sampling(steps=3, guidance_scale=4.0, guidance_stop=0.7)))
    assert sorted(images) == [0, 1, 2, 3]
    for place, (product, prompt) in enumerate(zip(products, prompts, strict=True)):
        alone = pipeline(
            product, prompt, num_inference_steps=3, guidance_scale=4.0, guidance_stop=0.7, seed=place
        ).images[0]
        assert np.abs(images[place].astype(int) - np.array(alone)).max() <= 1


def test_a_title_of_any_length_makes_a_prompt(pipeline):
    assert fit_prompt(pipeline, "Mug", "in a forest") == "mug, in a forest"
    for title in ("Blue mug " + "of finest porcelain, hand made " * 500, "z" * 5000, "\x00\n](http://x) " * 99):
        prompt = fit_prompt(pipeline, title, "in a forest")
        pipeline.check_prompts(prompt)
        assert prompt.endswith("in a forest")
        assert prompt[0] == title[0].lower()


def test_what_differs_in_its_seed_alone_is_encoded_once(pipeline):
    mug, shoe = (build_product(cutout(*size)) for size in SIZES[:2])
    asked = [
        Request(product=product, prompt=prompt, seed=seed)
        for product, prompt, seed in ((mug, "a mug", 0), (shoe, "a mug", 0), (mug, "a mug", 1), (mug, "a lamp", 0))
    ]
    encoded = encode_requests(pipeline, asked)
    assert [one.request for one in encoded] == asked
    assert encoded[0].condition is encoded[2].condition
    assert len({id(one.condition) for one in encoded}) == 3
    assert len({id(one.framed) for one in encoded}) == 2  # of the products
    for place in (1, 3):
        alone = encode_requests(pipeline, asked[place : place + 1])[0]
        assert np.array_equal(encoded[place].condition.states, alone.condition.states)
        assert np.array_equal(encoded[place].condition.masked_latents, alone.condition.masked_latents)


def test_a_denoiser_that_is_not_told_of_the_product(pipeline):
    product = cutout(64, 64)
    others = [
        Request(product=build_product(one), prompt="a mug, forest", seed=0) for one in (product, cutout(64, 64, True))
    ]
    unet = build_denoiser(tiny.DENOISER, latent_channels=6, sample_size=8, text_width=48, pooled_width=24).eval()
    made = [
        next(
            iterate_images(
                pipeline,
                encode_requests(pipeline, [request]),
                sampling(steps=2, guidance_scale=1.0),
                text_to_image=(unet, pipeline.scheduler),
            )
        )[1]
        for request in others
    ]
    alpha = np.array(product)[..., 3]
    outside = (alpha == 0) & (others[1].product.alpha == 0)
    assert np.array_equal(made[0][outside], made[1][outside])  # the background does not depend on the product
    assert np.array_equal(made[0][alpha == 255], np.array(product)[alpha == 255][:, :3])


def test_bf16_generates_nearly_the_same_and_leaves_the_weights(pipeline):
    product = cutout(64, 64)
    requests = encode_requests(pipeline, [Request(product=build_product(product), prompt="a mug, forest", seed=0)])
    before = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    whole, half = (
        next(iterate_images(pipeline, requests, sampling(guidance_scale=3.0, precision=precision)))[1].astype(int)
        for precision in ("fp32", "bf16")
    )
    assert 0 < np.abs(whole - half).max() <= 16
    core = np.array(product)[..., 3] == 255
    assert np.array_equal(half[core], np.array(product)[core][:, :3])
    assert all(torch.equal(tensor, before[name]) for name, tensor in pipeline.unet.state_dict().items())
