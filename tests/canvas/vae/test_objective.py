from __future__ import annotations

from dataclasses import replace

import open_clip
import pytest
import torch
from torch.nn import functional as F

from canvas.features.perceptual import ClipFeatures, FeatureDistance, SpectrumDistance
from canvas.pins.images import bytes_to_tensor, tensor_to_bytes
from canvas.train.draws import Draws
from canvas.vae.model import build_vae
from canvas.vae.objective import (
    ImageLoss,
    PatchDiscriminator,
    ReconstructionLoss,
    ReconstructionObjective,
    hinge_discriminator_loss,
)
from canvas.vae.spec import AdversarySpec, ReconstructionSpec
from tests.canvas.train.subject import SPEC
from tests.canvas.vae.test_model import PIXEL

WEIGHTS = ReconstructionSpec(l1=1.0, l2=0.5, spectrum=0.1, features=0.0)


def _textures(batch: int = 2, size: int = 32) -> torch.Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(5)) * 2 - 1


def _blurred(images: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)


def test_bytes_come_back():
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(tensor_to_bytes(bytes_to_tensor(values)), values)
    assert tensor_to_bytes(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_spectrum_sees_blur_and_lets_phase_go():
    distance = SpectrumDistance()
    images = _textures()
    other = torch.rand(images.shape, generator=torch.Generator().manual_seed(6)) * 2 - 1
    assert distance(images, images).tolist() == [0, 0]
    # Another draw of the same texture is nearer than its own blur; a pixel loss says the opposite.
    assert (distance(other, images) < distance(_blurred(images), images)).all()
    assert (other - images).abs().mean() > (_blurred(images) - images).abs().mean()
    with pytest.raises(ValueError, match=r"\(8, 8\) are smaller than the window of 16"):
        distance(images[..., :8, :8], images[..., :8, :8])


def test_features_of_our_clip_are_a_distance():
    torch.manual_seed(0)
    clip = _clip()
    distance = FeatureDistance(ClipFeatures(clip, layers=[0, -1]))
    images = _textures(size=40).requires_grad_()
    targets = _textures(size=40)
    assert distance(targets, targets).abs().max() < 1e-6
    distances = distance(_blurred(images), targets)
    assert distances.shape == (2,)
    assert (distances > 0).all()
    distances.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    assert all(weight.grad is None for weight in clip.parameters())


def _clip() -> open_clip.CLIP:
    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        text_cfg={"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    )
    model.visual.preprocess_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    return model


def test_loss_weighs_its_terms():
    images, targets = _blurred(_textures()), _textures()
    loss, terms = ReconstructionLoss(WEIGHTS)(images, targets)
    assert set(terms) == {"l1", "l2", "spectrum"}
    assert loss.item() == pytest.approx((terms["l1"] + 0.5 * terms["l2"] + 0.1 * terms["spectrum"]).item())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"l1": 0.0, "l2": 0.0}, "l1 and l2 are both 0"),
        ({"features": 1.0}, "features is 1.0, but the network is None"),
    ],
)
def test_weights_are_checked(weights, message):
    values = {"l1": 1.0, "l2": 0.0, "spectrum": 0.0, "features": 0.0} | weights
    with pytest.raises(ValueError, match=message):
        ReconstructionLoss(ReconstructionSpec(**values))


def test_objective_falls_when_followed():
    torch.manual_seed(0)
    vae = build_vae(PIXEL, sample_size=32)
    objective = ReconstructionObjective(ImageLoss(WEIGHTS), kl=1e-3)
    batch = {"pin_id": ["a", "b"], "images": tensor_to_bytes(_blurred(_textures()))}
    optimizer = torch.optim.Adam(vae.parameters(), lr=2e-3)
    losses = []
    for step in range(30):
        loss, outputs = objective(vae, batch, Draws(seed=0, step=step, first=0, samples=2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert set(outputs) == {"l1", "l2", "spectrum", "kl", "reconstructions"}
    assert losses[-1] < 0.6 * losses[0]


def test_adversary_starts_late_in_the_loop(tmp_path):
    from canvas.train.data import TensorBatches
    from canvas.train.loop import fit

    torch.manual_seed(0)
    vae = build_vae(PIXEL, sample_size=32)
    against = AdversarySpec(weight=0.1, start_step=3, learning_rate=1e-3, width=8, layers=2)
    loss = ImageLoss(WEIGHTS, adversary=against)
    adversary = loss.adversary
    assert adversary is not None
    before = {name: weight.detach().clone() for name, weight in adversary.model.named_parameters()}
    objective = ReconstructionObjective(loss, kl=1e-3)
    spec = replace(SPEC, steps=6, batch_size=2, learning_rate=1e-3, weight_decay=0.0, log_every=1, sample_every=3)
    batches = TensorBatches({"pin_id": list("abcd"), "images": tensor_to_bytes(_textures(4))}, batch_size=2, seed=0)
    logged: dict[int, dict[str, float]] = {}
    fit(
        vae,
        objective,
        batches,
        spec,
        checkpoints=tmp_path,
        log=lambda values, step: logged.setdefault(step, {}).update(values),
        adversary=adversary,
    )
    fooled = {step for step, values in logged.items() if "fooled" in values}
    assert fooled == {4, 5, 6}
    assert any(not torch.equal(before[name], weight) for name, weight in adversary.model.named_parameters())


def test_discriminator_learns_to_tell_and_shows_the_way():
    torch.manual_seed(0)
    judge = PatchDiscriminator(width=8, layers=2)
    real, fake = _textures(), _blurred(_textures()).requires_grad_()
    assert judge(real).shape == (2, 1, 8, 8)
    optimizer = torch.optim.Adam(judge.parameters(), lr=1e-2)
    for _ in range(40):
        loss = hinge_discriminator_loss(judge(real), judge(fake.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5
    (-judge(fake).mean()).backward()
    with torch.no_grad():
        better = fake - 1.0 * fake.grad.sign() * 0.05
        assert judge(better).mean() > judge(fake).mean()
