"""Every score of every candidate, a product at a time: numbers that compare pictures, and what judges see in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from canvas.pins.tables import CANDIDATES, MASK_SIZES
from evaluation.measures.alignment import text_agreement

if TYPE_CHECKING:
    import open_clip

    from canvas.clip.model import TextTower
    from canvas.inference.product import Product
    from canvas.pins.scene_views import Views
    from canvas.reward.model import RewardModel
    from canvas.segmenter.model import Segmenter
    from canvas.segmenter.spec import EdgeSpec
    from evaluation.judges.judges import Judges
    from evaluation.measures.distances import Features

Row = Mapping[str, Any]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """All that candidates are scored with: the same for every model's."""

    judges: Judges
    segmenter: Segmenter
    edges: EdgeSpec
    clip: open_clip.CLIP
    tower: TextTower  # the text half of `clip`
    reward: RewardModel
    view_side: int  # pixels of the squares that judges see
    distance_side: int  # of those that pictures of one item are compared in, a multiple of 32
    seam_side: int  # of those that seams are measured in
    seam_reach: int  # pixels of them on each side of the product's edge
    mask_sizes: tuple[float, float]  # shares of the picture from which a product is medium, large
    batch_size: int

    def scored(self, rows: Sequence[Row], original: Image.Image) -> tuple[list[dict[str, Any]], Views, Features]:
        """Rows of tables.EVALUATION for candidates of one pin (`original`, RGB), their views, and the features of
        those (evaluation.judges.features). ValueError for a picture that is not of the original's size."""
        from canvas.inference.product import build_masked_product
        from canvas.pins.images import decode_image
        from canvas.pins.masks import decode_mask
        from canvas.pins.scene_views import crop_center_square
        from evaluation.generator.image_scores import measure_seam_gradients, score_images
        from evaluation.judges.features import extract_trunk_features

        images = [decode_image(row["image"]) for row in rows]
        for row, image in zip(rows, images, strict=True):
            if image.size != original.size:
                raise ValueError(f"candidate {row['candidate_id']} is {image.size}, its product {original.size}")
        mask = decode_mask(rows[0]["mask"])
        product = build_masked_product(original, mask)
        pictures = [np.asarray(image) for image in images]
        views = np.stack([crop_center_square(image, self.view_side) for image in images])
        features = extract_trunk_features(views, self.batch_size)
        scores = score_images(
            pictures,
            views,
            [product] * len(rows),
            [row["pin_id"] for row in rows],
            [row["prompt"] for row in rows],
            judges=self.judges,
            segmenter=self.segmenter,
            edges=self.edges,
            seam_side=self.seam_side,
            reach=self.seam_reach,
            batch_size=self.batch_size,
        )
        (before,) = measure_seam_gradients([product.pixels], [product], self.seam_side, self.seam_reach)
        prompts = [row["prompt"] for row in rows]
        columns: dict[str, Sequence[float | None]] = {
            "agreement": self._agreement(images, prompts),
            "diversity": compute_diversities(rows, images, self.distance_side),
            **self._rewards(pictures, product, prompts),
        }
        found = []
        for place, (row, score) in enumerate(zip(rows, scores, strict=True)):
            known = score.scene is not None
            found.append(
                {name: row[name] for name in CANDIDATES.names if name != "mask"}
                | {name: values[place] for name, values in columns.items()}
                | {
                    "mask_size": classify_mask_size(float(mask.mean()), self.mask_sizes),
                    "core_max_abs_diff": score.core_difference,
                    "extension": score.extension,
                    "erosion": score.erosion,
                    "seam_ratio": score.seam / before if score.seam is not None and before else None,
                    "scene_right": float(score.seen == score.scene) if known else None,
                    "scene_right_sharp": float(score.seen_sharp == score.scene) if known else None,
                }
            )
        return found, views, features

    def _agreement(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        import torch

        from canvas.segmenter.model import make_square_tensor

        side = self.clip.visual.image_size
        side = side if isinstance(side, int) else side[0]
        squares = torch.stack([make_square_tensor(image, side) for image in images])
        seen = embed_images(self.clip, squares.permute(0, 2, 3, 1).numpy(), self.batch_size)
        return [float(value) for value in text_agreement(seen, embed_prompts(self.tower, prompts))]

    def _rewards(self, pictures: Sequence[Pixels], product: Product, prompts: Sequence[str]) -> dict[str, list[float]]:
        import torch

        from canvas.reward.model import predict_scores

        said = predict_scores(
            self.reward,
            torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2),
            torch.from_numpy(product.pixels).permute(2, 0, 1)[None],
            torch.from_numpy(product.alpha >= 0.5)[None, None],
            prompts,
            batch_size=self.batch_size,
        )
        return {f"reward_{name}": values.tolist() for name, values in said.items()}


def embed_images(clip: open_clip.CLIP, views: Views, batch_size: int) -> Features:
    """Unit embeddings float32 [N, E] of pictures uint8 [N, h, w, 3] of one size."""
    import torch

    from canvas.features.perceptual import compute_image_embeddings
    from canvas.pins.pixels import bytes_to_tensor

    found, device = [], next(clip.parameters()).device
    with torch.no_grad():
        for first in range(0, len(views), batch_size):
            pixels = torch.from_numpy(views[first : first + batch_size]).permute(0, 3, 1, 2)
            found.append(compute_image_embeddings(clip, bytes_to_tensor(pixels.to(device))).cpu().numpy())
    return np.concatenate(found)


def embed_prompts(tower: TextTower, prompts: Sequence[str]) -> Features:
    """Embeddings float32 [N, E] of prompts, each different one encoded once."""
    import torch

    with torch.no_grad():
        known = {prompt: tower(tower.tokenize([prompt]))[1][0].cpu().numpy() for prompt in dict.fromkeys(prompts)}
    return np.stack([known[prompt] for prompt in prompts])


def compute_diversities(rows: Sequence[Row], images: Sequence[Image.Image], side: int) -> list[float | None]:
    """Mean distance of each picture to the others that its model made for its item; None: it is alone.

    Squared distance of channel-normalised feature maps, summed over maps: LPIPS (Zhang et al. 2018, eq. 1) on the
    judge's network, without learnt weights. 0 for equal pictures.
    """
    import torch

    from canvas.features.perceptual import FeatureDistance
    from canvas.pins.pixels import bytes_to_tensor
    from canvas.segmenter.model import make_square_tensor
    from evaluation.judges.features import extract_trunk_maps

    distance = FeatureDistance(extract_trunk_maps)
    groups: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault((row["item_id"], row["model"]), []).append(place)
    found: list[list[float]] = [[] for _ in rows]
    for places in groups.values():
        if len(places) < 2:
            continue
        pairs = list(combinations(range(len(places)), 2))
        pixels = bytes_to_tensor(torch.stack([make_square_tensor(images[place], side) for place in places]))
        one, other = (pixels[[pair[end] for pair in pairs]] for end in (0, 1))
        for (first, second), value in zip(pairs, distance(one, other).tolist(), strict=True):
            found[places[first]].append(value)
            found[places[second]].append(value)
    return [float(np.mean(values)) if values else None for values in found]


def classify_mask_size(share: float, limits: tuple[float, float]) -> str:
    """The size, of MASK_SIZES, of a product that covers `share` of its picture."""
    return MASK_SIZES[sum(share >= limit for limit in limits)]


def measure_image_statistics(row: Row) -> dict[str, Any]:
    """The filter's measures of a candidate's picture (canvas.filters.quality)."""
    from canvas.filters.quality import measure_quality
    from canvas.pins.images import decode_image

    return asdict(measure_quality(decode_image(row["image"])))
