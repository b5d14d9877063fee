from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from canvas.denoiser.objective import (
    DenoisingObjective,
    draw_kept_prompts,
    drop_embeddings,
    select_choice,
)
from canvas.denoiser.spec import DiffusionSpec, ImageDropout
from canvas.denoiser.unet.model import add_inpaint_channels
from canvas.masks.composite import compute_hole, mask_images
from canvas.pins.frames import build_size_ids
from canvas.train.draws import Draws
from canvas.vae.model import LatentScale
from tests.canvas import tiny
from tests.canvas.denoiser.test_process import ALL, FLOW, V

SCALE = LatentScale(torch.tensor([0.5, 0.0, -0.5, 0.0]), torch.tensor([2.0, 1.0, 1.0, 1.0]), 1.0)


def _batch(samples: int = 2) -> dict[str, torch.Tensor | list[str]]:
    draw = torch.Generator().manual_seed(0)
    return {
        "pin_id": [str(sample) for sample in range(samples)],
        "moments": torch.randn(samples, 8, 8, 8, generator=draw),
        "text_states": torch.randn(samples, 3, 7, tiny.TEXT_WIDTH, generator=draw).half(),
        "text_pooled": torch.randn(samples, 3, tiny.POOLED_WIDTH, generator=draw).half(),
        "sizes": torch.tensor([[64, 64, 0, 0, 64, 64]]).repeat(samples, 1),
        "masked": torch.randn(samples, 2, 4, 8, 8, generator=draw),
        "holes": torch.randint(0, 2, (samples, 2, 1, 8, 8), generator=draw, dtype=torch.uint8),
    }


class Spy(UNet2DConditionModel):
    """Records what a UNet is asked and answers with `answer(sample, times)`."""

    def __init__(self, answer) -> None:
        nn.Module.__init__(self)
        self.answer = answer

    def forward(self, sample, times, *, encoder_hidden_states, added_cond_kwargs, return_dict):
        self.seen = (sample, times, encoder_hidden_states, added_cond_kwargs)
        return (self.answer(sample, times),)


