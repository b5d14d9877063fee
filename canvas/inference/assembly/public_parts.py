"""A generator of public parts, without training: `python -m canvas assemble`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from canvas.denoiser.spec import RecommendedSampling
from canvas.hub import Snapshot, fetch_snapshot
from canvas.ranges import Natural, NetworkSide
from canvas.reward.spec import REWARD_FOLDER
from canvas.safety.spec import SafetySpec
from canvas.segmenter.spec import EdgeSpec, MattingSpec

if TYPE_CHECKING:
    import torch
    from pydantic import ConfigDict

    from canvas.inference.pipeline import CanvasPipeline

HALVED = ("denoiser", "text_encoder_2")
"""Parts that may be in half precision: those of billions of weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartSource:
    """Where a part comes from."""

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid"}

    repository: str  # a directory, or a hub id OWNER/NAME
    subfolder: str | None = None  # of a diffusers pipeline that holds the part; null: the repository is the part
    revision: str | None = None  # commit, tag or branch of a hub id

    def fetch(self) -> Snapshot:
        """Return its files; raises ValueError as `fetch_snapshot` does."""
        return fetch_snapshot(self.repository, revision=self.revision, subfolder=self.subfolder)


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmenterSource(PartSource):
    """Where the segmenter comes from, and how it is read."""

    background: tuple[str, ...] = ()  # classes of a semantic segmentation model that are no product
    matting: MattingSpec | None = None  # how a matting model is read; null: a semantic segmentation model


@dataclass(frozen=True, kw_only=True, slots=True)
class PublicParts:
    """The parts of a generator, as `profiles/public/*.yaml` name them."""

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid"}

    denoiser: PartSource  # a UNet or Flux transformer of diffusers that takes noisy latents, hole and masked latents
    scheduler: PartSource
    vae: PartSource
    text_encoder: PartSource  # CLIPTextModel of transformers
    text_encoder_2: PartSource  # CLIPTextModelWithProjection; of a Flux transformer T5EncoderModel
    tokenizer: PartSource
    tokenizer_2: PartSource
    segmenter: SegmenterSource | None  # null: products come as cut-outs or with masks
    upscaler: PartSource | None = None  # of the Real-ESRGAN class, or train_upscaler's; null: a cubic filter enlarges
    reward: PartSource | None = None  # chooses with --top: CLIP, SigLIP, PickScore, or train_reward's; null: none
    safety: SafetySpec | None = None  # what judges prompts and generated images; null: nothing does
    hole_inflation: Natural  # latent cells by which what is generated grows into the product
    max_aspect: float  # longest side over shortest of the frames that the denoiser was trained on
    frame_side: NetworkSide | None = None  # pixels of the square frame; null: as a UNet's sample size says
    bf16: tuple[str, ...] = ()  # parts whose weights are kept in half precision: denoiser, text_encoder_2
    edges: EdgeSpec
    sampling: RecommendedSampling

    def __post_init__(self) -> None:
        if self.max_aspect < 1:
            raise ValueError(f"max_aspect is {self.max_aspect}: give 1, for square frames only, or more")
        if unknown := [name for name in self.bf16 if name not in HALVED]:
            raise ValueError(f"bf16 names {', '.join(unknown)}: only {' and '.join(HALVED)} may be in half precision")

    def get_dtype(self, part: str) -> torch.dtype:
        """Return the number format of a part's weights."""
        import torch

        return torch.bfloat16 if part in self.bf16 else torch.float32


