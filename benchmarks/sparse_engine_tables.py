"""The tables of docs/sparse-engine.md, from a result of sparse_engine.py."""

from __future__ import annotations

import itertools
import math
from typing import Any

OTHERS = ("openvino fp32", "openvino int8", "torch eager", "torch csr")
ENGINES = ("onnxruntime fp32", "onnxruntime int8", *OTHERS, "sparse engine")
BASELINE, OURS = ENGINES[0], ENGINES[-1]


def show(report: dict[str, Any]) -> None:
    """Prints the report's tables."""
    print(tables(report), break_even(report), size_table(report), sep="\n")
    for name in dict.fromkeys(c["network"] for c in report["cells"]):
        keep = min((c["keep"] for c in report["cells"] if c["network"] == name), key=lambda k: abs(k - 0.1))
        print(name, layer_table(report, name, keep), sep="\n\n")


def tables(report: dict[str, Any]) -> str:
    """The report as Markdown: speed-ups over the baseline, then the layers of each network beside their limits."""
    timed = {engine for c in report["cells"] for r in c["results"] for engine in r["speedup"]}
    shown = [engine for engine in ENGINES if engine in timed]
    lines = ["| network | kept | MACs left | threads | images | " + " | ".join(shown) + " | ms |"]
    lines.append("|---" * (len(shown) + 6) + "|")
    for c in report["cells"]:
        for r in c["results"]:
            speeds = " | ".join(f"{r['speedup'][e]:.2f}" if e in r["speedup"] else "" for e in shown)
            kept = f"{c['keep']:.0%}" + (" in all" if c["scope"] == "global" else "")
            head = f"| {c['network']} | {kept} | {c['macs_left']:.1%} | {r['threads']} | {r['images']} "
            lines.append(f"{head}| {speeds} | {r['ms'][OURS]:.2f} |")
    return "\n".join(lines) + "\n"


def size_table(report: dict[str, Any]) -> str:
    """Bytes of each network's weights file by non-zero, of its library and its memory, and the first inference."""
    lines = [
        "| network | kept | bytes per non-zero | library, kB | memory beyond weights, MB | first inference, ms |",
        "|---" * 6 + "|",
    ]
    for c in report["cells"]:
        kept = f"{c['keep']:.0%}" + (" in all" if c["scope"] == "global" else "")
        lines.append(
            f"| {c['network']} | {kept} | {c['bytes_per_nonzero']:.2f} | {c['code_bytes'] / 1e3:.0f} "
            f"| {c['memory_bytes'] / 1e6:.2f} | {c['first_inference_ms']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def break_even(report: dict[str, Any]) -> str:
    """At which fraction kept the engine draws level with the dense engines, as Markdown.

    Between two measured fractions the speed-up is taken as a straight line in the logarithms of both.
    """
    lines = ["| network | threads | images | as fast as ONNX Runtime fp32 | as fast as int8 |", "|---" * 5 + "|"]
    for name in dict.fromkeys(c["network"] for c in report["cells"]):
        cells = sorted(
            (c for c in report["cells"] if (c["network"], c["scope"]) == (name, "layer")), key=lambda c: -c["keep"]
        )
        for at, first in enumerate(cells[0]["results"]):
            keeps = [c["keep"] for c in cells]
            rows = [c["results"][at]["ms"] for c in cells]
            crossings = [
                crossing(keeps, [row[engine] / row[OURS] for row in rows]) for engine in (BASELINE, "onnxruntime int8")
            ]
            lines.append(f"| {name} | {first['threads']} | {first['images']} | " + " | ".join(crossings) + " |")
    return "\n".join(lines) + "\n"


def crossing(keeps: list[float], speedups: list[float]) -> str:
    """Fraction kept at which a falling line of speed-ups over `keeps`, from dense to sparse, first reaches 1."""
    if speedups[0] >= 1:
        return "always" if keeps[0] == 1 else f"above {keeps[0]:.0%} kept"
    for (dense, slow), (sparse, fast) in itertools.pairwise(zip(keeps, speedups, strict=True)):
        if fast >= 1:
            part = math.log(1 / slow) / math.log(fast / slow)
            return f"{dense * (sparse / dense) ** part:.0%} kept"
    return f"not at {keeps[-1]:.0%}"


def layer_table(report: dict[str, Any], network_name: str, keep: float) -> str:
    """One network's operators: measured, and what arithmetic, loads and weights alone would take, in microseconds."""
    wanted = (network_name, keep, "layer")
    cell_ = next((c for c in report["cells"] if (c["network"], c["keep"], c["scope"]) == wanted), None)
    if cell_ is None:
        return ""
    lines = ["| layer | kernel | µs | arithmetic | loads | weights | share of arithmetic |", "|---" * 7 + "|"]
    for layer in cell_["layers"]:
        limits = (f"{layer[k]:.1f}" if k in layer else "" for k in ("arithmetic_us", "loads_us", "weights_us"))
        share = f"{layer['share']:.0%}" if layer.get("share") else ""
        lines.append(f"| {layer['name']} | {layer['kernel']} | {layer['us']:.1f} | {' | '.join(limits)} | {share} |")
    return "\n".join(lines) + "\n"
