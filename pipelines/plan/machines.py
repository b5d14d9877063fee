"""What stages hold in the memory of their machine, where it grows with the pins that they are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from canvas.clip.spec import ClipSpec
from canvas.pins.frames import CropSpec, FrameSpec
from canvas.reward.spec import RewardSpec
from canvas.shards.spec import EncodingSpec
from canvas.train.spec import Train, TrainSpec
from canvas.uve.spec import UveSpec
from pipelines.plan.profile import GIB, Section, compute_embedding_width, train_spec

QUANTITY_SUFFIXES = {
    "": 1,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
"""Of Kubernetes' quantities."""

DESCRIPTOR_COPIES = 3
"""Of the descriptors at once (canvas.styles.clusters.compute_descriptors): as they are joined, centred, and the means
of their products beside them."""

PRODUCT_MEAN_BYTES = 20
"""Bytes of a number of a product's mean: its sum and the mean in double precision, and the mean in single."""

ENCODED_PIN_BYTES = 400_000
"""Bytes of a pin's picture and matte, as the tables hold them: assumed."""

CAPTION_BYTES = 900
"""Bytes of a caption as held while captions are read (canvas.pins.captions.read_captions): measured of a process,
750 for captions of 60 letters and 1,160 for 200."""

INDEX_ROW_BYTES = 630
"""Bytes of a row of shards while their index is made (canvas.shards.rows.ShardRows), measured; 310 of them stay."""

JUDGE_SIDE = 256
"""Pixels of the squares that judges of styles see, at most."""

FRAMED_PRODUCT_BYTES = 4 * (3 + 1 + 1)
"""Bytes of a pixel of a product that is to be painted: colours, mask and alpha (canvas.inference.framed_product)."""

LABELLED_PRODUCT_BYTES = 3 + 1 + 3
"""Bytes of a pixel of a known product's square (canvas.styles.pins): with it, its mask, without it."""

STYLED_IMAGE_BYTES = 3 + 1 + LABELLED_PRODUCT_BYTES
"""Bytes of a pixel of a painted picture's square (evaluation.generator.style_trials): the view, what is hidden of it,
and as much as of a known product for its copy with a leak: the copy, its mask, the copy with that hidden."""

REAL_PIN_BYTES = 3 + 1
"""Bytes of a pixel of a real pin (canvas.pins.products): its picture and its mask."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A class of machines in pipelines/cluster.yaml."""

    cpu: str
    memory: str
    gpus: int

    @property
    def cores(self) -> float:
        return parse_quantity(self.cpu)

    @property
    def bytes(self) -> float:
        return parse_quantity(self.memory)


Machines = Callable[[str], Machine]
"""A reader of the classes, by name. It raises ValueError for a missing one."""


def parse_quantity(text: str) -> float:
    """The number that Kubernetes reads: of "96", "500m" or "960Gi"."""
    number = text.rstrip("".join(QUANTITY_SUFFIXES))
    try:
        return float(number) * QUANTITY_SUFFIXES[text[len(number) :]]
    except (ValueError, KeyError):
        raise ValueError(f"{text!r} is no quantity of Kubernetes: write it as 96, 500m or 960Gi") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class StageMemory:
    """What a stage holds at most."""

    what: str  # stage, and when
    bytes: int  # of one process
    why: str
    processes: int
    kind: str  # of machine
    machine: Machine

    @property
    def share(self) -> float:
        """Of the machine's memory, by all its processes."""
        return self.bytes * self.processes / self.machine.bytes

    def line(self) -> str:
        whole, many = self.bytes * self.processes / GIB, "" if self.processes == 1 else f"{self.processes} processes x "
        too_much = ", too much" if self.share > 1 else ""
        room = f"{self.share:.0%} of {self.machine.memory} ({self.kind}){too_much}"
        return f"  {self.what:24}{whole:>10,.1f} GiB  {many}{self.why}: {room}"


