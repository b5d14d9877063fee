"""Stage `mine_styles`: embeddings of pins in, styles to generate in out."""

from __future__ import annotations

import time

from canvas.styles.spec import MineStylesParams, estimate_mining_memory
from components.artifacts import Captions, Embeddings, Pins, Styles, Truth
from lifecycle.declare.stage import Input, Metrics, Output, Report, stage


@stage(machine="memory", memory=estimate_mining_memory)
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
    from canvas.pins import tables
    from canvas.pins.fallbacks import Notes
    from canvas.styles.build import build_board_styles, build_cluster_styles, compare_boards
    from canvas.styles.clusters import cluster_vectors
    from canvas.styles.mining import group_by_board, group_by_cluster, read_embedded_pins
    from canvas.styles.pins import draw_style_strips
    from canvas.styles.table import read_styles, write_styles
    from evaluation.measures.styles import compute_mining_metrics
    from evaluation.pages.style_gallery import render_style_gallery
    from evaluation.statistics.intervals import find_significant

    params, clock, notes = mine_styles, time.perf_counter(), Notes()
    sources = embeddings.path, pins.path, captions.path
    spec, limits, splits = params.clusters, params.limits, params.splits
    embedded = read_embedded_pins(
        *sources, splits=splits, count=params.pins, source=params.source, without_product=params.without_product
    )
    indices = embedded.select_rows(splits)
    clustering = cluster_vectors(embedded.descriptors[indices], spec, notes)
    clusters = group_by_cluster(embedded, indices, clustering.labels)
    boards = group_by_board(embedded, indices)
    tests = compare_boards(boards, embedded, indices, limits, spec.seed)
    significant = find_significant([test.p_value for test in tests.values()], limits.chance)
    of_clusters = build_cluster_styles(clusters, embedded, limits)
    of_boards = build_board_styles(boards, embedded, limits, tests, significant)
    write_styles(styles.path, [*of_clusters, *of_boards])

    table = read_styles(styles.path)
    scene_of = {row["pin_id"]: row["scene"] for row in tables.read(truth.path, ["pin_id", "scene"]).to_pylist()}
    results = {"pins": len(indices), "criterion": {str(number): score for number, score in clustering.scores.items()}}
    results |= compute_mining_metrics(table, clusters, embedded, scene_of)
    strips = draw_style_strips(table, pins.path, params.strip_pins)
    report.write(render_style_gallery(table, strips, clustering.scores, spec.criterion))
    results["seconds"] = time.perf_counter() - clock
    metrics.write(results | notes.to_metrics())
