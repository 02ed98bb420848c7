"""The file itself, run by ONNX Runtime without optimisations: what an imported network is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np

from robust_edge_runtimes.core.errors import BackendUnavailable, InputError
from robust_edge_runtimes.core.limits import TimeLimit


def run_graph(program: Any, images: np.ndarray, names: list[str]) -> list[np.ndarray]:
    """Values of a graph by name, for images of any shape that it allows.

    Raises:
        BackendUnavailable: ONNX Runtime is not installed.
        InputError: it cannot run the graph.
    """
    try:
        import onnxruntime as ort
    except ImportError as cause:
        raise BackendUnavailable("importing ONNX needs onnxruntime: pip install 'robust-edge[train]'") from cause
    from onnx import ModelProto, ValueInfoProto

    watched = ModelProto()
    watched.CopyFrom(program)
    del watched.graph.output[:]
    watched.graph.output.extend(ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    with TimeLimit("the ONNX file", InputError).opening(action="executing"):
        return _run(ort, watched, options, images)


def _run(ort: Any, program: Any, options: Any, images: np.ndarray) -> list[np.ndarray]:
    try:
        session = ort.InferenceSession(program.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found: list[np.ndarray] = session.run(None, {_image_port(program): images})
    except Exception as cause:  # ONNX Runtime raises classes of its own, as protobuf does beyond 2 GiB
        reason = " ".join(str(cause).split())[-300:]
        way_out = "; export the network in float32" if "NOT_IMPLEMENTED" in reason else ""
        raise InputError(f"ONNX Runtime cannot run the graph: {reason}{way_out}") from cause
    return found


def _image_port(program: Any) -> str:
    known = {item.name for item in program.graph.initializer}
    return str(next(port.name for port in program.graph.input if port.name not in known))
