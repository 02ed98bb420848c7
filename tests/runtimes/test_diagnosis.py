from __future__ import annotations

import json

from robust_edge_runtimes import diagnosis
from robust_edge_runtimes.core import extras
from robust_edge_runtimes.diagnosis import diagnose
from robust_edge_runtimes.present.doctor import diagnosis_table


def test_the_doctor_lists_what_is_here_and_how_to_get_the_rest(monkeypatch):
    def imported(name):
        if name == "torch":
            raise OSError("libsomething.so: cannot open shared object file")
        if name == "PIL":
            raise ModuleNotFoundError(name)
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
        return type("Module", (), {"__version__": "9.9"})

    monkeypatch.setattr(diagnosis, "backends", tuple)
    monkeypatch.setattr(diagnosis.importlib, "import_module", imported)
    monkeypatch.setattr(diagnosis.importlib.metadata, "version", {"torchvision": "0.9"}.get)
    monkeypatch.setattr(diagnosis.shutil, "which", lambda name: "/usr/bin/clang" if name == "clang" else None)
    found = diagnose()
    versions = {item.name: item.version for item in found.capabilities}
    assert {name: versions[name] for name in ("onnxruntime", "PIL", "torch", "torchvision", "C compiler")} == {
        "onnxruntime": "9.9",
        "PIL": None,
        "torch": None,
        "torchvision": "0.9",  # installed, and of use to the training side, beside a CPU-only torch
        "C compiler": "/usr/bin/clang",
    }
    assert versions["energy counter"] is None or versions["energy counter"].startswith(("RAPL", "INA3221"))
    lines = {line.split()[0]: line for line in diagnosis_table(found).splitlines() if line}
    assert "9.9" in lines["onnxruntime"]
    assert "pip install" not in lines["onnxruntime"]
    assert "missing" in lines["torch"]
    assert lines["torch"].endswith("pip install 'robust-edge[train]'")
    json.dumps([item.__dict__ for item in found.capabilities])


def test_every_optional_package_is_listed(monkeypatch):
    monkeypatch.setattr(diagnosis, "backends", tuple)
    requirements = [
        "numpy>=1.19",
        "novelty>=1; (python_version >= '3.10') and extra == 'train'",
        "onnx-ir>=0.1; extra == 'train'",
        *(f"{name}; extra == 'all'" for name in ("novelty", "onnx-ir", "tensorrt")),
        "tomli>=2.0; (python_version < '3.0') and extra == 'train'",  # in the standard library of this Python
        "pytest>=8; extra == 'dev'",
        "tensorrt>=10.12; extra == 'tensorrt'",  # the probe of its format tries it
    ]
    monkeypatch.setattr(extras.importlib.metadata, "requires", lambda name: requirements)
    monkeypatch.setattr(extras, "_extras", extras._extras.__wrapped__)
    found = {item.name: item for item in diagnose(["surrogate", "toy"]).capabilities}
    assert list(found) == ["novelty", "onnx_ir", "C compiler", "energy counter"]
    assert found["novelty"].enables == "compress, evaluate, export, verify --mode surrogate and toy"
    assert found["onnx_ir"].remedy == "pip install 'robust-edge[train]'"
    assert extras.optional_packages() == {"novelty": "train", "onnx-ir": "train", "tensorrt": "tensorrt"}


def test_every_extra_is_needed_for_something_or_belongs_to_a_format():
    formats = {"onnxruntime-gpu", "tensorrt"}
    assert set(extras.optional_packages().values()) == {*diagnosis.EXTRAS, *formats}
