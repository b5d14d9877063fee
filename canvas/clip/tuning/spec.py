"""How the text towers are tuned; params of a stage, so light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from canvas.clip.spec import TextSpec
from canvas.pins.frames import CropSpec
from canvas.ranges import Count, Natural, NonNegative, Positive
from canvas.train.spec import TrainableParams

TowerName = Literal["first", "second"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NeighbourSpec:
    """Pins near each other in the graph of pins and boards, whose texts are drawn together."""

    weight: Positive  # of their loss, beside that of images
    hops: Count  # boards that a random walk crosses, at most
    max_pins: Annotated[int, Ge(2)]  # of a board; a larger one says little and is left out
    saves: str | None  # list in data/ (.csv, .jsonl or .parquet) of pin_id and board: every board that a pin was saved
    # to; null: only the board of the pin's own row


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainTextParams(TrainableParams):
    """What the text towers are tuned on, and scored with."""

    init_from: str | None  # directory or hub id of what this stage wrote before; null: train_clip's encoders
    towers: tuple[TowerName, ...]  # text encoders whose text half is tuned; image halves stay
    sources: tuple[str, ...]  # of the captions to learn from
    scored_source: str  # of the captions that retrieval is scored with
    crops: CropSpec  # random crops of the images
    views: Count  # crops of each image
    halvings: Natural  # Matryoshka: the first half, quarter and so on of an embedding are trained as the whole is
    mix_weight: NonNegative  # of the loss of a learned mix of layers, which the denoiser reads then; 0: it reads the
    # states before the last block
    neighbours: NeighbourSpec | None  # null: texts and images alone
    score_batch: Count  # images or texts at once, when scored

    refused: ClassVar[Mapping[str, str]] = {
        "accumulate": "pairs are told apart within one pass, train on more processes and set it to 1",
        "parallel": "temperatures are single numbers, which cannot be sharded, set it to ddp or none",
    }

    def check_with(self, params: Mapping[str, Any]) -> None:
        """Raise `ValueError` if the training cannot run as other sections say."""
        TrainableParams.check_with(self, params)
        if self.train is None:
            return
        if not self.towers or len(set(self.towers)) != len(self.towers):
            raise ValueError(f"towers is {list(self.towers)}: name first, second or both, each once")
        text: TextSpec = params["text"]
        if text.t5 is not None and (self.towers != ("first",) or self.mix_weight):
            raise ValueError(
                f"towers is {list(self.towers)} and mix_weight {self.mix_weight}: beside text.t5 the denoiser reads "
                "the first's pooled text alone, set them to [first] and 0.0"
            )
        for name in self.towers:
            width = getattr(text, name).embed_dim
            if width % 2**self.halvings:
                raise ValueError(
                    f"halvings is {self.halvings}: text.{name}.embed_dim {width} cannot be halved so often"
                )

    def compute_widths(self, embed_dim: int) -> tuple[int, ...]:
        """Return the widths that are trained, the whole first."""
        return tuple(embed_dim // 2**halving for halving in range(self.halvings + 1))
