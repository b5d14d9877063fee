"""The reward model: how good is a picture of a product, to the people who would see it?

It sees the picture, the product as it was, and the mask (1 = product); the original's background it does not see, for a
new one is what was asked for. It may also be told the prompt.
Shapes: B pictures, S the side that the network sees, Q = len(HEADS).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

from canvas.features.photographs import WIDTHS, PhotoFeatures, load_photo_features
from canvas.masks.composite import max_pool_mask
from canvas.pins.captions import parse_caption
from canvas.reward.spec import HEADS, RewardSpec

INPUT_CHANNELS = 10
"""Input channels: picture, product as it was, what changed in it, mask."""

MAX_WORDS = 16
"""Of a prompt's background; the rest is not read."""

KNOTS = 64
"""Of each head's calibration."""

RANK_SHARE = 0.01
"""Share of the calibrated chance that only keeps ranks."""

PHOTO_DROPOUT = 0.5

REGIONS = 3
"""That features are pooled over: product, its edge, background."""


class RewardModel(ModelMixin, ConfigMixin):
    """A convolutional network whose features are pooled over the product, its edge and the background.

    Build it with `build_reward`, load it with `load_reward`, ask it with `scores`. With `photo_layers` it also sees the
    picture by canvas.features.photographs, and tells backgrounds by them alone; `backgrounds` are those that it learnt
    to tell, in words. Logits at the `knots` (Q, KNOTS) have the `chances`, which are learnt on held-out pictures
    (`calibrate`) and start as the sigmoid.
    """

    knots: torch.Tensor
    chances: torch.Tensor

    @register_to_config
    def __init__(
        self,
        image_size: int,
        channels: tuple[int, ...],
        layers_per_block: int,
        hidden: int,
        words: int,
        word_width: int,
        dropout: float,
        photo_layers: tuple[int, ...] = (),
        backgrounds: tuple[str, ...] = (),
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
        of_photos = 2 * REGIONS * sum(WIDTHS[layer] for layer in photo_layers)
        self.photo = PhotoFeatures(photo_layers) if photo_layers else None
        self.photo_scale = nn.Sequential(nn.BatchNorm1d(of_photos), nn.Dropout(PHOTO_DROPOUT)) if photo_layers else None
        self.answers = nn.Sequential(
            nn.Linear(pooled + of_photos, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, len(HEADS) - 1)
        )
        self.vocabulary = nn.Embedding(words, word_width, padding_idx=0)
        self.scene = nn.Linear(of_photos or pooled, word_width)
        self.agreement = nn.Parameter(torch.tensor([8.0, 0.0]))
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
        """Logits (B, Q) of pictures and originals (B, 3, S, S) in [-1, 1], masks (B, 1, S, S) of 0 and 1; and those
        (B, K) of each picture showing each of the backgrounds `offered`, (K, MAX_WORDS).

        words: (B, MAX_WORDS) as `hashed` makes them; without any, "prompted" is "overall".
        """
        product = originals * masks
        x = F.pixel_unshuffle(torch.cat([outputs, product, outputs * masks - product, masks], dim=1), 2)
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        regions = _compute_regions(masks)
        pooled = torch.cat([_pool_features(features, regions) for features in maps[-2:]], dim=1)
        shown = pooled
        if self.photo is not None:
            assert self.photo_scale is not None
            photos = torch.cat([_pool_features(features, regions) for features in self.photo(outputs)], dim=1)
            shown = self.photo_scale(photos)
            pooled = torch.cat([pooled, shown], dim=1)
        answers, scene = self.answers(pooled), F.normalize(self.scene(shown), dim=1)
        gain, bias = self.agreement
        agreement = gain * (scene * self._read(words)).sum(dim=1) + bias
        prompted = answers[:, -1] + agreement * (words > 0).any(dim=1)
        return torch.cat([answers, prompted[:, None]], dim=1), gain * scene @ self._read(offered).T

    def _read(self, words: torch.Tensor) -> torch.Tensor:
        """Backgrounds (N, MAX_WORDS) as unit vectors, the mean of their words'; zero without words."""
        known = words > 0
        mean = (self.vocabulary(words) * known[..., None]).sum(dim=1) / known.sum(dim=1, keepdim=True).clamp(min=1)
        return F.normalize(mean, dim=1)


def build_reward(spec: RewardSpec) -> RewardModel:
    """The model of `spec`, with random weights from torch's generator, or with those of `init_from`.

    Raises `ValueError` if what is there has another form.
    """
    form = {name: getattr(spec, name) for name in RewardSpec.__slots__ if name != "init_from"}
    if spec.init_from is None:
        model = RewardModel(**form)
        if model.photo is not None:
            model.photo.load_state_dict(load_photo_features(spec.photo_layers).state_dict())
        return model
    model = load_reward(spec.init_from)
    known = {name: _convert_to_list(model.config[name]) for name in form}
    if different := sorted(name for name in form if known[name] != _convert_to_list(form[name])):
        raise ValueError(f"reward.init_from {spec.init_from} differs in {', '.join(different)}: it has {known}")
    return model


def load_reward(path: str | Path) -> RewardModel:
    """The model in a directory that `save_pretrained` wrote, in eval mode. Raises `ValueError` if it is none."""
    if not (Path(path) / "config.json").is_file():
        raise ValueError(f"{path} holds no config.json: name a directory that the train_reward stage wrote")
    model: RewardModel = RewardModel.from_pretrained(str(path), use_safetensors=True)
    return model.eval()


@torch.no_grad()
def predict_scores(
    model: RewardModel,
    outputs: torch.Tensor,
    originals: torch.Tensor,
    masks: torch.Tensor,
    prompts: Sequence[str] | None = None,
    batch_size: int = 64,
) -> Mapping[str, torch.Tensor]:
    """Probabilities (B,) in 0..1 on the CPU, higher is better: defects (that it has none), fidelity, aesthetics and
    overall, calibrated; with prompts also background: that it is the one asked for and none of the model's others.

    outputs: uint8 (B, 3, H, W), any size. originals: likewise, or (1, 3, H, W), the same for all. masks: (B or 1, 1, H,
    W), bool or 0..1, 1 = product. `prompts`: then "overall" also says whether the background is the one asked for.
    """
    assert outputs.dtype == originals.dtype == torch.uint8, (outputs.dtype, originals.dtype)
    size, device = len(outputs), model.knots.device
    originals, masks = originals.expand(size, -1, -1, -1), masks.expand(size, -1, -1, -1)
    words = hash_words(
        [parse_caption(one)[1] for one in prompts] if prompts is not None else [""] * size, model.config["words"]
    )
    asked, places = words.unique(dim=0, return_inverse=True)
    others = hash_words(model.config["backgrounds"], model.config["words"])
    offered = torch.cat([asked, others]).to(device)
    found, shown = [torch.zeros(0, len(HEADS))], [torch.zeros(0)]
    for first in range(0, size, batch_size):
        rows = slice(first, first + batch_size)
        seen = prepare_inputs(model, *(given[rows].to(device) for given in (outputs, originals, masks)))
        logits, matches = model(*seen, words[rows].to(device), offered)
        found.append(calibrate_logits(model, logits).float().cpu())
        shown.append(_compute_background_scores(matches.float().cpu(), places[rows], asked, others))
    by_head = dict(zip(HEADS, torch.cat(found).unbind(1), strict=True))
    prompted = by_head.pop("prompted")
    if prompts is None:
        return by_head
    by_head |= {"overall": prompted}
    return by_head | {"background": torch.cat(shown)} if len(others) and (asked > 0).any() else by_head


def _compute_background_scores(
    matches: torch.Tensor, places: torch.Tensor, asked: torch.Tensor, others: torch.Tensor
) -> torch.Tensor:
    """Chances (B,) of the backgrounds asked for, the rows `places` of `asked` (A, MAX_WORDS), against `others`
    (K, MAX_WORDS) but themselves, by logits `matches` (B, A + K)."""
    own = matches.gather(1, places[:, None])
    same = (asked[places][:, None] == others[None]).all(dim=2)
    against = matches[:, len(asked) :].masked_fill(same, -torch.inf)
    return torch.cat([own, against], dim=1).softmax(dim=1)[:, 0]


def calibrate_logits(model: RewardModel, logits: torch.Tensor) -> torch.Tensor:
    """Chances (B, Q) of logits (B, Q), between the model's knots by straight lines, beyond them level. A hundredth of a
    wide sigmoid is mixed in, so that of two pictures on one level the one with the higher logit stays ahead."""
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
    """Pictures and originals uint8 (B, 3, H, W) and masks (B, 1, H, W) as the network sees them: squeezed to S x S."""
    size = (model.config["image_size"],) * 2

    def squeezed(values: torch.Tensor) -> torch.Tensor:
        if tuple(values.shape[-2:]) == size:
            return values
        return F.interpolate(values, size=size, mode="bilinear", antialias=True, align_corners=False)

    pictures, known = (squeezed(given.float()).clamp(0, 255) / 127.5 - 1 for given in (outputs, originals))
    return pictures, known, (squeezed(masks.float()) >= 0.5).float()


def hash_words(backgrounds: Sequence[str], buckets: int) -> torch.Tensor:
    """The words of each background as numbers 1 .. buckets - 1, int64 (B, MAX_WORDS), padded with 0; an empty one has
    none."""
    found = torch.zeros(len(backgrounds), MAX_WORDS, dtype=torch.int64)
    for row, background in zip(found, backgrounds, strict=True):
        words = re.findall(r"\w+", background.lower())[:MAX_WORDS]
        row[: len(words)] = torch.tensor([1 + crc32(word.encode()) % (buckets - 1) for word in words])
    return found


def _build_convolution(inner: int, outer: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True)
    )


def _compute_regions(masks: torch.Tensor) -> torch.Tensor:
    """Product, edge and background (B, REGIONS, S, S) of 0 and 1; the edge is a band of S / 16 within the others."""
    reach = max(1, masks.shape[-1] // 32)
    outer, inner = max_pool_mask(masks, reach), 1 - max_pool_mask(1 - masks, reach)
    return torch.cat([masks, outer - inner, 1 - masks], dim=1)


def _pool_features(features: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """Mean and maximum of features (B, C, h, w), 0 or more, over each region: (B, 2 * REGIONS * C)."""
    height, width = features.shape[-2:]
    shares = F.adaptive_avg_pool2d(regions, (height, width)).flatten(2)  # (B, R, h * w)
    flat = features.flatten(2)
    means = torch.einsum("bcn,brn->brc", flat, shares) / shares.sum(dim=2, keepdim=True).clamp(min=1e-6)
    most = torch.stack([(flat * (share > 0)[:, None]).amax(dim=2) for share in shares.unbind(1)], dim=1)
    return torch.cat([means, most], dim=1).flatten(1)


def _convert_to_list(value: object) -> object:
    return list(value) if isinstance(value, (list, tuple)) else value
