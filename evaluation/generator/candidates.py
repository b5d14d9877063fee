"""Every score of every candidate: measures of the image, and what the judges recognize in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from tqdm import tqdm

from canvas.clip.model import TextTower, load_clip
from canvas.clip.spec import TextSpec
from canvas.device import default_device
from canvas.features.perceptual import FeatureDistance, compute_image_embeddings
from canvas.inference.product import Product, build_masked_product
from canvas.pins.images import Pixels, bytes_to_tensor, decode_image, read_images
from canvas.pins.masks import decode_mask
from canvas.pins.products import ProductPin
from canvas.pins.scene_views import Views, stack_views
from canvas.pins.tables import ASPECTS, CANDIDATES, EVALUATION, MASK_SIZES
from canvas.reward.model import ProductImages
from canvas.reward.preference import Reward, TextImageReward, fetch_reward
from canvas.segmenter.model import Segmenter, load_segmenter, make_square_tensor
from canvas.segmenter.spec import EdgeSpec
from evaluation.generator.background_scores import BackgroundScorer, measure_seam_gradients
from evaluation.generator.comparison import Row
from evaluation.generator.instruments import measure_reward_accuracy, measure_segmenter_quality
from evaluation.generator.pins import EvaluationPins
from evaluation.generator.spec import EvaluationSpec, FeatureName
from evaluation.judges.defects import DefectJudge, fit_defect_judge
from evaluation.judges.features import choose_view_side, extract_trunk_features, extract_trunk_maps
from evaluation.judges.judges import Judges
from evaluation.judges.references import load_reference_segmenter, load_reference_text_image
from evaluation.measures.distances import Features, text_agreement

FeatureSets = Mapping[str, Mapping[FeatureName, Features]]  # set of images (a model's, or "real") -> features by name

SQUARE = 1.2
"""Longer side over shorter, up to which an image counts as square."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """The networks that score candidates: the same for every model's.

    Where params name a reference judge, it stands in for the challenger's own network.
    """

    spec: EvaluationSpec
    backgrounds: BackgroundScorer  # with the reference segmenter, if there is one
    segmenter: Segmenter  # the challenger's own
    text_image: TextImageReward | None  # None: the challenger's own encoder compares images and prompts
    defects: DefectJudge
    clips: Mapping[str, open_clip.CLIP]
    tower: TextTower  # the text half of the one that compares images and prompts
    reward: Reward | None  # of any kind (canvas.reward.preference); None: rewards are null

    @classmethod
    def load(
        cls,
        spec: EvaluationSpec,
        frame_side: int,
        edges: EdgeSpec,
        text: TextSpec,
        pins: EvaluationPins,
        *,
        judges: Path,
        clip: Path,
        segmenter: Path,
        reward: Path | None,
    ) -> Scorer:
        """Load the networks onto the default device, and fit the judge of defects to `pins`.

        Raises:
            ValueError: A reference judge cannot be fetched, or is not the one that params pin.
        """
        device, references = default_device(), spec.references
        challenger_segmenter = load_segmenter(segmenter).to(device)
        reference = (
            load_reference_segmenter(references.segmenter).to(device) if references.segmenter else challenger_segmenter
        )
        text_image = load_reference_text_image(references.text_image).to(device) if references.text_image else None
        clips = {name: load_clip(clip / name).eval().to(device) for name in ("first", "second")}
        backgrounds = BackgroundScorer(
            judges=Judges.load(judges),
            segmenter=reference,
            edges=edges,
            seam_side=frame_side,
            seam_reach=spec.seam_reach,
            batch_size=spec.batch_size,
        )
        return cls(
            spec=spec,
            backgrounds=backgrounds,
            segmenter=challenger_segmenter,
            text_image=text_image,
            defects=fit_defect_judge(
                pins.train, pins.real, side=choose_view_side(frame_side), seed=spec.instruments.seed
            ),
            clips=clips,
            tower=TextTower.from_clip(clips[spec.agreement], getattr(text, spec.agreement)).to(device),
            reward=fetch_reward(reward).to(device) if reward else None,
        )

    @property
    def view_side(self) -> int:
        """Pixels of the squares that judges are given."""
        return choose_view_side(self.backgrounds.seam_side)

    def measure_instruments(self, real: Sequence[ProductPin], truth: Path) -> dict[str, dict[str, float]]:
        """Return how good the challenger's own reward model and segmenter are on `real` pins, how good the judge of
        defects is, and which judges are frozen references: 1, or 0 where the challenger's own stand in."""
        spec, frozen = self.spec, self.backgrounds.segmenter is not self.segmenter
        reference = self.backgrounds.segmenter if frozen else None
        return {
            "reward": {}
            if self.reward is None
            else measure_reward_accuracy(
                self.reward,
                real,
                side=self.view_side,
                each=spec.instruments.comparisons_each,
                seed=spec.instruments.seed,
                batch_size=spec.batch_size,
            ),
            "segmenter": measure_segmenter_quality(
                self.segmenter, self.backgrounds.edges, real, truth, reference, spec.batch_size
            ),
            "defects": dict(self.defects.accuracy),
            "frozen": {"segmenter": int(frozen), "text_image": int(self.text_image is not None)},
        }

    def score_candidates(
        self, candidates: Sequence[Row], pins: Path, evaluation_pins: EvaluationPins
    ) -> tuple[list[Row], FeatureSets]:
        """Return rows of tables.EVALUATION, and features of every model's images, and of "real" and "engaged" pins.

        Raises:
            ValueError: If no candidate is the challenger's, or a pin is missing.
        """
        if not any(row["model"] == "challenger" for row in candidates):
            raise ValueError("the candidates hold no image of the challenger: there is nothing to evaluate")
        by_pin: dict[str, list[Row]] = {}
        for row in candidates:
            by_pin.setdefault(row["pin_id"], []).append(row)
        originals = read_images(pins, by_pin)
        if missing := sorted(by_pin.keys() - originals.keys()):
            raise ValueError(f"candidates show pin {missing[0]}, which the pins table lacks: sample them again")
        scored: dict[str, tuple[Row, Views, Features]] = {}
        with tqdm(total=len(candidates), desc="evaluate", unit="image") as bar:
            for pin_id, original in originals.items():
                results = zip(*self.score_pin(by_pin[pin_id], original), strict=True)
                scored |= {row["candidate_id"]: (row, view, features) for row, view, features in results}
                bar.update(len(by_pin[pin_id]))
        ordered = [scored[row["candidate_id"]] for row in candidates]
        sets = {}
        for name, images in (
            ("real", [pin.image for pin in evaluation_pins.real]),
            ("engaged", evaluation_pins.engaged),
        ):
            if images:
                views = stack_views(images, self.view_side)
                sets[name] = self._extract_features(views, extract_trunk_features(views))
        for model in dict.fromkeys(row["model"] for row in candidates):
            entries = [entry for entry in ordered if entry[0]["model"] == model]
            views, trunk = (
                np.stack([view for _, view, _ in entries]),
                np.stack([features for _, _, features in entries]),
            )
            sets[model] = self._extract_features(views, trunk)
        return [row for row, _, _ in ordered], sets

    def score_pin(self, rows: Sequence[Row], original: Image.Image) -> tuple[list[Row], Views, Features]:
        """Return rows of tables.EVALUATION for candidates of one pin, their views, and the views' trunk features.

        Raises `ValueError` for an image that is not of the size of `original`, which is RGB.
        """
        images = [decode_image(row["image"]) for row in rows]
        for row, image in zip(rows, images, strict=True):
            if image.size != original.size:
                raise ValueError(f"candidate {row['candidate_id']} is {image.size}, its product {original.size}")
        mask = decode_mask(rows[0]["mask"])
        product = build_masked_product(original, mask)
        pixels, prompts = [np.asarray(image) for image in images], [row["prompt"] for row in rows]
        views = stack_views(images, self.view_side)
        features = extract_trunk_features(views, self.spec.batch_size)
        pin_ids, products = [row["pin_id"] for row in rows], [product] * len(rows)
        scores = self.backgrounds.score(pixels, views, products, pin_ids, prompts)
        (seam,) = measure_seam_gradients([product.pixels], [product], self.backgrounds.seam_side, self.spec.seam_reach)
        columns: dict[str, Sequence[float | None]] = {
            "agreement": self._compute_agreement(images, pixels, prompts),
            "diversity": compute_diversities(rows, images, self.spec.distance_side),
            "defective": self.defects.find_defects(views),
            **self._predict_rewards(pixels, product, prompts),
        }
        evaluation: list[Row] = [
            {name: row[name] for name in CANDIDATES.names if name != "mask"}
            | {name: values[index] for name, values in columns.items()}
            | {
                "mask_size": classify_mask_size(float(mask.mean()), self.spec.mask_sizes),
                "aspect": classify_aspect(*mask.shape),
                "core_max_abs_diff": score.core_difference,
                "certificates_failed": None if row["certified"] is None else float(not row["certified"]),
                "extension": score.extension,
                "erosion": score.erosion,
                "seam_ratio": score.seam / seam if score.seam is not None and seam else None,
                "scene_right": score.scene_right,
                "scene_right_sharp": score.scene_right_sharp,
            }
            for index, (row, score) in enumerate(zip(rows, scores, strict=True))
        ]
        return evaluation, views, features

    def _extract_features(self, views: Views, trunk: Features) -> dict[FeatureName, Features]:
        return {
            name: trunk if name == "trunk" else embed_images(self.clips[name], views, self.spec.batch_size)
            for name in sorted(self.spec.features.names)
        }

    def _compute_agreement(
        self, images: Sequence[Image.Image], pixels: Sequence[Pixels], prompts: Sequence[str]
    ) -> list[float]:
        if self.text_image is not None:
            size = self.spec.batch_size
            values: list[float] = self.text_image.compute_agreement(
                stack_pixels(pixels), prompts, batch_size=size
            ).tolist()
            return values
        clip = self.clips[self.spec.agreement]
        side = clip.visual.image_size
        side = side if isinstance(side, int) else side[0]
        squares = torch.stack([make_square_tensor(image, side) for image in images])
        embeddings = embed_images(clip, squares.permute(0, 2, 3, 1).numpy(), self.spec.batch_size)
        return [float(value) for value in text_agreement(embeddings, embed_prompts(self.tower, prompts))]

    def _predict_rewards(
        self, images: Sequence[Pixels], product: Product, prompts: Sequence[str]
    ) -> dict[str, Sequence[float | None]]:
        names = [name for name in EVALUATION.names if name.startswith("reward_")]
        if self.reward is None:
            return {name: [None] * len(images) for name in names}
        original = ProductImages(
            torch.from_numpy(product.pixels).permute(2, 0, 1)[None],
            torch.from_numpy(product.alpha >= 0.5)[None, None],
        )
        scores = self.reward.score(stack_pixels(images), original, prompts, batch_size=self.spec.batch_size)
        by_column = {f"reward_{name}": values.tolist() for name, values in scores.items()}
        return {name: by_column.get(name, [None] * len(images)) for name in names}


