"""The figure of docs/sparse-engine.md, from a result of sparse_engine.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparse_engine_tables import ENGINES, OURS


def plot(report: dict[str, Any], path: Path) -> None:
    """Speed-up over dense ONNX Runtime against keep, one image, one thread."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(c["network"] for c in report["cells"]))
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3.4), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        cells = sorted(
            (c for c in report["cells"] if c["network"] == name and c["scope"] == "layer"), key=lambda c: c["keep"]
        )
        for engine in ENGINES:
            found = [(c["keep"], next(r for r in c["results"] if (r["images"], r["threads"]) == (1, 1))) for c in cells]
            points = [(100 * keep, r["speedup"][engine]) for keep, r in found if engine in r["speedup"]]
            width = 2.5 if engine == OURS else 1.2
            axis.plot(*zip(*points, strict=True), marker="o", label=engine, lw=width)
        axis.set(title=name, xlabel="weights kept, %", xscale="log", yscale="log")
        axis.set_xticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
        axis.set_yticks([0.25, 0.5, 1, 2, 4, 8, 16], ["¼", "½", "1", "2", "4", "8", "16"])
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("times as fast as ONNX Runtime fp32")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="lower center", ncols=len(ENGINES), fontsize=8)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, dpi=150)
