"""Centres of the mined style clusters, as a part of a diffusers pipeline: style images are drawn towards them.

Embeddings of places, or of sides of them, that training never saw lie beside those that the denoiser was trained on,
and come nearer on their way to a centre: the truncation trick with several centres (Mokady et al. 2022,
"Self-Distilled StyleGAN"). K clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from canvas.features.vectors import Vectors, normalize_vectors
from canvas.styles.table import Style
from canvas.uve.spec import EmbeddingSource


class StyleCentres(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers is not followed
    """`uve` and `clip` [K, ...], rows of unit length; without gradients."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, clusters: int, uve_width: int, clip_width: int) -> None:
        super().__init__()
        self.uve = torch.nn.Parameter(torch.zeros(clusters, uve_width), requires_grad=False)
        self.clip = torch.nn.Parameter(torch.zeros(clusters, clip_width), requires_grad=False)

    @classmethod
    def from_styles(cls, styles: Sequence[Style]) -> StyleCentres | None:
        """Build the centres of the clusters that were kept; None: there is none."""
        clusters = [style for style in styles if style.kind == "cluster" and not style.dropped]
        if not clusters:
            return None
        centres = cls(len(clusters), len(clusters[0].uve), len(clusters[0].clip))
        centres.uve.copy_(torch.from_numpy(np.stack([style.uve for style in clusters])))
        centres.clip.copy_(torch.from_numpy(np.stack([style.clip for style in clusters])))
        centres.eval()
        return centres

    def pull_to_centres(self, parts: Mapping[str, Vectors], source: EmbeddingSource, pull: float) -> dict[str, Vectors]:
        """Move embeddings "uve" and "clip" [N, ...] of unit length by `pull`, 0 to 1, of the way to a centre.

        It is the one nearest to each row by the first embedding of `source`.
        """
        centres = {name: getattr(self, name).detach().float().cpu().numpy() for name in ("uve", "clip")}
        first = source.split("+")[0]
        nearest = np.argmax(parts[first] @ centres[first].T, axis=1)
        return {
            name: normalize_vectors((1 - pull) * part + pull * centres[name][nearest]) for name, part in parts.items()
        }
