"""A scheme is one new file: named by its class, or by one row of the table of schemes.

Help texts, config.yaml and the report show it, and JSON records hold the share that it kept; `doctor` lists no schemes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.commands import COPIED, ROOT, run_lines

SCHEME = '''
import dataclasses
import torch
from robust_edge.pruning.prunable import budget_of
from robust_edge.pruning.schemes.counts import even_counts
from robust_edge.pruning.schemes.scheme import Scheme
from robust_edge.settings.setting import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leading(Scheme):
    """The same fraction of every layer stays, its first weights after an offset."""

    offset: int = setting(0, "position of the first weight that may stay", range="[0, 5]")

    def support_impl(self, weights, keep):
        counts = even_counts({n: w.numel() for n, w in weights.items()}, budget_of(weights, keep))
        positions = {n: torch.arange(w.numel()).view(w.shape) - self.offset for n, w in weights.items()}
        return {n: (0 <= positions[n]) & (positions[n] < counts[n]) for n in weights}
'''
ROW = '    "leading": Row("robust_edge.pruning.schemes.leading:Leading", "the first weights of every layer"),\n'
TINY = (
    "--epochs 2 --steps 1 --keep 0.2 --threads 1 --set data.limit_train=60 --set data.limit_test=20 "
    "--set pruning.offset=2 --set training.batch_size=30"
)


@pytest.mark.parametrize("way", ["class", "row"])
def test_a_new_scheme(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, name = None, "leading"
    if way == "row":
        package = tmp_path / "package"
        shutil.copytree(ROOT / "robust_edge", package / "robust_edge", ignore=COPIED)
        (package / "robust_edge/pruning/schemes/leading.py").write_text(SCHEME)
        table = package / "robust_edge/pruning/schemes/__init__.py"
        table.write_text(table.read_text().replace("SCHEMES = {\n", "SCHEMES = {\n" + ROW))
    else:
        name = "my_schemes:Leading"
        (tmp_path / "my_schemes.py").write_text(SCHEME)
        monkeypatch.syspath_prepend(tmp_path)
    output = run_lines(
        [
            "compress --help",
            f"compress --scheme {name} {TINY} -o run",
            f"compress --scheme {name} {TINY} --preset quick --resume -o run",
            "export run --target x86-cpu -o bundle",
            "report run -o report.html",
        ],
        cwd=tmp_path,
        package=package,
    )
    assert ("leading (the first weights of every layer)" in output) == (way == "row")
    written = (tmp_path / "run/config.yaml").read_text()
    assert f"scheme: {name}\n  offset: 2\n" in written
    assert "floor" not in written  # a setting of other schemes
    assert f"scheme: {name}" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "bundle/manifest.json").is_file()
    kept = json.loads((tmp_path / "run/checkpoint.json").read_text())["sparsity"]
    assert kept["nonzero"] / kept["weights"] == pytest.approx(0.2, abs=0.001)
    weight = load_file(tmp_path / "run/checkpoint.safetensors")["network.3.weight"].flatten()
    assert not weight[:2].any()
    assert weight[2:1000].all()
    assert not weight[len(weight) // 2 :].any()
