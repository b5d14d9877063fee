"""Tuning of a text tower: what it learns from, the sigmoid objective, and a run.

B samples of a step, L tokens, E numbers of an embedding, N blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from canvas.clip.model import TextTower
from canvas.clip.spec import ClipSpec
from canvas.clip.training import gather_ranks
from canvas.clip.tuning.data import TuningData
from canvas.clip.tuning.neighbours import Edge, PinBoardGraph
from canvas.clip.tuning.spec import TrainTextParams
from canvas.clip.tuning.towers import build_first_weights, compute_layers, mix_layers
from canvas.device import default_device
from canvas.features.perceptual import compute_image_embeddings
from canvas.pins.frames import CropSpec, crop_random_square
from canvas.pins.image_batches import load_images
from canvas.pins.images import bytes_to_tensor
from canvas.train.data import select_batch_rows
from canvas.train.draws import mix_seed
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import TrainSpec

IMAGES_AT_ONCE = 64
"""Crops that go through the frozen image tower together."""
FIRST_TEMPERATURE = 10.0
"""Factor of the cosines at the start, as in SigLIP."""


class TextBatch(TypedDict):
    """Texts of pins, each with an image of its pin and a text of a neighbour."""

    pin_id: list[str]
    rows: torch.Tensor  # int64 (B,), the pin's number
    tokens: torch.Tensor  # int64 (B, L)
    images: torch.Tensor  # float32 (B, E), unit vectors of the frozen image tower
    neighbour_rows: NotRequired[torch.Tensor]  # int64 (B,)
    neighbour_tokens: NotRequired[torch.Tensor]  # int64 (B, L)
    related: NotRequired[torch.Tensor]  # uint8 (B, B of all ranks): whether pin and neighbour share a board


@dataclass(frozen=True, slots=True)
class TextBatches:
    """Texts and images of pins, drawn anew every step; a sample is a function of the seed, the step and its place."""

    ids: Sequence[str]
    tokens: Sequence[torch.Tensor]  # of each pin its captions, (K, L)
    images: torch.Tensor  # (pins, views, E)
    graph: PinBoardGraph | None
    hops: int
    batch_size: int
    seed: int

    def __call__(self, step: int, rank: int, world: int) -> TextBatch:
        rows = self._select_rows(step, rank, world)
        views = [self._draw(step, place, 1, self.images.shape[1]) for place in self._list_places(rows, rank)]
        batch: TextBatch = {
            "pin_id": [self.ids[row] for row in rows],
            "rows": torch.from_numpy(rows),
            "tokens": self._draw_tokens(rows, step, rank, 2),
            "images": self.images[torch.from_numpy(rows), torch.tensor(views)],
        }
        if self.graph is not None:
            neighbours_of_ranks = [
                self._walk(self._select_rows(step, other, world), step, other) for other in range(world)
            ]
            neighbours = neighbours_of_ranks[rank]
            batch["neighbour_rows"] = torch.from_numpy(neighbours)
            batch["neighbour_tokens"] = self._draw_tokens(neighbours, step, rank, 4)
            batch["related"] = torch.from_numpy(
                self.graph.find_shared_boards(rows, np.concatenate(neighbours_of_ranks)).astype(np.uint8)
            )
        return batch

    def _select_rows(self, step: int, rank: int, world: int) -> NDArray[np.int64]:
        return select_batch_rows(len(self.ids), self.batch_size, self.seed, step, rank, world)

    def _walk(self, rows: NDArray[np.int64], step: int, rank: int) -> NDArray[np.int64]:
        """Return a neighbour of each pin of a rank's slice."""
        assert self.graph is not None
        ends = []
        for row, place in zip(rows, self._list_places(rows, rank), strict=True):
            rng = np.random.default_rng(mix_seed(self.seed, step, place, 3))
            ends.append(self.graph.walk(int(row), self.hops, rng))
        return np.array(ends, np.int64)

    def _draw_tokens(self, rows: NDArray[np.int64], step: int, rank: int, stream: int) -> torch.Tensor:
        chosen = []
        for row, place in zip(rows, self._list_places(rows, rank), strict=True):
            texts = self.tokens[row]
            chosen.append(texts[self._draw(step, place, stream, len(texts))])
        return torch.stack(chosen)

    def _list_places(self, rows: NDArray[np.int64], rank: int) -> range:
        return range(rank * len(rows), (rank + 1) * len(rows))

    def _draw(self, step: int, place: int, stream: int, count: int) -> int:
        return int(np.random.default_rng(mix_seed(self.seed, step, place, stream)).integers(count))


