"""A process of its own: open a bundle, answer once, say how long and how large. Run by latency.py."""

from __future__ import annotations

import json
import sys
import time

from robust_edge_runtimes.core.environment import peak_rss_bytes
from robust_edge_runtimes.core.errors import RobustEdgeError


def main(path: str, threads: int) -> None:
    """Print load_ns, first_ns and peak_rss_bytes as one JSON line."""
    start = time.perf_counter_ns()
    from robust_edge_runtimes.core.bundle import open_bundle
    from robust_edge_runtimes.load import load

    bundle = open_bundle(path)
    with load(bundle, threads=threads) as model:
        loaded = time.perf_counter_ns()
        image = bundle.golden().clean[:1]
        before = time.perf_counter_ns()
        model.infer_all(image)
        first = time.perf_counter_ns()
    figures = {"load_ns": loaded - start, "first_ns": first - before, "peak_rss_bytes": peak_rss_bytes()}
    print(json.dumps(figures))


def run() -> None:
    """Answer the process that started this one; its mistakes leave in one line."""
    try:
        main(sys.argv[1], int(sys.argv[2]))
    except RobustEdgeError as error:
        sys.exit(str(error))
