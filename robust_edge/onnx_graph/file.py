"""Reading ONNX files that others have written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robust_edge.onnx_graph.error import GraphError


def read_program(path: Path) -> Any:
    """Read a file and the tensors that it keeps in other files, which must lie in its own folder.

    Raises:
        GraphError: the file cannot be read, or names a file outside its folder.
    """
    import onnx
    from onnx.external_data_helper import load_external_data_for_model

    if not path.is_file():
        raise GraphError(f"{path} is not a file")
    try:
        program = onnx.load(str(path), load_external_data=False)
        _refuse_other_folders(program, path)
        load_external_data_for_model(program, str(path.parent))
    except GraphError:
        raise
    except Exception as cause:  # protobuf raises classes of its own
        raise GraphError(f"{path} cannot be read as ONNX: {' '.join(str(cause).split())[:300]}") from cause
    if not program.graph.node:
        raise GraphError(f"{path} cannot be read as ONNX: it holds no graph")
    return program


def _refuse_other_folders(program: Any, path: Path) -> None:
    from onnx.external_data_helper import ExternalDataInfo, _get_all_tensors, uses_external_data

    folder = path.parent.resolve()
    for tensor in filter(uses_external_data, _get_all_tensors(program)):
        location = ExternalDataInfo(tensor).location
        if not (folder / location).resolve().is_relative_to(folder):
            raise GraphError(
                f"{path}: tensor {tensor.name!r} lies in {location!r}, outside the folder of the file; copy it there"
            )
