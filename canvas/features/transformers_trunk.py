"""Image towers of transformers as a model of timm, `transformers`: CLIP's, SigLIP's, DINOv2's and DINOv3's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.models import register_model
from torch import nn

NAME = "transformers"

TOWER_CLASSES = {
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "siglip_vision_model": "SiglipVisionModel",
    "dinov2": "Dinov2Model",
    "dinov3_vit": "DINOv3ViTModel",
}
"""`model_type` of the tower's config -> class of transformers."""


class TransformersTrunk(nn.Module):
    """An image tower as its library pools it: CLIP's projected embedding, SigLIP's attention pool, DINO's class token.

    Images (B, 3, S, S), normalised by `mean` and `std`, -> (B, num_features).
    """

    def __init__(self, config: Mapping[str, Any], mean: Sequence[float], std: Sequence[float]) -> None:
        import transformers  # its models take most of a second

        super().__init__()
        settings = {key: value for key, value in config.items() if key != "model_type"}
        tower_config = transformers.AutoConfig.for_model(config["model_type"], **settings)
        self.pretrained_cfg = {"mean": tuple(mean), "std": tuple(std)}  # of timm: how images are prepared
        self.tower = getattr(transformers, TOWER_CLASSES[config["model_type"]])(tower_config)
        self.has_projection = config["model_type"] == "clip_vision_model"
        self.num_features: int = tower_config.projection_dim if self.has_projection else tower_config.hidden_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output = self.tower(pixel_values=images)
        features: torch.Tensor = output.image_embeds if self.has_projection else output.pooler_output
        return features


@register_model
def transformers(
    pretrained: bool = False,
    pretrained_cfg: object = None,
    pretrained_cfg_overlay: object = None,
    cache_dir: object = None,
    *,
    config: Mapping[str, Any],
    mean: Sequence[float],
    std: Sequence[float],
    num_classes: int = 0,
) -> TransformersTrunk:
    """Build the trunk for `timm.create_model`, with random weights and without a classifier."""
    return TransformersTrunk(config, mean, std)
