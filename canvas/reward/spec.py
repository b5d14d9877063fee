"""What the reward model is: params of stages, so this module is light to import."""

from __future__ import annotations

from dataclasses import dataclass

HEADS = ("defects", "fidelity", "aesthetics", "overall", "prompted")
"""Questions that the model answers, in the order of its logits; higher is better in all. defects: free of them;
fidelity: the product is as it was; overall: which picture people would take; prompted: the same, knowing the prompt."""


REWARD_FOLDER = "reward"
"""In the directory of an assembled pipeline: the reward model, which only who chooses loads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardSpec:
    """The network."""

    image_size: int  # side of the square that pictures are squeezed into, a multiple of 2 ** len(channels)
    channels: tuple[int, ...]  # at strides 2, 4, 8, ...; two or more
    layers_per_block: int
    hidden: int  # width of the layer before the answers
    words: int  # buckets that the words of prompts are hashed into
    word_width: int
    dropout: float
    photo_layers: tuple[int, ...]  # of canvas.features.photographs, which it sees the picture by too; none: it does not
    init_from: str | None  # a directory that train_reward wrote; then the rest must be what it was

    def __post_init__(self) -> None:
        if len(self.channels) < 2 or self.image_size % 2 ** len(self.channels):
            raise ValueError(
                f"reward needs two or more channels and an image_size that 2 ** {len(self.channels)} divides, not "
                f"{list(self.channels)} and {self.image_size}"
            )
        if not 0 <= self.dropout < 1 or self.words < 2:
            raise ValueError(f"reward needs a dropout in 0..1 and 2 or more words, not {self.dropout} and {self.words}")
