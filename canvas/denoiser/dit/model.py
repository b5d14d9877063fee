"""Flux's transformer at any size, its inpainting form, and what it reads.

It reads latents packed: 2 x 2 cells are one token. The inpainting form reads [noisy latents, masked latents, hole]
along the channels, in the order of diffusers' `FluxFillPipeline`; *hole* is 1 where the denoiser generates, and has all
its pixels: those of a latent cell are channels. N: latents, C: latent channels, h and w: latent size.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from torch import nn
from torch.nn import functional as F

from canvas.denoiser.dit.spec import PATCH, DitSpec
from canvas.denoiser.family import DenoiserCondition

CELLS = PATCH**2
"""Latent cells of a token."""

CLASS_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(FluxTransformer2DModel.__init__).parameters.items()
    if parameter.default is not parameter.empty
}
"""Values that files of public configs leave out, as FLUX.1-dev's the widths of the places."""

TIMESTEPS = 1000
"""Timestep of pure noise: the model itself reads 0 to 1."""


def run_dit(
    dit: FluxTransformer2DModel, latents: torch.Tensor, timestep: torch.Tensor, condition: DenoiserCondition
) -> torch.Tensor:
    """Return the prediction (N, C, h, w) for noisy latents, of inpainting with `build_inpaint_input`'s channels.

    Sizes are not read. A model that was distilled with guidance reads the condition's scale, or 1.
    """
    number, _, height, width = latents.shape
    images = {} if condition.images is None else {"ip_adapter_image_embeds": condition.images}
    guidance = None
    if reads_guidance(dit.config):
        guidance = latents.new_ones(number) if condition.guidance is None else condition.guidance
    tokens: torch.Tensor = dit(
        hidden_states=pack_latents(latents),
        encoder_hidden_states=condition.states,
        pooled_projections=condition.pooled,
        timestep=timestep.reshape(-1).expand(number) / TIMESTEPS,
        img_ids=build_token_places(height // PATCH, width // PATCH, latents.device),
        txt_ids=torch.zeros(condition.states.shape[1], 3, device=latents.device),
        guidance=guidance,
        joint_attention_kwargs=images or None,
        return_dict=False,
    )[0]
    return unpack_latents(tokens, height, width)


def run_dit_from_change(
    dit: FluxTransformer2DModel,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    condition: DenoiserCondition,
    change: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the prediction, and what all blocks together did to the image's tokens (N, tokens, width).

    `change`: that of an earlier step, which is taken for this one's. First and last layers read this step's own latents
    and time (as DeepCache, Ma et al. 2023, and first-block caches do it).
    """
    if change is None:
        seen: list[torch.Tensor] = []
        hooks = (
            dit.x_embedder.register_forward_hook(lambda module, inputs, output: seen.append(output)),
            dit.norm_out.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])),
        )
        try:
            prediction = run_dit(dit, latents, timestep, condition)
        finally:
            for hook in hooks:
                hook.remove()
        before, after = seen
        return prediction, after - before
    height, width = latents.shape[-2:]
    time = timestep.reshape(-1).expand(len(latents)) / TIMESTEPS
    numbers = [time]
    if reads_guidance(dit.config):
        numbers.append(torch.ones_like(time) if condition.guidance is None else condition.guidance)
    scaled = [number.to(latents.dtype) * TIMESTEPS for number in numbers]
    embedding = dit.time_text_embed(*scaled, condition.pooled)
    tokens = dit.proj_out(dit.norm_out(dit.x_embedder(pack_latents(latents)) + change, embedding))
    return unpack_latents(tokens, height, width), change


def pack_latents(latents: torch.Tensor) -> torch.Tensor:
    """Return latents (N, K, h, w) as tokens (N, h/2 * w/2, 4 K), row by row."""
    return F.pixel_unshuffle(latents, PATCH).flatten(2).mT.contiguous()


def unpack_latents(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return tokens as latents of that size: undoes `pack_latents`."""
    return F.pixel_shuffle(tokens.mT.reshape(len(tokens), -1, height // PATCH, width // PATCH), PATCH)


def build_token_places(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """Return (rows * columns, 3): 0, row and column of each token."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    places = torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1)
    return places.to(device, torch.float32)


def build_dit_config(
    spec: DitSpec, *, latent_channels: int, sample_size: int, text_width: int, pooled_width: int
) -> dict[str, Any]:
    """Return the diffusers config of a text-to-image transformer without a guidance embedding.

    Args:
        spec: Widths and depths.
        latent_channels: Channels of the latents.
        sample_size: Side of the latents in training, which must be even; the transformer takes any other.
        text_width: Channels of the concatenated hidden states.
        pooled_width: Channels of the pooled text.
    """
    if sample_size % PATCH:
        raise ValueError(f"latents of {sample_size} cells cannot be packed {PATCH} x {PATCH}: change frames.side")
    return {
        "patch_size": 1,
        "in_channels": CELLS * latent_channels,
        "out_channels": CELLS * latent_channels,
        "num_layers": spec.double_blocks,
        "num_single_layers": spec.single_blocks,
        "attention_head_dim": spec.head_width,
        "num_attention_heads": spec.heads,
        "joint_attention_dim": text_width,
        "pooled_projection_dim": pooled_width,
        "guidance_embeds": False,
        "axes_dims_rope": spec.rope_widths,
    }


def initialize_weights(dit: FluxTransformer2DModel, spec: DitSpec) -> None:
    """Zero what modulates and the output layer of a new transformer, in place, where the spec says so.

    Gates of zero let every block pass its input on unchanged, as adaLN-zero has it (Peebles and Xie 2023, section 3.2).
    The weights are where stock diffusers looks for them, so the model loads there as any other.
    """
    if not spec.zero_modulation:
        return
    doubles = [norm.linear for block in dit.transformer_blocks for norm in (block.norm1, block.norm1_context)]
    singles = [block.norm.linear for block in dit.single_transformer_blocks]
    for layer in (*doubles, *singles, dit.norm_out.linear, dit.proj_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def check_architecture(actual: Mapping[str, Any], config: Mapping[str, Any], source: str) -> None:
    """Raise ValueError if a transformer's config is another than the params say; it may have the inputs of inpainting
    and a guidance embedding. What its file leaves out is as the class has it."""
    actual = CLASS_DEFAULTS | dict(actual)
    for key, expected in config.items():
        if key == "guidance_embeds" or (key == "in_channels" and has_inpaint_channels(actual)):
            continue
        value: Any = actual.get(key)
        if key == "out_channels":
            value = get_output_channels(actual)
        if isinstance(expected, tuple):
            value = tuple(value or ())
        if value != expected:
            raise ValueError(
                f"{source!r} has {key} {value}, the params say {expected}: make the denoiser section agree"
            )


def get_output_channels(config: Mapping[str, Any]) -> int:
    """Return the channels of a predicted token."""
    return int(config.get("out_channels") or config["in_channels"])


def reads_guidance(config: Mapping[str, Any]) -> bool:
    """Return whether a transformer of that config was distilled with guidance, as Flux Fill's [dev] was."""
    return bool(config["guidance_embeds"])


def has_inpaint_channels(config: Mapping[str, Any]) -> bool:
    """Return whether the transformer of that config reads masked latents and hole, too."""
    return int(config["in_channels"]) > get_output_channels(config)


def count_hole_channels(cell: int) -> int:
    """Count the pixels of a latent cell, `cell` on a side."""
    return cell**2


def count_inpaint_channels(latent_channels: int, cell: int) -> int:
    """Count the channels of an inpainting token: noisy latents, masked latents, hole."""
    return CELLS * (2 * latent_channels + count_hole_channels(cell))


def add_inpaint_channels(dit: FluxTransformer2DModel, cell: int) -> FluxTransformer2DModel:
    """Give a text-to-image transformer the inputs of inpainting, in place; returns it.

    The new input weights are zero, so at step 0 the output does not depend on hole and masked latents and equals the
    base's. Raises ValueError if the transformer has other inputs than latents.
    """
    old, channels = dit.x_embedder, get_output_channels(dit.config)
    if old.in_features != channels:
        raise ValueError(
            f"the denoiser already has {old.in_features} input channels for {channels} of latents: start inpainting "
            "from a text-to-image denoiser"
        )
    needed = count_inpaint_channels(channels // CELLS, cell)
    new = nn.Linear(needed, old.out_features, device=old.weight.device, dtype=old.weight.dtype)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, :channels].copy_(old.weight)
    new.bias = old.bias
    dit.x_embedder = new
    dit.register_to_config(in_channels=needed, out_channels=channels)
    return dit


def build_inpaint_input(noisy: torch.Tensor, hole: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Concatenate noisy latents (B, C, h, w), masked latents and hole, both of B or 1, for the transformer."""
    size = noisy.shape[0]
    return torch.cat([noisy, masked.expand(size, -1, -1, -1), hole.expand(size, -1, -1, -1)], dim=1)
