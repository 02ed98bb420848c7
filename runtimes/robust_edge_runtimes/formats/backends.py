"""Whether each artifact format would run here: tried, not guessed from what is installed."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
import subprocess
import tempfile
from pathlib import Path
from typing import Callable, Dict, Optional, Tuple

from robust_edge_runtimes.core.errors import BackendUnavailable
from robust_edge_runtimes.formats.native import engine as native_engine
from robust_edge_runtimes.formats.tensorrt import engine as tensorrt_engine

JETSON = Path("/etc/nv_tegra_release")
PROGRAM = "int answer(void) { return 42; }\n"


@dataclasses.dataclass(frozen=True)
class Backend:
    """One artifact format.

    Attributes:
        runs_on: what executes it here, with versions; None if nothing does.
        missing: why not; None if it runs.
        remedy: the command that would change that.
    """

    format: str
    bundles: str
    runs_on: Optional[str]
    missing: Optional[str]
    remedy: Optional[str]


def backends() -> Tuple[Backend, ...]:
    """Try every format that there is a runtime for."""
    return tuple(_tried(name, *row) for name, row in _PROBES.items())


def _tried(name: str, bundles: str, probe: Callable[[], str], remedy: str) -> Backend:
    try:
        return Backend(name, bundles, probe(), None, None)
    except Exception as cause:  # whatever a broken installation raises, it does not run
        reason = " ".join(str(cause).split()) or type(cause).__name__
        if name == "tensorrt" and JETSON.exists():
            remedy = "sudo apt install nvidia-jetpack, and the system's python3"
        return Backend(name, bundles, None, reason, remedy)


def _onnx() -> str:
    return _onnxruntime("CPUExecutionProvider")


def _onnx_cuda() -> str:
    return f"{_onnxruntime('CUDAExecutionProvider')}, GPU {tensorrt_engine.Cuda().gpu()}"


def _onnxruntime(provider: str) -> str:
    ort = importlib.import_module("onnxruntime")
    known = ort.get_available_providers()
    if provider not in known:
        raise BackendUnavailable(f"onnxruntime {ort.__version__} has no {provider}, only {', '.join(known)}")
    return f"onnxruntime {ort.__version__}, {provider}"


def _csr() -> str:
    torch = importlib.import_module("torch")
    fast = torch.backends.mkl.is_available()
    return f"torch {torch.__version__}" + ("" if fast else ", without MKL: CSR products are slow")


def _native() -> str:
    found = native_engine.find_compiler()
    if found is None:
        raise BackendUnavailable("no C compiler (cc, gcc, clang); a library shipped for this very CPU would still run")
    command, version = found
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "answer.c", Path(folder) / "answer.so"
        source.write_text(PROGRAM, encoding="ascii")
        call = [*command, *native_engine.FLAGS, str(source), "-o", str(library), "-lm"]
        done = subprocess.run(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0 or ctypes.CDLL(str(library)).answer() != 42:
            raise BackendUnavailable(f"{command[0]} does not compile: {done.stdout.decode(errors='replace')[:200]}")
    return f"{' '.join(command)}: {version.splitlines()[0] if version else 'version unknown'}"


def _tensorrt() -> str:
    trt = tensorrt_engine.import_tensorrt()
    return f"TensorRT {trt.__version__}, GPU {tensorrt_engine.Cuda().gpu()}"


_PROBES: Dict[str, Tuple[str, Callable[[], str], str]] = {
    "onnx": ("ONNX on the CPU", _onnx, "pip install 'robust-edge[onnxruntime]'"),
    "onnx-cuda": (
        "ONNX on an NVIDIA GPU",
        _onnx_cuda,
        "pip uninstall onnxruntime && pip install 'robust-edge[onnxruntime-gpu]', beside NVIDIA's driver and CUDA",
    ),
    "csr": ("sparse-CSR TorchScript", _csr, "pip install torch"),
    "native": ("the sparse engine, C", _native, "apt install gcc (or your system's way)"),
    "tensorrt": ("TensorRT engines", _tensorrt, "pip install 'robust-edge[tensorrt]', beside NVIDIA's driver"),
}
