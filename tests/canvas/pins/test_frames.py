from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from canvas.inference.product import compute_frame
from canvas.pins.frames import FrameSpec, compute_view, extract_view, select_frame
from lifecycle.declare.params import load_sections, read_section

SPEC = FrameSpec(side=64, buckets=((64, 64), (80, 48), (48, 80)), hole_inflation=0)


@pytest.mark.parametrize(
    ("size", "frame"),
    [
        ((192, 192), (64, 64)),
        ((240, 160), (80, 48)),
        ((160, 240), (48, 80)),
        ((220, 176), (64, 64)),
        ((9, 90), (48, 80)),
    ],
)
def test_the_frame_of_the_nearest_aspect(size, frame):
    assert select_frame(size, SPEC) == frame


@pytest.mark.parametrize("size", [(192, 192), (240, 160), (160, 240), (220, 176), (176, 216), (1000, 1100)])
def test_training_and_the_pipeline_choose_the_same_frame(size):
    spec = read_section(FrameSpec, "frames", load_sections())
    multiple = 16  # two cells of 8 pixels, as the demo's transformer reads them
    frame = compute_frame(*size, side=spec.side, multiple=multiple, max_aspect=spec.max_aspect)
    assert select_frame(size, spec) == (frame.height, frame.width)


def test_a_view_covers_its_frame_and_is_cropped_in_the_middle():
    view = compute_view((240, 160), SPEC)
    assert view.frame == (80, 48)
    assert view.scaled == (80, 53)
    assert (view.top, view.left) == (0, 2)
    assert view.sizes == (80, 53, 0, 2, 80, 48)
    assert compute_view((192, 192), SPEC).sizes == (64, 64, 0, 0, 64, 64)  # as the pipeline says of its square frame


def test_a_mirrored_view_is_cut_from_the_mirrored_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    view = compute_view((90, 130), SPEC, np.random.default_rng(1), zoom=1.3)
    assert view.scaled == (72, 104)
    assert view.mirrored.mirrored == view
    other = extract_view(Image.fromarray(pixels[:, ::-1]), view.mirrored)
    assert np.abs(other[:, ::-1].astype(int) - extract_view(Image.fromarray(pixels), view)).max() <= 2


def test_random_views_vary_and_stay_inside():
    rng = np.random.default_rng(0)
    lefts = {compute_view((240, 160), SPEC, rng).left for _ in range(50)}
    assert len(lefts) > 3
    assert lefts <= set(range(6))


def test_the_box_stays_inside_as_far_as_it_fits():
    rng = np.random.default_rng(0)
    wide = (100, 125)  # scaled to 64 x 80
    for box, lefts in (((0, 10, 40, 50), {0}), ((90, 10, 125, 50), {16}), ((0, 0, 125, 100), set(range(17)))):
        seen = {compute_view(wide, SPEC, rng, box).left for _ in range(200)}
        assert seen <= lefts
    assert compute_view(wide, SPEC, None, (90, 10, 125, 50)).left == 16


def test_pixels_of_a_view():
    pixels = np.zeros((100, 120, 3), np.uint8)
    pixels[:, 60:] = 200
    view = extract_view(Image.fromarray(pixels), compute_view((100, 120), SPEC))
    assert view.shape == (64, 64, 3)
    assert view[:, :28].max() < 10
    assert view[:, 36:].min() > 190
    grey = extract_view(Image.fromarray(pixels[..., 0]), compute_view((100, 120), SPEC))
    assert grey.shape == (64, 64)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"buckets": ((80, 48),)}, r"must hold the square of frames\.side, \[64, 64\]"),
        ({"buckets": ((64, 64), (128, 64))}, "differ from 64 x 64 pixels by more than a third"),
        ({"hole_inflation": -1}, "is -1: it must be 0 or more"),
    ],
)
def test_frames_that_cannot_be_are_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        read_section(
            FrameSpec, "frames", {"frames": {"side": 64, "buckets": [[64, 64]], "hole_inflation": 0} | changes}
        )


def test_frames_of_broken_cells_are_named():
    SPEC.check_cells(16)
    with pytest.raises(ValueError, match=r"\[\(80, 48\), \(48, 80\)\] are no multiples of 32 pixels"):
        SPEC.check_cells(32)
