"""What an exporter hands over."""

from __future__ import annotations

import dataclasses

from robust_edge_runtimes.manifest import Sparsity, TensorSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportedArtifact:
    """One written model file.

    Attributes:
        file: its name inside the folder it was written to.
        sparsity: counted in the written file.
    """

    file: str
    format: str
    precision: str
    input: TensorSpec
    output: TensorSpec
    sparsity: Sparsity
    opset: int | None = None
    ir_version: int | None = None