class SigmoidHead(nn.Module):
    """Temperature and bias of one kind of pairs, and their loss (SigLIP, Zhai et al. 2023, algorithm 1).

    The bias starts where a pair is right with the chance that one of a batch is, so that the first steps do not undo
    the many wrong ones.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(FIRST_TEMPERATURE)))
        self.bias = nn.Parameter(torch.tensor(-math.log(max(batch_size - 1, 1))))

    def forward(
        self, texts: torch.Tensor, others: torch.Tensor, right: torch.Tensor, widths: Sequence[int]
    ) -> torch.Tensor:
        """Return the mean over `widths` of the loss of texts (B, E) and others (B, E), each cut to that width.

        `right` (B, B) bool: which of them belong together. Matryoshka: Kusupati et al. 2022, equation 1.
        """
        signs = 2 * right.float() - 1
        losses = []
        for width in widths:
            cosines = F.normalize(texts[:, :width], dim=-1) @ F.normalize(others[:, :width], dim=-1).T
            logits = self.log_temperature.exp() * cosines.float() + self.bias
            losses.append(-F.logsigmoid(signs * logits).sum(dim=1).mean())
        return torch.stack(losses).mean()


class TextTuner(nn.Module):
    """A text-image encoder whose text half is tuned, with what is trained beside it.

    The image tower is frozen: a square matrix behind its embeddings, the identity at first, makes room for the widths.
    """

    def __init__(
        self,
        clip: open_clip.CLIP,
        spec: ClipSpec,
        params: TrainTextParams,
        batch_size: int,
        layer_weights: Sequence[float] | None = None,
    ) -> None:
        """Build it round `clip`, whose states are mixed with `layer_weights` at first; None: those before the last
        block."""
        super().__init__()
        mix = build_first_weights(spec.text_layers) if layer_weights is None else torch.tensor(layer_weights)
        self.clip = clip
        clip.visual.requires_grad_(False)
        clip.logit_scale.requires_grad_(False)
        self.turn = nn.Parameter(torch.eye(spec.embed_dim))
        self.image_head = SigmoidHead(batch_size)
        self.neighbour_head = SigmoidHead(batch_size) if params.neighbours else None
        self.mix = nn.Parameter(mix) if params.mix_weight else None
        self.state_head = SigmoidHead(batch_size) if params.mix_weight else None
        self.state_projection = (
            nn.Sequential(nn.LayerNorm(spec.text_width), nn.Linear(spec.text_width, spec.embed_dim))
            if params.mix_weight
            else None
        )

    def forward(
        self, images: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return embeddings of images (B, E), of texts (B or 2 B, E), and of the first B texts' mixed states (B, E)."""
        if self.mix is None or self.state_projection is None:
            return images @ self.turn, self.clip.encode_text(tokens), None
        layers, pooled = compute_layers(self.clip, tokens)
        states = mix_layers(layers[:, : len(images)], self.mix).mean(dim=1)
        return images @ self.turn, pooled, self.state_projection(states)

    @torch.no_grad()
    def fold(self) -> None:
        """Put the matrix behind the image embeddings into the image tower's projection."""
        self.clip.visual.proj.copy_(self.clip.visual.proj @ self.turn)
        self.turn.copy_(torch.eye(len(self.turn)))


