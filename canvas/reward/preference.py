"""Rewards beside our own: public models that compare texts and images, as CLIP, SigLIP and PickScore.

Every reward scores through `Reward.score`; `fetch_reward` loads any of them by directory or hub id. CLIP: Radford et
al. 2021; SigLIP: Zhai et al. 2023; PickScore: Kirstain et al. 2023, a CLIP that people's choices tuned.
Shapes: B images, T texts, S the side that the network sees, E the embeddings' width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import nn
from torch.nn import functional as F

from canvas.hub import SOURCE_FILE, fetch_snapshot, link_files, link_model, record_source
from canvas.loading import check_initial_config, load_with_processor, read_model_config
from canvas.reward.model import ProductImages, RewardModel, build_reward_config, check_form, load_reward
from canvas.reward.spec import RewardSpec

TEXT_IMAGE_CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel"}
"""`model_type` -> class of transformers. PickScore is a CLIPModel, with a logit scale of its own."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
"""One of them holds the vocabulary; without any transformers would make an empty one."""
TOKENIZER_SUFFIXES = (".txt", ".model")
"""Suffixes of a tokenizer's files that are no JSON."""

PROMPT_MISSING = "this reward compares images with their prompt: give a prompt, or a reward that train_reward wrote"


class Reward(Protocol):
    """Says how good images are: `canvas.reward.model.RewardModel`, or a `TextImageReward`."""

    needs_prompt: bool
    """Whether it scores nothing without a prompt."""

    def score(
        self,
        images: torch.Tensor,
        products: ProductImages,
        prompts: Sequence[str] | None,
        *,
        batch_size: int = 64,
    ) -> Mapping[str, torch.Tensor]:
        """Return scores, float32 (B,) on the CPU by question, higher is better; "overall" is always among them.

        Args:
            images: uint8 (B, 3, H, W), on any device: they are resized and scored on the reward's.
            products: What the images must keep.
            prompts: One an image; None: nothing was asked for.
            batch_size: Images that go through the network at once.

        Raises:
            ValueError: There is no prompt, and the reward needs one.
        """

    def to(self, device: torch.device | str) -> Self:
        """Move it to a device."""

    def save_pretrained(self, folder: Path) -> None:
        """Write it into a directory that `fetch_reward` loads."""


