"""Which tensors of a network are weights, found in one forward pass.

Weights are the operands of convolutions and matrix products that do not depend on the image. This is the one definition
of what is prunable, by the name of the tensor. It does not matter which module owns the tensor: a convolution, a linear
layer, the projections of an attention, a parameter that a function takes as its kernel, or a parametrised weight, whose
effective tensor counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_iter

from robust_edge_exporters.dispatch_mode import EagerDispatchMode
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_runtimes.core.manifest import LayerCount, Sparsity

LAYERS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear,
)  # fmt: skip
"""Modules whose weight is expected to be used."""
FIXED = "fixed."
"""How names of constants of a file start that are used like weights and are not prunable."""
BRANCHES = (
    "its forward pass reads values that depend on the image, as an `if` or `.item()` does, of which a file holds one "
    "outcome only; use torch.where"
)
_ATEN = torch.ops.aten
_PRODUCTS = {_ATEN.mm.default: (0, 1), _ATEN.bmm.default: (0, 1), _ATEN.mv.default: (0, 1), _ATEN.dot.default: (0, 1)}
_PRODUCTS |= {_ATEN.addmm.default: (1, 2), _ATEN.baddbmm.default: (1, 2), _ATEN.addmv.default: (1, 2)}
"""Matrix products, with the positions of their factors among the arguments."""
_COPIES = {_ATEN.clone.default, _ATEN._to_copy.default, _ATEN._unsafe_view.default, _ATEN.contiguous.default}
"""Operators that copy a tensor; those that return a view share its memory anyway."""


@dataclasses.dataclass(frozen=True)
class WeightUse:
    """How the forward pass uses one weight.

    Attributes:
        name: of the tensor.
        groups: groups of a convolution; 1 for a matrix product.
        depthwise: whether it is a convolution whose filters read one input channel each.
        input_axis: the axis that runs along the inputs: 1, but 0 for transposed convolutions and `x @ weight`.
        macs_per_weight: multiply-accumulates per weight and image.
        times: number of convolutions or matrix products that use it.
    """

    name: str
    groups: int
    depthwise: bool
    input_axis: int
    macs_per_weight: int
    times: int = 1


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A tensor that is used like a weight, or looks like one, and is not prunable.

    Attributes:
        name: of the tensor, or of the tensors that it is computed from.
        reason: why it is not prunable; the rest of a sentence after "which".
        weights, nonzero: number of its elements and non-zeros; 0 if no image reaches it.
        computed: whether it is computed from parameters, so that zeros of these are not zeros of the weight.
    """

    name: str
    reason: str
    weights: int = 0
    nonzero: int = 0
    computed: bool = False


@dataclasses.dataclass(frozen=True)
class WeightUses:
    """The weights of a network in the order of their first use, and what is left out.

    Attributes:
        branches: whether Python reads values that depend on the image, as an `if` does; a trace of one image does not
            show what another would make of them.
    """

    uses: tuple[WeightUse, ...]
    left_out: tuple[LeftOut, ...]
    branches: bool = False


@torch.no_grad()
def weight_uses(model: nn.Module, shape: tuple[int, ...]) -> WeightUses:
    """Trace one image through a network.

    Args:
        model: left as it was; errors of its forward pass are raised.
        shape: (C, H, W).
    """
    first = next(model.parameters(), torch.zeros(()))
    with evaluation_mode(model), _composed(model), parametrize.cached():
        tensors = named_tensors(model)
        trace = _Trace(tensors, {name for name, _ in model.named_buffers()})
        images = torch.zeros(1, *shape, device=first.device, dtype=first.dtype)
        with trace:
            model(images)
    reached = trace.found.keys() | trace.touched
    spare = [
        LeftOut(name, "the image does not reach")
        for name in (f"{prefix}.weight" for prefix, module in model.named_modules() if isinstance(module, LAYERS))
        if name in tensors and name not in reached
    ]
    return WeightUses(trace.uses(), (*trace.left_out.values(), *spare), trace.branches)


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters, effective tensors of parametrised ones, and buffers, in the order of the modules.

    The originals of a parametrised tensor are left out: its effective tensor stands for them. A tensor that several
    modules share has the name of its first place.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        if ".parametrizations." in f".{prefix}.":
            continue
        dot = f"{prefix}." if prefix else ""
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        if parametrize.is_parametrized(module):
            own += [(name, getattr(module, name)) for name in module.parametrizations]
        for name, tensor in own:
            if id(tensor) not in seen:
                found[dot + name] = tensor
                seen.add(id(tensor))
    return found


def sparsity_of(weights: Mapping[str, Tensor]) -> Sparsity:
    """Count the non-zero weights of tensors by name: of the tensors themselves, not of masks."""
    counts = (LayerCount(name, weight.numel(), int(torch.count_nonzero(weight))) for name, weight in weights.items())
    return Sparsity.of_layers(tuple(counts))


@dataclasses.dataclass
class _Found:
    """A use that is being counted."""

    name: str
    groups: int
    depthwise: bool
    input_axis: int
    size: int
    macs: int = 0
    times: int = 0


