"""Autoencoders of images: SDXL's (diffusers' AutoencoderKL), or ours, which starts with a pixel-unshuffle.

Both are diffusers models with one interface: `encode(images).latent_dist`, `decode(latents).sample`, images in
[-1, 1]. B: batch, C: latent channels, h and w: latent size.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import torch
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.nn import functional as F

from canvas.hub import fetch_snapshot
from canvas.loading import load_safetensors

if TYPE_CHECKING:  # the denoiser's training and sampling need no tables
    from canvas.pins.image_batches import FrameBatch
    from canvas.vae.spec import VaeSpec

M = TypeVar("M", bound=nn.Module)

INITIAL_NOISE = 0.05
"""Deviation of the posterior before training, where latents have deviation 1."""
MIN_VARIANCE = 1e-7
"""Least variance of a principal component: less is rounding."""


class PixelAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A linear map of patches, one a latent cell, and a convolutional network that adds what a linear map cannot.

    The linear map starts as principal components of the patches, the best that any linear autoencoder of them can learn
    (Baldi and Hornik 1989), and latents start white; its way back sees the neighbours of a cell, too, and starts as the
    regression of a patch on them (`fit_patches`), so cells leave no mosaic. The network's last layers start at zero, so
    training begins there instead of at noise. The network works `patch` times coarser than the image and below:
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
        nn.init.constant_(moments.get_parameter("bias")[latent_channels:], 2 * math.log(INITIAL_NOISE))
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
        """Return the posterior over the latents of images (B, 3, H, W) in [-1, 1]; `factor` divides H and W."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        posterior = DiagonalGaussianDistribution(torch.cat([mean + self.analysis(x), log_variance], dim=1))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(
        self, z: torch.Tensor, return_dict: bool = True, generator: object = None
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """Decode raw latents (B, C, h, w) to images (B, 3, H, W), about [-1, 1]."""
        images = self.decoder(z) + self.synthesis(z)
        return DecoderOutput(sample=images) if return_dict else (images,)

    def forward(self, sample: torch.Tensor) -> DecoderOutput | tuple[torch.Tensor]:
        """Decode images from the means of their latents."""
        return self.decode(compute_posterior(self, sample).mode())

    @torch.no_grad()
    def fit_patches(self, images: Callable[[], Iterable[torch.Tensor]]) -> None:
        """Start the linear map from all patches of `images()` (B, 3, H, W) in [-1, 1], which is called twice.

        Latents become principal components, scaled so that each has variance 1; the way back is least squares on the
        latents of 3 x 3 cells, noise of INITIAL_NOISE on them.

        Raises:
            ValueError: If the patches span fewer dimensions than there are latents.
        """
        cell, channels = self.analysis.kernel_size[0], self.analysis.out_channels
        count, mean, products = _average_products(F.unfold(batch.double(), cell, stride=cell) for batch in images())
        colour = mean.view(3, -1).mean(1).repeat_interleave(cell**2)
        variances, directions = torch.linalg.eigh(_centre_products(mean, products, colour))
        variances, directions = variances.flip(0)[:channels], directions.flip(1)[:, :channels].T
        if not variances[-1] > MIN_VARIANCE:
            raise ValueError(f"{count} patches of {cell} pixels vary in fewer than {channels} directions: give more")
        towards = directions / variances.sqrt()[:, None]
        self.analysis.weight.copy_(towards.view_as(self.analysis.weight))
        self.analysis.get_parameter("bias").copy_(-towards @ colour)

        def unfold_neighbours() -> Iterator[torch.Tensor]:  # the latents round each patch, and the patch
            for batch in images():
                latents = F.pad(self.analysis(batch), (1, 1, 1, 1), mode="replicate").double()
                yield torch.cat([F.unfold(latents, 3), F.unfold(batch.double(), cell, stride=cell)], dim=1)

        inputs = 9 * channels
        _, mean, products = _average_products(unfold_neighbours())
        covariance = _centre_products(mean, products, mean)
        noise = INITIAL_NOISE**2 * torch.eye(inputs).double()
        back = torch.linalg.solve(covariance[:inputs, :inputs] + noise, covariance[:inputs, inputs:]).T
        weight = self.synthesis.get_parameter("0.weight")
        weight.copy_(back.view_as(weight))
        self.synthesis.get_parameter("0.bias").copy_(mean[inputs:] - back @ mean[:inputs])


def _average_products(batches: Iterable[torch.Tensor]) -> tuple[int, torch.Tensor, torch.Tensor]:
    """Return the number, the mean (D,) and the mean outer product (D, D) of the columns of batches (B, D, N)."""
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        rows = batch.transpose(1, 2).flatten(0, 1)
        count, total, products = count + len(rows), total + rows.sum(0), products + rows.T @ rows
    return count, total / max(count, 1), products / max(count, 1)