def stack_pixels(images: Sequence[Pixels]) -> torch.Tensor:
    """Return images [h, w, 3] of one size as a batch, uint8 [N, 3, h, w]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def embed_images(clip: open_clip.CLIP, views: Views, batch_size: int) -> Features:
    """Return unit embeddings float32 [N, E] of images uint8 [N, h, w, 3]."""
    pixels, device = torch.from_numpy(views).permute(0, 3, 1, 2), next(clip.parameters()).device
    with torch.no_grad():
        batches = (bytes_to_tensor(batch.to(device)) for batch in torch.split(pixels, batch_size))
        return torch.cat([compute_image_embeddings(clip, batch).cpu() for batch in batches]).numpy()


def embed_prompts(tower: TextTower, prompts: Sequence[str]) -> Features:
    """Return embeddings float32 [N, E] of prompts, each distinct one encoded once."""
    with torch.no_grad():
        embeddings = {prompt: tower(tower.tokenize([prompt]))[1][0].cpu().numpy() for prompt in dict.fromkeys(prompts)}
    return np.stack([embeddings[prompt] for prompt in prompts])


def compute_diversities(rows: Sequence[Row], images: Sequence[Image.Image], side: int) -> list[float | None]:
    """Return the mean distance of each image to its model's others of the same item; None: it is alone.

    The distance is LPIPS (Zhang et al. 2018, eq. 1) on the judges' network, without learnt weights.
    """
    distance = FeatureDistance(extract_trunk_maps)
    groups: dict[tuple[str, str], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault((row["item_id"], row["model"]), []).append(index)
    diversities: list[float | None] = [None] * len(rows)
    for members in groups.values():
        if len(members) < 2:
            continue
        pixels = bytes_to_tensor(torch.stack([make_square_tensor(images[index], side) for index in members]))
        left, right = np.triu_indices(len(members), 1)
        distances = np.zeros((len(members), len(members)))
        distances[left, right] = distances[right, left] = distance(pixels[left], pixels[right]).tolist()
        for place, index in enumerate(members):
            diversities[index] = float(np.delete(distances[place], place).mean())
    return diversities


def classify_aspect(height: int, width: int) -> str:
    """Return the aspect, of ASPECTS, of an image: square is up to SQUARE times as long as it is short."""
    return ASPECTS[1 + (height > SQUARE * width) - (width > SQUARE * height)]


def classify_mask_size(share: float, limits: tuple[float, float]) -> str:
    """Return the size, of MASK_SIZES, of a product that covers `share` of its image."""
    return MASK_SIZES[sum(share >= limit for limit in limits)]