class TextImageReward(nn.Module):
    """A text-image model of transformers, in eval mode: how well do image and prompt belong together?

    "agreement" is their cosine, -1..1. "overall" is the model's own logit: the cosine times its scale, plus SigLIP's
    bias. The sigmoid of SigLIP's logit is a chance; the softmax of PickScore's over candidates is that of being chosen.
    Images are resized whole, as everywhere here: a crop would drop their edges. The product is not looked at.
    """

    needs_prompt = True
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: Any, tokenizer: Any, image_processor: Any, source: Mapping[str, str]) -> None:
        super().__init__()
        self.network = network.eval()
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.image_size: int = network.config.vision_config.image_size
        self.source = dict(source)  # repository, commit and licence
        for name in ("mean", "std"):
            values = torch.tensor(getattr(image_processor, f"image_{name}")).view(3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    @torch.no_grad()
    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """Return unit vectors (B, E) of images, uint8 (B, 3, H, W), on the network's device."""
        pixels, size = images.to(self.mean.device).float(), (self.image_size,) * 2
        if tuple(pixels.shape[-2:]) != size:
            pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)
        features = self.network.get_image_features(pixel_values=(pixels / 255 - self.mean) / self.std).pooler_output
        return F.normalize(features, dim=1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Return unit vectors (T, E) on the network's device; of a longer text only what the model reads counts."""
        reads_padding = self.network.config.model_type == "siglip"  # trained so: every text as long, without a mask
        tokens = self.tokenizer(
            list(texts),
            padding="max_length" if reads_padding else True,
            truncation=True,
            max_length=self.network.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.mean.device)
        mask = None if reads_padding else tokens["attention_mask"]
        features = self.network.get_text_features(input_ids=tokens["input_ids"], attention_mask=mask).pooler_output
        return F.normalize(features, dim=1)

    @torch.no_grad()
    def score(
        self,
        images: torch.Tensor,
        products: ProductImages,
        prompts: Sequence[str] | None,
        *,
        batch_size: int = 64,
    ) -> Mapping[str, torch.Tensor]:
        """Return "agreement" and "overall", as `Reward.score`."""
        if prompts is None:
            raise ValueError(PROMPT_MISSING)
        cosines = self.compute_agreement(images, prompts, batch_size=batch_size)
        bias = getattr(self.network, "logit_bias", torch.zeros(()))
        return {"agreement": cosines, "overall": cosines * self.network.logit_scale.exp().cpu() + bias.cpu()}

    @torch.no_grad()
    def compute_agreement(self, images: torch.Tensor, prompts: Sequence[str], *, batch_size: int = 64) -> torch.Tensor:
        """Return the cosine of each image, uint8 (B, 3, H, W), with its prompt: float32 (B,) in -1..1 on the CPU."""
        assert images.dtype == torch.uint8, images.dtype
        assert len(prompts) == len(images), (len(prompts), len(images))
        place_of = {text: place for place, text in enumerate(dict.fromkeys(prompts))}
        texts = list(place_of)
        parts = [self.embed_texts(texts[first : first + batch_size]) for first in range(0, len(texts), batch_size)]
        asked = torch.cat(parts)[[place_of[prompt] for prompt in prompts]]
        embeddings = torch.cat([self.embed_images(part) for part in torch.split(images, batch_size)])
        return (embeddings * asked).sum(dim=1).float().cpu()

    def save_pretrained(self, folder: Path) -> None:
        """Write model, tokenizer and image processor as transformers does."""
        for part in (self.network, self.tokenizer, self.image_processor):
            part.save_pretrained(folder)


def fetch_reward(source: str | Path, *, revision: str | None = None) -> Reward:
    """Load a reward in eval mode: a directory that `train_reward` wrote, or a CLIP or SigLIP of transformers.

    Args:
        source: A directory, or a hub id as OWNER/NAME or OWNER/NAME@REVISION. It holds tokenizer and image processor.
        revision: As `canvas.hub.fetch_snapshot` takes it.

    Raises:
        ValueError: There is no such directory or repository, or it holds another model, or not all of its weights.
    """
    import transformers  # its models take most of a second

    snapshot = fetch_snapshot(str(source), revision=revision)
    config = read_model_config(snapshot.folder)
    if config.get("_class_name") == RewardModel.__name__:
        return load_reward(snapshot.folder)
    if (kind := config.get("model_type")) not in TEXT_IMAGE_CLASSES:
        name, classes = kind or config.get("_class_name") or "no model", " or ".join(TEXT_IMAGE_CLASSES.values())
        raise ValueError(f"{source} holds {name}: a reward is what train_reward wrote, or {classes} of transformers")
    if not any((snapshot.folder / name).is_file() for name in TOKENIZER_FILES):
        raise ValueError(f"{source} holds no tokenizer: put that of its text half beside the weights")
    (network, loading), tokenizer = load_with_processor(
        getattr(transformers, TEXT_IMAGE_CLASSES[kind]),
        transformers.AutoTokenizer,
        snapshot.folder,
        "text-image",
        dtype=torch.float32,
        output_loading_info=True,
    )
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(f"{source} lacks {len(missing)} weights of {type(network).__name__}, as {missing[0]}")
    try:
        image_processor = transformers.AutoImageProcessor.from_pretrained(snapshot.folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{source} holds no image processor: {' '.join(str(error).split())}") from None
    return TextImageReward(network, tokenizer, image_processor, snapshot.describe())


def link_initial_reward(spec: RewardSpec, target: Path) -> tuple[str, Counter[str]]:
    """Put the reward of `spec.init_from`, if any, as it is into a new directory, with where it came from.

    Returns:
        What was done, and how many files are links and copies, none without a reward.

    Raises:
        ValueError: `init_from` holds no reward, or one of train_reward of another form than `spec`.
    """
    if spec.init_from is None:
        return "no reward model is made", Counter()
    folder = fetch_snapshot(spec.init_from).folder
    if read_model_config(folder).get("_class_name") == RewardModel.__name__:
        check_form(folder)
        check_initial_config(RewardModel.load_config(folder), spec.init_from, build_reward_config(spec), "reward")
    else:
        fetch_reward(spec.init_from)  # refuses what is none
    counts = link_model(folder, target)
    counts += link_files([file for file in sorted(folder.iterdir()) if file.suffix in TOKENIZER_SUFFIXES], target)
    if not (target / SOURCE_FILE).is_file():
        record_source(spec.init_from, target)
    return "reward.init_from passes through", counts
