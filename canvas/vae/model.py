"""Autoencoders of pictures: SDXL's (diffusers' AutoencoderKL), or ours, which starts with a pixel-unshuffle.

Both are diffusers models with one interface: `encode(images).latent_dist`, `decode(latents).sample`, images in
[-1, 1]. B: batch, C: latent channels, h and w: latent size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import torch
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.nn import functional as F

from canvas.vae.spec import VaeSpec

INITIAL_NOISE = 0.05
"""Deviation of the posterior before training, where latents have deviation 1."""
MIN_VARIANCE = 1e-7
"""Of a principal component: less is rounding."""


class PixelAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A linear map of patches, one a latent cell, and a convolutional network that adds what a linear map cannot.

    The linear map starts as principal components of the patches, the best that any linear autoencoder of them can learn
    (Baldi and Hornik 1989), and latents start white; its way back sees the neighbours of a cell, too, and starts as the
    regression of a patch on them (`fit_patches`), so cells leave no mosaic. The network's last layers start at zero, so
    training begins there instead of at noise. The network works `patch` times coarser than the picture and below:
    pixel-unshuffle moves the work away from full resolution, where convolutions of a few channels are slowest on a CPU.
    Residual blocks (He et al. 2016, pre-activation) at each resolution; no attention, so any size that `factor` divides
    is fine.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        channels: tuple[int, ...],
        layers_per_block: int,
        latent_channels: int,
        patch: int,
        norm_num_groups: int,
        sample_size: int = 64,
        scaling_factor: float = 1.0,
        latents_mean: list[float] | None = None,
        latents_std: list[float] | None = None,
        force_upcast: bool = False,
    ) -> None:
        super().__init__()
        pixels, cell = 3 * patch**2, patch * 2 ** (len(channels) - 1)
        self.analysis = nn.Conv2d(3, latent_channels, cell, stride=cell)
        self.synthesis = nn.Sequential(
            nn.Conv2d(latent_channels, 3 * cell**2, 3, padding=1, padding_mode="replicate"), nn.PixelShuffle(cell)
        )
        moments = zero_module(nn.Conv2d(channels[-1], 2 * latent_channels, 3, padding=1))
        assert moments.bias is not None
        nn.init.constant_(moments.bias[latent_channels:], 2 * math.log(INITIAL_NOISE))
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(patch),
            nn.Conv2d(pixels, channels[0], 3, padding=1),
            ResolutionLevels(channels, layers_per_block, norm_num_groups, build_downsampler),
            nn.GroupNorm(norm_num_groups, channels[-1]),
            nn.SiLU(),
            moments,
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, channels[-1], 3, padding=1),
            ResolutionLevels(channels[::-1], layers_per_block, norm_num_groups, build_upsampler),
            nn.GroupNorm(norm_num_groups, channels[0]),
            nn.SiLU(),
            zero_module(nn.Conv2d(channels[0], pixels, 3, padding=1)),
            nn.PixelShuffle(patch),
        )

    def encode(self, x: torch.Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[torch.Tensor]:
        """Posterior over the latents of images (B, 3, H, W) in [-1, 1]; `factor` divides H and W."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        posterior = DiagonalGaussianDistribution(torch.cat([mean + self.analysis(x), log_variance], dim=1))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(
        self, z: torch.Tensor, return_dict: bool = True, generator: object = None
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """Images (B, 3, H, W), about [-1, 1], of raw latents (B, C, h, w)."""
        images = self.decoder(z) + self.synthesis(z)
        return DecoderOutput(sample=images) if return_dict else (images,)

    def forward(self, sample: torch.Tensor) -> DecoderOutput | tuple[torch.Tensor]:
        """Images decoded from the means of their latents."""
        return self.decode(compute_posterior(self, sample).mode())

    @torch.no_grad()
    def fit_patches(self, images: Callable[[], Iterable[torch.Tensor]]) -> None:
        """Start the linear map from all patches of `images()` (B, 3, H, W) in [-1, 1], which is asked twice.

        Latents become principal components, scaled so that each has variance 1; the way back is least squares on the
        latents of 3 x 3 cells, noise of FIRST_NOISE on them. Raises ValueError if the patches span fewer dimensions
        than there are latents.
        """
        cell, channels = self.analysis.kernel_size[0], self.analysis.out_channels
        found = _Moments.of(F.unfold(batch.double(), cell, stride=cell) for batch in images())
        colour = found.mean.view(3, -1).mean(1)
        mean = colour.repeat_interleave(cell**2)
        variances, directions = torch.linalg.eigh(found.around(mean))
        variances, directions = variances.flip(0)[:channels], directions.flip(1)[:, :channels].T
        if not variances[-1] > MIN_VARIANCE:
            count = found.count
            raise ValueError(f"{count} patches of {cell} pixels vary in fewer than {channels} directions: give more")
        towards = directions / variances.sqrt()[:, None]
        self.analysis.weight.copy_(towards.view_as(self.analysis.weight))
        self.analysis.bias.copy_(-towards @ mean)  # type: ignore[union-attr]

        def beside() -> Iterator[torch.Tensor]:  # the latents round each patch, and the patch
            for batch in images():
                latents = F.pad(self.analysis(batch), (1, 1, 1, 1), mode="replicate").double()
                yield torch.cat([F.unfold(latents, 3), F.unfold(batch.double(), cell, stride=cell)], dim=1)

        known = 9 * channels
        both = _Moments.of(beside())
        spread = both.around(both.mean)
        noise = INITIAL_NOISE**2 * torch.eye(known).double()
        back = torch.linalg.solve(spread[:known, :known] + noise, spread[:known, known:]).T
        convolution = self.synthesis[0]
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.bias is not None
        convolution.weight.copy_(back.view_as(convolution.weight))
        convolution.bias.copy_(both.mean[known:] - back @ both.mean[:known])


