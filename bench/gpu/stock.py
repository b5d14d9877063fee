"""The loss of diffusers' own example scripts, for both families: what our training is measured against.

The UNet's is that of examples/text_to_image/train_text_to_image_sdxl.py; the transformer's that of
examples/dreambooth/train_dreambooth_flux.py: packed latents, uniform times, the flow as the target.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDPMScheduler
from torch.nn import functional as F


class StockLoss:
    """The loss of a model, which may be wrapped or compiled, for clean latents (N, C, h, w) and their text."""

    def __init__(self, kind: str, train_timesteps: int = 1000) -> None:
        self.compute = {"unet": self._compute_unet_loss, "dit": self._compute_dit_loss}[kind]
        self.schedule = DDPMScheduler(num_train_timesteps=train_timesteps)

    def __call__(
        self, model: Any, clean: torch.Tensor, states: torch.Tensor, pooled: torch.Tensor, sizes: torch.Tensor
    ) -> torch.Tensor:
        return self.compute(model, clean, states, pooled, sizes)

    def _compute_unet_loss(self, model: Any, clean: Any, states: Any, pooled: Any, sizes: Any) -> torch.Tensor:
        noise = torch.randn_like(clean)
        times = torch.randint(0, self.schedule.config["num_train_timesteps"], (len(clean),), device=clean.device)
        added = {"text_embeds": pooled, "time_ids": sizes}
        noisy = self.schedule.add_noise(clean, noise, times)
        prediction = model(noisy, times, states, added_cond_kwargs=added, return_dict=False)[0]
        return F.mse_loss(prediction.float(), noise.float(), reduction="mean")

    def _compute_dit_loss(self, model: Any, clean: Any, states: Any, pooled: Any, sizes: Any) -> torch.Tensor:
        from diffusers import FluxPipeline  # text encoders of transformers with it

        number, channels, height, width = clean.shape
        noise = torch.randn_like(clean)
        share = torch.rand(number).to(clean.device)
        sigma = share[:, None, None, None]
        noisy = (1.0 - sigma) * clean + sigma * noise
        places = FluxPipeline._prepare_latent_image_ids(number, height // 2, width // 2, clean.device, clean.dtype)
        tokens = model(
            hidden_states=FluxPipeline._pack_latents(noisy, number, channels, height, width),
            timestep=share,
            guidance=None,
            pooled_projections=pooled,
            encoder_hidden_states=states,
            txt_ids=torch.zeros(states.shape[1], 3, device=clean.device, dtype=clean.dtype),
            img_ids=places,
            return_dict=False,
        )[0]
        prediction = FluxPipeline._unpack_latents(tokens, height, width, vae_scale_factor=1)
        return F.mse_loss(prediction.float(), (noise - clean).float(), reduction="mean")
