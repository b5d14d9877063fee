from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from canvas.clip.image_tower import ImageTower
from canvas.clip.model import TextTower, build_clip
from canvas.decoder.model import ConditionalDecoder
from canvas.denoiser.loading import build_denoiser
from canvas.denoiser.process import build_training_scheduler
from canvas.denoiser.spec import SamplingSpec
from canvas.denoiser.unet.model import add_inpaint_channels
from canvas.inference.pipeline import CanvasPipeline
from canvas.uve.model import UveModel, build_uve
from canvas.uve.spec import UveSpec
from canvas.vae.model import build_vae
from tests.canvas import tiny
from tests.canvas.decoder.test_model import _moved, _spec
from tests.canvas.denoiser.test_image_prompt import moved
from tests.canvas.denoiser.test_process import FLOW
from tests.canvas.light.shadow.test_model import build_moved as build_moved_shadow
from tests.canvas.light.test_model import build_moved as build_moved_light
from tests.canvas.vae.test_model import PIXEL


def sampling(**changes: Any) -> SamplingSpec:
    """Sampling in two steps without guidance, two images at once, but for `changes`."""
    usual = {"steps": 2, "guidance_scale": 1.0, "guidance_stop": 1.0, "autoguidance_scale": 0.0, "reuse": None}
    usual |= {"batch_size": 2, "precision": "fp32"}
    return SamplingSpec(**usual | changes)


@pytest.fixture(scope="session")
def pipeline() -> CanvasPipeline:
    """A pipeline of the smallest real parts, random, whose inpainting inputs have learnt something."""
    torch.manual_seed(0)
    unet = build_denoiser(tiny.DENOISER, latent_channels=6, sample_size=8, text_width=48, pooled_width=24)
    torch.nn.init.normal_(add_inpaint_channels(unet).conv_in.weight, std=0.1)
    vae = build_vae(PIXEL, sample_size=64).eval()
    made = CanvasPipeline(
        unet=unet.eval(),
        vae=vae,
        text_encoder=TextTower.from_clip(build_clip(tiny.CLIP), tiny.CLIP),
        text_encoder_2=TextTower.from_clip(build_clip(tiny.OTHER_CLIP), tiny.OTHER_CLIP),
        scheduler=build_training_scheduler(FLOW),
        decoder=_moved(ConditionalDecoder.from_vae(vae, _spec(PIXEL))),
        max_aspect=2.0,
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="session")
def segmenting_pipeline(pipeline: CanvasPipeline) -> CanvasPipeline:
    """`pipeline` with a segmenter: any semantic segmentation model of transformers, here a random Segformer of the
    smallest widths."""
    torch.manual_seed(0)
    config = SegformerConfig(
        hidden_sizes=[8, 8, 8, 8],
        depths=[1] * 4,
        num_attention_heads=[1] * 4,
        decoder_hidden_size=8,
        id2label={0: "room", 1: "product"},
        background_labels=["room"],
    )
    made = CanvasPipeline(
        **pipeline.components
        | {
            "segmenter": SegformerForSemanticSegmentation(config).eval(),
            "segmenter_processor": SegformerImageProcessor(size={"height": 32, "width": 32}),
        }
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="session")
def shading_pipeline(segmenting_pipeline: CanvasPipeline) -> CanvasPipeline:
    """A pipeline with a segmenter, a light network and a shadow network, which have learnt something."""
    parts = segmenting_pipeline.components | {"light": build_moved_light(3.0), "shadow": build_moved_shadow(3.0)}
    made = CanvasPipeline(**parts, max_aspect=2.0)
    made.set_progress_bar_config(disable=True)
    return made


def small_uve() -> UveModel:
    """The smallest real embedding, of width 16, random."""
    torch.manual_seed(0)
    spec = UveSpec(
        trunk="vit_tiny_patch16_224",
        trunk_args={"embed_dim": 16, "depth": 1, "num_heads": 2},
        image_size=32,
        embed_dim=16,
        init_from=None,
    )
    return build_uve(spec).eval()


@pytest.fixture(scope="session")
def styled_pipeline(pipeline: CanvasPipeline) -> CanvasPipeline:
    """`pipeline` with an adapter that has learnt something."""
    clip, uve = build_clip(tiny.OTHER_CLIP), small_uve()
    made = CanvasPipeline(
        **{
            name: pipeline.components[name]
            for name in ("vae", "text_encoder", "text_encoder_2", "scheduler", "decoder")
        },
        unet=moved(copy.deepcopy(pipeline.unet), width=tiny.OTHER_CLIP.embed_dim + 16),
        image_tower=ImageTower.from_clip(clip, tiny.OTHER_CLIP),
        uve=uve,
        max_aspect=2.0,
        image_source="uve+clip",
        style_layers=["up_blocks.0.attentions.1"],
    )
    made.set_progress_bar_config(disable=True)
    return made


def cutout(height: int, width: int, soft: bool = False) -> Image.Image:
    """An RGBA product: noise in an ellipse, alpha hard or with a soft edge."""
    random = np.random.default_rng(height * width)
    rows, columns = np.mgrid[:height, :width]
    away = np.hypot((rows - height / 2) / (height / 3), (columns - width / 2) / (width / 3))
    alpha = np.clip((1.2 - away) * 5, 0, 1) if soft else away < 1
    pixels = np.concatenate([random.integers(0, 256, (height, width, 3)), 255 * alpha[..., None]], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8), "RGBA")


def split(product: Image.Image) -> tuple[Image.Image, Image.Image]:
    """RGB and mask of an RGBA product."""
    return product.convert("RGB"), product.getchannel("A")
