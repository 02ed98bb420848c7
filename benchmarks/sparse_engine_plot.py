"""The figure of docs/sparse-engine.md, from a result of sparse_engine.py."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sparse_engine_tables import ENGINES, OURS

COLUMNS = 3


def plot(report: dict[str, Any], path: Path) -> None:
    """Speed-up over dense ONNX Runtime against keep, one image, one thread."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(c["network"] for c in report["cells"]))
    rows = math.ceil(len(names) / COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(4 * COLUMNS, 3.2 * rows + 0.4), squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, names, strict=False):
        cells = sorted(
            (c for c in report["cells"] if c["network"] == name and c["scope"] == "layer"), key=lambda c: c["keep"]
        )
        for engine in ENGINES:
            found = [(c["keep"], next(r for r in c["results"] if (r["images"], r["threads"]) == (1, 1))) for c in cells]
            points = [(100 * keep, r["speedup"][engine]) for keep, r in found if engine in r["speedup"]]
            style = {"lw": 2.5 if engine == OURS else 1.2, "color": f"C{ENGINES.index(engine)}"}
            axis.plot([x for x, _ in points], [y for _, y in points], marker="o", label=engine, **style)
        axis.set(title=name, xlabel="weights kept, %", xscale="log", yscale="log")
        axis.set_xticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
        axis.set_yticks([0.25, 0.5, 1, 2, 4, 8, 16], ["¼", "½", "1", "2", "4", "8", "16"])
        axis.grid(alpha=0.3)
    for row in axes:
        row[0].set_ylabel("times as fast as\nONNX Runtime fp32")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="lower center", ncols=len(ENGINES), fontsize=8)
    figure.tight_layout(rect=(0, 0.2 / rows / 3.2 + 0.02, 1, 1))
    figure.savefig(path, dpi=150)
