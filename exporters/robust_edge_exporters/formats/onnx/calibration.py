"""The ranges that 8 bits cover, from the values that tensors take on calibration images.

`minmax` covers all values. The other methods cut off rare large values, so that the steps between the others are
smaller: `percentile-Q` half of (100 - Q)% of the values at each end, and `entropy` what lies above the threshold at
which the distribution of 128 steps is closest to that of the values (Kullback-Leibler divergence; Migacz, "8-bit
inference with TensorRT", GTC 2017).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from robust_edge_runtimes.core.errors import ExportError

METHODS = ("minmax", "percentile-99.999", "percentile-99.99", "entropy")
MINMAX = METHODS[0]
BATCH = 8
"""Images that are run at once: the values of all tensors are held in memory."""
BINS = 2048
LEVELS = 128  # steps of 8 bits for one sign
STRIDE = 64  # bins between two thresholds that are tried

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Distribution:
    """The values of one tensor: (BINS,) counts of equal bins from `low` to `high`."""

    low: float
    high: float
    counts: np.ndarray

    def range(self, method: str) -> Range:
        """The range that a method covers; inside [low, high]."""
        if method == MINMAX or self.high <= self.low:
            return self.low, self.high
        if method == "entropy":
            threshold = _entropy_threshold(*self._magnitudes())
            return max(self.low, -threshold), min(self.high, threshold)
        cut = (100 - float(method.removeprefix("percentile-"))) / 200
        edges = np.linspace(self.low, self.high, BINS + 1)
        below = np.concatenate([[0.0], np.cumsum(self.counts) / self.counts.sum()])
        return float(np.interp(cut, below, edges)), float(np.interp(1 - cut, below, edges))

    def _magnitudes(self) -> tuple[np.ndarray, float]:
        """(BINS,) counts of absolute values from 0 to the largest, and that."""
        centres = np.linspace(self.low, self.high, 2 * BINS + 1)[1::2]
        largest = max(-self.low, self.high)
        counts, _ = np.histogram(np.abs(centres), BINS, (0, largest), weights=self.counts)
        counts[0] = counts[1]  # the zeros after a ReLU would outweigh all other values
        return counts, largest


def distributions(program: Any, images: np.ndarray) -> dict[str, Distribution]:
    """The values of every float tensor that is computed, by name.

    Args:
        program: fp32.
        images: (N, C, H, W) float32 in [0, 1].
    """
    names = _float_tensors(program)
    lows, highs = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for values in _values(program, names, images):
        lows = np.minimum(lows, [value.min() for value in values])
        highs = np.maximum(highs, [value.max() for value in values])
    counts = np.zeros((len(names), BINS), np.int64)
    for values in _values(program, names, images):
        for i, value in enumerate(values):
            counts[i] += _histogram(value, lows[i], highs[i])
    return {name: Distribution(float(lows[i]), float(highs[i]), counts[i]) for i, name in enumerate(names)}


def scores(program: Any, images: np.ndarray) -> np.ndarray:
    """(N, K) logits, every operator computed as the file states it, so that no CPU's 8-bit kernels matter."""
    session = _session(program)
    port = session.get_inputs()[0]
    parts = [session.run(None, {port.name: batch})[0] for batch in batches(program, images)]
    found: np.ndarray = np.concatenate(parts)
    return found


def batches(program: Any, images: np.ndarray) -> Iterator[np.ndarray]:
    """Whole batches of the size that the program takes; at least one."""
    fixed = program.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    size = fixed or BATCH
    count = max(len(images) // fixed, 1) * fixed if fixed else len(images)
    for first in range(0, count, size):
        yield np.ascontiguousarray(images[first : first + size], np.float32)


def _float_tensors(program: Any) -> list[str]:
    graph = onnx.shape_inference.infer_shapes(program).graph
    computed = {name for node in graph.node for name in node.output} | {graph.input[0].name}
    ports = [*graph.input, *graph.value_info, *graph.output]  # a port may stay of a tensor that nothing computes
    names = [port.name for port in ports if port.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    return [name for name in dict.fromkeys(names) if name in computed]


def _values(program: Any, names: list[str], images: np.ndarray) -> Iterator[list[np.ndarray]]:
    """The values of the named tensors, batch by batch."""
    shown = onnx.ModelProto()
    shown.CopyFrom(program)
    known = {port.name for port in (*program.graph.input, *program.graph.output)}
    computed = [name for name in names if name != program.graph.input[0].name]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed if name not in known)
    session = _session(shown)
    for batch in batches(program, images):
        found = dict(zip(computed, session.run(computed, {program.graph.input[0].name: batch}), strict=True))
        yield [batch if name == program.graph.input[0].name else found[name] for name in names]


def _session(program: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(program.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as cause:  # ONNX Runtime raises a class of its own for each kind of error
        reason = " ".join(str(cause).split())[:300]
        raise ExportError(f"ONNX Runtime cannot compute the ranges of the network: {reason}") from cause


def _histogram(values: np.ndarray, low: float, high: float) -> np.ndarray:
    if high <= low:
        return np.bincount([0], weights=[values.size], minlength=BINS).astype(np.int64)
    places = ((values.ravel() - np.float32(low)) * np.float32(BINS / (high - low))).astype(np.int32)
    return np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS)


def _entropy_threshold(counts: np.ndarray, largest: float) -> float:
    """The threshold whose LEVELS steps lose the least of the distribution of absolute values."""
    stops = range(LEVELS, BINS + 1, STRIDE)
    losses = [_divergence(counts, stop) for stop in stops]
    return largest * stops[int(np.argmin(losses))] / BINS


def _divergence(counts: np.ndarray, stop: int) -> float:
    """Kullback-Leibler divergence of the values, clipped after `stop` bins, from what LEVELS steps make of them."""
    kept = counts[:stop].astype(np.float64)
    clipped = kept.copy()
    clipped[-1] += counts[stop:].sum()
    steps = np.arange(stop) * LEVELS // stop
    filled = (kept > 0).astype(np.float64)
    total = np.bincount(steps, weights=kept, minlength=LEVELS)
    places = np.maximum(np.bincount(steps, weights=filled, minlength=LEVELS), 1)
    coarse = (total / places)[steps] * filled
    true, made = clipped / clipped.sum(), np.maximum(coarse / max(coarse.sum(), 1), 1e-12)
    return float(np.sum(true[true > 0] * np.log(true[true > 0] / made[true > 0])))