@dataclass(frozen=True, slots=True)
class _Moments:
    """Of vectors of D numbers."""

    count: int
    mean: torch.Tensor  # (D,)
    second: torch.Tensor  # (D, D), mean of the outer products

    @classmethod
    def of(cls, batches: Iterable[torch.Tensor]) -> _Moments:
        """Of the columns of batches (B, D, N)."""
        count, total, products = 0, torch.zeros(()), torch.zeros(())
        for batch in batches:
            rows = batch.transpose(1, 2).flatten(0, 1)
            count, total, products = count + len(rows), total + rows.sum(0), products + rows.T @ rows
        return cls(count, total / max(count, 1), products / max(count, 1))

    def around(self, centre: torch.Tensor) -> torch.Tensor:
        """Mean outer product (D, D) of the vectors' differences from `centre`."""
        crossed = torch.outer(self.mean, centre)
        return self.second - crossed - crossed.T + torch.outer(centre, centre)


class ResolutionLevels(nn.Module):
    """Residual blocks at each of `channels`, in order, with `resample` (halving or doubling) between them."""

    def __init__(
        self, channels: tuple[int, ...], layers: int, groups: int, resample: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList(build_residual_block(width, width, groups) for _ in range(layers)) for width in channels
        )
        self.resamples = nn.ModuleList(resample(width, following) for width, following in pairwise(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for level in range(len(self.blocks)):
            x = self.run_level(level, self.resamples[level - 1](x) if level else x)
        return x

    def run_level(self, level: int, x: torch.Tensor) -> torch.Tensor:
        """The residual blocks of one resolution."""
        blocks = self.blocks[level]
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            x = block(x, None)
        return x


def zero_module(layer: nn.Conv2d) -> nn.Conv2d:
    """`layer`, so that it adds nothing before it is trained."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def build_downsampler(wide_in: int, wide_out: int) -> nn.Module:
    """A convolution that halves the size."""
    return nn.Conv2d(wide_in, wide_out, 3, stride=2, padding=1)


def build_upsampler(wide_in: int, wide_out: int) -> nn.Module:
    """Nearest-neighbour doubling and a convolution: no checkerboard (Odena et al. 2016)."""
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(wide_in, wide_out, 3, padding=1))


def build_residual_block(wide_in: int, wide_out: int, groups: int) -> ResnetBlock2D:
    """diffusers' residual block without a timestep: call it as `block(x, None)`."""
    return ResnetBlock2D(in_channels=wide_in, out_channels=wide_out, temb_channels=None, groups=groups)


Vae: TypeAlias = AutoencoderKL | PixelAutoencoder
VAE_CLASSES: dict[str, type[Vae]] = {"AutoencoderKL": AutoencoderKL, "PixelAutoencoder": PixelAutoencoder}


def build_vae(spec: VaeSpec, *, sample_size: int) -> Vae:
    """The autoencoder of `spec`, random or from `spec.init_from`; `sample_size` is the side of training pictures.

    Raises ValueError if `init_from` holds another kind or size: the spec's values would be ignored.
    """
    if sample_size % spec.factor:
        raise ValueError(f"pictures of {sample_size} pixels do not fit latent cells of {spec.factor}: use a multiple")
    if spec.init_from is not None:
        return _check_config(load_vae(spec.init_from), spec)
    if spec.kind == "pixel":
        assert spec.patch is not None
        return PixelAutoencoder(
            channels=spec.channels,
            layers_per_block=spec.layers_per_block,
            latent_channels=spec.latent_channels,
            patch=spec.patch,
            norm_num_groups=spec.norm_groups,
            sample_size=sample_size,
        )
    return AutoencoderKL(
        block_out_channels=spec.channels,
        down_block_types=("DownEncoderBlock2D",) * len(spec.channels),
        up_block_types=("UpDecoderBlock2D",) * len(spec.channels),
        layers_per_block=spec.layers_per_block,
        latent_channels=spec.latent_channels,
        norm_num_groups=spec.norm_groups,
        sample_size=sample_size,
        scaling_factor=1.0,
    )


def load_vae(source: str | Path) -> Vae:
    """The autoencoder in a directory or hub repository: the model itself, or a pipeline's `vae` folder."""
    local = Path(source)
    if not local.is_dir():
        if local.is_absolute() or str(source).startswith("."):
            raise ValueError(f"vae.init_from {str(source)!r} is not a directory: name a diffusers model or a hub id")
        return AutoencoderKL.from_pretrained(str(source), subfolder="vae")
    folder = local / "vae" if (local / "vae").is_dir() else local
    name = PixelAutoencoder.load_config(folder)["_class_name"]
    if name not in VAE_CLASSES:
        raise ValueError(f"{folder} holds a {name}: the autoencoder must be one of {', '.join(VAE_CLASSES)}")
    return VAE_CLASSES[name].from_pretrained(folder)


def compute_posterior(vae: Vae, images: torch.Tensor) -> DiagonalGaussianDistribution:
    """Over the raw latents of images (B, 3, H, W) in [-1, 1]."""
    return vae.encode(images, return_dict=False)[0]  # type: ignore[index]


def decode_latents(vae: Vae, latents: torch.Tensor) -> torch.Tensor:
    """Images (B, 3, H, W), about [-1, 1], of raw latents (B, C, h, w)."""
    return vae.decode(latents, return_dict=False)[0]  # type: ignore[index]


def _check_config(vae: Vae, spec: VaeSpec) -> Vae:
    kind = "pixel" if isinstance(vae, PixelAutoencoder) else "kl"
    widths = vae.config["channels" if kind == "pixel" else "block_out_channels"]
    found = {
        "kind": kind,
        "channels": tuple(widths),
        "layers_per_block": vae.config["layers_per_block"],
        "latent_channels": vae.config["latent_channels"],
        "patch": vae.config.get("patch"),
        "norm_groups": vae.config["norm_num_groups"],
    }
    for name, value in found.items():
        if value != getattr(spec, name):
            raise ValueError(f"vae.{name} is {getattr(spec, name)}, but {spec.init_from} has {value}: make them agree")
    return vae


def get_scale_factor(vae: Vae) -> int:
    """Pixels along the side of a latent cell."""
    if isinstance(vae, PixelAutoencoder):
        return int(vae.config["patch"]) * 2 ** (len(vae.config["channels"]) - 1)
    return int(2 ** (len(vae.config["block_out_channels"]) - 1))