def _centre_products(mean: torch.Tensor, products: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """Return the mean outer product (D, D) of the differences from `centre`."""
    crossed = torch.outer(mean, centre)
    return products - crossed - crossed.T + torch.outer(centre, centre)


class ResolutionLevels(nn.Module):
    """Residual blocks at each of `channels`, in order, with `resample` (halving or doubling) between them."""

    def __init__(
        self, channels: tuple[int, ...], layers: int, groups: int, resample: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList(ResnetBlock2D(in_channels=width, temb_channels=None, groups=groups) for _ in range(layers))
            for width in channels
        )
        self.resamples = nn.ModuleList(resample(width, following) for width, following in pairwise(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for level in range(len(self.blocks)):
            x = self.run_level(level, x)
        return x

    def run_level(self, level: int, x: torch.Tensor, addition: torch.Tensor | None = None) -> torch.Tensor:
        """Resample the output of the level before, add `addition` and run the residual blocks."""
        x = self.resamples[level - 1](x) if level else x
        x = x if addition is None else x + addition
        for block in cast(nn.ModuleList, self.blocks[level]):
            x = block(x, None)
        return x


def zero_module(layer: M) -> M:
    """Return `layer` with zero weights, so that it adds nothing before it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def build_downsampler(wide_in: int, wide_out: int) -> nn.Module:
    """Build a convolution that halves the size."""
    return nn.Conv2d(wide_in, wide_out, 3, stride=2, padding=1)


def build_upsampler(wide_in: int, wide_out: int) -> nn.Module:
    """Build a nearest-neighbour doubling and a convolution: no checkerboard (Odena et al. 2016)."""
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(wide_in, wide_out, 3, padding=1))


Vae: TypeAlias = AutoencoderKL | PixelAutoencoder
VAE_CLASSES: dict[str, type[Vae]] = {"AutoencoderKL": AutoencoderKL, "PixelAutoencoder": PixelAutoencoder}


def build_vae(spec: VaeSpec, *, sample_size: int) -> Vae:
    """Build the autoencoder of `spec`, random or from `spec.init_from`; `sample_size` is the side of training images.

    Raises:
        ValueError: If `init_from` holds another kind or size: the spec's values would be ignored.
    """
    if sample_size % spec.factor:
        raise ValueError(f"images of {sample_size} pixels do not fit latent cells of {spec.factor}: use a multiple")
    if spec.init_from is not None:
        return _check_config(load_vae(spec.init_from), spec)
    common: dict[str, Any] = {
        "layers_per_block": spec.layers_per_block,
        "latent_channels": spec.latent_channels,
        "norm_num_groups": spec.norm_groups,
        "sample_size": sample_size,
    }
    if spec.patch is not None:
        return PixelAutoencoder(channels=spec.channels, patch=spec.patch, **common)
    return AutoencoderKL(
        block_out_channels=spec.channels,
        down_block_types=("DownEncoderBlock2D",) * len(spec.channels),
        up_block_types=("UpDecoderBlock2D",) * len(spec.channels),
        scaling_factor=1.0,
        **common,
    )


def load_vae(source: str | Path) -> Vae:
    """Load the autoencoder in a directory or hub repository: the model itself, or a pipeline's `vae` folder.

    Raises:
        ValueError: It holds none, or one of another class.
    """
    folder = fetch_snapshot(str(source), subfolder="vae").folder
    if not (folder / "config.json").is_file():
        raise ValueError(f"{source} holds no config.json: name an autoencoder of diffusers, or a pipeline with vae/")
    name = PixelAutoencoder.load_config(folder)["_class_name"]
    if name not in VAE_CLASSES:
        raise ValueError(f"{folder} holds a {name}: the autoencoder must be one of {', '.join(VAE_CLASSES)}")
    return load_safetensors(VAE_CLASSES[name], folder)


def compute_posterior(vae: Vae, images: torch.Tensor) -> DiagonalGaussianDistribution:
    """Return the posterior over the raw latents of images (B, 3, H, W) in [-1, 1]."""
    return vae.encode(images, return_dict=False)[0]  # type: ignore[index]


def decode_latents(vae: Vae, latents: torch.Tensor) -> torch.Tensor:
    """Decode raw latents (B, C, h, w) to images (B, 3, H, W), about [-1, 1]."""
    return vae.decode(latents, return_dict=False)[0]  # type: ignore[index]


def _check_config(vae: Vae, spec: VaeSpec) -> Vae:
    kind = "pixel" if isinstance(vae, PixelAutoencoder) else "kl"
    loaded = {
        "kind": kind,
        "channels": tuple(get_channels(vae)),
        "layers_per_block": vae.config["layers_per_block"],
        "latent_channels": vae.config["latent_channels"],
        "patch": vae.config.get("patch"),
        "norm_groups": vae.config["norm_num_groups"],
    }
    for name, value in loaded.items():
        if value != getattr(spec, name):
            raise ValueError(f"vae.{name} is {getattr(spec, name)}, but {spec.init_from} has {value}: make them agree")
    return vae


def get_channels(vae: Vae) -> list[int]:
    """Return the width of each resolution, finest first."""
    return list(vae.config["channels" if isinstance(vae, PixelAutoencoder) else "block_out_channels"])


def get_patch(vae: Vae) -> int:
    """Return the side of the pixel-unshuffle; 1: there is none."""
    return int(vae.config.get("patch") or 1)


def get_scale_factor(vae: Vae) -> int:
    """Return the number of pixels along the side of a latent cell."""
    return compute_scale_factor(vae.config)


def compute_scale_factor(config: Mapping[str, Any]) -> int:
    """Return the same of an autoencoder's config."""
    channels = config.get("channels") or config["block_out_channels"]
    return int(config.get("patch") or 1) * 2 ** (len(channels) - 1)


@dataclass(frozen=True, slots=True)
class LatentScale:
    """Affine map between raw latents and the denoiser's: (raw - mean) / std * scale, as stock diffusers undoes it."""

    mean: torch.Tensor  # (C,)
    std: torch.Tensor  # (C,)
    scale: float

    def normalize(self, raw: torch.Tensor) -> torch.Tensor:
        """Map raw latents (B, C, h, w) to the denoiser's: about zero mean and unit variance."""
        return (raw - self._per_channel(self.mean, raw)) / self._per_channel(self.std, raw) * self.scale

    def denormalize(self, latents: torch.Tensor) -> torch.Tensor:
        """Map the denoiser's latents to raw ones, which the autoencoder decodes."""
        return latents / self.scale * self._per_channel(self.std, latents) + self._per_channel(self.mean, latents)

    @staticmethod
    def _per_channel(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return values.to(like)[:, None, None]


def get_latent_scale(vae: Vae) -> LatentScale:
    """Return the map in the autoencoder's config, where stock pipelines look for it (`latents_mean`, `latents_std`).

    A public autoencoder has its `scaling_factor` and `shift_factor` instead: public denoisers know its latents so.
    """
    mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
    channels, shift = vae.config["latent_channels"], vae.config.get("shift_factor") or 0.0
    return LatentScale(
        torch.full((channels,), shift) if mean is None else torch.tensor(mean),
        torch.ones(channels) if std is None else torch.tensor(std),
        float(vae.config["scaling_factor"]),
    )


@torch.no_grad()
def fold_latent_scale(vae: AutoencoderKL) -> AutoencoderKL:
    """Return a copy whose raw latents are the denoiser's: the map of `get_latent_scale` stands in its weights.

    Stock pipelines of Flux know a scaling factor and a shift alone; the copy's are 1 and 0. Images of the same latents
    are as before, to rounding.
    """
    folded, scale, channels = copy.deepcopy(vae), get_latent_scale(vae), int(vae.config["latent_channels"])
    factor = scale.scale / scale.std
    towards = folded.quant_conv or _build_identity(2 * channels)
    means, log_variances = towards.get_parameter("bias").chunk(2)
    towards.weight[:channels] *= factor[:, None, None, None]
    means.sub_(scale.mean).mul_(factor)
    log_variances.add_(2 * factor.log())
    back = folded.post_quant_conv or _build_identity(channels)
    back.get_parameter("bias").add_(back.weight[:, :, 0, 0] @ scale.mean)
    back.weight /= factor[:, None, None]
    folded.quant_conv, folded.post_quant_conv = towards, back
    folded.register_to_config(
        use_quant_conv=True,
        use_post_quant_conv=True,
        latents_mean=None,
        latents_std=None,
        scaling_factor=1.0,
        shift_factor=0.0,
    )
    return folded


def _build_identity(channels: int) -> nn.Conv2d:
    """Build a convolution of one pixel that changes nothing."""
    layer = nn.Conv2d(channels, channels, 1)
    nn.init.dirac_(layer.weight)
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


def store_latent_statistics(vae: Vae, batches: Iterable[FrameBatch]) -> None:
    """Write mean and deviation of each latent channel over `images`, uint8 (B, 3, H, W), to the autoencoder's config.

    The variance includes each posterior's own; the scaling factor becomes 1. ValueError for no image, and for channels
    that never vary.
    """
    from canvas.pins.images import bytes_to_tensor

    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        posterior = compute_posterior(vae, bytes_to_tensor(batch["images"].to(vae.device)))
        mean = posterior.mean.detach().double()
        count += mean.numel() // mean.shape[1]
        total = total + mean.sum(dim=(0, 2, 3))
        squares = squares + (mean.square() + posterior.var.detach().double()).sum(dim=(0, 2, 3))
    if not count:
        raise ValueError("latent statistics of no image: give the training images to the autoencoder first")
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    if flat := (std < 1e-4).nonzero().flatten().tolist():
        raise ValueError(f"latent channels {flat} never vary: train longer or lower the KL weight")
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist(), scaling_factor=1.0)
