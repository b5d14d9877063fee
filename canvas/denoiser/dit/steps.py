"""Flux's transformer for the steps from noise to latents: its own prediction up to rounding, by fewer operations.

What all steps share is computed once: text, the tokens' places, the first layer's share of masked latents and hole.
Layers that read the same are one product of matrices, with LoRAs folded into it, and the last block gives the image's
tokens alone. It copies the weights that it joins, so a large model keeps its own forward pass.

N: latents in a pass, C: latent channels, h and w: latent size. T and I: tokens of text and image, S: both; W: width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.transformers.transformer_flux import (
    FluxAttention,
    FluxAttnProcessor,
    FluxIPAdapterAttnProcessor,
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
)
from torch import nn
from torch.nn import functional as F

from canvas.denoiser.dit.model import TIMESTEPS, build_token_places, pack_latents, reads_guidance, unpack_latents
from canvas.denoiser.dit.spec import PATCH
from canvas.denoiser.family import Change, DenoiserCondition
from canvas.denoiser.passes.layers import compute_folded_weight, get_bias, has_folded_weight

MAX_PARAMETERS = 100_000_000
"""Largest model whose weights are copied for a pass."""

ROWS = 8
"""Rows of a condition that a processor computes at once, so that what lies between two layers may stay in its cache."""

EPSILON = 1e-6
"""What every norm of the transformer adds to a variance."""

GELU = 1.5957691216057308, 0.07135481282614186
"""2 sqrt(2 / pi), and 0.044715 times it: gelu(x) is x sigmoid(x (first + second x^2)) where stock's is by tanh."""

