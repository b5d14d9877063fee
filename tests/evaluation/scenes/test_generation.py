"""Images of requests: batches give what the pipeline gives, cores stay, certificates are verified."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from canvas.denoiser.spec import PassSpec
from canvas.inference.scene.build import build_scene
from canvas.pins.fallbacks import Notes
from evaluation.scenes.families import build_families
from evaluation.scenes.generation import (
    generate_families,
    generate_scene,
    generate_scenes,
    is_plain,
    measure_scene_core,
)
from evaluation.scenes.subjects import Subjects
from tests.evaluation.scenes.conftest import SPEC

PASSES = PassSpec(batch_size=4, precision="fp32")


def test_every_request_has_its_image(subjects: Subjects) -> None:
    pipeline = subjects.pipeline
    families = build_families(subjects, SPEC, 32, Notes())
    images = generate_families(pipeline, families, pipeline.recommended_sampling.build_spec(PASSES))
    for name, family in families.items():
        for key, requests in family.items():
            assert [image.request for image in images[name][key]] == requests
    every = [image for slices in images.values() for members in slices.values() for image in members]
    assert all(image.fault is None for image in every)
    assert {image.core_difference for image in every if not image.request.is_soft} == {0}
    assert {image.core_difference for image in every if image.request.is_soft} == {None}
    hard, soft = (images["mode"][name][0].pixels for name in ("hard", "soft"))
    assert hard is not None
    assert not np.array_equal(hard, soft)
    banner = images["format"]["banner"][0].pixels
    assert banner is not None
    assert banner.shape == (64, 256, 3)


def test_batches_give_what_the_pipeline_gives(plain_subjects: Subjects) -> None:
    pipeline = plain_subjects.pipeline
    families = build_families(plain_subjects, SPEC, 32, Notes())
    requests = [family[0] for slices in families.values() for family in slices.values()]
    plain = [request for request in requests if is_plain(pipeline, request)]
    assert len(plain) == len(requests) - 2  # a banner takes windows, a reflection is cast on the image
    batched = generate_scenes(pipeline, plain, pipeline.recommended_sampling.build_spec(PASSES))
    for image in batched:
        alone = generate_scene(pipeline, image.request)
        assert image.pixels is not None
        assert alone.pixels is not None
        assert np.abs(image.pixels.astype(int) - alone.pixels).max() <= 1


def test_a_light_without_numbers_gives_a_fault_and_no_image(subjects: Subjects) -> None:
    torch.nn.init.constant_(subjects.pipeline.light.head[-1].weight, float("nan"))
    request = build_families(subjects, SPEC, 32, Notes())["mode"]["soft"][0]
    image = generate_scene(subjects.pipeline, request)
    assert image.pixels is None
    assert image.fault is not None
    assert "the light network" in image.fault


def test_a_request_that_cannot_be_is_no_fault(plain_subjects: Subjects) -> None:
    request = build_families(plain_subjects, SPEC, 32, Notes())["mode"]["hard"][0]
    with pytest.raises(ValueError, match="this model has no shadow"):
        generate_scene(plain_subjects.pipeline, replace(request, settings={"shadow": 1.0}))


def test_a_changed_core_is_measured(plain_subjects: Subjects) -> None:
    request = build_families(plain_subjects, SPEC, 32, Notes())["products"]["2"][0]
    scene = build_scene(request.images, request.masks, request.layout)
    assert scene.owners is not None
    assert measure_scene_core(scene.product.pixels, scene) == 0
    row, column = np.argwhere(scene.owners == 1)[0]
    changed = scene.product.pixels.copy()
    changed[row, column, 2] ^= 8
    assert measure_scene_core(changed, scene) == 8
    changed = scene.product.pixels.copy()
    changed[scene.owners < 0] ^= 8
    assert measure_scene_core(changed, scene) == 0
