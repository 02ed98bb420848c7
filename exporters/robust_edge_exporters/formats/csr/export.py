"""Export to TorchScript, with the weights of a layer as sparse CSR where that is faster than a dense layer.

TorchScript is deprecated since PyTorch 2.10; only this format depends on it.
"""

import copy
import dataclasses
import io
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import scipy.sparse
import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_edge_exporters.artifact import Contents, ExportedArtifact, ExportSettings
from robust_edge_exporters.formats.csr.options import CSR_THRESHOLD
from robust_edge_exporters.target import Target
from robust_edge_exporters.tracing import tracing
from robust_edge_exporters.weight_uses import BRANCHES, weight_uses
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.errors import BundleError, ExportError
from robust_edge_runtimes.core.manifest import LayerCount, LayerForm, Sparsity, TensorSpec
from robust_edge_runtimes.formats.csr.script import load_script

FILE = "model.ts"
REPEATS = 15
LOCATIONS = ".debug_pkl"
VERSIONS = ("version", ".data/version")  # either holds the version; which one depends on it
WRITTEN = (*VERSIONS, ".data/serialization_id")  # by torch itself
TRACED = (2, 1, 3)  # images in the call that is traced, and in those that it is compared on


class CsrWeight(nn.Module):
    """A matrix as CSR: row starts, columns and values are ordinary buffers, 8 bytes per non-zero."""

    crow: Tensor
    col: Tensor
    values: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        csr = scipy.sparse.csr_matrix(matrix.numpy())
        self.register_buffer("crow", torch.from_numpy(csr.indptr.astype("int32")))
        self.register_buffer("col", torch.from_numpy(csr.indices.astype("int32")))
        self.register_buffer("values", torch.from_numpy(csr.data))
        self.rows, self.columns = (int(size) for size in csr.shape)

    def forward(self, dense: Tensor) -> Tensor:
        """(columns, n) to (rows, n)."""
        matrix = torch.sparse_csr_tensor(self.crow, self.col, self.values, [self.rows, self.columns])
        return torch.matmul(matrix, dense)


