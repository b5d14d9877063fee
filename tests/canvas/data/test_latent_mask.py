import pytest
import torch

from canvas.data.latent_mask import latent_mask


def test_one_product_pixel_makes_its_cell_and_the_neighbours_product():
    mask = torch.zeros(1, 1, 64, 80)
    mask[0, 0, 25, 42] = 1
    cells = latent_mask(mask, 8)
    expected = torch.zeros(1, 1, 8, 10)
    expected[0, 0, 2:5, 4:7] = 1
    assert torch.equal(cells, expected)
    assert latent_mask(mask, 8, inflate=0).sum() == 1


def test_nothing_and_everything_stay_so():
    assert not latent_mask(torch.zeros(2, 1, 32, 32), 8).any()
    assert latent_mask(torch.ones(2, 1, 32, 32), 8).all()


def test_every_product_pixel_lies_in_a_product_cell_of_product_cells():
    mask = (torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) > 0.99).float()
    back = torch.nn.functional.interpolate(latent_mask(mask, 8), scale_factor=8)
    assert (back >= mask).all()


def test_a_broken_cell_is_refused():
    with pytest.raises(ValueError, match="60 x 64 pixels is not a whole number of 8-pixel cells"):
        latent_mask(torch.zeros(1, 1, 64, 60), 8)
