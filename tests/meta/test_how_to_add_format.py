"""How to add an artifact format: one folder and one row of a table in each layer, tried with a toy.

The toy stores the weights of a linear network as an .npz file, compressed if its own option says so, and runs it by
numpy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

for needed in ("torch", "onnx"):
    pytest.importorskip(needed, reason="export needs it")

ROOT = Path(__file__).parents[2]
PACKAGES = ("robust_edge", "exporters/robust_edge_exporters", "runtimes/robust_edge_runtimes")

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
        weight, bias = (tensor.detach().numpy() for tensor in (model[-1].weight, model[-1].bias))
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

# Exports a linear network to the folder that it is given, then calls the command line on it.
DRIVER = """
import sys
from pathlib import Path

import numpy as np
import torch

import robust_edge.export
import robust_edge.run.directory
from robust_edge.__main__ import main
from robust_edge_exporters.bundle import ExportRequest, export_bundle
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.golden import Golden, expected_of
from robust_edge_runtimes.core.manifest import AttackSpec, LayerCount, Source, Sparsity

folder = sys.argv[1]
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4)).eval().requires_grad_(False)
model[1].weight[:, ::2] = 0
clean = torch.rand(60, 1, 4, 4)
attacked = (clean + 0.01).clamp(0, 1)
golden = Golden(*(x.numpy() for x in (clean, attacked, model(clean).argmax(1), model(clean), model(attacked))), 1e-3)
request = ExportRequest(
    model=model,
    shape=(1, 4, 4),
    classes=("north", "east", "south", "west"),
    sparsity=Sparsity(64, 32, (LayerCount("1.weight", 64, 32),)),
    source=Source("toy", "c" * 64, "linear", "noise", "f" * 64, {}),
    expected=expected_of(golden, AttackSpec("pgd", 0.01, 1, 0.01, 0)),
    golden=golden,
    target=target_named("numpy"),
    compact=False,
    options={"deflate": True},
)
manifest = export_bundle(request, Path(folder)).manifest
print("recorded", manifest.choices.options)


def export_run(run, target, path, *, choices, **rest):
    print("export_run takes", choices.options)
    raise SystemExit(0)


robust_edge.run.directory.open_run = Path
robust_edge.export.export_run = export_run
for words in (
    ["targets"],
    ["doctor"],
    ["export", "--help"],
    ["export", "runs/toy", "--target", "numpy", "--npz-deflate", "-o", folder + "-2"],
    ["verify", folder, "--mode", "replay", "--mode", "whitebox", "--steps", "2", "-q",
     "--max-clean-drop", "7", "--max-robust-drop", "100"],
):
    sys.argv = ["robust-edge", *words]
    try:
        main()
    except SystemExit as end:
        print(words[0], "exits", end.code)
"""


def test_a_format_is_one_folder_and_one_row_in_each_layer(tmp_path):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name, row in ROWS.items():
        lines = (tmp_path / name).read_text().splitlines()
        lines.insert(next(i for i, line in enumerate(lines) if line.endswith("= {")) + 1, row)
        (tmp_path / name).write_text("\n".join(lines) + "\n")

    bundle = tmp_path / "bundle"
    said = python(tmp_path, "-c", DRIVER, str(bundle))
    assert "targets exits 0" in said
    assert any(line.split()[:1] == ["numpy"] and "npz" in line for line in said.splitlines())
    assert "npz        yes  a linear network: numpy" in said
    assert "--npz-deflate" in said
    assert "Compress the arrays of the .npz file." in said
    assert "recorded {'deflate': True}" in said
    assert "export_run takes {'deflate': True}" in said
    assert all(item.compress_type == zipfile.ZIP_DEFLATED for item in zipfile.ZipFile(bundle / "model.npz").infolist())
    assert "whitebox takes gradients of the artifact's own matrix" in said
    assert "verify exits 0" in said

    assert "PASS on 60 images" in python(bundle, "run.py", "replay")
    assert "FROM ${BASE}" in (bundle / "Dockerfile").read_text()


def python(folder: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