def compute_stage_memory(section: Section, machines: Machines, denoiser: int, vectors: int) -> list[StageMemory]:
    """Of the stages that hold many pins, with a denoiser of so many parameters, where so many pins are embedded."""
    return [
        *_compute_uve_memory(section, machines),
        _compute_reward_memory(section, machines),
        _compute_encode_memory(section, machines, vectors),
        _compute_index_memory(section, machines, vectors),
        _compute_decoder_memory(section, machines, denoiser, vectors),
        _compute_mining_memory(section, machines, vectors),
        *_compute_style_score_memory(section, machines),
    ]


def count_processes(work: TrainSpec | EncodingSpec | None, machine: Machine) -> int:
    """That run a stage with such work on a machine: each calls the stage's function."""
    return machine.gpus if work is not None and work.parallel != "none" else 1


def _compute_uve_memory(section: Section, machines: Machines) -> list[StageMemory]:
    train, crops = section("train_uve.train", Train | None), section("train_uve.crops", CropSpec)
    pins, scored, catalogue = (section(f"train_uve.{name}", int) for name in ("pins", "scored_pins", "catalogue_pins"))
    sides = section("uve", UveSpec).image_size, section("text.second", ClipSpec).image_size
    machine = machines("gpus")
    work = None if train is None else train_spec(section, "train_uve")
    held_by = partial(StageMemory, processes=count_processes(work, machine), kind="gpus", machine=machine)
    rows = []
    if train is not None:
        side = round(sides[0] * crops.zoom)
        rows.append(held_by(what="train_uve", bytes=pins * 3 * side**2, why=f"{pins:,} x 3 x {side}^2 bytes"))
    why = f"({scored:,} + {catalogue:,}) x 3 x {max(sides)}^2 bytes"
    rows.append(held_by(what="train_uve, scoring", bytes=(scored + catalogue) * 3 * max(sides) ** 2, why=why))
    return rows


def _compute_reward_memory(section: Section, machines: Machines) -> StageMemory:
    side = section("reward", RewardSpec).image_size
    pins, scored, scenes = (section(f"train_reward.{name}", int) for name in ("pins", "scored_pins", "scenes"))
    return StageMemory(
        what="train_reward",
        bytes=(4 * (pins + 2 * scored) + 3 * 2 * scenes) * side**2,
        why=f"(4 x ({pins:,} + 2 x {scored:,}) + 3 x 2 x {scenes:,} scenes) x {side}^2 bytes",
        processes=1,
        kind="gpu",
        machine=machines("gpu"),
    )


def _compute_encode_memory(section: Section, machines: Machines, vectors: int) -> StageMemory:
    encoding = section("encode", EncodingSpec)
    captions = len(encoding.sources)  # all are read, whatever encode.captions says
    return StageMemory(
        what="encode",
        bytes=vectors * captions * CAPTION_BYTES,
        why=f"{vectors:,} x {captions} captions x {CAPTION_BYTES} bytes, measured",
        processes=count_processes(encoding, machines("gpus")),
        kind="gpus",
        machine=machines("gpus"),
    )


def _compute_index_bytes(section: Section, vectors: int) -> tuple[int, str]:
    """Bytes of the index of the shards, and their arithmetic."""
    views = section("encode", EncodingSpec).views
    return vectors * views * INDEX_ROW_BYTES, f"{vectors:,} x {views} views x {INDEX_ROW_BYTES} bytes, measured"


def _compute_index_memory(section: Section, machines: Machines, vectors: int) -> StageMemory:
    """Of the first training of a denoiser; the others hold as much."""
    size, why = _compute_index_bytes(section, vectors)
    return StageMemory(
        what="train_base, index",
        bytes=size,
        why=why,
        processes=count_processes(train_spec(section, "train_base"), machines("gpus")),
        kind="gpus",
        machine=machines("gpus"),
    )


