"""What a segmenter sees of one image in several views: where they differ, its matte is uncertain."""

from __future__ import annotations

from PIL import Image, ImageOps

from canvas.pins.masks import Alpha, Box, compute_box
from canvas.segmenter.model import Segmenter
from canvas.segmenter.spec import EdgeSpec

CLOSE_MARGIN = 0.15
"""Margin round the product's box in the closer view, as a share of the box."""
WHOLE_SHARE = 0.8
"""Share of the image's sides from which a closer view shows too little that is new."""


def predict_mattes(segmenter: Segmenter, image: Image.Image, edges: EdgeSpec) -> list[Alpha]:
    """Return the mattes [H, W] of the image and of its mirror image, and where the product is small in it, of a closer
    view and of that one's mirror image; around that view they are as the first."""
    whole = _predict_both(segmenter, image, edges)
    inside = whole[0] >= 0.5
    if not inside.any():
        return whole
    box = _widen_box(compute_box(inside), image.size)
    if max((box[2] - box[0]) / image.width, (box[3] - box[1]) / image.height) > WHOLE_SHARE:
        return whole
    mattes = list(whole)
    for closer in _predict_both(segmenter, image.crop(box), edges):
        matte = whole[0].copy()
        matte[box[1] : box[3], box[0] : box[2]] = closer
        mattes.append(matte)
    return mattes


def _predict_both(segmenter: Segmenter, image: Image.Image, edges: EdgeSpec) -> list[Alpha]:
    (plain,), (mirrored,) = (segmenter.predict_alphas([view], edges) for view in (image, ImageOps.mirror(image)))
    return [plain, mirrored[:, ::-1]]


def _widen_box(box: Box, size: tuple[int, int]) -> Box:
    across, down = (round(CLOSE_MARGIN * (box[axis + 2] - box[axis])) for axis in (0, 1))
    return max(0, box[0] - across), max(0, box[1] - down), min(size[0], box[2] + across), min(size[1], box[3] + down)