@dataclass(frozen=True, slots=True)
class TextObjective:
    """The sigmoid losses of texts with images, of mixed states with images, and of texts with neighbours' texts.

    A text that several pins of a batch have is right for all of them. Every rank has the loss of the pairs of all ranks
    (canvas.clip.training.contrastive_objective).
    """

    widths: Sequence[int]
    mix_weight: float
    neighbour_weight: float

    def __call__(
        self, tuner: TextTuner, batch: TextBatch, draws: object
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss, and its parts by name."""
        size, neighbours = len(batch["tokens"]), batch.get("neighbour_tokens")
        both = batch["tokens"] if neighbours is None else torch.cat([batch["tokens"], neighbours])
        images, texts, states = tuner(batch["images"], both)
        tokens, rows = gather_ranks(batch["tokens"]), gather_ranks(batch["rows"])
        right = _find_equal(rows, rows) | _find_equal(tokens, tokens)
        embeddings, captions = gather_ranks(images), gather_ranks(texts[:size])
        loss = tuner.image_head(captions, embeddings, right, self.widths)
        parts = {"image_loss": loss.detach(), "temperature": tuner.image_head.log_temperature.detach().exp()}
        if states is not None and tuner.state_head is not None:
            state_loss = tuner.state_head(gather_ranks(states), embeddings, right, self.widths)
            loss, parts["state_loss"] = loss + self.mix_weight * state_loss, state_loss.detach()
        if neighbours is not None and tuner.neighbour_head is not None:
            near = gather_ranks(batch["related"]).bool() | _find_equal(rows, gather_ranks(batch["neighbour_rows"]))
            near |= _find_equal(tokens, gather_ranks(neighbours)) | torch.eye(len(rows), dtype=torch.bool).to(near)
            neighbour_loss = tuner.neighbour_head(captions, gather_ranks(texts[size:]), near, self.widths)
            loss, parts["neighbour_loss"] = loss + self.neighbour_weight * neighbour_loss, neighbour_loss.detach()
        return loss, parts


def _find_equal(rows: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return whether each of rows (B, ...) equals each of others (B, ...), (B, B)."""
    same = rows[:, None] == others[None, :]
    return same if same.ndim == 2 else same.all(dim=-1)


@torch.no_grad()
def embed_crops(
    clip: open_clip.CLIP, spec: ClipSpec, pins: Path, ids: Sequence[str], crops: CropSpec, views: int, seed: int
) -> tuple[list[str], torch.Tensor]:
    """Return ids in the order of the table, and embeddings (pins, views, E) of random crops by the frozen tower.

    Raises:
        ValueError: The table holds none of the pins.
    """
    loaded, images = load_images(pins, ids, round(spec.image_size * crops.zoom))
    device, embedded = default_device(), []
    clip.eval().to(device)
    places = [(row, view) for row in range(len(images)) for view in range(views)]
    for first in range(0, len(places), IMAGES_AT_ONCE):
        squares = [
            crop_random_square(images[row], spec.image_size, crops, np.random.default_rng(mix_seed(seed, row, view)))
            for row, view in places[first : first + IMAGES_AT_ONCE]
        ]
        pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
        embedded.append(compute_image_embeddings(clip, bytes_to_tensor(pixels.to(device))).cpu())
    return loaded, torch.cat(embedded).reshape(len(images), views, -1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What a tuning leaves beside the encoder."""

    result: TrainResult
    layer_weights: list[float] | None  # of the mix; None: there is none
    boards: int  # that were walked on
    connected_share: float  # of the pins: those with a neighbour

    def compute_metrics(self) -> dict[str, object]:
        """Return its figures: the weight of each layer by its number among them, the first is 0."""
        mix = {f"layer_{layer}": weight for layer, weight in enumerate(self.layer_weights or [])}
        return {
            "images_per_second": self.result.images_per_second,
            "boards": self.boards,
            "connected_share": self.connected_share,
            **({"mix": mix} if mix else {}),
        }


def tune_text_tower(
    clip: open_clip.CLIP,
    name: str,
    spec: ClipSpec,
    params: TrainTextParams,
    data: TuningData,
    train: TrainSpec,
    *,
    layer_weights: Sequence[float] | None,
    checkpoints: Path,
    log: Callable[[Mapping[str, float], int], None],
) -> Tuned:
    """Tune the text half of `clip` in place; of its image half only the projection changes.

    Args:
        clip: The encoder.
        name: Prefix of its metrics.
        spec: Its sizes.
        params: What is trained.
        data: What it learns from.
        train: How.
        layer_weights: Of the mix that it was tuned with before; None: it was not.
        checkpoints: Where progress is kept.
        log: Takes figures of a step.

    Raises:
        ValueError: Neighbours are asked for, and no two pins share a board.
    """
    ids, images = embed_crops(clip, spec, data.pins, [*data.train], params.crops, params.views, train.seed)
    graph = build_graph(params, ids, data.edges)
    tower = TextTower.from_clip(clip, spec)
    tokens = [tower.tokenize(data.train[pin_id]).cpu() for pin_id in ids]
    torch.manual_seed(train.seed)
    tuner = TextTuner(clip, spec, params, train.batch_size, layer_weights)
    hops, weight = (params.neighbours.hops, params.neighbours.weight) if params.neighbours else (1, 0.0)
    batches = TextBatches(ids, tokens, images, graph, hops, train.batch_size, train.seed)
    objective = TextObjective(params.compute_widths(spec.embed_dim), params.mix_weight, weight)

    def log_named(values: Mapping[str, float], step: int) -> None:
        log({f"{name}_{key}": value for key, value in values.items()}, step)

    result = fit(tuner, objective, batches, train, checkpoints=checkpoints, log=log_named)
    tuner.fold()
    return Tuned(
        result=result,
        layer_weights=None if tuner.mix is None else tuner.mix.tolist(),
        boards=graph.boards if graph else 0,
        connected_share=graph.connected_pins / len(ids) if graph else 0.0,
    )


def build_graph(params: TrainTextParams, ids: Sequence[str], edges: Sequence[Edge]) -> PinBoardGraph | None:
    """Return the graph of pins and boards; None: params ask for no neighbours.

    Raises:
        ValueError: No two pins share a board.
    """
    if params.neighbours is None:
        return None
    graph = PinBoardGraph(ids, edges, params.neighbours.max_pins)
    if not graph.connected_pins:
        raise ValueError(
            f"no two of {len(ids)} pins share a board of at most {params.neighbours.max_pins} pins: raise "
            "train_text.neighbours.max_pins, name saves, or set neighbours to null"
        )
    return graph
