"""The image half of an open_clip encoder as a part of a diffusers pipeline: it embeds image prompts."""

from __future__ import annotations

from collections.abc import Sequence

import open_clip
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from canvas.clip.model import build_clip_config, set_preprocessing
from canvas.clip.spec import ClipSpec


class ImageTower(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """An open_clip encoder, `clip`, without a text tower: see `canvas.features.perceptual.compute_image_embeddings`."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        embed_dim: int,
        quick_gelu: bool,
        image_size: int,
        patch_size: int,
        width: int,
        layers: int,
        head_width: int,
        mlp_ratio: float,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        clip = open_clip.CLIP(
            embed_dim=embed_dim,
            quick_gelu=quick_gelu,
            vision_cfg={
                "image_size": image_size,
                "layers": layers,
                "width": width,
                "head_width": head_width,
                "mlp_ratio": mlp_ratio,
                "patch_size": patch_size,
            },
            text_cfg={"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1},
        )
        set_preprocessing(clip, image_size, mean=tuple(mean), std=tuple(std))
        for name in ("transformer", "token_embedding", "ln_final"):
            delattr(clip, name)
        for name in ("positional_embedding", "text_projection", "logit_scale"):
            setattr(clip, name, None)
        self.clip = clip

    @classmethod
    def from_clip(cls, clip: open_clip.CLIP, spec: ClipSpec) -> ImageTower:
        """Build the image tower of `clip`, with a copy of its weights."""
        sizes = build_clip_config(spec)["vision_cfg"]
        del sizes["patch_dropout"]  # of training alone
        statistics = {name: list(clip.visual.preprocess_cfg[name]) for name in ("mean", "std")}
        tower = cls(embed_dim=spec.embed_dim, quick_gelu=spec.quick_gelu, **sizes, **statistics)
        tower.clip.visual.load_state_dict(clip.visual.state_dict())
        return tower.eval()