def read_public_parts(path: Path) -> PublicParts:
    """Read the parts from a YAML file.

    Raises:
        ValueError: The file is missing, is not YAML, or has an unknown, missing or wrong key.
    """
    from pydantic import TypeAdapter, ValidationError
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: name a file such as profiles/public/sdxl.yaml") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    try:
        return TypeAdapter(PublicParts).validate_python(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise ValueError(f"{path}: {where}: {problem['msg'][0].lower()}{problem['msg'][1:]}") from None


def assemble_public_parts(parts: PublicParts) -> CanvasPipeline:
    """Return the generator of public parts; its config says where each came from.

    Raises:
        ValueError: A part cannot be fetched, is no safetensors, or does not fit the others.
    """
    from canvas.clip.model import measure_text_widths, name_components
    from canvas.clip.public_towers import load_text_tower, load_tower
    from canvas.denoiser.loading import get_family, load_denoiser
    from canvas.denoiser.passes.stepping import check_reuse
    from canvas.denoiser.schedulers import load_scheduler
    from canvas.inference.assembly.stage_parts import add_safety
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.segmenter.model import load_public_segmenter
    from canvas.upscaler.loading import fetch_upscaler
    from canvas.vae.model import load_vae

    sources = {
        name: source
        for name in ("denoiser", "scheduler", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
        if (source := getattr(parts, name)) is not None
    }
    snapshots = {name: source.fetch() for name, source in sources.items()}
    folders = {name: snapshot.folder for name, snapshot in snapshots.items()}
    descriptions = {name: snapshot.describe() for name, snapshot in snapshots.items()}
    denoiser = load_denoiser(folders["denoiser"], parts.get_dtype("denoiser")).eval()
    family = get_family(denoiser)
    first = load_text_tower(folders["text_encoder"], folders["tokenizer"])
    second = load_tower(folders["text_encoder_2"], folders["tokenizer_2"], parts.get_dtype("text_encoder_2"))
    read, given = family.get_input_sizes(denoiser.config), measure_text_widths((first, second))
    if (read.text, read.pooled) != given:
        raise ValueError(
            f"{sources['denoiser'].repository} reads text states of {read.text} numbers and a pooled text of "
            f"{read.pooled}, text_encoder and text_encoder_2 give {given[0]} and {given[1]}: name those that it was "
            "trained with"
        )
    if parts.frame_side is None and "sample_size" not in denoiser.config:
        raise ValueError(
            "frame_side is null, and a transformer says no size: give the pixels it was trained on, as 1024"
        )
    segmenter = None
    if (source := parts.segmenter) is not None:
        segmenter = load_public_segmenter(
            source.repository, source.background, source.matting, revision=source.revision, subfolder=source.subfolder
        )
        descriptions["segmenter"] = segmenter.network.config.source
    upscaler = None
    if (upscaler_source := parts.upscaler) is not None:
        place = {"revision": upscaler_source.revision, "subfolder": upscaler_source.subfolder}
        upscaler, descriptions["upscaler"] = fetch_upscaler(upscaler_source.repository, **place)
    pipeline = CanvasPipeline(
        **{family.component: denoiser},
        vae=load_vae(folders["vae"]).eval(),
        **name_components((first, second)),
        scheduler=load_scheduler(folders["scheduler"]),
        upscaler=upscaler,
        segmenter=None if segmenter is None else segmenter.network,
        segmenter_processor=None if segmenter is None else segmenter.processor,
        hole_inflation=parts.hole_inflation,
        max_aspect=parts.max_aspect,
        frame_side=parts.frame_side,
        edge_radius=parts.edges.radius,
        edge_epsilon=parts.edges.epsilon,
        sampling=asdict(parts.sampling),
        sources=descriptions,
        bf16=[family.component if part == "denoiser" else part for part in parts.bf16] or None,
    )
    pipeline.get_scheduler()
    check_reuse(parts.sampling.reuse, denoiser)
    if parts.safety is not None:
        add_safety(pipeline, parts.safety)
    return pipeline


def write_public_pipeline(file: Path, out: Path) -> list[str]:
    """Assemble the parts that `file` names into the directory `out`; return a line about each part.

    Raises:
        ValueError: As `read_public_parts` and `assemble_public_parts`, or `out` is not empty.
    """
    from canvas.checksums import write_checksums
    from canvas.reward.preference import fetch_reward

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out} is not empty: name a new folder, nothing is replaced")
    parts = read_public_parts(file)
    pipeline, reward = assemble_public_parts(parts), None
    if parts.reward is not None:
        snapshot = parts.reward.fetch()
        reward = fetch_reward(snapshot.folder)
        pipeline.register_to_config(sources={**pipeline.config["sources"], "reward": snapshot.describe()})
    pipeline.save_pretrained(out)
    if reward is not None:
        reward.save_pretrained(out / REWARD_FOLDER)
        write_checksums(out)
    return [
        f"{name}: {source['repository']}{source['commit'] and '@' + source['commit']}, licence: {source['licence']}"
        for name, source in pipeline.config["sources"].items()
    ] + [f"{out} is ready: python -m canvas generate --model {out} --product PRODUCT --prompt PROMPT"]