def _compute_decoder_memory(section: Section, machines: Machines, denoiser: int, vectors: int) -> StageMemory:
    pins, scored = (section(f"train_decoder.{name}", int) for name in ("pins", "scored_pins"))
    index, why = _compute_index_bytes(section, vectors)
    return StageMemory(
        what="train_decoder",
        bytes=(pins + scored) * ENCODED_PIN_BYTES + 4 * denoiser + index,
        why=f"(({pins:,} + {scored:,}) x {ENCODED_PIN_BYTES:,} bytes (assumed) + {denoiser:,} x 4 (denoiser) + {why})",
        processes=count_processes(train_spec(section, "train_decoder"), machines("gpus")),
        kind="gpus",
        machine=machines("gpus"),
    )


def _compute_mining_memory(section: Section, machines: Machines, vectors: int) -> StageMemory:
    pins = min(vectors, 2 * section("mine_styles.pins", int))  # as many of the other splits
    uve, clip, width = (
        compute_embedding_width(section, source) for source in ("uve", "clip", section("mine_styles.source", str))
    )
    each, why = 4 * (uve + clip + DESCRIPTOR_COPIES * width), f"4 x ({uve} + {clip} + {DESCRIPTOR_COPIES} x {width})"
    if section("mine_styles.without_product", bool):
        each, why = (
            each + PRODUCT_MEAN_BYTES * width,
            f"({why} + {PRODUCT_MEAN_BYTES} x {width}, if each has a product of its own)",
        )
    return StageMemory(
        what="mine_styles",
        bytes=pins * each,
        why=f"{pins:,} x {why} bytes",
        processes=1,
        kind="memory",
        machine=machines("memory"),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleTrialCount:
    """How many pictures evaluate_style asks for (evaluation.generator.style_trials.plan_trials)."""

    products: int
    styles: int  # of each product
    strengths: int  # beside none
    seeds: int
    headline_seeds: int  # without a prompt, of the first strength and of none

    @property
    def asked(self) -> int:
        settings = 2 * self.headline_seeds + 2 * self.strengths * self.seeds
        return self.products * self.styles * settings

    @property
    def painted(self) -> int:
        """Those that differ: without prompt and style a product's pictures are the same for all its styles."""
        return self.asked - self.products * (self.styles - 1) * self.headline_seeds


def _compute_style_score_memory(section: Section, machines: Machines) -> list[StageMemory]:
    """Pictures of a catalogue are taken for as large as the frames."""
    names = ("products", "styles", "seeds", "headline_seeds", "learnt_pins", "real_pins")
    products, styles, seeds, headline_seeds, learnt, real = (section(f"evaluate_style.{name}", int) for name in names)
    count = StyleTrialCount(
        products=products,
        styles=styles,
        strengths=len(section("evaluate_style.strengths", tuple[float, ...])),
        seeds=seeds,
        headline_seeds=headline_seeds,
    )
    side = section("frames", FrameSpec).side
    judged = min(side, JUDGE_SIDE)
    whole, known = 3 * count.painted + REAL_PIN_BYTES * real, LABELLED_PRODUCT_BYTES * (learnt + real)
    pictures = f"3 x {count.painted:,} pictures + {REAL_PIN_BYTES} x {real:,} pins"
    squares = f"{LABELLED_PRODUCT_BYTES} x ({learnt:,} + {real:,})"
    held_by = partial(StageMemory, processes=1, kind="gpu", machine=machines("gpu"))
    return [
        held_by(
            what="evaluate_style",
            bytes=(whole + FRAMED_PRODUCT_BYTES * products) * side**2 + known * judged**2,
            why=f"({pictures} + {FRAMED_PRODUCT_BYTES} x {products:,}) x {side}^2 + {squares} x {judged}^2 bytes",
        ),
        held_by(
            what="evaluate_style, scoring",
            bytes=whole * side**2 + (known + STYLED_IMAGE_BYTES * count.asked) * judged**2,
            why=f"({pictures}) x {side}^2 + ({squares} + {STYLED_IMAGE_BYTES} x {count.asked:,}) x {judged}^2 bytes",
        ),
    ]
