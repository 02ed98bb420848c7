from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from robust_edge_exporters.artifact import ExportSettings
from robust_edge_exporters.bundle import export_bundle
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import BundleError, ExportError
from robust_edge_runtimes.load import load

torch = pytest.importorskip("torch", reason="exporters start from a torch network")
pytest.importorskip("scipy", reason="CSR matrices are made by scipy")

from robust_edge_exporters.formats.csr import export as csr  # noqa: E402

ROOT = Path(__file__).parents[4]
# What the tests themselves load and run; the exporter and the runtime are quiet, which a test below holds.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning", "ignore:`torch.jit")

ALWAYS, NEVER = ExportSettings(options={"csr_threshold": 1.0}), ExportSettings(options={"csr_threshold": 1e-9})


@pytest.fixture(scope="module")
def target():
    return target_named("x86-cpu-csr")


def written(model, target, folder, settings=ALWAYS, shape=(1, 6, 6)):
    found = csr.export_csr(model, shape, target, str(folder), settings)
    return found, torch.jit.load(str(folder / found.file))


def sparse(layer, seed=0, keep=0.3):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.mul_(torch.rand(layer.weight.shape, generator=generator) < keep)
    return layer.eval().requires_grad_(False)


CONVOLUTIONS = [
    dict(kernel_size=3, padding=1),
    dict(kernel_size=3, stride=2),
    dict(kernel_size=(3, 5), stride=(2, 1), padding=(0, 2), bias=False),
    dict(kernel_size=3, dilation=2, padding="same"),
    dict(kernel_size=2, padding="same"),
    dict(kernel_size=4, padding="valid"),
    dict(kernel_size=1),
    dict(kernel_size=1, stride=2),
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
def test_a_convolution_is_what_torch_computes(options, images):
    layer = sparse(torch.nn.Conv2d(3, 5, **options))
    x = torch.rand(images, 3, 9, 11, generator=torch.Generator().manual_seed(1))
    form = torch.jit.script(csr.CsrConv2d(layer).eval())
    torch.testing.assert_close(form(x), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 7), (2, 3, 7)])
def test_a_linear_layer_is_what_torch_computes(bias, shape):
    layer = sparse(torch.nn.Linear(7, 4, bias=bias))
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    form = torch.jit.script(csr.CsrLinear(layer).eval())
    torch.testing.assert_close(form(x), layer(x), rtol=1e-5, atol=1e-5)


def test_the_buffers_are_the_definition_of_csr():
    matrix = torch.tensor([[0.0, 2.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 4.0, 0.0]])
    weight = csr.CsrWeight(matrix)
    assert weight.crow.tolist() == [0, 2, 2, 4]
    assert weight.col.tolist() == [1, 3, 0, 2]
    assert weight.values.tolist() == [2, 3, 1, 4]
    assert {weight.crow.dtype, weight.col.dtype} == {torch.int32}


@pytest.mark.parametrize("settings", [ALWAYS, NEVER, ExportSettings()], ids=["csr", "dense", "timed"])
def test_the_file_computes_the_network(settings, model, images, target, tmp_path):
    found, network = written(model, target, tmp_path, settings)
    for count in (1, 5):
        x = torch.from_numpy(images[:count])
        torch.testing.assert_close(network(x), model(x), rtol=1e-4, atol=1e-5)
    assert found.sparsity.nonzero == sum(
        int((p != 0).sum()) for p in (model.first.weight, model.second.weight, model.head.weight)
    )
    assert [layer.name for layer in found.layers] == ["first", "second", "head"]
    forms = {layer.form for layer in found.layers}
    if settings.options:
        assert forms == ({"csr"} if settings is ALWAYS else {"dense"})
        assert all(layer.csr_ns is layer.dense_ns is None for layer in found.layers)
    else:
        assert all((layer.form == "csr") == (layer.csr_ns < layer.dense_ns) for layer in found.layers)


def test_eight_bytes_for_each_non_zero(target, tmp_path):
    """A layer large enough that the file is its weights: 4 bytes of value, 4 of column, and the row starts."""
    layer = sparse(torch.nn.Linear(4096, 512), keep=0.1)
    network = torch.nn.Sequential(torch.nn.Flatten(), layer)
    found, _ = written(network, target, tmp_path, shape=(1, 64, 64))
    size = (tmp_path / found.file).stat().st_size
    assert 8 * found.sparsity.nonzero < size < 8.3 * found.sparsity.nonzero
    assert size < 0.3 * 4 * found.sparsity.weights


def test_the_page_says_what_the_benchmark_measured():
    measured = json.loads((ROOT / "benchmarks/results/csr_resnet34.json").read_text())
    page = " ".join((ROOT / "docs" / "sparse-engine.md").read_text(encoding="utf-8").split())
    one, many = (measured["images"][count] for count in ("1", "100"))
    assert f"{measured['csr_layers']} of {measured['layers']} layers as CSR" in page
    assert f"{100 * measured['file_over_dense']:.1f}% of the dense bytes" in page
    assert f"{one['dense_over_csr']:.3g} times as fast on one image" in page
    assert f"{many['dense_over_csr']:.3g} times, a little slower, on a hundred" in page
    assert f"(medians of {one['n']} and of {many['n']} calls" in page


