"""How long clustering a large table of embeddings takes, and how much memory it needs.

    python -m bench.styles                     # a million random vectors of the demo's width, 100 and 1,000 clusters
    python -m bench.styles 100000 100          # so many vectors, so many clusters

Vectors are drawn round as many random centres as there are clusters, so that the clusters can be scored (adjusted
mutual information with these centres, 1: all recovered). Each run is a process of its own, so
that its peak memory is its own. The rate of a core counts the distances of the passes alone over all CPU time, as
pipelines/plan/durations.py assumes it. It prints a table and writes nothing.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score

from bench.measurement import ROOT, measure_in_subprocess, print_table, read_peak_mb
from canvas.features.vectors import Vectors, normalize_vectors
from canvas.styles.clusters import build_kmeans, compute_criterion
from canvas.styles.spec import ClusterSpec
from canvas.uve.spec import UveSpec
from lifecycle.declare.params import load_sections, read_section

BATCH_SIZE = 16_384  # vectors of a step of MiniBatchKMeans
NOISE_LENGTH = 0.8  # length of the random part of a vector beside its centre's 1
SCORED_VECTORS = 100_000  # vectors that the agreement is computed of


def sample_vectors(count: int, width: int, centres: int, seed: int) -> tuple[Vectors, NDArray[np.int64]]:
    """Return unit vectors [count, width], and the number of the centre of each."""
    rng = np.random.default_rng(seed)
    centre_vectors = normalize_vectors(rng.standard_normal((centres, width), np.float32))
    centre_of = rng.integers(centres, size=count)
    vectors = np.empty((count, width), np.float32)
    for first in range(0, count, 100_000):
        rows = slice(first, min(count, first + 100_000))
        noise = rng.standard_normal((rows.stop - first, width), np.float32) * np.float32(NOISE_LENGTH / width**0.5)
        vectors[rows] = normalize_vectors(centre_vectors[centre_of[rows]] + noise)
    return vectors, centre_of


def measure_clustering(count: int, clusters: int) -> dict[str, Any]:
    """Cluster in this process; return wall and CPU seconds, passes over the vectors, peak memory, agreement."""
    width = read_section(UveSpec, "uve", load_sections("demo", ROOT)).get_sizes()[1]
    spec = ClusterSpec(
        numbers=(clusters,),
        criterion="silhouette",
        criterion_pins=clusters + 1,
        batch_size=BATCH_SIZE,
        restarts=1,
        seed=0,
    )
    vectors, centre_of = sample_vectors(count, width, clusters, seed=0)
    peak_before = read_peak_mb()
    clock, cpu = time.perf_counter(), time.process_time()
    model = build_kmeans(spec, clusters).fit(vectors)
    seconds, cpu = time.perf_counter() - clock, time.process_time() - cpu
    clock = time.perf_counter()
    score = compute_criterion(vectors[:4000], model.labels_[:4000], "silhouette")
    return {
        "vectors": count,
        "width": width,
        "clusters": clusters,
        "seconds": seconds,
        "CPU seconds": cpu,
        "passes": (passes := model.n_steps_ * BATCH_SIZE / count),
        "GFLOP/s of a core": 2 * count * clusters * width * passes / cpu / 1e9,
        "vectors MB": vectors.nbytes / 2**20,
        "peak MB before": peak_before,
        "peak MB": read_peak_mb(),
        "agreement": float(adjusted_mutual_info_score(centre_of[:SCORED_VECTORS], model.labels_[:SCORED_VECTORS])),
        "silhouette of 4000": score,
        "its seconds": time.perf_counter() - clock,
    }


def main(arguments: list[str]) -> None:
    count = int(arguments[0]) if arguments else 1_000_000
    numbers = [int(number) for number in arguments[1:]] or [100, 1000]
    print_table([measure_in_subprocess(measure_clustering, count, number) for number in numbers])


if __name__ == "__main__":
    main(sys.argv[1:])
