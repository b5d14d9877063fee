"""Options of `python -m canvas generate` about the canvas and what stands on it."""

from __future__ import annotations

import argparse
from pathlib import Path

from canvas.layout.formats import FORMATS
from canvas.layout.spec import MAX_LAYOUT_CHARACTERS, Layout, build_layout, check_product_count

ARRANGEMENTS = ("row", "grid")


def add_layout_options(command: argparse.ArgumentParser) -> None:
    """Add the options of a layout."""
    group = command.add_argument_group("canvas", "another size than the product image's; several products in one scene")
    group.add_argument("--canvas", metavar="SIZE", help=f"WIDTHxHEIGHT in pixels, or {', '.join(FORMATS)}")
    group.add_argument(
        "--place", help="bottom, center, top-left and the like; keep: the photograph stays whole and is extended"
    )
    group.add_argument(
        "--scale", type=float, help="share of the canvas that it takes, above 0 to 1; without it no pixel is resized"
    )
    group.add_argument("--layout", help="row, grid, or a JSON file with the place of each --product: all in one scene")
    group.add_argument(
        "--heights", type=float, nargs="+", metavar="H", help="how tall the products are, in any unit, one each"
    )


def read_layout(options: argparse.Namespace) -> Layout | None:
    """Return the layout that the options describe; None: they describe none.

    Raises:
        ValueError: In one sentence, for what is not understood, and for a file that cannot be read.
    """
    check_product_count(len(options.product))  # before a hundred images are read
    words = {name: getattr(options, name) for name in ("place", "scale", "heights")}
    if options.canvas is None and options.layout is None:
        if given := [f"--{name}" for name, value in words.items() if value is not None]:
            raise ValueError(f"{' and '.join(given)} is about a canvas: give its size with --canvas")
        if (count := len(options.product)) > 1:
            raise ValueError(f"{count} products were given: say how they stand in one scene with --layout and --canvas")
        return None
    layout = options.layout
    if layout is not None and layout not in ARRANGEMENTS:
        layout = _read_text(Path(layout))
    elif layout is None and len(options.product) > 1:
        raise ValueError(f"{len(options.product)} products were given: say how they stand with --layout")
    if layout in ARRANGEMENTS and options.canvas is None:
        raise ValueError(f"--layout {layout} needs a canvas: give its size with --canvas")
    return build_layout(options.canvas, layout=layout, max_pixels=options.max_pixels, **words)


def _read_text(path: Path) -> str:
    """Return what a layout file holds, or its beginning where that is too long."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(MAX_LAYOUT_CHARACTERS + 1)
    except OSError as error:
        raise ValueError(f"--layout {path} is neither row nor grid nor a file: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"--layout {path} is no text: give a JSON file") from None
    return text