class CsrConv2d(nn.Module):
    """A convolution with one group: unfold, then CSR times the columns."""

    bias: Tensor

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.weight = CsrWeight(layer.weight.detach().flatten(1))
        self.register_buffer("bias", _bias(layer))
        self.kernel = _pair(layer.kernel_size)
        self.stride = _pair(layer.stride)
        self.dilation = _pair(layer.dilation)
        self.padding = _padding(layer)
        self.pointwise = self.kernel == (1, 1) and self.stride == (1, 1) and self.padding == [0, 0, 0, 0]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, O, H', W')."""
        x = functional.pad(x, self.padding)
        height = (x.size(2) - self.dilation[0] * (self.kernel[0] - 1) - 1) // self.stride[0] + 1
        width = (x.size(3) - self.dilation[1] * (self.kernel[1] - 1) - 1) // self.stride[1] + 1
        n = x.size(0)
        planes = torch.empty((n, self.weight.rows, height * width), dtype=x.dtype)
        for i in range(n):  # one image at a time: the columns of many do not fit any cache
            one = x[i : i + 1]
            if self.pointwise:
                columns = one.flatten(2)[0]
            else:
                columns = functional.unfold(one, self.kernel, self.dilation, (0, 0), self.stride)[0]
            planes[i] = self.weight(columns)
        pixels: Tensor = (planes + self.bias.view(1, -1, 1)).view(n, self.weight.rows, height, width)
        return pixels


class CsrLinear(nn.Module):
    """A linear layer: CSR times the transposed input."""

    bias: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = CsrWeight(layer.weight.detach())
        self.register_buffer("bias", _bias(layer))

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        flat = x.reshape(-1, self.weight.columns)
        y: Tensor = self.weight(flat.t().contiguous()).t() + self.bias
        shape = list(x.shape)
        shape[-1] = self.weight.rows
        return y.reshape(shape)


@dataclasses.dataclass(frozen=True)
class _LayerCall:
    """A prunable layer and its input for one image."""

    name: str
    layer: nn.Module
    example: Tensor


def export_csr(
    model: nn.Module, shape: tuple[int, ...], target: Target, folder: str, settings: ExportSettings
) -> ExportedArtifact:
    """Write `model.ts`, which needs PyTorch and nothing of ours.

    Args:
        model: in evaluation mode; (N, C, H, W) raw pixels to (N, K) logits.
        shape: (C, H, W).
        target: only named in errors.
        folder: where to write.
        settings: `layer_forms` or the option `csr_threshold` decides; without them both forms of each layer are timed.

    Raises:
        ExportError: TorchScript cannot express the network.
    """
    _refuse_names(model, target)
    folded, path = _folded(model), str(Path(folder) / FILE)
    example = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    with _fixed_settings(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript's deprecation, CSR's beta
        found = weight_uses(model, shape)
        forms = _apply_forms(folded, example, [use.name for use in found.uses], settings)
        scripted = _scripted(folded, target, shape, branches=found.branches)
        classes = int(scripted(example).shape[1])
        save_script(scripted, path)
        counts = _counted(torch.jit.load(path), forms)
    return ExportedArtifact(
        file=FILE,
        format="csr",
        precision="fp32",
        input=TensorSpec("images", (None, *shape)),
        output=TensorSpec("logits", (None, classes)),
        sparsity=counts,
        layers=tuple(forms),
    )


def _refuse_names(model: nn.Module, target: Target) -> None:
    """Refuse names of modules and tensors that TorchScript writes in a form that it cannot read."""
    names = [name for name, _ in (*model.named_modules(), *model.named_parameters(), *model.named_buffers())]
    other = [name for name in names if not name.isascii()]
    if other:
        raise ExportError(
            f"TorchScript, which {target.name} uses, cannot read names with other letters than those of ASCII; rename "
            f"{other[0]!r} in the network"
        )


def save_script(scripted: torch.jit.ScriptModule, path: str) -> None:
    """Write TorchScript without source locations: they name folders of this machine and are read for errors only."""
    whole = io.BytesIO()
    torch.jit.save(scripted, whole)
    whole.seek(0)
    reader, writer = torch._C.PyTorchFileReader(whole), torch._C.PyTorchFileWriter(path)
    names = reader.get_all_records()
    writer.set_min_version(int(next(reader.get_record(name) for name in VERSIONS if name in names)))
    for name in names:
        if name not in WRITTEN and not name.endswith(LOCATIONS):
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()


def contents_of(bundle: Bundle) -> Contents:
    """Count the non-zeros of a bundle's `model.ts`, in the layers that its manifest names.

    Raises:
        BundleError: it is no TorchScript, or has no such layers.
    """
    try:
        counts = _counted(load_script(bundle.artifact_path), bundle.manifest.layers)
    except BundleError:
        raise
    except Exception as cause:  # torch raises whatever the bytes provoke
        reason = " ".join(str(cause).split())[:200]
        raise BundleError(f"{bundle.artifact_path} does not hold the layers of the manifest: {reason}") from cause
    return Contents(sparsity=counts, precision="fp32")


def _folded(model: nn.Module) -> nn.Module:
    """A copy with batch-norms folded into the convolutions before them, where torch.fx can follow the network."""
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    try:
        with warnings.catch_warnings(), tracing():
            warnings.simplefilter("ignore")
            from torch.fx.experimental.optimization import fuse  # its own imports warn of TorchScript

            traced = torch.fx.symbolic_trace(copied)
            called = [node.target for node in traced.graph.nodes if node.op == "call_module"]
            # `fuse` would fold two batch-norms into a convolution that is used twice
            fused = fuse(copied) if len(called) == len(set(called)) else traced
            assert isinstance(fused, torch.fx.GraphModule)
    except Exception:  # a network that depends on its data cannot be traced; scripting it may still work
        return copied
    for node in fused.graph.nodes:
        node.type = None  # annotations of the network's source, which TorchScript may not resolve
    fused.recompile()
    return fused


def _layer_calls(model: nn.Module, example: Tensor) -> list[_LayerCall]:
    """Every convolution and linear layer with its input for one image, in the order of first use."""
    found: dict[str, _LayerCall] = {}
    hooks = []
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):

            def record(layer: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                found.setdefault(name, _LayerCall(name, layer, inputs[0].detach()))

            hooks.append(layer.register_forward_pre_hook(record))
    model(example)
    for hook in hooks:
        hook.remove()
    return list(found.values())


def _apply_forms(model: nn.Module, example: Tensor, names: Sequence[str], settings: ExportSettings) -> list[LayerForm]:
    """Choose the form of every prunable weight, and replace the layers that are stored as CSR.

    Args:
        model: with folded batch-norms; it is changed.
        example: one image.
        names: of the prunable weights.
        settings: `layer_forms` or the option `csr_threshold` decides; without them both forms are timed.
    """
    threshold = settings.options.get(CSR_THRESHOLD.name)
    assert threshold is None or isinstance(threshold, float), "checked by the option's declaration"
    calls = [item for item in _layer_calls(model, example) if f"{item.name}.weight" in names]
    forms = []
    for item in calls:
        form = _form(item, threshold, settings.layer_forms)
        forms.append(form)
        if form.form == "csr":
            _replace(model, item.name, _as_csr(item.layer))
    return [*forms, *_other_forms(model, names, {item.name for item in calls})]


def _form(item: _LayerCall, threshold: float | None, forms: Mapping[str, str] | None) -> LayerForm:
    weight = item.layer.get_parameter("weight")
    total, nonzero = weight.numel(), int(torch.count_nonzero(weight))
    if not _expressible(item.layer):
        return LayerForm(item.name, "dense", total, nonzero)
    if forms is not None:
        return LayerForm(item.name, "csr" if forms.get(item.name) == "csr" else "dense", total, nonzero)
    if threshold is not None:
        return LayerForm(item.name, "csr" if nonzero <= threshold * total else "dense", total, nonzero)
    csr_ns, dense_ns = _time_both(torch.jit.script(_as_csr(item.layer)), item.layer, item.example)
    return LayerForm(item.name, "csr" if csr_ns < dense_ns else "dense", total, nonzero, csr_ns, dense_ns)


def _other_forms(model: nn.Module, names: Sequence[str], seen: set[str]) -> Iterator[LayerForm]:
    """Weights that belong to no convolution or linear layer: of attention, transposed, or parameters of their own."""
    for name in names:
        layer = name.removesuffix(".weight")
        if layer not in seen:
            owner, _, own = name.rpartition(".")
            weight = getattr(model.get_submodule(owner), own)
            yield LayerForm(layer, "dense", weight.numel(), int(torch.count_nonzero(weight)))


def _expressible(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (
        isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
    )


def _time_both(first: nn.Module, second: nn.Module, example: Tensor) -> tuple[int, int]:
    """Minimum time of each in ns, called in turn; other load on the machine makes calls slower, never faster."""
    for layer in (first, second):
        for _ in range(3):
            layer(example)
    times: tuple[list[int], list[int]] = ([], [])
    for _ in range(REPEATS):
        for layer, samples in zip((first, second), times, strict=True):
            start = time.perf_counter_ns()
            layer(example)
            samples.append(time.perf_counter_ns() - start)
    return min(times[0]), min(times[1])


def _as_csr(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        return CsrConv2d(layer).eval()
    assert isinstance(layer, nn.Linear)
    return CsrLinear(layer).eval()


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def _scripted(model: nn.Module, target: Target, shape: tuple[int, ...], *, branches: bool) -> torch.jit.ScriptModule:
    try:
        return torch.jit.script(model)
    except Exception as cause:  # the TorchScript compiler raises several classes
        traced = None if branches else _traced(model, shape)
        if traced is not None:
            return traced
        reason = BRANCHES if branches else " ".join(str(cause).split())[:300]
        raise ExportError(f"the network cannot be written as TorchScript for {target.name}: {reason}") from cause


def _traced(model: nn.Module, shape: tuple[int, ...]) -> torch.jit.ScriptModule | None:
    """The operators of one run, with compiled CSR layers; None unless other numbers of images give the same logits."""
    images = torch.rand(max(TRACED), *shape, generator=torch.Generator().manual_seed(0))
    for name, layer in list(model.named_modules()):
        if isinstance(layer, (CsrConv2d, CsrLinear)):
            _replace(model, name, torch.jit.script(layer))
    try:
        traced: torch.jit.ScriptModule = torch.jit.trace(model, (images[: TRACED[0]],), check_trace=False)
        same = all(torch.allclose(traced(images[:n]), model(images[:n]), rtol=1e-4, atol=1e-5) for n in TRACED)
    except Exception:  # the compiler's reason is given
        return None
    return traced if same else None


def _counted(written: torch.jit.ScriptModule, forms: Sequence[LayerForm]) -> Sparsity:
    """Non-zeros, counted in the written file."""
    state, layers = written.state_dict(), []
    for form in forms:
        name = f"{form.name}.weight"
        stored = f"{name}.values" if form.form == "csr" else name
        # inside of another module, too; a parameter of its own has no `.weight`
        wanted = (stored, form.name)
        place = next((key for item in wanted for key in state if f".{key}".endswith(f".{item}")), stored)
        layers.append(LayerCount(name, form.weights, int(torch.count_nonzero(state[place]))))
    return Sparsity.of_layers(layers)


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    return torch.zeros(layer.weight.shape[0]) if layer.bias is None else layer.bias.detach().clone()


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    first, second = value
    return int(first), int(second)


def _padding(layer: nn.Conv2d) -> list[int]:
    """Pixels to add on the left, right, top and bottom."""
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [totals[1] // 2, totals[1] - totals[1] // 2, totals[0] // 2, totals[0] - totals[0] // 2]
    rows, columns = (int(p) for p in layer.padding)
    return [columns, columns, rows, rows]


@contextmanager
def _fixed_settings() -> Iterator[None]:
    """One thread, and torch's default settings: a trace records them with every convolution."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=True):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
