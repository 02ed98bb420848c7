"""Program: the tables and calls of the generated C, to which operators are added one by one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.geometry import Tensor
from robust_edge_exporters.native.tiling import REGISTER_TILE_UNITS, Tiling, codes_units, register_tile_units
from robust_edge_exporters.native.weights import Sections

NO_TENSOR = "NO_TENSOR"


@dataclass
class Program:
    """The generated parts of model.c, and the sizes of a context's memory."""

    arena: int
    headers: set[str] = field(default_factory=set)
    instances: set[str] = field(default_factory=set)  # lines that expand a header's macro
    tables: list[str] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)  # of each operator
    prepare: list[str] = field(default_factory=list)
    segments: list[str] = field(default_factory=list)
    tile_units: dict[str, dict[int, set[int]]] = field(default_factory=dict)  # by kernel and REGISTER_TILE_UNITS
    starts: int = 0
    offsets: int = 0
    channels: int = 0
    computed: dict[Hashable, int] = field(default_factory=dict)

    def operator(self, name: str, calls: Iterable[ir.Call]) -> None:
        """Add an operator that consists of some calls, followed by a barrier of all threads."""
        self.calls.append([])
        listed = tuple(calls)
        for index, call in enumerate(listed):
            table = name if len(listed) == 1 else f"{name}_{index}"
            self.declare(table, call)
            self.calls[-1].append(f"{call.function}(j, &{table});")

    def declare(self, name: str, call: ir.Call) -> None:
        """Add the table of a call and the header of its function."""
        body = ", ".join(f".{key} = {self._initialiser(f'{name}_{key}', x)}" for key, x in call.fields.items())
        self.tables.append(f"static const struct {call.struct} {name} = {{{body}}};")
        self.headers.add(call.header or call.function)

    def zero_padding_rows(self, name: str, output: Tensor) -> None:
        """Add a call to the last operator that clears the padding rows of its output."""
        self.headers.add("padding_rows")
        self.tables.append(f"static const struct tensor {name}_planes = {tensor(output)};")
        self.calls[-1].append(f"zero_padding_rows(j, &{name}_planes);")

    def table(self, kind: str, name: str, values: Iterable[object]) -> str:
        """Add a constant array and return its name."""
        self.tables.append(f"static const {kind} {name}[] = {{{', '.join(map(str, values))}}};")
        return name

    def computed_at_start(self, key: Hashable, floats: int, code: str) -> int:
        """Arena offset of `floats` floats that the C code computes in re_create; `{}` is replaced by the address.

        Calls with equal keys share the same memory.
        """
        if key not in self.computed:
            self.computed[key] = self.arena
            self.prepare.append(code.format(f"c->arena + {self.arena}"))
            self.arena += floats
        return self.computed[key]

    def register_tiles(
        self, kernel: str, tiling: Tiling, output: Tensor, *, step: int = 1, codes: bool = False
    ) -> None:
        """Add the sizes of a layer's register tiles, multiples of `step` units, to the macro `kernel`_UNITS."""

        def sizes(most: int) -> set[int]:
            units = codes_units(most) if codes else most
            return register_tile_units(tiling, output.height, output.width, most=units, step=step)

        self.tile_sizes(kernel, sizes)

    def tile_sizes(self, kernel: str, sizes: Callable[[int], set[int]]) -> None:
        """Add sizes in units to the macro `kernel`_UNITS: those for each of `REGISTER_TILE_UNITS`."""
        for most, found in self.tile_units.setdefault(kernel, {most: set() for most in REGISTER_TILE_UNITS}).items():
            found |= sizes(most)

    def weights(self, name: str, sections: Sections) -> dict[str, object]:
        """The fields with the positions of a layer's weights; adds its segments to the context's starts and offsets."""
        fields: dict[str, object] = {
            "values": sections.values,
            "bias": sections.bias,
            "starts": self.starts,
            "offsets": self.offsets,
        }
        if sections.segments is not None:
            s = sections.segments
            taps = self.table("uint16_t", f"{name}_taps", s.tap_offsets)
            row = (
                s.coded, s.coded_bytes, s.entries, self.starts, self.offsets, s.segments, s.per_block, s.blocks,
                s.positions, s.last_positions, s.channel_offset, len(s.tap_offsets), taps, int(s.by_tap),
            )  # fmt: skip
            self.segments.append(f"{{{', '.join(map(str, row))}}},")
            self.starts += s.segments + 1
            self.offsets += s.entries
        return fields

    def layer_channels(self, name: str, count: int, fields: Mapping[str, object]) -> int:
        """Add the output channels of a layer of codes to a context, and return the index of the first.

        Args:
            name: of the layer.
            count: of its output channels.
            fields: the others of the C struct layer_channels, without the index.
        """
        first = self.channels
        fields = {**fields, "count": count, "requantisation.first_channel": first}
        self.headers.add("layer_channels")
        body = ", ".join(f".{field} = {value}" for field, value in fields.items())
        self.tables.append(f"static const struct layer_channels {name}_channels = {{{body}}};")
        self.prepare.append(f"read_channels(c, &{name}_channels);")
        self.channels += count
        return first

    def _initialiser(self, name: str, value: object) -> str:
        if isinstance(value, Tensor):
            return tensor(value)
        if isinstance(value, ir.Activation):
            return f"{{{value.kind.value}, {float_literal(value.lo)}, {float_literal(value.hi)}}}"
        if isinstance(value, np.ndarray):
            kind, literal = LITERALS[value.dtype.type]
            return self.table(kind, name.replace(".", "_"), (literal(x) for x in value.tolist()))
        if isinstance(value, np.floating):
            return float_literal(float(value))
        if isinstance(value, tuple):
            return self.table("int", name, value)
        return str(value)


def double_literal(value: float) -> str:
    """A C literal with exactly the same float64 value."""
    return repr(float(value))


def float_literal(value: float) -> str:
    """A C literal with exactly the same float32 value."""
    text = f"{value:.9g}"
    return text + ("f" if "." in text or "e" in text else ".0f")


LITERALS: dict[type[Any], tuple[str, Callable[[Any], str]]] = {
    np.float32: ("float", float_literal),
    np.float64: ("double", double_literal),
    np.uint8: ("unsigned char", str),
}
"""The C type and the literals of an array, by the type of its elements."""


def tensor(t: Tensor) -> str:
    """The C initialiser of a struct tensor."""
    return f"{{{t.offset}, {t.channels}, {t.height}, {t.width}, {t.pitch}, {t.image}}}"
