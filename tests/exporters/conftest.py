from __future__ import annotations

import dataclasses
import hashlib
import importlib.util

import numpy as np
import pytest

NEEDED = ("torch", "onnx", "onnxscript")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
SHAPE = (1, 6, 6)
CLASSES = ("north", "east", "süd", "west")


CONVERSIONS = {}  # of all tests of a session: what a network consists of, to its bytes as an ONNX model


class SkippedModule(pytest.Module):
    def collect(self):
        pytest.skip(f"exporters need {', '.join(MISSING)}", allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    """These modules cannot even be imported without torch; say so instead of failing."""
    return SkippedModule.from_parent(parent, path=module_path) if MISSING else None


def network():
    """Normalisation inside, two convolutions with batch-norm, one of them strided, and a linear layer."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.tensor(0.4))
            self.first = torch.nn.Conv2d(1, 8, 3, padding=1, bias=False)
            self.norm1 = torch.nn.BatchNorm2d(8)
            self.second = torch.nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False)
            self.norm2 = torch.nn.BatchNorm2d(8)
            self.head = torch.nn.Linear(8 * 9, 4)

        def forward(self, x):
            x = torch.relu(self.norm1(self.first((x - self.mean) / 0.25)))
            x = torch.relu(self.norm2(self.second(x)))
            return self.head(x.flatten(1))

    return Net().eval()


def prunable(model):
    return {name: getattr(model, name).weight for name in ("first", "second", "head")}


def counted(model):
    from robust_edge_runtimes.core.manifest import LayerCount, Sparsity

    layers = [LayerCount(name, w.numel(), int((w != 0).sum())) for name, w in prunable(model).items()]
    return Sparsity(sum(x.weights for x in layers), sum(x.nonzero for x in layers), tuple(layers))


@pytest.fixture(scope="session")
def model():
    """Every batch-norm far from the identity, two thirds of the weights zero."""
    import torch

    torch.manual_seed(0)
    net = network()
    with torch.no_grad():
        for norm in (net.norm1, net.norm2):
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 1)
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 3)
        for weight in prunable(net).values():
            weight.mul_(torch.rand_like(weight) < 1 / 3)
    return net.requires_grad_(False)


@pytest.fixture(scope="session")
def x86():
    from robust_edge_exporters.target import target_named

    return target_named("x86-cpu")


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(0).uniform(0.1, 0.9, (60, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="session")
def request_for(images, x86):
    """request_for(model, **changes): an export whose golden logits are the model's own."""

    import torch

    from robust_edge_exporters.bundle import ExportRequest
    from robust_edge_runtimes.core.golden import Golden
    from robust_edge_runtimes.core.manifest import AttackSpec, Expected, Source

    def build(model, **changes):
        noise = np.random.default_rng(1).uniform(-0.05, 0.05, images.shape).astype(np.float32)
        attacked = images + noise
        logits = [model(torch.from_numpy(x)).numpy() for x in (images, attacked)]
        labels = logits[0].argmax(1).astype(np.int64)
        robust = float((logits[1].argmax(1) == labels).mean())
        request = ExportRequest(
            model=model,
            shape=SHAPE,
            classes=CLASSES,
            sparsity=counted(model),
            source=Source("runs/test", "c" * 64, "net", "noise", "f" * 64, {"torch": torch.__version__}),
            expected=Expected(len(images), 1.0, robust, AttackSpec("pgd", 0.05, 1, 0.05, 1)),
            golden=Golden(images, attacked, labels, *logits, 1e-4),
            target=x86,
        )
        return dataclasses.replace(request, **changes)

    return build


@pytest.fixture(scope="session")
def exported(model, request_for, tmp_path_factory):
    """One bundle, exported once; read it, do not change it."""
    from robust_edge_exporters.bundle import export_bundle

    folder = tmp_path_factory.mktemp("exported") / "bundle"
    export_bundle(request_for(model), folder)
    return folder


def _identity(model):
    """All that decides what a network converts to: its modules with their settings, and their tensors."""
    tensors = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return (
        *((name, type(module), str(module), _settings(module)) for name, module in model.named_modules()),
        *((name, str(t.dtype), t.shape, hashlib.sha256(t.detach().numpy().tobytes()).digest()) for name, t in tensors),
    )


def _settings(module):
    plain = {key: value for key, value in vars(module).items() if isinstance(value, int | float | str | tuple)}
    return repr(sorted(plain.items()))


@pytest.fixture
def convert_again():
    """Every conversion of this test is made, even of a network that was converted before; see `_convert_once`."""


@pytest.fixture(autouse=True)
def _convert_once(request, monkeypatch):
    """PyTorch converts the same network for the same opset to ONNX once; it is most of the time of an export."""
    if MISSING or "convert_again" in request.fixturenames:
        return
    import onnx

    from robust_edge_exporters.formats.onnx import export

    real = export._exported

    def once(model, example, opset, any_batch):
        key = (_identity(model), example.shape, opset, any_batch)
        if key not in CONVERSIONS:
            CONVERSIONS[key] = real(model, example, opset, any_batch).SerializeToString()
        return onnx.load_from_string(CONVERSIONS[key])

    monkeypatch.setattr(export, "_exported", once)