@ALL
def test_training_lowers_the_loss(spec: DiffusionSpec):
    torch.manual_seed(0)
    unet = add_inpaint_channels(tiny.denoiser()).train()
    objective = DenoisingObjective(spec, SCALE, captions=9, caption_dropout=0.1, inpaint=True)
    optimizer = torch.optim.Adam(unet.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss, outputs = objective(unet, _batch(), Draws(seed=0, step=0, first=0, samples=2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert outputs["mse"].ndim == 0


def test_a_perfect_answer_costs_nothing():
    """For a batch whose latents have no variance the true velocity follows from the noisy sample."""
    batch = _batch()
    moments = batch["moments"]
    moments[:, 4:] = -30
    clean = SCALE.normalize(moments[:, :4])
    spy = Spy(lambda sample, times: (sample - clean) / (times / 1000)[:, None, None, None])
    objective = DenoisingObjective(FLOW, SCALE, captions=9, caption_dropout=0.0, inpaint=False)
    loss, _ = objective(spy, batch, Draws(seed=0, step=0, first=0, samples=2))
    assert loss.item() < 1e-8


def test_a_sample_draws_the_same_however_the_batch_is_cut():
    batch = _batch(4)
    objective = DenoisingObjective(FLOW, SCALE, captions=9, caption_dropout=0.5, inpaint=True)
    spy = Spy(lambda sample, times: sample[:, :4])
    whole, _ = objective(spy, batch, Draws(seed=3, step=9, first=0, samples=4))
    seen = spy.seen
    halves = []
    for first in (0, 2):
        part = {name: column[first : first + 2] for name, column in batch.items()}
        halves.append(objective(spy, part, Draws(seed=3, step=9, first=first, samples=2))[0])
        assert torch.equal(spy.seen[0], seen[0][first : first + 2])
        assert torch.equal(spy.seen[2], seen[2][first : first + 2])
    torch.testing.assert_close(sum(halves) / 2, whole)


def test_the_denoiser_is_told_one_caption_and_one_mask_of_its_own():
    batch = _batch(8)
    spy = Spy(lambda sample, times: sample[:, :4])
    DenoisingObjective(V, SCALE, captions=9, caption_dropout=0.5, inpaint=True)(spy, batch, Draws(0, 0, 0, 8))
    sample, _, states, added = spy.seen
    captions, masks = [], []
    for row in range(8):
        matches = [k for k in range(3) if torch.equal(states[row], batch["text_states"][row, k].float())]
        if matches:
            captions += matches
            assert torch.equal(added["text_embeds"][row], batch["text_pooled"][row, matches[0]].float())
        else:
            assert states[row].abs().max() == 0 == added["text_embeds"][row].abs().max()
        wanted = [SCALE.normalize(batch["masked"][row : row + 1, m])[0] for m in range(2)]
        masks += [m for m in range(2) if torch.equal(sample[row, 5:], wanted[m])]
        assert torch.equal(sample[row, 4:5], batch["holes"][row, masks[-1]].float())
    assert len(masks) == 8
    assert 0 < len(captions) < 8
    assert len(set(captions)) > 1
    assert set(masks) == {0, 1}


def test_captions_after_the_wanted_ones_are_never_told():
    batch = _batch(8)
    spy = Spy(lambda sample, times: sample[:, :4])
    DenoisingObjective(V, SCALE, captions=1, caption_dropout=0, inpaint=True)(spy, batch, Draws(0, 0, 0, 8))
    assert torch.equal(spy.seen[2], batch["text_states"][:, 0].float())


def test_size_ids_are_in_the_order_of_stock_diffusers():
    """Height before width everywhere; public training scripts disagree with each other."""
    pipeline = tiny.sdxl_inpaint_pipeline(tiny.denoiser())
    original, crop, target = (10, 20), (3, 4), (50, 60)
    stock, _ = pipeline._get_add_time_ids(
        original, crop, target, 6.0, 2.5, original, crop, target, torch.float32, tiny.POOLED_WIDTH
    )
    assert stock[0].tolist() == list(build_size_ids(original, crop, target)) == [10, 20, 3, 4, 50, 60]


def test_hole_is_every_cell_with_something_to_paint():
    mask = torch.ones(1, 1, 16, 24)
    mask[..., 9, 17] = 0
    hole = compute_hole(mask, cell=8)
    assert hole[0, 0].tolist() == [[0, 0, 0], [0, 0, 1]]
    assert compute_hole(mask, cell=8, inflate=1)[0, 0].tolist() == [[0, 1, 1], [0, 1, 1]]
    assert compute_hole(torch.ones(1, 1, 16, 16), cell=8, inflate=1).sum() == 0


def test_masked_images_are_grey_where_painted():
    images = torch.rand(2, 3, 4, 4) + 0.1
    mask = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    masked = mask_images(images, mask)
    assert torch.equal(masked[0], images[0])
    assert masked[1].abs().max() == 0


def test_choices_and_dropout_rate():
    column = torch.arange(6).view(2, 3)
    assert select_choice(column, torch.tensor([2, 0])).tolist() == [2, 3]
    keep = draw_kept_prompts(Draws(0, 0, 0, 2000), 0.1, None)[0]
    assert keep.float().mean().item() == pytest.approx(0.9, abs=0.03)
    assert drop_embeddings(torch.ones(2, 3, 4), torch.tensor([True, False])).sum(dim=(1, 2)).tolist() == [12, 0]


def test_captions_and_pictures_are_dropped_alone_and_together():
    keep_caption, keep_image = draw_kept_prompts(Draws(0, 0, 0, 20_000), 0.05, ImageDropout(image=0.1, both=0.2))
    shares = {
        "caption": (~keep_caption & keep_image).float().mean().item(),
        "image": (keep_caption & ~keep_image).float().mean().item(),
        "both": (~keep_caption & ~keep_image).float().mean().item(),
    }
    assert shares == pytest.approx({"caption": 0.05, "image": 0.1, "both": 0.2}, abs=0.01)


def test_the_denoiser_sees_the_picture_itself_or_zeros():
    batch = _batch(samples=64) | {"image": torch.ones(64, 5).half()}
    spy = Spy(lambda sample, times: sample[:, :4])
    objective = DenoisingObjective(
        FLOW, SCALE, captions=1, caption_dropout=0.2, inpaint=True, image_dropout=ImageDropout(image=0.2, both=0.2)
    )
    objective(spy, batch, Draws(0, 0, 0, 64))
    _, _, states, added = spy.seen
    (image,) = added["image_embeds"]
    assert image.shape == (64, 1, 5)
    kept_image, kept_text = image.flatten(1).any(dim=1), states.flatten(1).any(dim=1)
    assert {(bool(a), bool(b)) for a, b in zip(kept_image, kept_text, strict=True)} == {
        (True, True), (True, False), (False, True), (False, False)
    }  # fmt: skip
    assert torch.equal(kept_text, added["text_embeds"].any(dim=1))


def test_an_adapter_draws_times_and_noise_as_without():
    """So their held-out losses compare."""
    without = DenoisingObjective(FLOW, SCALE, captions=3, caption_dropout=0.0, inpaint=True)
    adapter = DenoisingObjective(
        FLOW, SCALE, captions=3, caption_dropout=0.0, inpaint=True, image_dropout=ImageDropout(image=0.0, both=0.0)
    )
    batch, seen = _batch() | {"image": torch.ones(2, 5)}, []
    for objective in (without, adapter):
        spy = Spy(lambda sample, times: sample[:, :4])
        objective(spy, batch, Draws(0, 0, 0, 2))
        seen.append(spy.seen)
    assert all(torch.equal(a, b) for a, b in zip(seen[0][:3], seen[1][:3], strict=True))


@pytest.mark.parametrize(("image", "both"), [(-0.1, 0.0), (0.5, 0.5), (0.5, 0.45)])
def test_drops_that_leave_nothing_are_refused(image: float, both: float):
    with pytest.raises(ValueError, match="below 1 together"):
        DenoisingObjective(
            FLOW,
            SCALE,
            captions=1,
            caption_dropout=0.1,
            inpaint=True,
            image_dropout=ImageDropout(image=image, both=both),
        )
