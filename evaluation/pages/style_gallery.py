"""The gallery of styles: a page with images of every cluster and strong board, and why the others were dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from canvas.styles.table import Style
from evaluation.pages import html as pages


def render_style_gallery(
    styles: Sequence[Style], strips: Mapping[str, bytes], scores: Mapping[int, float], criterion: str
) -> str:
    """Return one self-contained page.

    Args:
        strips: style_id -> PNG of its representative images.
        scores: Number of clusters tried -> value of `criterion`.
    """
    used = {
        kind: [style for style in styles if style.kind == kind and not style.dropped] for kind in ("cluster", "board")
    }
    clusters = sum(style.kind == "cluster" for style in styles)
    verdict = (
        f"{len(used['cluster'])} of {clusters} style clusters and {len(used['board'])} of {len(styles) - clusters} "
        "boards have a style to generate in"
    )
    return pages.page(
        "Styles",
        pages.verdict(verdict, "good" if used["cluster"] else "warn"),
        pages.section("Style clusters", *_style_parts(used["cluster"], strips)),
        pages.section("Boards with a style of their own", *_style_parts(used["board"], strips)),
        *(
            [
                pages.section(
                    "Number of clusters", pages.lines({criterion: sorted(scores.items())}, f"{criterion} by number")
                )
            ]
            if scores
            else []
        ),
        pages.section(
            "Dropped", pages.table([_build_row(style) for style in styles if style.dropped], "Not used, and why")
        ),
    )


def _style_parts(styles: Sequence[Style], strips: Mapping[str, bytes]) -> list[str]:
    if not styles:
        return [pages.paragraph("None.")]
    rows = pages.table([_build_row(style) for style in styles])
    return [rows, *(pages.image(strips[style.style_id], style.name) for style in styles if style.style_id in strips)]


def _build_row(style: Style) -> dict[str, object]:
    row: dict[str, object] = {
        "name": style.name,
        "pins": len(style.pins),
        "purity": style.purity,
        "coherence": style.coherence,
    }
    if style.kind == "board":
        row["chance"] = style.chance
    if style.dropped:
        row |= {"kind": style.kind, "reason": style.dropped}
    return row
