from __future__ import annotations

from pathlib import Path

import numpy as np

from canvas.sources.showroom.camera import compute_yaw_reach
from canvas.sources.showroom.large import LARGE_ATTEMPTS, plan_large, render_large
from canvas.sources.showroom.products import Product
from canvas.sources.showroom.render import load_panoramas, render_image
from canvas.sources.showroom.spec import SECTOR


def test_the_same_images_come_whatever_the_count_and_threads(showroom_files: Path) -> None:
    train, held_out = render_large(showroom_files, 64, (3, 1), 0, 2)
    again, _ = render_large(showroom_files, 64, (2, 1), 0, 1)
    assert [len(train), len(held_out)] == [3, 1]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(train, again, strict=False))
    for render in (*train, *held_out):
        assert render.image.shape == (64, 64, 3)
        assert render.alpha is not None
        assert 0.02 < (render.alpha > 127).mean() < 0.6


def test_held_out_renders_show_held_out_products_in_the_held_out_sector(
    showroom_files: Path, products: tuple[Product, ...]
) -> None:
    panoramas = load_panoramas(showroom_files)
    for is_held_out in (False, True):
        for plan, rng in plan_large(products, 256, 2, 0, held_out=is_held_out):
            assert plan.product is not None
            assert plan.scene is not None
            assert plan.product.held_out == is_held_out
            _, view = render_image(panoramas, plan, rng, LARGE_ATTEMPTS)
            assert view is not None
            away = abs((view.yaw - plan.scene.held_out_yaw + 180) % 360 - 180)
            reach = compute_yaw_reach(view)
            assert (away + reach <= SECTOR / 2 + 1e-6) if is_held_out else (away - reach >= SECTOR / 2 - 1e-6)
