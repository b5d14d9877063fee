"""The reward model: how good is an image of a product, to the people who would see it?

It sees the image, the product as it was, and the mask (1 = product); the original's background it does not see, for a
new one is what was asked for. It may also read the prompt, by a text encoder: any words, whether training showed them
or not.
Shapes: B images, S the side that the network sees, Q = len(HEADS), L tokens of a text, E the text encoder's width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

from canvas.clip.model import TextTower, load_clip
from canvas.clip.spec import TextSpec
from canvas.features.photographs import WIDTHS, PhotoFeatures, load_photo_features
from canvas.loading import load_initial_model, load_stage_model
from canvas.masks.composite import max_pool_mask
from canvas.pins.captions import parse_caption
from canvas.reward.spec import HEADS, RewardSpec

INPUT_CHANNELS = 10  # image, product as it was, what changed in it, mask
KNOTS = 64  # of each head's calibration curve
RANK_SHARE = 0.01  # of the calibrated chance only keeps ranks
PHOTO_DROPOUT = 0.5
REGIONS = 3  # that features are pooled over: product, its edge, background


@dataclass(frozen=True, slots=True)
class ProductImages:
    """Products that images must keep: one an image, or one for all."""

    pixels: torch.Tensor  # uint8 (B or 1, 3, H, W)
    masks: torch.Tensor  # (B or 1, 1, H, W), bool or 0..1, 1 = product


class RewardModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A convolutional network whose features are pooled over the product, its edge and the background.

    Build it with `build_reward`, load it with `load_reward`, call it with `predict_scores`. With `photo_layers` it also
    sees the image by canvas.features.photographs, and tells backgrounds by them alone: a projection of them is compared
    with the embedding that the frozen text tower of `text_config` makes of the background's words. `rated`: people
    taught it which image they would take. Logits at the `knots` (Q, KNOTS) have the `chances`, which are fitted on
    held-out images (`set_calibration`) and start as the sigmoid.
    """

    needs_prompt = False
    knots: torch.Tensor
    chances: torch.Tensor

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        image_size: int,
        channels: tuple[int, ...],
        layers_per_block: int,
        hidden: int,
        dropout: float,
        text_config: dict[str, Any],
        photo_layers: tuple[int, ...] = (),
        rated: bool = False,
    ) -> None:
        super().__init__()
        widths = [INPUT_CHANNELS * 4, *channels]
        self.levels = nn.ModuleList(
            nn.Sequential(
                _build_convolution(inner, outer, stride=1 if level == 0 else 2),
                *(_build_convolution(outer, outer, stride=1) for _ in range(layers_per_block)),
            )
            for level, (inner, outer) in enumerate(pairwise(widths))
        )
        pooled = 2 * REGIONS * sum(channels[-2:])
        photo_width = 2 * REGIONS * sum(WIDTHS[layer] for layer in photo_layers)
        self.photo = PhotoFeatures(photo_layers) if photo_layers else None
        if photo_layers:
            self.photo_scale = nn.Sequential(nn.BatchNorm1d(photo_width), nn.Dropout(PHOTO_DROPOUT))
        self.answers = nn.Sequential(
            nn.Linear(pooled + photo_width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, len(HEADS) - 1)
        )
        self.text = TextTower(**text_config).requires_grad_(False)
        self.scene = nn.Linear(photo_width or pooled, text_config["embed_dim"])
        self.agreement = nn.Parameter(torch.tensor([10.0, -3.0]))
        knots = torch.linspace(-8, 8, KNOTS).repeat(len(HEADS), 1)
        self.register_buffer("knots", knots)
        self.register_buffer("chances", knots.sigmoid())

    def forward(
        self,
        outputs: torch.Tensor,
        originals: torch.Tensor,
        masks: torch.Tensor,
        words: torch.Tensor,
        offered: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits (B, Q), and logits (B, K) that each image shows each of the backgrounds `offered`.

        Args:
            outputs: Images (B, 3, S, S) in [-1, 1], as `originals`.
            masks: (B, 1, S, S) of 0 and 1.
            words: Of the prompt's background, (B, L) by `tokenize`; without any "prompted" is "overall".
            offered: Likewise, (K, L).
        """
        product = originals * masks
        x = F.pixel_unshuffle(torch.cat([outputs, product, outputs * masks - product, masks], dim=1), 2)
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        regions = _compute_regions(masks)
        pooled = torch.cat([_pool_features(features, regions) for features in maps[-2:]], dim=1)
        scene_features = pooled
        if self.photo is not None:
            photos = torch.cat([_pool_features(features, regions) for features in self.photo(outputs)], dim=1)
            scene_features = self.photo_scale(photos)
            pooled = torch.cat([pooled, scene_features], dim=1)
        answers, scene = self.answers(pooled), F.normalize(self.scene(scene_features), dim=1)
        gain, bias = self.agreement
        agreement = gain * (scene * self._embed_words(words)).sum(dim=1) + bias
        prompted = answers[:, -1] + agreement * (words > 0).any(dim=1)
        return torch.cat([answers, prompted[:, None]], dim=1), gain * scene @ self._embed_words(offered).T + bias

    def score(
        self,
        images: torch.Tensor,
        products: ProductImages,
        prompts: Sequence[str] | None,
        *,
        batch_size: int = 64,
    ) -> Mapping[str, torch.Tensor]:
        """Score images as every reward does (`canvas.reward.preference.Reward`), by `predict_scores`."""
        return predict_scores(self, images, products.pixels, products.masks, prompts, batch_size)

    def tokenize(self, backgrounds: Sequence[str]) -> torch.Tensor:
        """Return tokens of the words of backgrounds, int64 (N, L) on the CPU; zeros: there are no words."""
        return tokenize_backgrounds(self.text, backgrounds)

    @torch.no_grad()
    def _embed_words(self, words: torch.Tensor) -> torch.Tensor:
        """Embed backgrounds (N, L) as unit vectors (N, E); zero without words."""
        if not len(words):
            return torch.zeros(0, self.text.config["embed_dim"], device=words.device)
        distinct, places = torch.unique(words, dim=0, return_inverse=True)
        embeddings = F.normalize(self.text(distinct)[1], dim=1)[places]
        return embeddings * (words > 0).any(dim=1, keepdim=True)


def tokenize_backgrounds(tower: TextTower, backgrounds: Sequence[str]) -> torch.Tensor:
    """Return tokens of the words of backgrounds, int64 (N, L) on the CPU; zeros: there are no words."""
    has_words = torch.tensor([bool(background.strip()) for background in backgrounds])
    return tower.tokenize(backgrounds).cpu() * has_words[:, None]


def load_prompt_tower(folder: Path, spec: RewardSpec, text: TextSpec) -> TextTower:
    """Load the text tower that reads prompts: that of `init_from`, or of the encoders that `train_clip` wrote."""
    if spec.init_from is not None:
        return load_reward(spec.init_from).text
    return TextTower.from_clip(load_clip(folder / spec.text_encoder), getattr(text, spec.text_encoder))


def get_tower_config(tower: TextTower) -> dict[str, Any]:
    """Return what the config of a reward model keeps of the text tower."""
    return {name: value for name, value in tower.config.items() if not name.startswith("_")}


def build_reward(spec: RewardSpec, tower: TextTower) -> RewardModel:
    """Build the model of `spec`, with random weights from torch's generator, or with those of `init_from`.

    Args:
        spec: The network.
        tower: What reads prompts; `init_from` brings its own.

    Raises:
        ValueError: `init_from` holds no reward model that can be trained, or one of another form.
    """
    config = build_reward_config(spec)
    if spec.init_from is not None:
        check_form(spec.init_from)
        return load_initial_model(RewardModel, spec.init_from, config, "reward")
    model = RewardModel(**config, text_config=get_tower_config(tower))
    model.text.load_state_dict(tower.state_dict())
    if model.photo is not None:
        model.photo.load_state_dict(load_photo_features(spec.photo_layers).state_dict())
    return model


def build_reward_config(spec: RewardSpec) -> dict[str, Any]:
    """Return the config of the model of `spec`, but that of its text tower."""
    return {name: getattr(spec, name) for name in RewardSpec.__slots__ if name not in ("init_from", "text_encoder")}


def load_reward(path: str | Path) -> RewardModel:
    """Load the model in a directory that `save_pretrained` wrote, in eval mode; ValueError if it is none."""
    check_form(path)
    return load_stage_model(RewardModel, path, "train_reward")


def check_form(path: str | Path) -> None:
    """Raise ValueError for models that are none of `train_reward`'s, or of an older form."""
    file = Path(path) / "config.json"
    if not file.is_file():
        return  # the loader says so
    config = json.loads(file.read_text(encoding="utf-8"))
    if config.get("_class_name") != RewardModel.__name__:
        raise ValueError(f"{path} holds no model of train_reward: it cannot be trained, set train_reward.train to null")
    if "text_config" not in config:
        raise ValueError(f"{path} holds a reward model that knows a list of backgrounds alone: train it again")


@torch.no_grad()
def predict_scores(
    model: RewardModel,
    outputs: torch.Tensor,
    originals: torch.Tensor,
    masks: torch.Tensor,
    prompts: Sequence[str] | None = None,
    batch_size: int = 64,
) -> Mapping[str, torch.Tensor]:
    """Return probabilities (B,) in 0..1 on the CPU by name, higher is better.

    Calibrated: defects (that it has none), fidelity, aesthetics and overall. With prompts also background, unless
    people's judgments taught the model: that it is the one asked for.

    Args:
        outputs: Images, uint8 (B, 3, H, W), of any size.
        originals: Likewise, or (1, 3, H, W), the same for all.
        masks: (B or 1, 1, H, W), bool or 0..1, 1 = product.
        prompts: With them "overall" also says whether the background is the one asked for.
    """
    assert outputs.dtype == originals.dtype == torch.uint8, (outputs.dtype, originals.dtype)
    size, device = len(outputs), model.knots.device
    originals, masks = originals.expand(size, -1, -1, -1), masks.expand(size, -1, -1, -1)
    texts = [""] * size if prompts is None else [parse_caption(prompt)[1] for prompt in prompts]
    words = model.tokenize(texts)
    asked, places = torch.unique(words, dim=0, return_inverse=True)
    asked = asked.to(device)
    chances, matches = [torch.zeros(0, len(HEADS))], [torch.zeros(0)]
    for first in range(0, size, batch_size):
        rows = slice(first, first + batch_size)
        inputs = prepare_inputs(model, *(values[rows].to(device) for values in (outputs, originals, masks)))
        logits, by_background = model(*inputs, words[rows].to(device), asked)
        chances.append(calibrate_logits(model, logits).float().cpu())
        matches.append(by_background.float().cpu().gather(1, places[rows, None])[:, 0])
    by_head = dict(zip(HEADS, torch.cat(chances).unbind(1), strict=True))
    prompted = by_head.pop("prompted")
    if prompts is None:
        return by_head
    by_head["overall"] = prompted
    if not model.config["rated"] and (asked > 0).any():
        by_head["background"] = torch.cat(matches).sigmoid()
    return by_head


def calibrate_logits(model: RewardModel, logits: torch.Tensor) -> torch.Tensor:
    """Return chances (B, Q) of logits (B, Q), between the model's knots by straight lines, beyond them level.

    A hundredth of a wide sigmoid is mixed in, so that of two images on one level the higher logit stays ahead.
    """
    at = logits.T.contiguous()
    right = torch.searchsorted(model.knots, at).clamp(1, model.knots.shape[1] - 1)
    (left_knot, left_level), (right_knot, right_level) = (
        (model.knots.gather(1, place), model.chances.gather(1, place)) for place in (right - 1, right)
    )
    way = ((at - left_knot) / (right_knot - left_knot).clamp(min=1e-6)).clamp(0, 1)
    chances = left_level + way * (right_level - left_level)
    return (RANK_SHARE * (at / 4).sigmoid() + (1 - RANK_SHARE) * chances).T


def prepare_inputs(
    model: RewardModel, outputs: torch.Tensor, originals: torch.Tensor, masks: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Resize images and originals, uint8 (B, 3, H, W), and masks (B, 1, H, W) to S x S, as the network reads them."""
    size = (model.config["image_size"],) * 2

    def resize(values: torch.Tensor) -> torch.Tensor:
        if tuple(values.shape[-2:]) == size:
            return values
        return F.interpolate(values, size=size, mode="bilinear", antialias=True, align_corners=False)

    images, products = (resize(pixels.float()).clamp(0, 255) / 127.5 - 1 for pixels in (outputs, originals))
    return images, products, (resize(masks.float()) >= 0.5).float()


def _build_convolution(inner: int, outer: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True)
    )


def _compute_regions(masks: torch.Tensor) -> torch.Tensor:
    """Return product, edge and background (B, REGIONS, S, S) of 0 and 1; the edge is a band of S / 16 in the others."""
    reach = max(1, masks.shape[-1] // 32)
    outer, inner = max_pool_mask(masks, reach), 1 - max_pool_mask(1 - masks, reach)
    return torch.cat([masks, outer - inner, 1 - masks], dim=1)


def _pool_features(features: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """Return mean and maximum of features (B, C, h, w), 0 or more, over each region: (B, 2 * REGIONS * C)."""
    height, width = features.shape[-2:]
    shares = F.adaptive_avg_pool2d(regions, (height, width)).flatten(2)  # (B, R, h * w)
    flat = features.flatten(2)
    means = torch.einsum("bcn,brn->brc", flat, shares) / shares.sum(dim=2, keepdim=True).clamp(min=1e-6)
    most = torch.stack([(flat * (share > 0)[:, None]).amax(dim=2) for share in shares.unbind(1)], dim=1)
    return torch.cat([means, most], dim=1).flatten(1)
