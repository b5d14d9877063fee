"""Stage `mine_styles`: embeddings of pins in, styles to paint in out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from canvas.styles.clusters import ClusterSpec
from components.artifacts import Captions, Embeddings, Pins, Styles, Truth
from lifecycle.declare.stage import Input, Metrics, Output, Report, stage

if TYPE_CHECKING:
    from canvas.styles.mining import EmbeddedPins, Group
    from canvas.styles.table import Style


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleLimits:
    """What a style must be; what is not is dropped with a reason."""

    min_pins: int  # of a style
    min_purity: float  # share of a cluster's pins whose captions speak of its name
    min_coherence: float  # of a cluster
    chance: float  # share of the boards taken for strong ones that may be so by chance (Benjamini and Hochberg 1995)
    min_gain: float  # of a board's coherence over that of random pins

    def __post_init__(self) -> None:
        if self.min_pins < 2 or not (0 <= self.min_purity <= 1 and 0 < self.chance < 1):
            raise ValueError(
                f"limits need min_pins of 2 or more, min_purity in 0..1 and chance inside 0..1, not {self}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class MineStylesParams:
    splits: tuple[str, ...]  # whose pins styles are mined from
    pins: int  # of them, at most: their vectors are held in memory
    source: Literal["uve", "clip", "uve+clip"]  # of the descriptors
    without_product: bool  # what all pins of a product share is taken out of the descriptors
    clusters: ClusterSpec
    limits: StyleLimits
    shown: int  # representative pictures of each style


@stage(machine="memory")
def mine_styles(
    mine_styles: MineStylesParams,
    pins: Input[Pins],
    truth: Input[Truth],
    captions: Input[Captions],
    embeddings: Input[Embeddings],
    styles: Output[Styles],
    metrics: Output[Metrics],
    report: Output[Report],
) -> None:
    """Find style clusters and boards with a style of their own among the embedded pins; name them, drop the rest."""
    import numpy as np
    import pyarrow as pa

    from canvas.pins import tables
    from canvas.styles.clusters import cluster_vectors
    from canvas.styles.mining import group_by_board, group_by_cluster, read_embedded_pins
    from canvas.styles.table import read_styles
    from evaluation.pages import style_gallery

    clock = time.perf_counter()
    data = read_embedded_pins(
        embeddings.path,
        pins.path,
        captions.path,
        splits=mine_styles.splits,
        count=mine_styles.pins,
        source=mine_styles.source,
        without_product=mine_styles.without_product,
    )
    rows = np.array([row for row, split in enumerate(data.splits) if split in mine_styles.splits], np.int64)
    found = cluster_vectors(data.descriptors[rows], mine_styles.clusters)
    groups = {
        "cluster": group_by_cluster(data.descriptors, rows, found.labels),
        "board": group_by_board(data.descriptors, rows, data.boards),
    }
    table = [*_clusters(groups["cluster"], data, mine_styles.limits)]
    table += _boards(groups["board"], data, rows.tolist(), mine_styles.limits, mine_styles.clusters.seed)
    tables.write(styles.path, [pa.Table.from_pylist(table, tables.STYLES)], tables.STYLES)

    mined = read_styles(styles.path)
    scenes = {row["pin_id"]: row["scene"] for row in tables.read(truth.path, ["pin_id", "scene"]).to_pylist()}
    figures: dict[str, Any] = {"pins": len(rows), "criterion": {str(k): v for k, v in found.scores.items()}}
    figures |= _figures(mined, groups["cluster"], data, scenes)
    strips = _strips(mined, pins.path, mine_styles.shown)
    page = style_gallery.render_style_gallery(mined, strips, found.scores, mine_styles.clusters.criterion)
    report.write(page)
    figures["seconds"] = time.perf_counter() - clock
    metrics.write(figures)


def _clusters(groups: Sequence[Group], data: EmbeddedPins, limits: StyleLimits) -> list[dict[str, Any]]:
    """Rows of tables.STYLES."""
    from canvas.styles.names import name_groups, number_repeats

    names = name_groups([[data.captions[row] for row in group.rows] for group in groups])
    titles = number_repeats([name or f"cluster {place}" for place, name in enumerate(names)])
    found = []
    for place, (group, name, title) in enumerate(zip(groups, names, titles, strict=True)):
        row = _row(f"cluster-{place:03d}", "cluster", title, name, group, data)
        found.append(row | {"dropped": _find_cluster_fault(row, limits)})
    return found


def _boards(
    groups: Sequence[Group], data: EmbeddedPins, rows: Sequence[int], limits: StyleLimits, seed: int
) -> list[dict[str, Any]]:
    """Likewise; boards cohere more than chance would have it, or are dropped."""
    import numpy as np

    from canvas.styles.names import name_groups
    from evaluation.measures.styles import compute_coherence_p_values
    from evaluation.statistics.significance import find_significant as stands

    place_of = {row: place for place, row in enumerate(rows)}
    large = [group for group in groups if len(group.rows) >= limits.min_pins]
    members = {group.name: [place_of[int(row)] for row in group.rows] for group in large}
    tested = compute_coherence_p_values(data.descriptors[np.array(rows)], members, seed)
    strong = dict(zip(tested, stands([chance for _, _, chance in tested.values()], limits.chance), strict=True))
    names = name_groups([[data.captions[row] for row in group.rows] for group in groups])
    table = []
    for place, (group, name) in enumerate(zip(groups, names, strict=True)):
        row = _row(f"board-{place:04d}", "board", group.name, name, group, data)
        if group.name not in tested:
            dropped: str | None = f"small: {len(group.rows)} pins, {limits.min_pins} are needed"
        else:
            own, random, chance = tested[group.name]
            row |= {"chance": chance}
            dropped = _find_board_fault(own, random, chance, strong[group.name], limits)
        table.append(row | {"dropped": dropped})
    return table


def _row(style_id: str, kind: str, title: str, phrase: str | None, group: Group, data: EmbeddedPins) -> dict[str, Any]:
    from canvas.features.vectors import normalize_vectors
    from canvas.styles.names import has_phrase
    from evaluation.measures.styles import compute_coherence

    said = [data.captions[row] for row in group.rows if data.captions[row]]
    return {
        "style_id": style_id,
        "kind": kind,
        "name": title,
        "uve": normalize_vectors(data.uve[group.rows].mean(axis=0)).tolist(),
        "clip": normalize_vectors(data.clip[group.rows].mean(axis=0)).tolist(),
        "pins": [data.pins[row] for row in group.rows],
        "purity": sum(has_phrase(text, phrase) for text in said) / len(said) if said and phrase else None,
        "coherence": compute_coherence(data.descriptors[group.rows]),
        "chance": None,
    }


def _find_cluster_fault(row: Mapping[str, Any], limits: StyleLimits) -> str | None:
    """Why a cluster is no style."""
    if len(row["pins"]) < limits.min_pins:
        return f"small: {len(row['pins'])} pins, {limits.min_pins} are needed"
    if row["purity"] is None:
        return "nameless: none of its pins has a caption"
    if row["purity"] < limits.min_purity:
        return f"mixed: {row['purity']:.2f} of its captions speak of {row['name']!r}, {limits.min_purity} is needed"
    if row["coherence"] < limits.min_coherence:
        return f"loose: its pins' mean cosine is {row['coherence']:.2f}, {limits.min_coherence} is needed"
    return None


def _find_board_fault(own: float, random: float, chance: float, strong: bool, limits: StyleLimits) -> str | None:
    if not strong:
        return f"no style of its own: pins at random cohere as much with a chance of {chance:.3f}"
    if own - random < limits.min_gain:
        return f"a weak style: its coherence is {own - random:.2f} above chance, {limits.min_gain} is needed"
    return None


def _figures(
    mined: Sequence[Style], clusters: Sequence[Group], data: EmbeddedPins, scenes: Mapping[str, str | None]
) -> dict[str, Any]:
    """Of styles kept and dropped; against the scenes that truth knows: purity, agreement of all clusters with scenes,
    how often a pin of another split is nearest to a cluster of its scene, and which boards are found."""
    import numpy as np

    from evaluation.measures.styles import compute_label_agreement, find_majority
    from evaluation.statistics.intervals import bootstrap_mean

    kept = [style for style in mined if style.kind == "cluster" and not style.dropped]
    figures: dict[str, Any] = {
        "clusters": {
            "found": len(clusters),
            "kept": len(kept),
            "dropped": dict(Counter(s.dropped.partition(":")[0] for s in mined if s.kind == "cluster" and s.dropped)),
        }
    }
    for name in ("purity", "coherence"):
        if values := [value for style in kept if (value := getattr(style, name)) is not None]:
            figures["clusters"][name] = sum(values) / len(values)
    of = {data.pins[row]: place for place, group in enumerate(clusters) for row in group.rows}
    told = {style.style_id: find_majority([scenes.get(pin) for pin in style.pins]) for style in mined}
    if (same := compute_label_agreement(list(of.values()), [scenes.get(pin) for pin in of])) is not None:
        figures["clusters"]["agreement_with_scenes"] = same
        of_scenes = [found for style in kept if (found := told[style.style_id])[0] is not None]
        figures["clusters"]["scene_purity"] = sum(share for _, share in of_scenes) / max(1, len(of_scenes))
        figures["clusters"]["scenes"] = len({scene for scene, _ in of_scenes})
    others = [row for row, pin in enumerate(data.pins) if pin not in of and scenes.get(pin)]
    if others and kept:
        place_of = {pin: row for row, pin in enumerate(data.pins)}
        centres = np.stack([data.descriptors[[place_of[pin] for pin in style.pins]].mean(axis=0) for style in kept])
        nearest = (data.descriptors[others] @ centres.T).argmax(axis=1)
        right = [
            float(told[kept[at].style_id][0] == scenes[data.pins[row]]) for row, at in zip(others, nearest, strict=True)
        ]
        scene_of_nearest = bootstrap_mean(right)
        figures["held_out"] = {
            "pins": len(others),
            "nearest_cluster_right": scene_of_nearest.mean,
            "nearest_cluster_right_low": scene_of_nearest.low,
            "nearest_cluster_right_high": scene_of_nearest.high,
        }
    boards = [style for style in mined if style.kind == "board"]
    figures["boards"] = {
        "found": len(boards),
        "strong": sum(not board.dropped for board in boards),
        "dropped": dict(Counter(board.dropped.partition(":")[0] for board in boards if board.dropped)),
    }
    return figures


def _strips(mined: Sequence[Style], pins: Path, count: int) -> dict[str, bytes]:
    """PNG of the most typical pictures of every style that is kept."""
    from PIL import Image

    from canvas.pins.image_batches import load_square_images
    from canvas.pins.images import draw_contact_sheet, encode_png

    shown = {style.style_id: style.pins[:count] for style in mined if not style.dropped}
    wanted = {pin for chosen in shown.values() for pin in chosen}
    if not wanted:
        return {}
    pictures = dict(zip(*load_square_images(pins, wanted, 96), strict=True))
    return {
        style: encode_png(
            draw_contact_sheet(
                [Image.fromarray(pictures[pin]) for pin in chosen], [""] * len(chosen), columns=count, cell=96
            )
        )
        for style, chosen in shown.items()
    }
