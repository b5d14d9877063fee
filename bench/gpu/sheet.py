"""The sheet of `make gpu`: one PNG of bars, and of what a small denoiser learnt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

WIDTH, ROW, CELL = 960, 26, 104


def draw_sheet(
    figures: Mapping[str, Any], targets: torch.Tensor | None, sampled: torch.Tensor | None, path: Path
) -> None:
    """Write the sheet; what was not measured is left out."""
    speeds = {
        name: values["images_per_second"]
        for name, values in figures.items()
        if isinstance(values, Mapping) and "images_per_second" in values
    }
    memory = {
        f"{name}, {kind}": figures[name][f"{kind}_bytes"] / 2**30
        for name in ("training_eager", "training_compiled")
        for kind in ("planned", "peak")
        if "peak_bytes" in figures.get(name, {})
    }
    rows = len(speeds) + len(memory) + 4
    latents = [part for part in (targets, sampled) if part is not None]
    sheet = Image.new("RGB", (WIDTH, rows * ROW + len(latents) * (CELL + ROW) + ROW), "white")
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(15), ROW // 2
    draw.text((12, top), str(figures.get("machine", {}).get("gpu", "GPU")), "black", font)
    for title, bars in (("images/s", speeds), ("GiB", memory)):
        top += ROW
        for name, value in bars.items():
            draw.text((12, top), name.replace("_", " "), "black", font)
            draw.rectangle((260, top + 2, 260 + 520 * value / max(bars.values()), top + ROW - 8), "#3b6ea5")
            draw.text((800, top), f"{value:,.1f} {title}", "black", font)
            top += ROW
    for title, batch in zip(("learnt from", "sampled after training"), latents, strict=False):
        draw.text((12, top), title, "black", font)
        top += ROW
        for place, image in enumerate(batch[:8]):
            colours = ((image[:3] / 4 + 0.5).clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
            tile = Image.fromarray(colours).resize((CELL, CELL), Image.Resampling.NEAREST)
            sheet.paste(tile, (12 + place * (CELL + 12), top))
        top += CELL
    sheet.save(path)
