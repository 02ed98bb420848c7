"""What the docs list of the code is generated from it: the committed files are current, and a new row appears."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from robust_edge.plugins import Row
from robust_edge_runtimes.modes.table import Mode
from robust_edge_runtimes.verdict.flags import VERIFY, ValidityFlag

SCRIPT = Path(__file__).parents[2] / "docs/generate.py"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_files_are_current(generate: ModuleType) -> None:
    pages = generate.pages()
    assert {path.name for path in pages} == {
        "README.md", "evaluation.md", "int8-engine.md", "networks.md", "scaling.md", "settings.md",
        "sparse-engine-layers.md",
        "sparse-engine-speed.md",
        "sparse-engine.md", "training.md", "verification-statistics.md", "verification-tampered.md",
        "verification.md", "verify.schema.json",
    }  # fmt: skip
    for path, text in pages.items():
        assert path.read_text("utf-8") == text, f"{path.name} is out of date; write it again with make docs"


def test_every_block_is_used(generate: ModuleType) -> None:
    texts = [path.read_text("utf-8") for path in generate.pages()]
    for name in generate.BLOCKS:
        assert any(f"<!-- generated: {name} -->" in text for text in texts), name


def test_a_new_row_appears(generate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "MODES", (*generate.MODES, Mode("toy", "every pixel moved up", "")))
    assert "| `toy` | every pixel moved up | – | no | no |" in generate.modes()
    monkeypatch.setattr(generate, "VALIDITY_FLAGS", (ValidityFlag("toy_flag", "it is a toy"),))
    assert "| `toy_flag` | it is a toy |" in generate.flags(VERIFY)
    monkeypatch.setitem(generate.ATTACKS, "toy", Row("robust_edge.attacks.fgsm:Fgsm", "a toy"))
    monkeypatch.setitem(generate.DATASETS, "toy", Row("robust_edge.data.digits:load_digits", "three toys"))
    assert "`toy` (three toys)" in " ".join(generate.choices().split())
    monkeypatch.setitem(generate.SCHEMES, "toy", Row("robust_edge.pruning.schemes.funnel:Funnel"))
    assert "| `toy` | Keep exactly k weights, with a kept fraction" in generate.schemes()
    assert "| `toy` | a toy | `last` | ℓ∞ |" in generate.attacks()
    assert "| `last` | `fgsm`, `toy` | `false` | perturb images" in generate.attack_settings()