class _Trace(EagerDispatchMode):
    """Follows tensors that do not depend on the image, by their memory, and notes where they meet those that do.

    Attributes:
        found: uses of named tensors, by name.
        left_out: other operands that do not depend on the image.
        touched: names of all tensors that a left out operand is computed from.
        branches: as in WeightUses.
    """

    def __init__(self, tensors: dict[str, Tensor], buffers: set[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._buffers, self._tensors = buffers, tensors
        # from the memory of a tensor that does not depend on the image: to the tensors that it is computed from, and,
        # where it is a named tensor or a copy of one, to its name
        self._origins = {_memory(tensor): frozenset({name}) for name, tensor in tensors.items()}
        self._named = {_memory(tensor): name for name, tensor in tensors.items()}
        self._alive: list[Tensor] = []  # so that no memory is used again for another tensor
        self.found: dict[str, _Found] = {}
        self.left_out: dict[str, LeftOut] = {}
        self.touched: set[str] = set()
        self.branches = False

    def uses(self) -> tuple[WeightUse, ...]:
        """All uses in the order of the forward pass."""
        return tuple(
            WeightUse(item.name, item.groups, item.depthwise, item.input_axis, item.macs // item.size, item.times)
            for item in self.found.values()
        )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch for every operator."""
        result = func(*args, **(kwargs or {}))
        given = [item for item in tree_iter((args, kwargs)) if isinstance(item, Tensor)]
        constant = all(_memory(tensor) in self._origins for tensor in given)
        if func is _ATEN.convolution.default:
            self._convolution(args, result)
        elif func is _ATEN._trilinear.default:  # nn.Bilinear
            self._use(args[1], args[1].numel() * len(args[0]), 1)
        elif func is _ATEN._local_scalar_dense.default:
            self.branches |= not constant
        elif func in _PRODUCTS:
            self._product([args[position] for position in _PRODUCTS[func]], result)
        if constant:
            self._follow(func, given, result)
        elif func._schema.is_mutable:
            written = [value for value, spec in zip(args, func._schema.arguments, strict=False) if _written(spec)]
            for tensor in (item for item in tree_iter(written) if isinstance(item, Tensor)):
                self._origins.pop(_memory(tensor), None)
        return result

    def _follow(self, func: Any, given: list[Tensor], result: Any) -> None:
        """Results of tensors that do not depend on the image do not depend on it either."""
        origins = frozenset[str]().union(*(self._origins[_memory(tensor)] for tensor in given))
        for tensor in (item for item in tree_iter(result) if isinstance(item, Tensor)):
            place = _memory(tensor)
            if place in self._origins:
                continue  # a view
            self._alive.append(tensor)
            self._origins[place] = origins
            if func in _COPIES and _memory(given[0]) in self._named:
                self._named[place] = self._named[_memory(given[0])]

    def _convolution(self, args: Any, result: Tensor) -> None:
        x, weight, transposed = args[0], args[1], args[6]
        if _memory(x) in self._origins or _memory(weight) not in self._origins:
            return
        channels = x.shape[1] if transposed else result.shape[1]
        positions = (x.numel() if transposed else result.numel()) // channels
        groups = int(args[8])
        depthwise = 1 < groups == x.shape[1]
        self._use(weight, positions * weight.numel(), 0 if transposed else 1, groups, depthwise)

    def _product(self, factors: list[Tensor], result: Tensor) -> None:
        left, right = (_memory(factor) in self._origins for factor in factors)
        if left == right:
            return
        weight = factors[0 if left else 1]
        macs = result.numel() * factors[0].shape[-1]
        inner = weight.ndim - 1 if left else max(weight.ndim - 2, 0)
        last = weight.stride(inner) == min(weight.stride())  # the inputs lie next to each other in memory
        self._use(weight, macs, 1 if last and weight.ndim > 1 else 0)

    def _use(self, weight: Tensor, macs: int, input_axis: int, groups: int = 1, depthwise: bool = False) -> None:
        place = _memory(weight)
        name = self._named.get(place)
        if name is not None and name not in self._buffers:
            first = _Found(name, groups, depthwise, input_axis, self._tensors[name].numel())
            item = self.found.setdefault(name, first)
            item.macs += macs
            item.times += 1
            return
        origins = sorted(self._origins[place])
        parameters = [item for item in origins if item not in self._buffers]
        label = ", ".join(parameters or origins) or "a constant"
        reason = "is computed in the forward pass" if parameters else "is fixed, not a parameter"
        self.touched |= set(origins)
        self.left_out.setdefault(
            label, LeftOut(label, reason, weight.numel(), int(torch.count_nonzero(weight)), bool(parameters))
        )


def _memory(tensor: Tensor) -> int:
    memory: int = tensor.untyped_storage()._cdata
    return memory


def _written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


@contextmanager
def _composed(model: nn.Module) -> Iterator[None]:
    """Without the fused operators of attention and of recurrent layers, which hide their matrix products."""
    before = torch.backends.mha.get_fastpath_enabled()
    onednn = torch._C._get_mkldnn_enabled()
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        if recurrent:
            torch._C._set_mkldnn_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
        torch._C._set_mkldnn_enabled(onednn)
