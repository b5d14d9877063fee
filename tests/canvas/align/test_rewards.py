from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from canvas.align.prompts import PromptGroup
from canvas.align.rewards import DistributionReward, GrowthReward, ModelReward, RewardSet
from canvas.clip.model import TextTower, build_clip
from canvas.clip.spec import ClipSpec, TextSpec
from canvas.denoiser.sampling import Condition
from canvas.reward.model import ProductImages, build_reward
from canvas.reward.spec import RewardSpec
from canvas.segmenter.model import build_segmenter
from canvas.segmenter.spec import UNetSpec
from canvas.vae.model import PixelAutoencoder
from lifecycle.declare.params import load_sections, read_section
from tests.components.mugs import ROOT


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Three images of one prompt and three of another: of the first two are the same."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (6, 3, 64, 64), generator=draw, dtype=torch.uint8)
    pixels[1] = pixels[0]
    return pixels


@pytest.fixture(scope="module")
def text() -> ClipSpec:
    return read_section(TextSpec, "text", load_sections("tiny", ROOT)).first


def build_products(count: int) -> ProductImages:
    masks = torch.zeros(count, 1, 64, 64)
    masks[:, :, 20:40, 20:40] = 1
    return ProductImages(torch.full((count, 3, 64, 64), 90, dtype=torch.uint8), masks)


def test_equal_images_of_a_prompt_are_not_diverse(images: torch.Tensor, text: ClipSpec) -> None:
    torch.manual_seed(0)
    clip = build_clip(text).eval()
    reward = DistributionReward(clip, ("diversity", "parity"), ("at night", "at noon"), 4)
    scores = reward.score(images, None, ["a mug"] * 6, 3)
    assert scores["diversity"][:2].abs().max() < 1e-5
    assert (scores["diversity"][2:] > 1e-5).all()
    assert scores["parity"].shape == (6,)
    whole = replace(reward, batch_size=64).score(images, None, ["a mug"] * 6, 3)
    for kind, values in scores.items():
        torch.testing.assert_close(values, whole[kind], rtol=1e-4, atol=1e-5)


def test_growth_is_what_the_segmenter_sees_beyond_the_product(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    segmenter = build_segmenter(UNetSpec(image_size=64, channels=(8, 8, 8, 16))).eval()
    reward = GrowthReward(segmenter, 4)
    small, large = build_products(6), build_products(6)
    large.masks[:, :, 10:50, 10:50] = 1
    scores = reward.score(images, small, ["a mug"] * 6, 3)["growth"]
    assert (scores < 0).all()
    assert (reward.score(images, large, ["a mug"] * 6, 3)["growth"] > scores).all()
    everything = ProductImages(small.pixels, torch.ones_like(small.masks))
    assert not reward.score(images, everything, ["a mug"] * 6, 3)["growth"].any()


def build_model(text: ClipSpec) -> ModelReward:
    torch.manual_seed(0)
    spec = read_section(RewardSpec, "reward", load_sections("tiny", ROOT))
    model = build_reward(spec, TextTower.from_clip(build_clip(text), text)).eval()
    return ModelReward(model, ("prompt", "aesthetics", "defects"), 4)


@pytest.mark.parametrize("has_products", [True, False])
def test_the_reward_model_answers_what_is_asked(images: torch.Tensor, text: ClipSpec, has_products: bool) -> None:
    reward = build_model(text)
    products = build_products(6) if has_products else None
    scores = reward.score(images, products, ["mug, in a forest"] * 3 + ["mug, in a lobby"] * 3, 3)
    assert list(scores) == ["prompt", "aesthetics", "defects"]
    for values in scores.values():
        assert values.shape == (6,)
        assert ((values >= 0) & (values <= 1)).all()


def test_a_reward_does_not_depend_on_the_other_prompts_of_a_batch(images: torch.Tensor, text: ClipSpec) -> None:
    """A prompt that names no background is judged by what the image is worth over all."""
    reward, prompts = replace(build_model(text), kinds=("prompt", "overall")), ["mug, in a forest"] * 3 + ["mug,"] * 3
    products = build_products(3)
    both = ProductImages(products.pixels.repeat(2, 1, 1, 1), products.masks.repeat(2, 1, 1, 1))
    whole = reward.score(images, both, prompts, 3)
    parts = [reward.score(images[rows], products, prompts[rows], 3) for rows in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(torch.cat([part["prompt"] for part in parts]), whole["prompt"], rtol=1e-4, atol=1e-5)
    assert torch.equal(parts[1]["prompt"], parts[1]["overall"])
    assert not torch.allclose(parts[0]["prompt"], parts[0]["overall"])


def test_what_the_reward_model_does_not_answer_is_an_error(images: torch.Tensor, text: ClipSpec) -> None:
    reward = replace(build_model(text), kinds=("growth",))
    with pytest.raises(ValueError, match=r"align\.rewards asks for growth: take what it answers"):
        reward.score(images, None, ["mug, in a forest"] * 6, 3)


def test_latents_are_scored_as_images_with_their_products(text: ClipSpec) -> None:
    torch.manual_seed(0)
    vae = PixelAutoencoder((16, 16), 1, 4, 4, 8).eval()
    products = build_products(4)
    ones = torch.ones(4, 1, 1)
    condition = Condition(states=ones, pooled=ones[:, 0], sizes=ones[:, 0])
    group = PromptGroup(["p"] * 4, ["mug, in a forest"] * 4, condition, products, products.masks, (4, 8, 8))
    rewards = RewardSet(vae, (build_model(text),), ("defects", "prompt"), 3)
    latents = torch.randn(4, 4, 8, 8)
    pixels = rewards.decode(latents, group)
    assert (pixels[:, :, 21:39, 21:39] == 90).all()  # the core
    assert pixels[:, :, :10].float().std() > 0
    scores = rewards.score(latents, group, 2)
    assert list(scores) == ["defects", "prompt"]
    plain = rewards.decode(latents, replace(group, products=None, alphas=None))
    assert not torch.equal(plain, pixels)
