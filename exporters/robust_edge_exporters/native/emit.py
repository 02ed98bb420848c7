"""Plan to C: the kernel sources that the network needs, its tables, and the sequence of its operators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import resources

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.plan import Kernel, Layer, Plan, Tensor
from robust_edge_exporters.native.tiling import STRIP_UNITS, UNIT, column_lists, strip_units
from robust_edge_exporters.native.weights import FORMAT_VERSION, Sections

THREADS_MAX = 64
TENSORLESS = "NO_TENSOR"
KERNEL_FILES = """
    spare activate_one partial phases pack pack_columns conv conv_list conv_sparse conv_columns conv_dense conv_taps
    conv_depthwise linear_sparse linear_dense pool pool_max pool_average map map_affine map_add map_mul map_copy
    map_mean
"""


def source(name: str) -> str:
    """Text of a C source that ships with the package."""
    return resources.files(__package__).joinpath(f"csrc/{name}").read_text(encoding="utf-8")


@dataclass
class Tables:
    """Text that grows layer by layer: tables, calls, and the totals that the context is sized by."""

    lines: list[str] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)  # of each operator
    prepare: list[str] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    instances: set[str] = field(default_factory=set)
    units: dict[str, dict[int, set[int]]] = field(default_factory=dict)  # by kernel and STRIP_UNITS
    starts: int = 0
    offsets: int = 0
    masks: dict[tuple[object, ...], int] = field(default_factory=dict)
    arena: int = 0

    def call(self, function: str, kind: str, name: str, fields: dict[str, object]) -> None:
        """Adds a table entry and the operator that reads it; the threads meet when it is done."""
        body = ", ".join(f".{key} = {value}" for key, value in fields.items())
        self.lines.append(f"static const struct {kind} {name} = {{{body}}};")
        self.calls.append([f"    {function}(j, &{name});"])

    def clear_spare_rows(self, name: str, output: Tensor) -> None:
        """Makes the last operator clear the spare rows of its output, too."""
        self.files.add("spare")
        self.lines.append(f"static const struct tensor {name}_planes = {tensor(output)};")
        self.calls[-1].append(f"    clear_spare_rows(j, &{name}_planes);")


def number(value: float) -> str:
    """A float literal that reads back as the same float32."""
    text = f"{value:.9g}"
    return text + ("f" if "." in text or "e" in text else ".0f")


def activation(act: ir.Activation) -> str:
    """Initialiser of a struct activation."""
    return f"{{{act.kind.value}, {number(act.lo)}, {number(act.hi)}}}"


def tensor(t: Tensor) -> str:
    """Initialiser of a struct tensor."""
    return f"{{{t.at}, {t.channels}, {t.height}, {t.width}, {t.pitch}, {t.image}}}"


def emit_model(
    plan: Plan, sections: dict[int, Sections], *, model: int, size: int, value_bytes: int, title: str
) -> tuple[str, int]:
    """Text of model.c, and the bytes that a context of one thread takes beyond the weights file.

    Args:
        plan: the network.
        sections: each weighted layer's place in the weights file.
        model: the number that the weights file must carry.
        size: bytes of the weights file.
        value_bytes: 4, or 2 where values are stored as fp16.
        title: what the header comment says about the source.
    """
    tables = Tables(arena=plan.arena_floats)
    in_place = {layer.inputs[0] for layer in plan.layers if layer.tiling and layer.tiling.spare}
    emit_input(tables, plan)
    if plan.input in in_place:
        tables.clear_spare_rows("input", plan.input)
    for index, layer in enumerate(plan.layers):
        emit_layer(tables, index, layer, sections.get(index))
        if layer.output in in_place:
            tables.clear_spare_rows(f"layer{index}", layer.output)
    view = tensor(plan.output)
    tables.call("write_output", "map", "output", {"in": view, "out": view, "second": view})
    sizes = {
        "THREADS_MAX": THREADS_MAX,
        "IMAGES_MAX": plan.options.images,
        "FORMAT_VERSION": f"{FORMAT_VERSION}u",
        "MODEL": f"UINT64_C({model})",
        "VALUE_BYTES": f"{value_bytes}u",
        "WEIGHTS_BYTES": f"((size_t){size})",
        "ARENA_FLOATS": f"((size_t){tables.arena})",
        "SCRATCH_FLOATS": f"((size_t){plan.scratch_floats})",
        "STARTS": f"((size_t){tables.starts + 1})",
        "OFFSETS": f"((size_t){tables.offsets + 1})",
        "LISTS": f"((size_t){len(tables.lists) + 1})",  # and a harmless one: no empty array, no loop of length zero
        "OPERATORS": len(tables.calls),
    }
    floats = tables.arena + plan.scratch_floats
    return "\n".join(assemble(tables, sizes, title)), 4 * (floats + tables.starts + 1) + 2 * (tables.offsets + 1)


def assemble(tables: Tables, sizes: dict[str, object], title: str) -> Iterable[str]:
    """Sections of model.c in order."""
    yield f"/* Generated by robust-edge {title}. Do not edit: export again. */"
    yield "#define _POSIX_C_SOURCE 200809L\n#define _DEFAULT_SOURCE /* MADV_HUGEPAGE */"
    yield '#include "model.h"\n'
    yield from (f"#include <{h}.h>" for h in ("float", "math", "pthread", "stdint", "stdlib", "string"))
    yield ""
    yield from (f"#define {name} {value}" for name, value in sizes.items())
    yield from sources("vector", "values", "types", "threads", "context", "activate")
    yield from strip_sizes(tables.units)
    yield from sources(*kernel_files(tables.files), "ends", "weights", *["masks"] * bool(tables.masks))
    yield ""
    yield from sorted(tables.instances)
    yield from tables.lines
    yield "\nstatic const struct lists all_lists[LISTS] = {"
    yield from tables.lists
    yield f"    {{0, 0, 0, {tables.starts}, {tables.offsets}, 0, 1, 1, 0, 0, 0, 1, NULL, 0}},\n}};\n"
    yield "/* What create computes from the weights file. */\nstatic void prepare(re_context *c) {"
    yield "    for (size_t i = 0; i < LISTS; i++)"
    yield "        read_lists(c->weights, &all_lists[i], c->starts, c->offsets);"
    yield from tables.prepare
    yield "}\n\nstatic void network(const struct job *j) {\n    struct crew *crew = &j->context->crew;"
    for operator, calls in enumerate(tables.calls):
        yield from calls
        yield f"    end_operator(crew, j->thread, {operator});"
    yield "}\n"
    yield source("api.h").rstrip()
    yield ""


def sources(*names: str) -> Iterator[str]:
    """The C sources of these names."""
    for name in names:
        yield "\n" + source(f"{name}.h").rstrip()


def strip_sizes(units: dict[str, dict[int, set[int]]]) -> Iterator[str]:
    """Sizes of strips that occur, for each size of the register file: each is compiled for itself."""
    if units:
        yield ""
        for turn, most in enumerate(STRIP_UNITS):
            yield f"#{'elif' if turn else 'if'} UNITS_MAX == {most}"
            for kernel, sizes in sorted(units.items()):
                cases = " ".join(f"EACH({size})" for size in sorted(sizes[most]))
                yield f"#define {kernel}_UNITS(EACH) {cases}"
        yield "#endif"


def kernel_files(used: set[str]) -> list[str]:
    """Source names in an order that defines before use."""
    order = KERNEL_FILES.split()
    shared = {
        "activate_one": {"linear_sparse", "linear_dense", "map_affine", "map_mean"},
        "phases": {"conv_taps", "conv_depthwise"},
        "partial": {"conv_sparse", "conv_columns", "conv_dense", "conv_taps"},
        "pack": {"conv_sparse", "conv_dense"},
        "pack_columns": {"conv_columns"},
        "conv_list": {"conv_sparse", "conv_columns", "conv_taps"},
        "conv": {"conv_sparse", "conv_columns", "conv_dense"},
        "pool": {"pool_max", "pool_average"},
    }
    needed = used | {"map"} | {name for name, users in shared.items() if used & users}
    return [name for name in order if name in needed]


def emit_input(tables: Tables, plan: Plan) -> None:
    """The first operator; a normalisation right behind it is part of it."""
    view = tensor(plan.input)
    tables.call(
        "read_input",
        "map",
        "input",
        {"in": view, "out": view, "second": view, **scales(tables, "input", plan.normalise)},
    )


def scales(tables: Tables, name: str, op: ir.Affine | None) -> dict[str, object]:
    """Fields of a struct map that scale and shift by channel."""
    if op is None:
        return {}
    for what, array in (("scale", op.scale), ("shift", op.shift)):
        numbers = ", ".join(number(float(x)) for x in array)
        tables.lines.append(f"static const float {name}_{what}[] = {{{numbers}}};")
    return {"scale": f"{name}_scale", "shift": f"{name}_shift", "act": activation(op.act)}


def emit_layer(tables: Tables, index: int, layer: Layer, sections: Sections | None) -> None:
    """Tables and calls of one operator."""
    op, name = layer.op, f"layer{index}"
    if isinstance(op, ir.Conv | ir.Linear):
        assert sections is not None
        assert layer.kernel is not None
        emit_weighted(tables, name, layer, sections)
    elif isinstance(op, ir.MaxPool | ir.AveragePool):
        emit_pool(tables, name, layer, op)
    elif isinstance(op, ir.Concat):
        at = layer.output.at
        for part, view in enumerate(layer.inputs):
            emit_map(tables, "map_copy", f"{name}_{part}", view, moved(layer.output, view, at), op)
            at += view.width if layer.flat else view.channels * view.pitch
        parts = tables.calls[-len(layer.inputs) :]
        tables.calls[-len(parts) :] = [[call for part in parts for call in part]]
    elif isinstance(op, ir.Flatten):
        view = layer.inputs[0]
        pixels = view.height * view.width
        target = Tensor(layer.output.at, view.channels, view.height, view.width, pixels)
        emit_map(tables, "map_copy", name, view, (target, layer.output.image), op)
    elif isinstance(op, ir.Mean):
        out = layer.output
        view = Tensor(out.at, layer.inputs[0].channels, 1, 1, 1 if layer.flat else out.pitch)
        emit_map(tables, "map_mean", name, layer.inputs[0], (view, out.image), op)
    elif isinstance(op, ir.Affine) and layer.flat:
        view, out = features(layer.inputs[0]), features(layer.output)
        emit_map(tables, "map_affine", name, view, (out, layer.output.image), op)
    else:
        function = {ir.Add: "map_add", ir.Mul: "map_mul"}.get(type(op), "map_affine")
        emit_map(tables, function, name, layer.inputs[0], (layer.output, layer.output.image), op, layer.inputs[-1])


def features(vector: Tensor) -> Tensor:
    """A vector as channels of one value each."""
    return Tensor(vector.at, vector.width, 1, 1, 1)


def moved(output: Tensor, view: Tensor, at: int) -> tuple[Tensor, int]:
    """`view`'s shape at another place, images as far apart as the output's."""
    return Tensor(at, view.channels, view.height, view.width, view.pitch), output.image


def emit_map(
    tables: Tables,
    function: str,
    name: str,
    view: Tensor,
    target: tuple[Tensor, int],
    op: ir.Op,
    second: Tensor | None = None,
) -> None:
    """An element-wise operator, a copy or a mean."""
    out, image = target
    fields: dict[str, object] = {
        "in": tensor(view),
        "out": f"{{{out.at}, {out.channels}, {out.height}, {out.width}, {out.pitch}, {image}}}",
        "second": tensor(second or view),
        "act": activation(op.act),
    }
    if second is not None:
        fields["broadcast"] = int((second.height, second.width) != (view.height, view.width))
    if isinstance(op, ir.Affine):
        fields.update(scales(tables, name, op))
    tables.files.add(function)
    tables.call(function, "map", name, fields)


def emit_pool(tables: Tables, name: str, layer: Layer, op: ir.MaxPool | ir.AveragePool) -> None:
    """Max and average pooling."""
    window = op.window
    average = isinstance(op, ir.AveragePool)
    function = "pool_average" if average else "pool_max"
    tables.files.add(function)
    tables.call(
        function,
        "pool",
        name,
        {
            "in": tensor(layer.inputs[0]),
            "out": tensor(layer.output),
            "kernel_y": window.kernel[0],
            "kernel_x": window.kernel[1],
            "stride_y": window.strides[0],
            "stride_x": window.strides[1],
            "top": window.pads[0],
            "left": window.pads[1],
            "bottom": window.pads[2],
            "right": window.pads[3],
            "dilation_y": window.dilations[0],
            "dilation_x": window.dilations[1],
            "count_padding": int(isinstance(op, ir.AveragePool) and op.count_padding),
            "act": activation(op.act),
        },
    )


def weight_fields(tables: Tables, name: str, sections: Sections) -> dict[str, object]:
    """Fields that locate a layer's weights; grows the context's starts and offsets."""
    fields: dict[str, object] = {
        "values": sections.values,
        "bias": sections.bias,
        "starts": tables.starts,
        "offsets": tables.offsets,
    }
    if sections.lists is not None:
        lists = sections.lists
        numbers = ", ".join(map(str, lists.tap_offsets))
        tables.lines.append(f"static const uint16_t {name}_taps[] = {{{numbers}}};")
        row = (
            lists.coded, lists.coded_bytes, lists.entries, tables.starts, tables.offsets,
            lists.lists, lists.per_block, lists.blocks, lists.places, lists.last_places,
            lists.channel_offset, len(lists.tap_offsets), f"{name}_taps", int(lists.by_tap),
        )  # fmt: skip
        tables.lists.append(f"    {{{', '.join(map(str, row))}}},")
        tables.starts += lists.lists + 1
        tables.offsets += lists.entries
    return fields


def emit_weighted(tables: Tables, name: str, layer: Layer, sections: Sections) -> None:
    """A convolution or a matrix."""
    op, out = layer.op, layer.output
    assert layer.kernel is not None
    weights = weight_fields(tables, name, sections)
    weights["act"] = activation(op.act)
    kind = "conv" if isinstance(op, ir.Conv) else "linear"
    function = f"{kind}_{layer.kernel.value}"
    tables.files.add(function)
    if layer.kernel is Kernel.COLUMNS:
        assert isinstance(op, ir.Conv)
        lists = column_lists(op.window)
        tables.instances.add(f"COLUMNS_KERNEL({out.width}, {lists})")
        function += f"_{out.width}_{lists}"
        add_units(tables, f"COLUMNS_{out.width}_{lists}", layer, max(1, out.width // UNIT))
    elif function == "conv_sparse":
        add_units(tables, "SPARSE", layer, 1)
    if isinstance(op, ir.Linear):
        view = layer.inputs[0]
        ends: dict[str, object] = {"in": view.at, "out": out.at, "in_image": view.image, "out_image": out.image}
        ends |= {"inputs": op.weight.shape[1], "outputs": op.weight.shape[0]}
        tables.call(function, kind, name, ends | weights)
        return
    assert isinstance(op, ir.Conv)
    assert layer.tiling is not None
    tables.call(function, kind, name, conv_fields(tables, name, layer, op) | weights)


def add_units(tables: Tables, kernel: str, layer: Layer, step: int) -> None:
    """Notes the sizes of the layer's strips."""
    assert layer.tiling is not None
    sizes = tables.units.setdefault(kernel, {most: set() for most in STRIP_UNITS})
    for most, found in sizes.items():
        found |= strip_units(layer.tiling, layer.output.height, layer.output.width, most=most, step=step)


