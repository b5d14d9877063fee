"""Weights of Real-ESRGAN's network in the form of ncnn: NAME.param lists the layers, NAME.bin holds their weights.

https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure describes both files. Which layer reads which is not
checked: the order and the shapes of the convolutions tell the network.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

SUFFIXES = (".bin", ".param")
"""Endings of the two files."""
MAGIC = "7767517"
"""First line of a listing."""
DTYPES = {0: "<f4", 0x01306B47: "<f2"}
"""Number before the weights of a convolution -> how they are stored; its bias is always float32."""
ALIGNMENT = 4
"""Bytes of which what is stored takes a multiple."""
KERNEL = 3
FORM = {"1": str(KERNEL), "4": "1", "5": "1"}
"""Keys of a convolution that are the same in the whole network: kernel, padding, has a bias."""
OTHER_KEYS = {"0", "6", "9", "-23310"}
"""Its other keys: output channels, number of weights, activation and the activation's slope."""
WEIGHTLESS = {"Input", "Split", "Concat", "Eltwise", "BinaryOp", "Interp", "ReLU"}
"""Layers without weights, which the network may have beside convolutions."""
DENSE = tuple(f"rdb{dense}.conv{layer}" for dense in (1, 2, 3) for layer in (1, 2, 3, 4, 5))
"""Convolutions of a block, in the order of their run."""
TAIL = ("conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last")
"""Those after the blocks."""


@dataclass(frozen=True, slots=True)
class Convolution:
    """What a listing says of a convolution."""

    name: str
    channels: int  # of its output
    weights: int


def list_pair(file: Path) -> tuple[Path, Path]:
    """Return NAME.bin and NAME.param by the path of either."""
    return file.with_suffix(".bin"), file.with_suffix(".param")


def read_ncnn(file: Path) -> dict[str, torch.Tensor]:
    """Read weights by Real-ESRGAN's names, as float32.

    Args:
        file: Either of NAME.param and NAME.bin, which lie side by side.

    Raises:
        ValueError: A file is missing or damaged, or they hold another network.
    """
    stored, listing = list_pair(file)
    for part in (stored, listing):
        if not part.is_file():
            raise ValueError(
                f"{part} is missing: the form of ncnn is two files, {stored.name} and {listing.name} in one directory"
            )
    convolutions = _read_listing(listing)
    blocks, rest = divmod(len(convolutions) - 1 - len(TAIL), len(DENSE))
    if rest or blocks < 1:
        raise ValueError(
            f"{listing} lists {len(convolutions)} convolutions, where RealESRGAN_x4plus has {1 + len(TAIL)} and "
            f"{len(DENSE)} a block: give a network of its form"
        )
    names = ["conv_first", *(f"body.{block}.{name}" for block in range(blocks) for name in DENSE), *TAIL]
    content, weights = io.BytesIO(stored.read_bytes()), dict[str, torch.Tensor]()
    for name, convolution in zip(names, convolutions, strict=True):
        weight, bias = _read_convolution(stored, content, convolution)
        weights |= {f"{name}.weight": weight, f"{name}.bias": bias}
    if rest := len(content.read()):
        raise ValueError(f"{stored} holds {rest} bytes more than {listing.name} lists: bring both from one place")
    return weights


def _read_listing(file: Path) -> list[Convolution]:
    """Return a network's convolutions in the order of their run, in which their weights are stored."""
    lines = [line.split() for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if len(lines) < 2 or lines[0] != [MAGIC]:
        first = " ".join(lines[0])[:40] if lines else ""
        raise ValueError(
            f"{file} begins with {first!r}, where a listing of ncnn has {MAGIC} and a line with its number of layers: "
            "name another file"
        )
    count, layers = lines[1][0], lines[2:]
    if count != str(len(layers)):
        raise ValueError(
            f"{file} says that it has {count} layers, but lists {len(layers)}: bring it back from where it was stored"
        )
    return [_parse_convolution(file, words) for words in layers if words[0] not in WEIGHTLESS]


def _parse_convolution(file: Path, words: list[str]) -> Convolution:
    """Parse a layer: its type and name, the numbers of its inputs and outputs, their names, then KEY=VALUE each."""
    if words[0] != "Convolution":
        raise ValueError(
            f"{file} lists {' '.join(words[:2])}, a layer that RealESRGAN_x4plus lacks: give a network of its form"
        )
    try:
        values = dict(word.split("=", 1) for word in words[4 + int(words[2]) + int(words[3]) :])
        channels, weights = int(values["0"]), int(values["6"])
    except (ValueError, LookupError):
        raise ValueError(
            f"{file} lists {' '.join(words[:2])} without its size: bring it back from where it was stored"
        ) from None
    form = {key: value for key, value in values.items() if key not in OTHER_KEYS}
    if form != FORM or channels < 1 or weights < 1 or weights % (channels * KERNEL**2):
        raise ValueError(
            f"{file} lists {' '.join(words)}, a convolution that RealESRGAN_x4plus lacks: give a network of its form"
        )
    return Convolution(words[1], channels, weights)


def _read_convolution(file: Path, content: io.BytesIO, convolution: Convolution) -> tuple[torch.Tensor, torch.Tensor]:
    """Read a convolution's weight (O, I, 3, 3) and bias (O,)."""
    flag = int(_read_numbers(file, content, convolution, "<u4", 1)[0])
    if flag not in DTYPES:
        raise ValueError(
            f"{file} holds {convolution.name} in the form {flag:#010x}: export the network as float32 or float16"
        )
    weight = _read_numbers(file, content, convolution, DTYPES[flag], convolution.weights)
    bias = _read_numbers(file, content, convolution, "<f4", convolution.channels)
    shaped = weight.reshape(convolution.channels, -1, KERNEL, KERNEL)
    return torch.from_numpy(shaped.astype(np.float32)), torch.from_numpy(bias.astype(np.float32))


def _read_numbers(
    file: Path, content: io.BytesIO, convolution: Convolution, dtype: str, count: int
) -> NDArray[np.generic]:
    size = -(-count * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT
    part = content.read(size)
    if len(part) < size:
        raise ValueError(f"{file} ends within {convolution.name}: bring it back from where it was stored")
    return np.frombuffer(part, dtype, count)
