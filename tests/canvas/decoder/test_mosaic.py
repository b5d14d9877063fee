from __future__ import annotations

import numpy as np
import pytest
import torch

from canvas.decoder.model import ConditionalDecoder
from canvas.decoder.mosaic import remove_mosaic
from canvas.decoder.spec import MosaicSpec
from canvas.masks.composite import erode_mask
from canvas.pins.images import bytes_to_tensor, tensor_to_bytes
from canvas.vae.model import build_vae
from evaluation.measures.decoders import compute_grid_ratio
from tests.canvas.decoder.test_model import _known, _moved, _spec
from tests.canvas.vae.test_model import PIXEL

SIDE, FIDELITY = 8, 0.01
NO_PRODUCT = torch.zeros(1, 1, 48, 64)


def draw_slope() -> torch.Tensor:
    """An image (1, 3, 48, 64) that changes smoothly, with a little noise."""
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 64), indexing="ij")
    colours = torch.stack([rows, columns, (rows * columns)])[None] * 0.6
    return colours + 0.01 * torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))


def add_mosaic(images: torch.Tensor) -> torch.Tensor:
    steps = torch.randn(1, 3, 48 // SIDE, 64 // SIDE, generator=torch.Generator().manual_seed(1)) * 0.1
    return images + steps.repeat_interleave(SIDE, 2).repeat_interleave(SIDE, 3)


def measure_ratio(images: torch.Tensor) -> float:
    return float(compute_grid_ratio(images, NO_PRODUCT, SIDE))


def test_steps_between_cells_go_and_the_image_stays() -> None:
    image = draw_slope()
    spoilt = add_mosaic(image)
    made = remove_mosaic(spoilt, [SIDE], FIDELITY)
    assert measure_ratio(spoilt) > 5
    assert measure_ratio(made) < 1.3
    assert (made - image).square().mean() < 0.5 * (spoilt - image).square().mean()
    torch.testing.assert_close(made.mean((2, 3)), spoilt.mean((2, 3)), rtol=0, atol=1e-4)


def test_an_image_without_a_mosaic_hardly_changes() -> None:
    image = draw_slope()
    assert (remove_mosaic(image, [SIDE], FIDELITY) - image).abs().mean() < 0.01


def test_a_real_edge_off_the_grid_stays() -> None:
    image = torch.zeros(1, 3, 48, 64)
    image[..., 20:] = 1
    made = remove_mosaic(image, [SIDE], FIDELITY)
    torch.testing.assert_close(made, image, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 1, 5, 7), (1, 3, 16, 9)])
def test_the_grid_may_have_no_inner_line(shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    made = remove_mosaic(images, [16], FIDELITY)
    torch.testing.assert_close(made, images, rtol=0, atol=1e-5)
    assert remove_mosaic(images, [4], FIDELITY).shape == shape


def test_it_solves_the_screened_poisson_equation() -> None:
    """Against numpy's least squares, written out."""
    image = torch.rand(1, 1, 5, 6, generator=torch.Generator().manual_seed(2))
    made = remove_mosaic(image, [3], FIDELITY)
    pixels, rows = image[0, 0].double().numpy(), []
    number = np.arange(30).reshape(5, 6)
    wanted = []
    for axis, lines in ((0, []), (1, [2])):  # a row has too few changes behind its line to compare with
        change = np.diff(pixels, axis=axis)
        limited = change.copy()
        for line in lines:
            most = np.abs(np.take(change, [line - 2, line + 2], axis=axis)).max(axis=axis)
            for place in (line - 1, line, line + 1):
                np.moveaxis(limited, axis, 0)[place] = np.clip(np.take(change, place, axis=axis), -most, most)
        for place, value in np.ndenumerate(limited):
            other = (place[0] + (axis == 0), place[1] + (axis == 1))
            row = np.zeros(30)
            row[number[other]], row[number[place]] = 1, -1
            rows.append(row)
            wanted.append(value)
    rows += list(np.sqrt(FIDELITY) * np.eye(30))
    wanted += list(np.sqrt(FIDELITY) * pixels.ravel())
    expected = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0].reshape(5, 6)
    np.testing.assert_allclose(made[0, 0].numpy(), expected, atol=1e-5)


@torch.no_grad()
def test_a_decoder_takes_its_mosaic_out_but_not_in_training() -> None:
    vae = build_vae(PIXEL, sample_size=32)
    spec = _spec(PIXEL)
    plain = _moved(ConditionalDecoder.from_vae(vae, spec))
    grids = MosaicSpec(sides=(8,), fidelity=FIDELITY)
    smooth = _moved(ConditionalDecoder.from_vae(vae, type(spec)(**_to_dict(spec) | {"mosaic": grids})))
    images, mask, alpha = _known()
    latents = torch.randn(2, PIXEL.latent_channels, 4, 4, generator=torch.Generator().manual_seed(3)) * 5
    features = smooth.encode_condition(bytes_to_tensor(images), mask, alpha)
    decoded, shift = plain.decode(latents, features)
    smoothed, same_shift = smooth.decode(latents, features)
    torch.testing.assert_close(smoothed, remove_mosaic(decoded, [8], FIDELITY))
    assert torch.equal(shift, same_shift)
    assert torch.equal(smooth.train().decode(latents, features)[0], plain.train().decode(latents, features)[0])
    out = tensor_to_bytes(smooth.eval()(latents, bytes_to_tensor(images), mask, alpha))
    assert torch.equal(out[erode_mask(mask, 2).expand_as(images)], images[erode_mask(mask, 2).expand_as(images)])


def _to_dict(spec: object) -> dict[str, object]:
    return {name: getattr(spec, name) for name in spec.__dataclass_fields__}