LAYERS = (
    *(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
    *(f"attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
    *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp", "proj_out"),
    *("norm.linear", "norm1.linear", "norm1_context.linear"),
)
"""Layers of a block that every step reads, where it has them."""


def can_prepare(dit: FluxTransformer2DModel) -> bool:
    """Return whether `PreparedDit` gives what the model would: it is small, and its layers are as its class made them,
    without hooks, compiled parts, or LoRAs of another kind."""
    layers = [layer for name, layer in dit.named_modules() if name.endswith(tuple(f".{name}" for name in LAYERS))]
    attentions = [module for module in dit.modules() if isinstance(module, FluxAttention)]
    return (
        len(dit.single_transformer_blocks) > 0
        and dit.dtype != torch.float16  # whose overflows the model clips
        and sum(weight.numel() for weight in dit.parameters()) <= MAX_PARAMETERS
        and not dit.is_cache_enabled
        and not any(_has_hooks(module) for module in dit.modules())
        and all(
            isinstance(attention.processor, FluxAttnProcessor | FluxIPAdapterAttnProcessor)
            and attention.processor._attention_backend is None
            and not attention.fused_projections
            for attention in attentions
        )
        and all(has_folded_weight(layer) for layer in (dit.x_embedder, dit.norm_out.linear, dit.proj_out, *layers))
    )


def _has_hooks(module: nn.Module) -> bool:
    """Return whether something stands before or behind the module's own forward pass, or in its place."""
    return (
        bool(module._forward_hooks or module._forward_pre_hooks)
        or module._compiled_call_impl is not None
        or "forward" in module.__dict__
        or hasattr(module, "_hf_hook")
    )


class PreparedDit:
    """A transformer with the condition and the known region of one way from noise to latents.

    Args:
        dit: The model, for which `can_prepare` is true; its weights must not change meanwhile.
        condition: Of N rows, or 2 N: both halves of guidance.
        hole: (N, K, h, w); None: text-to-image.
        masked: Masked latents (N, C, h, w); None: likewise.
        size: h and w.
    """

    def __init__(
        self,
        dit: FluxTransformer2DModel,
        condition: DenoiserCondition,
        hole: torch.Tensor | None,
        masked: torch.Tensor | None,
        size: tuple[int, int],
    ) -> None:
        self.time, self.dtype, self.size = dit.time_text_embed, dit.dtype, size
        self.text = dit.context_embedder(condition.states)
        self.pooled = self._embed_pooled(dit, condition)
        places = build_token_places(size[0] // PATCH, size[1] // PATCH, self.text.device)
        words = torch.zeros(self.text.shape[1], 3, device=self.text.device)
        cosine, sine = dit.pos_embed(torch.cat([words, places]))
        # (S, numbers of a head / 2): by how much each pair of numbers is turned
        self.turns = torch.complex(cosine[:, ::2].contiguous(), sine[:, ::2].contiguous())
        images = None if condition.images is None else dit.encoder_hid_proj(condition.images)
        self.weight = compute_folded_weight(dit.x_embedder)
        self.bias: torch.Tensor | None = get_bias(dit.x_embedder)
        self.masked_inputs: torch.Tensor | None = None
        if hole is not None and masked is not None:
            masked_tokens = pack_latents(torch.cat([masked, hole], dim=1))
            self.weight, masked_weight = self.weight.tensor_split(
                (self.weight.shape[1] - masked_tokens.shape[-1],), dim=1
            )
            self.masked_inputs, self.bias = F.linear(masked_tokens, masked_weight, self.bias), None
        self.doubles = [_DoubleBlock(block, images) for block in dit.transformer_blocks]
        self.singles = [_SingleBlock(block) for block in dit.single_transformer_blocks]
        self.modulation, self.output = _Product(dit.norm_out.linear), _Product(dit.proj_out)

    def __call__(
        self, latents: torch.Tensor, timestep: torch.Tensor, change: Change = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the predictions (N or 2 N, C, h, w) for noisy latents (N, C, h, w) at one timestep, and what the
        blocks did, or as `change` says they do."""
        image = F.linear(pack_latents(latents), self.weight, self.bias)
        image = image if self.masked_inputs is None else image + self.masked_inputs
        image = image.repeat(len(self.text) // len(image), 1, 1)
        embedding = F.silu(self.pooled + self._embed_time(timestep))
        after = self._run_blocks(image, embedding) if change is None else image + change
        scale, shift = self.modulation(embedding).chunk(2, dim=1)
        tokens = self.output(_modulate(after, shift, scale))
        return unpack_latents(tokens, *self.size), after - image if change is None else change

    def _run_blocks(self, image: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Return the image's tokens after all blocks; on a processor of some rows after the other."""
        count = ROWS if image.device.type == "cpu" else len(image)
        parts = [slice(first, first + count) for first in range(0, len(image), count)]
        return torch.cat([self._run_rows(image[rows], embedding[rows], rows) for rows in parts])

    def _run_rows(self, image: torch.Tensor, embedding: torch.Tensor, rows: slice) -> torch.Tensor:
        text = self.text[rows]
        for block in self.doubles:
            text, image = block(text, image, embedding, self.turns, rows)
        joint = torch.cat([text, image], dim=1)
        for single in self.singles[:-1]:
            joint = single(joint, embedding, self.turns)
        return self.singles[-1](joint, embedding, self.turns, first=text.shape[1])

    def _embed_time(self, timestep: torch.Tensor) -> torch.Tensor:
        """Return the embedding (1, W) of a timestep, rounded on the way as the model does it."""
        return self._embed_number(self.time.timestep_embedder, timestep.reshape(-1) / TIMESTEPS)

    def _embed_number(self, embedder: nn.Module, number: torch.Tensor) -> torch.Tensor:
        waves = self.time.time_proj(number.to(self.dtype) * TIMESTEPS)
        embedded: torch.Tensor = embedder(waves.to(self.dtype))
        return embedded

    def _embed_pooled(self, dit: FluxTransformer2DModel, condition: DenoiserCondition) -> torch.Tensor:
        """Return what a step's embedding has beside its time, (N, W)."""
        pooled: torch.Tensor = self.time.text_embedder(condition.pooled)
        if not reads_guidance(dit.config):
            return pooled
        scale = pooled.new_ones(1) if condition.guidance is None else condition.guidance
        return pooled + self._embed_number(self.time.guidance_embedder, scale)


class _Product:
    """Layers that read the same, as one product of matrices; their outputs lie side by side."""

    def __init__(self, *layers: nn.Module) -> None:
        weights, biases = [compute_folded_weight(layer) for layer in layers], [get_bias(layer) for layer in layers]
        self.weight = torch.cat(weights) if len(layers) > 1 else weights[0]
        self.bias = torch.cat(biases) if len(layers) > 1 else biases[0]

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        return F.linear(values, self.weight, self.bias)

    def multiply_part(self, values: torch.Tensor, outputs: slice) -> torch.Tensor:
        """Return some of the outputs."""
        return F.linear(values, self.weight[outputs], self.bias[outputs])


class _DoubleBlock:
    """A block in which text and image have weights of their own, and the image attends to image prompts, too."""

    def __init__(self, block: FluxTransformerBlock, images: Sequence[torch.Tensor] | None) -> None:
        attention, image, text = block.attn, block.ff.net, block.ff_context.net
        self.heads = attention.heads
        self.image = _Stream(
            modulation=block.norm1.linear,
            projections=(attention.to_q, attention.to_k, attention.to_v),
            norms=(attention.norm_q, attention.norm_k),
            rest=(attention.to_out[0], image[0].proj, image[2]),
        )
        self.text = _Stream(
            modulation=block.norm1_context.linear,
            projections=(attention.add_q_proj, attention.add_k_proj, attention.add_v_proj),
            norms=(attention.norm_added_q, attention.norm_added_k),
            rest=(attention.to_add_out, text[0].proj, text[2]),
        )
        self.prompts = self._project_images(attention, images or [])

    def __call__(
        self, text: torch.Tensor, image: torch.Tensor, embedding: torch.Tensor, turns: torch.Tensor, rows: slice
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return text (N, T, W) and image (N, I, W) after the block, which are those rows of the condition."""
        words, image_inputs = self.text.modulate(embedding), self.image.modulate(embedding)
        parts = self.text.project(text, words, self.heads), self.image.project(image, image_inputs, self.heads)
        query, key, value = (torch.cat(pair, dim=1) for pair in zip(*parts, strict=True))
        attended = attend(turn(query, turns), turn(key, turns), value.transpose(1, 2).contiguous()).flatten(2)
        length = text.shape[1]
        query = parts[1][0].transpose(1, 2)
        prompted = [
            scale * attend(query, prompt_key[rows], prompt_value[rows]).flatten(2)
            for prompt_key, prompt_value, scale in self.prompts
        ]
        text = self.text.add(text, attended[:, :length], words)
        image = self.image.add(image, attended[:, length:], image_inputs)
        return text, sum(prompted, start=image)

    def _project_images(
        self, attention: FluxAttention, images: Sequence[torch.Tensor]
    ) -> list[tuple[torch.Tensor, torch.Tensor, float]]:
        """Return keys and values of each set of image tokens that counts, and how much it does."""
        processor = attention.processor
        if not images or not isinstance(processor, FluxIPAdapterAttnProcessor):
            return []
        sets = zip(images, processor.scale, processor.to_k_ip, processor.to_v_ip, strict=True)
        return [
            (self._split_heads(to_key(tokens)), self._split_heads(to_value(tokens)), scale)
            for tokens, scale, to_key, to_value in sets
            if scale != 0
        ]

    def _split_heads(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return (N, images, tokens, W) as (N, heads, all tokens, numbers of a head)."""
        return torch.unflatten(tokens.flatten(1, -2), -1, (self.heads, -1)).transpose(1, 2)


class _Stream:
    """The text's or the image's weights of a double block."""

    def __init__(
        self,
        *,
        modulation: nn.Module,
        projections: Sequence[nn.Module],
        norms: tuple[nn.RMSNorm, nn.RMSNorm],
        rest: Sequence[nn.Module],
    ) -> None:
        self.modulation, self.projection = _Product(modulation), _Product(*projections)
        self.query_norm, self.key_norm = (norm.weight for norm in norms)
        self.out, self.widen, self.narrow = (_Product(layer) for layer in rest)

    def modulate(self, embedding: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return shift, scale and gate (N, W) of the attention, then those of the layers after it."""
        return self.modulation(embedding).chunk(6, dim=1)

    def project(self, tokens: torch.Tensor, parts: Sequence[torch.Tensor], heads: int) -> tuple[torch.Tensor, ...]:
        """Return queries, keys and values, each (N, tokens, heads, numbers of a head)."""
        projected = self.projection(_modulate(tokens, *parts[:2]))
        query, key, value = torch.unflatten(projected, -1, (3, heads, -1)).unbind(-3)
        return _norm(query, self.query_norm), _norm(key, self.key_norm), value

    def add(self, tokens: torch.Tensor, attended: torch.Tensor, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return tokens with what they attended to, and with what the layers after it say."""
        _, _, gate, shift, scale, last_gate = parts
        tokens = torch.addcmul(tokens, gate[:, None], self.out(attended))
        wide = activate(self.widen(_modulate(tokens, shift, scale)))
        return torch.addcmul(tokens, last_gate[:, None], self.narrow(wide))


class _SingleBlock:
    """A block in which text and image share weights; attention and the other layers read the same."""

    def __init__(self, block: FluxSingleTransformerBlock) -> None:
        attention = block.attn
        self.heads, self.width = attention.heads, attention.inner_dim
        self.modulation, self.out = _Product(block.norm.linear), _Product(block.proj_out)
        self.projection = _Product(attention.to_k, attention.to_v, attention.to_q, block.proj_mlp)
        self.query_norm, self.key_norm = attention.norm_q.weight, attention.norm_k.weight

    def __call__(
        self, tokens: torch.Tensor, embedding: torch.Tensor, turns: torch.Tensor, *, first: int = 0
    ) -> torch.Tensor:
        """Return the tokens (N, S, W) after the block, those from `first` on."""
        shift, scale, gate = self.modulation(embedding).chunk(3, dim=1)
        normed = _modulate(tokens, shift, scale)
        if first:
            both = self.projection.multiply_part(normed, slice(None, 2 * self.width))
            rest = self.projection.multiply_part(normed[:, first:], slice(2 * self.width, None))
        else:
            both, rest = self.projection(normed).tensor_split((2 * self.width,), dim=-1)
        key, value = torch.unflatten(both, -1, (2, self.heads, -1)).unbind(-3)
        query, wide = rest.tensor_split((self.width,), dim=-1)
        query = _norm(torch.unflatten(query, -1, (self.heads, -1)), self.query_norm)
        buffer = wide.new_empty(*wide.shape[:2], self.width + wide.shape[-1])
        attended, activated = buffer.tensor_split((self.width,), dim=-1)
        value = value.transpose(1, 2).contiguous()
        attention = attend(turn(query, turns[first:]), turn(_norm(key, self.key_norm), turns), value)
        torch.unflatten(attended, -1, (self.heads, -1)).copy_(attention)
        activate(wide, activated)
        return torch.addcmul(tokens[:, first:], gate[:, None], self.out(buffer))


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return what queries (N, heads, Q, numbers) attend to among (N, heads, S, numbers), as (N, Q, heads, numbers)."""
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2)


def turn(values: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Turn pairs of numbers (N, S, heads, numbers) by their token's place (Su et al. 2021, section 3.4.2).

    Returns (N, heads, S, numbers), one head after the other in memory, as attention reads them.
    """
    pairs = torch.view_as_complex(torch.unflatten(values.float(), -1, (-1, 2))).transpose(1, 2)
    turned = torch.mul(pairs, turns, out=pairs.new_empty(pairs.shape))
    return torch.view_as_real(turned).flatten(-2).to(values.dtype)


def activate(values: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Return stock's GELU, of its tanh's kind, in `out` if that is given; on a processor in fp32 by its other form,
    without a tanh."""
    if values.dtype != torch.float32 or values.device.type != "cpu":
        activated = F.gelu(values, approximate="tanh")
        return activated if out is None else out.copy_(activated)
    first, second = GELU
    inner = torch.addcmul(values.new_tensor(first), values, values, value=second)
    return torch.mul(inner.mul_(values).sigmoid_(), values, out=out)


def _modulate(tokens: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return normed tokens (N, S, W), scaled and shifted by a row each (adaLN, Peebles and Xie 2023)."""
    normed = F.layer_norm(tokens, tokens.shape[-1:], eps=EPSILON)
    return torch.addcmul(shift[:, None], normed, 1 + scale[:, None])


def _norm(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(values, weight.shape, weight, EPSILON)
