"""The smallest real inputs of the generator's stages: random shards of the agreed columns, an autoencoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import torch

from canvas.clip.model import build_clip, save_clip
from canvas.clip.spec import TextSpec
from canvas.clip.tuning.towers import link_encoders
from canvas.decoder.model import ConditionalDecoder
from canvas.decoder.spec import DecoderSpec
from canvas.light.model import build_light
from canvas.light.shadow.model import FOLDER as SHADOW_FOLDER
from canvas.light.shadow.model import build_shadow
from canvas.light.shadow.spec import ShadowSpec
from canvas.light.spec import LightSpec
from canvas.pins import tables
from canvas.reward.model import build_reward, load_prompt_tower
from canvas.reward.spec import RewardSpec
from canvas.segmenter.model import build_segmenter
from canvas.segmenter.spec import UNetSpec
from canvas.shards.files import Sample, write_shards
from canvas.upscaler.model import Upscaler
from canvas.uve.model import build_uve
from canvas.uve.spec import UveSpec
from canvas.vae.model import PixelAutoencoder, load_vae
from lifecycle.declare.params import load_sections, read_section
from tests.components.mugs import ROOT, write_catalogue
from tests.components.sidecars import write_sidecars

CHANNELS = 4
TEXT_WIDTH, POOLED_WIDTH, TOKENS = 32, 16, 16  # of profile tiny
FEATURE_WIDTH = 6
BUCKETS = {"64x64": (8, 8), "48x80": (6, 10)}


def write_vae(path: Path) -> None:
    """An autoencoder of 8-pixel cells, random, with statistics of its latents."""
    torch.manual_seed(0)
    vae = PixelAutoencoder(
        channels=(16, 16), layers_per_block=1, latent_channels=CHANNELS, patch=4, norm_num_groups=8, sample_size=64
    )
    vae.register_to_config(latents_mean=[0.1] * CHANNELS, latents_std=[0.5] * CHANNELS)
    vae.save_pretrained(path)


def write_towers(path: Path, text: TextSpec) -> None:
    """The two text-image encoders, random."""
    for name, spec in (("first", text.first), ("second", text.second)):
        torch.manual_seed(0)
        save_clip(build_clip(spec), spec, path / name)


def write_encoding_inputs(folder: Path, text: TextSpec) -> None:
    """Write what stage encode reads: the painted catalogue with its sidecars, and random networks."""
    write_catalogue(folder)
    write_sidecars(folder)
    torch.manual_seed(0)
    write_towers(folder / "clip", text)
    PixelAutoencoder((16, 16), 1, 4, 4, 8).save_pretrained(folder / "vae")


def write_encoders(root: Path, text: TextSpec) -> None:
    """The rest of what a pipeline is assembled from: text-image encoders, conditional decoder, upscaler, segmenter,
    networks of light and shadow, reward model; random."""
    write_towers(root / "models" / "clip", text)
    link_encoders(root / "models" / "clip", root / "models" / "text")
    spec = DecoderSpec(channels=(16, 16), layers_per_block=1, norm_groups=8, erosion=1, mosaic=None)
    ConditionalDecoder.from_vae(load_vae(root / "models" / "vae"), spec).save_pretrained(root / "models" / "decoder")
    Upscaler(8, 1).save_pretrained(root / "models" / "upscaler")
    build_segmenter(UNetSpec(image_size=64, channels=(8, 8, 8, 16))).save(root / "models" / "segmenter")
    light = root / "models" / "light"
    build_light(LightSpec(image_size=16, channels=(8, 8, 8, 8), hidden=8)).save_pretrained(light)
    small = RewardSpec(
        image_size=32,
        channels=(8, 8),
        layers_per_block=1,
        hidden=8,
        text_encoder="first",
        dropout=0.0,
        photo_layers=(),
        init_from=None,
    )
    tower = load_prompt_tower(root / "models" / "clip", small, text)
    build_reward(small, tower).save_pretrained(root / "models" / "reward")
    build_shadow(ShadowSpec(image_size=16, channels=(8, 8, 8, 8))).save_pretrained(light / SHADOW_FOLDER)


def write_image_embeddings(root: Path, text: TextSpec, uve: UveSpec, pins: Sequence[str]) -> None:
    """The unified embedding, random; random embeddings of `pins`, and of them a board's style and a cluster's."""
    torch.manual_seed(0)
    build_uve(uve).save_pretrained(root / "models" / "uve")
    draw = torch.Generator().manual_seed(0)

    def vector(width: int) -> list[float]:
        return torch.nn.functional.normalize(torch.randn(width, generator=draw), dim=0).tolist()

    widths = {"uve": uve.embed_dim, "clip": text.second.embed_dim}
    rows = [{"pin_id": pin, "uve_code": b""} | {name: vector(width) for name, width in widths.items()} for pin in pins]
    tables.write(root / "artifacts" / "embeddings", [pa.Table.from_pylist(rows, tables.EMBEDDINGS)], tables.EMBEDDINGS)
    styles = [
        {"style_id": f"{kind}-0", "kind": kind, "name": f"some {kind}", "uve": row["uve"], "clip": row["clip"]}
        | {"pins": [row["pin_id"]], "purity": 1.0, "coherence": 1.0}
        for kind, row in zip(tables.STYLE_KINDS, rows, strict=False)
    ]
    tables.write(root / "artifacts" / "styles", [pa.Table.from_pylist(styles, tables.STYLES)], tables.STYLES)


def write_random_shards(path: Path, rows: int = 24, *, has_engagement: bool = True, hole_channels: int = 1) -> None:
    """Every third pin is a scene alone, every sixth held out, every second promoted; the last third is 48x80."""
    write_shards(
        path,
        rows,
        lambda wanted: _samples(wanted, rows, has_engagement, hole_channels),
        work=path.with_name("shards-work"),
        rows_per_shard=8,
    )


def _samples(wanted: range, rows: int, has_engagement: bool, hole_channels: int) -> Iterator[Sample]:
    for row in wanted:
        draw = torch.Generator().manual_seed(row)
        bucket = "48x80" if row >= rows * 2 // 3 else "64x64"
        height, width = BUCKETS[bucket]
        scene = row % 3 == 0

        def normal(*shape: int, draw: torch.Generator = draw) -> torch.Tensor:
            return torch.randn(shape, generator=draw).half()

        def masks(empty: bool, draw: torch.Generator = draw, size: tuple[int, int] = (height, width)) -> torch.Tensor:
            shape = 2, hole_channels, *size
            return torch.ones(shape).half() if empty else (torch.rand(shape, generator=draw) < 0.5).half()

        yield {
            "pin_id": f"p{row:03d}",
            "split": ("unseen_product", "unseen_view")[row % 2] if row % 6 >= 4 else "train",
            "view": "0",
            "kind": "scene" if scene else "product",
            "promoted": "1" if row % 2 else "0",
            "bucket": bucket,
            "engagement": torch.tensor([1000, row, 10]) * has_engagement,
            "moments": normal(2 * CHANNELS, height, width) - 2,
            "text_states": normal(3, TOKENS, TEXT_WIDTH),
            "text_pooled": normal(3, POOLED_WIDTH),
            "sizes": torch.tensor([160.0, 240, 0, 0, height * 8, width * 8]),
            "masked_random": normal(2, CHANNELS, height, width),
            "holes_random": masks(False),
            "masked_product": normal(2, CHANNELS, height, width) * (not scene),
            "holes_product": masks(scene),
            "clip_image": normal(16),
            "features": normal(FEATURE_WIDTH, height // 2, width // 2),
        }


def write_generator_inputs(root: Path, *, hole_channels: int = 1) -> None:
    """All that the generator's stages of profile tiny read and do not write: a catalogue, random shards and models."""
    (root / "data").mkdir()
    (root / "data" / "catalogue.csv").write_text("sku,photo\n", encoding="utf-8")
    (root / "artifacts").mkdir()
    write_catalogue(root / "artifacts")
    write_sidecars(root / "artifacts")
    write_random_shards(root / "artifacts" / "shards", hole_channels=hole_channels)
    write_vae(root / "models" / "vae")
    sections = load_sections("tiny", ROOT)
    text = read_section(TextSpec, "text", sections)
    write_encoders(root, text)
    pins = [f"p{row:03d}" for row in range(24)]
    write_image_embeddings(root, text, read_section(UveSpec, "uve", sections), pins)