def conv_fields(tables: Tables, name: str, layer: Layer, op: ir.Conv) -> dict[str, object]:
    """Fields of a struct conv but those of its weights."""
    t = layer.tiling
    assert t is not None
    shifts = "NULL"
    if t.shifts:
        shifts = f"{name}_shifts"
        pairs = ", ".join(f"{{{dy}, {dx}}}" for dy, dx in t.shifts)
        tables.lines.append(f"static const struct shift {shifts}[] = {{{pairs}}};")
    return {
        "in": tensor(layer.inputs[0]),
        "out": tensor(layer.output),
        "residual": TENSORLESS if layer.residual is None else layer.residual.at,
        "groups": op.groups,
        "stride_y": op.window.strides[0],
        "stride_x": op.window.strides[1],
        "block": t.block,
        "rows": t.rows,
        "extra_rows": t.extra_rows,
        "images": t.images,
        "taps": len(t.tap_offsets),
        "copies": len(t.shifts),
        "copy_floats": t.copy_floats,
        "whole": int(t.whole),
        "lead": t.lead,
        "apart": t.apart,
        "shifts": shifts,
        "masks": mask_place(tables, name, layer),
    }


def mask_place(tables: Tables, name: str, layer: Layer) -> object:
    """Arena offset of the layer's masks; layers of the same geometry share them."""
    t, view = layer.tiling, layer.inputs[0]
    assert t is not None
    if not (t.masked and t.shifts):
        return TENSORLESS
    key = (t.shifts, t.copy_floats, t.whole, view.height, view.width, layer.output.width)
    if key not in tables.masks:
        tables.masks[key] = tables.arena
        tables.arena += len(t.shifts) * t.copy_floats + 16
        tables.prepare.append(f"    make_masks(&{name}, (uint32_t *)(void *)(c->arena + {name}.masks));")
    return tables.masks[key]
