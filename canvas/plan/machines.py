"""What stages hold in the memory of their machine, where it grows with the pins that they are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from canvas.data.crops import CropSpec
from canvas.models.reward_spec import RewardSpec
from canvas.models.text_spec import ClipSpec
from canvas.models.uve_spec import UveSpec
from canvas.plan.profile import GIB, Section, embedding_width
from canvas.train.spec import TrainSpec

SUFFIXES = {
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

COPIES = 3
"""Of the descriptors at once (canvas.data.clusters.descriptors): as they are joined, centred, and the means of their
products beside them."""

SUMMED = 20
"""Bytes of a number of a product's mean: its sum and the mean in double precision, and the mean in single."""

ENCODED = 400_000
"""Bytes of a pin's picture and matte, as the tables hold them: assumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A class of machines in pipelines/cluster.yaml."""

    cpu: str
    memory: str
    gpus: int

    @property
    def cores(self) -> float:
        return quantity(self.cpu)

    @property
    def bytes(self) -> float:
        return quantity(self.memory)


Machines = Callable[[str], Machine]
"""A reader of the classes, by name. It raises ValueError for a missing one."""


def quantity(text: str) -> float:
    """The number that Kubernetes reads: of "96", "500m" or "960Gi"."""
    number = text.rstrip("".join(SUFFIXES))
    try:
        return float(number) * SUFFIXES[text[len(number) :]]
    except (ValueError, KeyError):
        raise ValueError(f"{text!r} is no quantity of Kubernetes: write it as 96, 500m or 960Gi") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
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
        return f"  {self.what:20}{whole:>10,.1f} GiB  {many}{self.why}: {room}"


def held(section: Section, machines: Machines, denoiser: int, vectors: int) -> list[Held]:
    """Of the stages that hold many pins, with a denoiser of so many parameters, where so many pins are embedded."""
    return [
        *_uve(section, machines),
        _reward(section, machines),
        _decoder(section, machines, denoiser),
        _styles(section, machines, vectors),
    ]


def processes(train: TrainSpec | None, machine: Machine) -> int:
    """That run a stage with such a training on a machine: each calls the stage's function."""
    return machine.gpus if train is not None and train.parallel != "none" else 1


def _uve(section: Section, machines: Machines) -> list[Held]:
    train, crops = section("train_uve.train", TrainSpec | None), section("train_uve.crops", CropSpec)
    pins, scored, catalogue = (section(f"train_uve.{name}", int) for name in ("pins", "scored_pins", "catalogue_pins"))
    sides = section("uve", UveSpec).image_size, section("text.second", ClipSpec).image_size
    machine = machines("gpus")
    held_by = partial(Held, processes=processes(train, machine), kind="gpus", machine=machine)
    rows = []
    if train is not None:
        side = round(sides[0] * crops.zoom)
        rows.append(held_by(what="train_uve", bytes=pins * 3 * side**2, why=f"{pins:,} x 3 x {side}^2 bytes"))
    why = f"({scored:,} + {catalogue:,}) x 3 x {max(sides)}^2 bytes"
    rows.append(held_by(what="train_uve, scoring", bytes=(scored + catalogue) * 3 * max(sides) ** 2, why=why))
    return rows


def _reward(section: Section, machines: Machines) -> Held:
    side = section("reward", RewardSpec).image_size
    pins, scored, scenes = (section(f"train_reward.{name}", int) for name in ("pins", "scored_pins", "scenes"))
    return Held(
        what="train_reward",
        bytes=(4 * (pins + 2 * scored) + 3 * 2 * scenes) * side**2,
        why=f"(4 x ({pins:,} + 2 x {scored:,}) + 3 x 2 x {scenes:,} scenes) x {side}^2 bytes",
        processes=1,
        kind="gpu",
        machine=machines("gpu"),
    )


def _decoder(section: Section, machines: Machines, denoiser: int) -> Held:
    pins, scored = (section(f"train_decoder.{name}", int) for name in ("pins", "scored_pins"))
    return Held(
        what="train_decoder",
        bytes=(pins + scored) * ENCODED + 4 * denoiser,
        why=f"(({pins:,} + {scored:,}) x {ENCODED:,} bytes, assumed, + {denoiser:,} x 4 of the denoiser)",
        processes=processes(section("train_decoder.train", TrainSpec), machines("gpus")),
        kind="gpus",
        machine=machines("gpus"),
    )


def _styles(section: Section, machines: Machines, vectors: int) -> Held:
    pins = min(vectors, section("mine_styles.pins", int))
    uve, clip, width = (
        embedding_width(section, source) for source in ("uve", "clip", section("mine_styles.source", str))
    )
    each, why = 4 * (uve + clip + COPIES * width), f"4 x ({uve} + {clip} + {COPIES} x {width})"
    if section("mine_styles.without_product", bool):
        each, why = each + SUMMED * width, f"({why} + {SUMMED} x {width}, if each has a product of its own)"
    return Held(
        what="mine_styles",
        bytes=pins * each,
        why=f"{pins:,} x {why} bytes",
        processes=1,
        kind="memory",
        machine=machines("memory"),
    )
