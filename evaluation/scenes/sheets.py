"""A sheet of each family: a row is one product or scene, a column a slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from canvas.pins.images import WHITE, draw_contact_sheet
from evaluation.scenes.families import NO_UPSCALER
from evaluation.scenes.generation import Images, SceneImage

CELL = 192


def draw_sheets(images: Images, rows: int) -> dict[str, Image.Image]:
    """Draw the first rows of every family; of one without images a sentence."""
    return {
        name: draw_family(name, slices, rows) if slices else draw_notice(NO_UPSCALER)  # sizes alone may be missing
        for name, slices in images.items()
    }


def draw_family(name: str, slices: Mapping[str, Sequence[SceneImage]], rows: int) -> Image.Image:
    """Draw the first rows of a family: the first product as it was given, then each slice."""
    cells: list[Image.Image] = []
    labels: list[str] = []
    for row in zip(*(members[:rows] for members in slices.values()), strict=True):
        cells.append(row[0].request.images[0])
        labels.append(f"given; {row[0].request.background}")
        for key, member in zip(slices, row, strict=True):
            cells.append(Image.new("RGB", (1, 1), WHITE) if member.pixels is None else Image.fromarray(member.pixels))
            labels.append(f"{name}: {key}" if member.pixels is not None else f"{name}: {key}, no image")
    return draw_contact_sheet(cells, labels, columns=len(slices) + 1, cell=CELL)


def draw_notice(sentence: str) -> Image.Image:
    """Draw a sentence in place of a sheet."""
    font, margin = ImageFont.load_default(14), 12
    _, _, width, height = (round(end) for end in font.getbbox(sentence))
    notice = Image.new("RGB", (width + 2 * margin, height + 2 * margin), WHITE)
    ImageDraw.Draw(notice).text((margin, margin), sentence, fill=(60, 60, 60), font=font)
    return notice
