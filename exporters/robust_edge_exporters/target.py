"""Targets are data: one TOML file each, with the limits of what runs there."""

from __future__ import annotations

import dataclasses
import sys
from importlib import resources

from robust_edge_runtimes.decode import decode
from robust_edge_runtimes.errors import InputError, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A row of the target table.

    Attributes:
        format: artifact format; names exporter and runtime.
        opset: what is written; never above `opset_max`.
        opset_max: what the runtime reads.
        ir_version: the ONNX IR version that is written.
        precisions: numeric types the target runs.
        python: oldest Python of the device.
        requirements: pip requirements of the bundle.
        image: base image of the bundle's Dockerfile.
        limits: what the target cannot do, and why, one sentence each.
    """

    name: str
    description: str
    format: str
    opset: int
    opset_max: int
    ir_version: int
    precisions: tuple[str, ...]
    python: str
    requirements: tuple[str, ...]
    image: str
    limits: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.opset > self.opset_max:
            raise InputError(f"target {self.name}: opset {self.opset} is above what it reads, {self.opset_max}")


def targets() -> dict[str, Target]:
    """Every target by name, in alphabetical order."""
    folder = resources.files("robust_edge_exporters") / "targets"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    table = {}
    for file in files:
        target = decode(Target, tomllib.loads(file.read_text(encoding="utf-8")), where=file.name)
        table[target.name] = target
    return table


def target_named(name: str) -> Target:
    """One target.

    Raises:
        InputError: no target of that name.
    """
    table = targets()
    if name not in table:
        raise unknown_name("target", name, table)
    return table[name]