def test_grouped_and_padded_otherwise_convolutions_stay_dense(target, tmp_path):
    network = torch.nn.Sequential(
        sparse(torch.nn.Conv2d(1, 4, 3, padding=1)),
        sparse(torch.nn.Conv2d(4, 4, 3, groups=4, padding=1)),
        sparse(torch.nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")),
        torch.nn.Flatten(),
        sparse(torch.nn.Linear(4 * 36, 3)),
    ).eval()
    found, scripted = written(network, target, tmp_path)
    assert [layer.form for layer in found.layers] == ["csr", "dense", "dense", "csr"]
    x = torch.rand(1, 1, 6, 6)
    torch.testing.assert_close(scripted(x), network(x), rtol=1e-4, atol=1e-5)


class Branching(torch.nn.Module):
    """torch.fx cannot follow it, TorchScript can."""

    def __init__(self):
        super().__init__()
        self.layer = sparse(torch.nn.Linear(36, 4))

    def forward(self, x):
        y = self.layer(x.flatten(1))
        if bool(y.sum() > 0):
            y = y + 1
        return y


def test_a_network_that_depends_on_its_data(target, tmp_path):
    network = Branching().eval()
    _, scripted = written(network, target, tmp_path)
    for sign in (1, -1):
        x = sign * torch.rand(1, 1, 6, 6)
        torch.testing.assert_close(scripted(x), network(x), rtol=1e-4, atol=1e-5)


def test_what_torchscript_cannot_say_is_one_line(target, tmp_path):
    class Odd(Branching):
        def forward(self, x):
            return torch.from_numpy(np.asarray(self.layer(x.flatten(1))))

    with pytest.raises(ExportError, match="cannot be written as TorchScript for x86-cpu-csr") as caught:
        csr.export_csr(Odd().eval(), (1, 6, 6), target, str(tmp_path), ALWAYS)
    assert "\n" not in str(caught.value)


def test_the_number_of_threads_is_put_back(model, target, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    csr.export_csr(model, (1, 6, 6), target, str(tmp_path), NEVER)
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert after == 2


@pytest.fixture(scope="module")
def bundle(model, request_for, target, tmp_path_factory):
    folder = tmp_path_factory.mktemp("csr") / "bundle"
    export_bundle(request_for(model, target=target, options={"csr_threshold": 1.0}), folder)
    return folder


def test_the_bundle_records_each_layer_and_its_sizes(bundle):
    manifest = open_bundle(bundle).manifest
    assert [layer.form for layer in manifest.layers] == ["csr"] * 3
    assert sum(layer.nonzero for layer in manifest.layers) == manifest.sparsity.nonzero
    assert manifest.size.artifact == (bundle / "model.ts").stat().st_size == manifest.artifact.bytes
    assert 0 < manifest.size.compressed < manifest.size.artifact
    assert manifest.size.dense == 4 * manifest.sparsity.weights


def test_a_fresh_process_with_torch_alone_replays_it(bundle, tmp_path):
    script = (
        "import runpy, sys\n"
        "path, sys.argv = sys.argv[1], ['run.py', 'replay']\n"
        "try:\n"
        "    runpy.run_path(path, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print(end.code)\n"
        "print(sorted(name for name in sys.modules if name.startswith('robust_edge') or name == 'onnxruntime'))\n"
    )
    command = [sys.executable, "-I", "-c", script, str(bundle / "run.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-3:] == ["PASS on 60 images", "0", "[]"], done.stderr


def test_the_runtime_counts_its_threads_and_runs_in_any_order(bundle, images):
    with load(bundle, threads=1) as runtime:
        assert (runtime.info.backend, runtime.info.device, torch.get_num_threads()) == ("torch", "cpu", 1)
        together = runtime.infer(images[:4])
        apart = np.concatenate([runtime.infer(image[None]) for image in images[:4]])
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"not a TorchScript file", None])
def test_a_damaged_artifact_is_a_bundle_error(bundle, content, tmp_path, monkeypatch):
    opened = open_bundle(bundle)
    data = (bundle / "model.ts").read_bytes()
    path = tmp_path / "model.ts"
    path.write_bytes(data[: len(data) // 2] if content is None else content)
    monkeypatch.setattr(type(opened), "artifact_path", property(lambda self: path))
    with pytest.raises(BundleError, match="cannot load"):
        load(opened)


def test_nobody_sees_the_warnings_of_torch(model, target, bundle, images, tmp_path):
    script = (
        "import sys, warnings, numpy as np; warnings.simplefilter('error')\n"
        "from robust_edge_runtimes.load import load\n"
        "with load(sys.argv[1]) as model: model.infer(np.zeros((2, 1, 6, 6), np.float32))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(bundle)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        csr.export_csr(model, (1, 6, 6), target, str(tmp_path), ExportSettings())
