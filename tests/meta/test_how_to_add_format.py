"""How to add an artifact format: one folder and one row of a table in each layer, tried with a toy.

The toy stores the weights of a linear network as an .npz file, compressed if its own option says so, and runs it by
numpy.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.commands import COPIED, ROOT, run_lines

for needed in ("torch", "onnx"):
    pytest.importorskip(needed, reason="export needs it")

PACKAGES = ("robust_edge", "exporters/robust_edge_exporters", "runtimes/robust_edge_runtimes")

ARCHITECTURE = """
from torch import nn


def linear(num_classes, in_channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes))
"""

FILES = {
    "robust_edge_exporters/formats/npz/__init__.py": "",
    "robust_edge_exporters/formats/npz/options.py": """
from robust_edge_exporters.format_option import FormatOption

OPTIONS = (
    FormatOption(
        name="deflate", type=bool, default=False, help="Compress the arrays of the .npz file", flag="--npz-deflate"
    ),
)
""",
    "robust_edge_exporters/formats/npz/format.py": """
from pathlib import Path

import numpy as np

from robust_edge_exporters.artifact import ExportedArtifact
from robust_edge_exporters.formats.format import Format
from robust_edge_runtimes.core.manifest import LayerCount, Sparsity, TensorSpec


class NpzFormat(Format):
    needs = "numpy"

    def export(self, model, shape, target, folder, settings):
        layer = model.network[-1]
        weight = (layer.weight / model.std.item()).detach().numpy()
        bias = layer.bias.detach().numpy() - model.mean.item() * weight.sum(1)
        save = np.savez_compressed if settings.options["deflate"] else np.savez
        save(Path(folder) / "model.npz", weight=weight, bias=bias)
        kept = int(np.count_nonzero(weight))
        return ExportedArtifact(
            file="model.npz",
            format="npz",
            precision="fp32",
            input=TensorSpec("images", (settings.batch, *shape)),
            output=TensorSpec("logits", (settings.batch, len(bias))),
            sparsity=Sparsity(weight.size, kept, (LayerCount("weight", weight.size, kept),)),
        )
""",
    "robust_edge_exporters/formats/npz/templates/backend.py": """
def open_model(path, manifest, threads):
    arrays = np.load(path, allow_pickle=False)
    weight, bias = arrays["weight"], arrays["bias"]
    return lambda images: images.reshape(len(images), -1) @ weight.T + bias
""",
    "robust_edge_runtimes/formats/npz/__init__.py": "",
    "robust_edge_runtimes/formats/npz/format.py": """
import numpy as np

from robust_edge_runtimes.core.runtime import BaseRuntime, RuntimeInfo
from robust_edge_runtimes.formats.format import Format


class NpzFormat(Format):
    description = "a linear network"
    remedy = "pip install numpy"

    def runtime(self):
        return NpzRuntime

    def probe(self):
        return f"numpy {np.__version__}"


class NpzRuntime(BaseRuntime):
    def open_impl(self):
        arrays = np.load(self.path, allow_pickle=False)
        self.weight, self.bias = arrays["weight"], arrays["bias"]
        return RuntimeInfo("numpy", np.__version__, "cpu", "npz", self.threads)

    def infer_impl(self, images):
        return images.reshape(len(images), -1) @ self.weight.T + self.bias

    def close_impl(self):
        del self.weight, self.bias
""",
    "robust_edge/verification/twins/npz.py": """
import numpy as np
import torch

from robust_edge.verification.twins.twin import Differentiable


def npz_twin(bundle):
    arrays = np.load(bundle.artifact_path, allow_pickle=False)
    layer = torch.nn.Linear(*reversed(arrays["weight"].shape)).requires_grad_(False)
    layer.load_state_dict({name: torch.from_numpy(arrays[name]) for name in ("weight", "bias")})
    return Differentiable(torch.nn.Sequential(torch.nn.Flatten(), layer).eval(), "the artifact's own matrix")
""",
    "robust_edge_exporters/targets/numpy.toml": """
name = "numpy"
description = "anything with numpy"
format = "npz"
runtime = "numpy"
precisions = ["fp32"]
python = "3.6"
requirements = ["numpy"]
image = "python:3.12-slim"
limits = ["Linear networks only."]
""",
}
ROWS = {
    "robust_edge_exporters/formats/table.py": """    "npz": Row(
        "robust_edge_exporters.formats.npz.format:NpzFormat", "robust_edge_exporters.formats.npz.options:OPTIONS"
    ),""",
    "robust_edge_runtimes/formats/table.py": '    "npz": "robust_edge_runtimes.formats.npz.format:NpzFormat",',
    "robust_edge/verification/twins/table.py": '    "npz": "robust_edge.verification.twins.npz:npz_twin",',
}


def test_a_format_is_one_folder_and_one_row_in_each_layer(tmp_path):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / Path(package).name, ignore=COPIED)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name, row in ROWS.items():
        lines = (tmp_path / name).read_text().splitlines()
        lines.insert(next(i for i, line in enumerate(lines) if line.endswith("= {")) + 1, row)
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    (tmp_path / "my_networks.py").write_text(ARCHITECTURE)

    data = "--set data.limit_train=200 --set data.limit_test=60"
    said = run_lines(
        [
            "targets",
            "doctor",
            "export --help",
            f"compress --arch my_networks:linear --keep 1 --steps 1 --epochs 1 --threads 1 {data} -o run",
            "export run --target numpy --npz-deflate --golden 60 --steps 2 -o bundle",
            "verify bundle --against run --mode replay --mode whitebox --mode rebuild --steps 2 -o verify.json",
            "bench bundle --images 2 --seconds 0.02 -o bench.json",
            "report run --verify verify.json --bench bench.json -o report.html",
        ],
        cwd=tmp_path,
        package=tmp_path,
    )
    assert "numpy npz" in said
    assert "npz yes a linear network: numpy" in said
    assert "--npz-deflate Compress the arrays of the .npz file." in said
    assert "whitebox takes gradients of the artifact's own matrix" in said
    manifest = json.loads((tmp_path / "bundle/manifest.json").read_text())
    assert (manifest["artifact"]["format"], manifest["choices"]["options"]) == ("npz", {"deflate": True})
    stored = zipfile.ZipFile(tmp_path / "bundle/model.npz").infolist()
    assert all(item.compress_type == zipfile.ZIP_DEFLATED for item in stored)
    verdict = json.loads((tmp_path / "verify.json").read_text())
    assert (verdict["outcome"], verdict["rebuild"]["equal"], verdict["runtime"]["provider"]) == ("pass", True, "npz")
    timed = json.loads((tmp_path / "bench.json").read_text())["entries"]
    assert [entry["runtime"]["provider"] for entry in timed] == ["npz"]
    assert "npz" in (tmp_path / "report.html").read_text()

    assert "PASS on 60 images" in python(tmp_path / "bundle", "run.py", "replay")
    assert "FROM ${BASE}" in (tmp_path / "bundle/Dockerfile").read_text()


def python(folder: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
