"""Targets: a device with a runtime, described by a TOML file with its capabilities, limits and their reasons."""

from __future__ import annotations

import dataclasses
import sys
from importlib import resources
from typing import Any

from robust_edge_runtimes.core.decode import decode
from robust_edge_runtimes.core.errors import InputError, unknown_name
from robust_edge_runtimes.core.manifest import PRECISIONS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DYNAMO_OPSET = 18  # torch's newer exporter writes no lower opset
MIN_OPSET = 9  # torch writes no older one
STYLES = ("qdq", "cache", "engine")
INT8_OPSET = 13  # the first whose QuantizeLinear has an axis
IR_OF_OPSET = (
    (25, 13),
    (24, 12),
    (23, 11),
    (21, 10),
    (19, 9),
    (15, 8),
)  # smallest IR version of an opset, if that of the target is older
OLDEST_RUNTIME = "1.14"  # the ONNX Runtime of rows that pin none; it reads opset 18
RUNTIME_OF_OPSET = ((21, "1.18"), (20, "1.17"), (19, "1.15"))  # the first that reads a later one
# Precisions to suggest instead of one that a target does not support, the best first.
INSTEAD = {"fp8": ("int8", "fp16", "fp32"), "int8": ("fp16", "fp32"), "bf16": ("fp16", "fp32"), "fp16": ("fp32",)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantisation:
    """How the int8 artifacts of a target are quantised.

    Attributes:
        style: `qdq` writes Quantize/Dequantize pairs into the file; `cache` leaves the file in fp32 and writes the
            ranges to a TensorRT calibration cache; `engine` writes the integers of the sparse engine.
        reduce_range: 7-bit weights, for CPUs whose 8-bit dot product saturates at 16 bits.
        symmetric: activations have zero point 0, as TensorRT requires.
        bias: biases are quantised to int32, which TensorRT does not support.
    """

    style: str
    reduce_range: bool
    symmetric: bool
    bias: bool

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise unknown_name("quantisation style", self.style, STYLES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A row of the target table.

    Attributes:
        name: unique; a JetPack's rows are called `FAMILY-jpVERSION`.
        family: the name that `--target` takes; rows of one family differ by their JetPack.
        format: artifact format, a row of the tables of formats.
        checked_with: artifact format whose runtime checks the file at export, if the device's runtime cannot run on
            the exporting machine.
        runtime: what executes the file on the device.
        precisions: supported precisions; the first is the default.
        python: oldest Python of the device.
        requirements: pip requirements of the bundle.
        image: base image of the bundle's Dockerfile.
        limits: limits of the target with their reasons, one sentence each.
        refuses: the reason why a precision is not supported, by precision.
        aliases: other names of the family.
        jetpack: JetPack version, for Jetson targets.
        jetpack_also: other JetPack versions that this row covers.
        default: whether this row is chosen for its family if no JetPack is given.
        opset: ONNX opset of written files, at most `opset_max`.
        opset_max: largest opset that the runtime reads.
        ir_version: the ONNX IR version that is written.
        tensorrt: the oldest TensorRT version that the row is written for.
        fp16: `file` if the file has fp16 weights and casts, `flag` if fp16 is only a build flag.
        int8: how int8 artifacts are quantised.
        made_from: the ONNX target whose file the artifact is generated from, and which times the dense baseline.
        machines: output of `uname -m` on the device; an export on such a machine includes compiled code for its CPU.
    """

    name: str
    family: str
    description: str
    format: str
    runtime: str
    precisions: tuple[str, ...]
    python: str
    requirements: tuple[str, ...]
    image: str
    limits: tuple[str, ...]
    checked_with: str | None = None
    refuses: dict[str, str] = dataclasses.field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    jetpack: str | None = None
    jetpack_also: tuple[str, ...] = ()
    default: bool = True
    opset: int | None = None
    opset_max: int | None = None
    ir_version: int | None = None
    tensorrt: str | None = None
    fp16: str | None = None
    int8: Quantisation | None = None
    made_from: str | None = None
    machines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for precision in self.precisions:
            if precision not in PRECISIONS:
                raise unknown_name(f"precision of target {self.name}", precision, PRECISIONS)
        if "int8" in self.precisions and self.int8 is None:
            raise InputError(f"target {self.name}: int8 is missing, although it is among the precisions")
        if ("fp16" in self.precisions) != (self.fp16 in ("file", "flag")):
            raise InputError(
                f"target {self.name}: fp16 must say `file` or `flag` where it is a precision, and only there"
            )
        given = (self.opset, self.opset_max, self.ir_version)
        if any(value is None for value in given) and any(value is not None for value in given):
            raise InputError(f"target {self.name}: opset, opset_max and ir_version come together")
        if self.opset is not None and self.opset_max is not None and self.opset > self.opset_max:
            raise InputError(
                f"target {self.name}: opset {self.opset} is above what it reads, {self.opset_max} ({self.runtime}); "
                f"nearest: `opset` {self.opset_max}"
            )

    @property
    def exporter(self) -> str | None:
        """Which of torch's ONNX exporters writes the opset: `dynamo`, or `torchscript` below opset 18."""
        if self.opset is None:
            return None
        return "dynamo" if self.opset >= DYNAMO_OPSET else "torchscript"

    def with_opset(self, opset: int) -> Target:
        """A copy of the target that writes another opset.

        Raises:
            InputError: the target does not read this opset.
        """
        if self.opset is None or self.ir_version is None:
            raise InputError(f"target {self.name} runs no ONNX; leave `opset` out")
        if opset < MIN_OPSET:
            raise InputError(f"opset {opset} is older than what torch writes; nearest: `opset` {MIN_OPSET}")
        needed = next((ir for since, ir in IR_OF_OPSET if opset >= since), 0)
        first = next((version for since, version in RUNTIME_OF_OPSET if opset >= since), OLDEST_RUNTIME)
        return dataclasses.replace(
            self,
            opset=opset,
            ir_version=max(self.ir_version, needed),
            runtime=self.runtime.replace(f"ONNX Runtime {OLDEST_RUNTIME} or", f"ONNX Runtime {first} or"),
            requirements=tuple(line.replace(f">={OLDEST_RUNTIME}", f">={first}") for line in self.requirements),
        )

    def precision(self, wanted: str | None) -> str:
        """The precision of an export: the given one, or the default of the target for None.

        Raises:
            InputError: the target or the opset does not support it; the message has the reason and the nearest
                possible options.
        """
        wanted = self.precisions[0] if wanted is None else wanted
        if wanted in self.precisions:
            if self.in_file(wanted) == "int8" and self.opset is not None and self.opset < INT8_OPSET:
                raise InputError(
                    f"opset {self.opset} does not support 8-bit weights with a scale per channel; nearest: "
                    f"`opset` {INT8_OPSET}"
                )
            return wanted
        reason = self.refuses.get(wanted, f"it runs {', '.join(self.precisions)} only")
        nearest = next((name for name in INSTEAD.get(wanted, ()) if name in self.precisions), self.precisions[0])
        raise InputError(
            f"target {self.name} does not support {wanted}: {reason.rstrip('.')}; nearest: `precision` {nearest}"
        )

    def in_file(self, precision: str) -> str:
        """The precision of the numbers in the file; fp32 if only the engine that is built from it uses fewer bits."""
        in_flags = precision == "fp16" and self.fp16 == "flag"
        in_cache = precision == "int8" and self.int8 is not None and self.int8.style == "cache"
        return "fp32" if in_flags or in_cache else precision

    def full_range(self, precision: str) -> bool:
        """Whether weights in the file use all of their 8 bits, on which x86 CPUs without VNNI saturate."""
        return self.in_file(precision) == "int8" and self.int8 is not None and not self.int8.reduce_range


def targets() -> dict[str, Target]:
    """All targets by name: files in alphabetical order, JetPacks in the order of their file."""
    folder = resources.files("robust_edge_exporters") / "targets"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    table = {}
    for file in files:
        for row in _rows(tomllib.loads(file.read_text(encoding="utf-8")), file.name):
            table[row.name] = row
    return table


def target_named(name: str, jetpack: str | None = None) -> Target:
    """The target with a given name, family name or alias.

    Args:
        name: for example `x86-cpu`, `jetson-gpu` or `jetson-gpu-jp6.2`.
        jetpack: 4.6, 5.1, 6.2 or 7.2, or a patch release of one.

    Raises:
        InputError: there is no such target, or none for that JetPack.
    """
    table = targets()
    if name in table and jetpack is None:
        return table[name]
    rows = [row for row in table.values() if name in (row.name, row.family, *row.aliases)]
    if not rows:
        raise unknown_name("target", name, {*table, *(n for row in table.values() for n in (row.family, *row.aliases))})
    if jetpack is None:
        return next(row for row in rows if row.default)
    return _of_jetpack(rows, name, jetpack)


def _of_jetpack(rows: list[Target], name: str, jetpack: str) -> Target:
    known = {version: row for row in rows if row.jetpack for version in (row.jetpack, *row.jetpack_also)}
    if not known:
        raise InputError(f"target {name} is not a Jetson target; leave `jetpack` out")
    found = known.get(".".join(jetpack.split(".")[:2]))
    if found is None:
        raise unknown_name(f"JetPack of {name}", jetpack, known)
    return found


def _rows(raw: dict[str, Any], file: str) -> list[Target]:
    """The target of a file, or one target per JetPack; the table of a JetPack overrides fields of the file."""
    variants = raw.pop("jetpack", {})
    default = raw.pop("default_jetpack", None)
    raw.setdefault("family", raw.get("name"))
    rows = [] if default else [decode(Target, raw, where=file)]
    for version, changes in variants.items():
        own = {"name": f"{raw['name']}-jp{version}", "jetpack": version, "default": version == default}
        rows.append(decode(Target, {**raw, **changes, **own}, where=f"{file}.jetpack.{version}"))
    return rows
