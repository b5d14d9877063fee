"""The conditional decoder: the autoencoder's own decoder, conditioned on the product's pixels.

After Asymmetric VQGAN (Zhu et al. 2023): an encoder of the masked image feeds every resolution of the decoder. Here
the mask and alpha are read with it, and the last operation is an exact composite on the product's core with a learned
blend in the band, so nothing after it can touch the product. Zero-initialised: before training it decodes as the
autoencoder does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypedDict

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from canvas.decoder.mosaic import remove_mosaic
from canvas.decoder.spec import DecoderSpec
from canvas.masks.composite import bound_shift, composite_product, erode_mask, mask_images
from canvas.pins.images import bytes_to_tensor
from canvas.train.draws import Draws
from canvas.vae.model import (
    VAE_CLASSES,
    LatentScale,
    PixelAutoencoder,
    ResolutionLevels,
    Vae,
    build_downsampler,
    get_channels,
    get_patch,
    zero_module,
)
from canvas.vae.objective import ImageLoss

CONDITION_CHANNELS = 5  # masked image, mask, alpha


class ConditionEncoder(nn.Module):
    """Features of the condition (B, 5, H, W) at every resolution of the decoder, finest first."""

    def __init__(self, patch: int, channels: tuple[int, ...], layers: int, groups: int) -> None:
        super().__init__()
        self.entry = nn.Sequential(
            nn.PixelUnshuffle(patch), nn.Conv2d(CONDITION_CHANNELS * patch**2, channels[0], 3, padding=1)
        )
        self.stages = ResolutionLevels(channels, layers, groups, build_downsampler)

    def forward(self, condition: torch.Tensor) -> list[torch.Tensor]:
        x = self.entry(condition)
        features = []
        for level in range(len(self.stages.blocks)):
            x = self.stages.run_level(level, x)
            features.append(x)
        return features


class ConditionalDecoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Raw latents and the product of an image -> image. Build it with `from_vae`, load it with `from_pretrained`. `vae`
    and `vae_config` name the autoencoder whose decoder this holds."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        vae: str,
        vae_config: dict[str, Any],
        channels: tuple[int, ...],
        layers_per_block: int,
        norm_num_groups: int,
        erosion: int,
        mosaic: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.trunk = VAE_CLASSES[vae].from_config(vae_config)
        del self.trunk.encoder
        if isinstance(self.trunk, PixelAutoencoder):
            del self.trunk.analysis
        self.trunk.quant_conv = None
        patch, widths = get_patch(self.trunk), get_channels(self.trunk)[::-1]  # coarsest first
        last = widths[-1]
        if not isinstance(self.trunk, PixelAutoencoder):
            widths = [widths[0], *widths[:-1]]  # diffusers' resolutions start with the width of the one before
        if len(channels) != len(widths):
            raise ValueError(f"decoder.channels has {len(channels)} entries, the autoencoder {len(widths)} resolutions")
        self.condition = ConditionEncoder(patch, tuple(channels), layers_per_block, norm_num_groups)
        self.inject = nn.ModuleList(
            zero_module(nn.Conv2d(width, wide, 1)) for width, wide in zip(reversed(channels), widths, strict=True)
        )
        self.blend = nn.Sequential(
            zero_module(nn.Conv2d(channels[0] + last, patch**2, 3, padding=1)),
            nn.PixelShuffle(patch),
        )

    @classmethod
    def from_vae(cls, vae: Vae, spec: DecoderSpec) -> ConditionalDecoder:
        """Build a decoder that starts from the weights of `vae`."""
        config = {name: value for name, value in dict(vae.config).items() if not name.startswith("_")}
        decoder = cls(
            vae=type(vae).__name__,
            vae_config=config,
            channels=spec.channels,
            layers_per_block=spec.layers_per_block,
            norm_num_groups=spec.norm_groups,
            erosion=spec.erosion,
            mosaic=None if spec.mosaic is None else asdict(spec.mosaic),
        )
        weights = vae.state_dict()
        decoder.trunk.load_state_dict({name: weights[name] for name in decoder.trunk.state_dict()})
        return decoder

    def encode_condition(self, images: torch.Tensor, mask: torch.Tensor, alpha: torch.Tensor) -> list[torch.Tensor]:
        """Encode the product of images (B, 3, H, W) in [-1, 1]: once a generation, for all its candidates."""
        return self.condition(torch.cat([mask_images(images, mask), mask, alpha], dim=1))

    def decode(self, latents: torch.Tensor, features: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode raw latents (B, C, h, w), with features of as many images, or of one for all.

        Returns:
            Images before the composite (B, 3, H, W), in eval mode without the mosaic that the config names, and the
            blend's bounded shift (B, 1, H, W).
        """
        size = len(latents)
        shared = [feature.expand(size, -1, -1, -1) for feature in features]
        hidden = self._compute_hidden(latents, shared[::-1])
        images = self._decode_image(hidden, latents)
        if self.config["mosaic"] is not None and not self.training:
            images = remove_mosaic(images, **self.config["mosaic"])
        return images, bound_shift(self.blend(torch.cat([shared[0], hidden], dim=1)))

    def forward(
        self, latents: torch.Tensor, images: torch.Tensor, mask: torch.Tensor, alpha: torch.Tensor
    ) -> torch.Tensor:
        """Decode images (B, 3, H, W) and put the product of `images` back; mask and alpha are (B, 1, H, W)."""
        decoded, shift = self.decode(latents, self.encode_condition(images, mask, alpha))
        return composite_product(decoded, images, erode_mask(mask, self.config["erosion"]), mask, alpha, shift)

    def _compute_hidden(self, latents: torch.Tensor, coarsest_first: list[torch.Tensor]) -> torch.Tensor:
        """Return the decoder's last hidden states, after norm and activation."""
        injected = [inject(feature) for inject, feature in zip(self.inject, coarsest_first, strict=True)]
        trunk = self.trunk
        if isinstance(trunk, PixelAutoencoder):
            entry, levels, norm, activation, _, _ = trunk.decoder
            x = entry(latents)
            for level, feature in enumerate(injected):
                x = levels.run_level(level, x, feature)
            return activation(norm(x))
        x = latents if trunk.post_quant_conv is None else trunk.post_quant_conv(latents)
        x = trunk.decoder.mid_block(trunk.decoder.conv_in(x))
        for block, feature in zip(trunk.decoder.up_blocks, injected, strict=True):
            x = block(x + feature)
        return trunk.decoder.conv_act(trunk.decoder.conv_norm_out(x))

    def _decode_image(self, hidden: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        if isinstance(self.trunk, PixelAutoencoder):
            return self.trunk.decoder[5](self.trunk.decoder[4](hidden)) + self.trunk.synthesis(latents)
        return self.trunk.decoder.conv_out(hidden)


class DecoderBatch(TypedDict):
    """Pins of one frame, with their latents."""

    pin_id: list[str]
    images: torch.Tensor  # uint8 (B, 3, H, W)
    latents: torch.Tensor  # (B, C, h, w), raw, encoded or generated
    mask: torch.Tensor  # (B, 1, H, W), 1 = product
    alpha: torch.Tensor  # (B, 1, H, W), 0..1
    target_mask: torch.Tensor  # (B, 1, H, W), 1 where the decoded image is to equal `images`


class DecoderObjective:
    """Loss of the conditional decoder.

    The decoded image is to equal the pin everywhere for encoded latents, on the product for generated ones. Elsewhere
    only the discriminator counts.

    A denoiser's latents are a little off everywhere, and images show it most where cells meet. So encoded latents get
    noise of a deviation drawn from 0 to `latent_noise`, in units of `scale`, and the decoder learns to see through it
    (Zheng et al. 2025, Diffusion Transformers with Representation Autoencoders, section 3.3).
    """

    def __init__(self, loss: ImageLoss, *, scale: LatentScale, latent_noise: float) -> None:
        self.loss = loss
        self.scale = scale
        self.latent_noise = latent_noise

    def __call__(
        self, decoder: ConditionalDecoder, batch: DecoderBatch, draws: Draws
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        images, latents, target_mask = bytes_to_tensor(batch["images"]), batch["latents"].float(), batch["target_mask"]
        is_encoded = target_mask.amin(dim=(1, 2, 3), keepdim=True)
        level = self.latent_noise * is_encoded * draws.uniform(len(latents), 1, 1, 1)
        noisy = self.scale.normalize(latents) + level * draws.normal(*latents.shape)
        decoded = decoder(self.scale.denormalize(noisy), images, batch["mask"], batch["alpha"])
        loss, outputs = self.loss(target_mask * decoded + (1 - target_mask) * images, images, draws.step)
        return loss, outputs | {"reconstructions": decoded}
