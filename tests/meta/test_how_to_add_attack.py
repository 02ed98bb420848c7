"""An attack is one new file: named by its class, or by one row of the table of attacks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.commands import COPIED, ROOT, run_lines

ATTACK = '''
import dataclasses
from typing import ClassVar
import torch
from robust_edge.attacks.attack import Attack
from robust_edge.settings.setting import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """Points at random corners of the ball: the last of several draws."""

    steps: int = setting(4, "draws", range="[1, inf)")
    scale: float = setting(1.0, "length of the noise in units of eps", range="(0, 1]")

    few_steps: ClassVar[int] = 3
    works_with: ClassVar[str] = "logits"

    @property
    def title(self):
        return f"Noise-{self.steps}"

    def perturb(self, model, batch, threat):
        generator = torch.Generator().manual_seed(batch.seed)
        for _ in range(self.steps):
            signs = torch.randint(0, 2, batch.images.shape, generator=generator) * 2 - 1
        return batch.images + self.scale * threat.eps * signs
'''
ROW = '    "noise": Row("robust_edge.attacks.noise:Noise", "random corners of the ball"),\n'


@pytest.mark.parametrize("way", ["class", "row"])
def test_a_new_attack(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, name, record = None, "my_attacks:Noise", "own-my_attacks.Noise"
    if way == "row":
        package, name, record = tmp_path / "package", "noise", "noise"
        shutil.copytree(ROOT / "robust_edge", package / "robust_edge", ignore=COPIED)
        (package / "robust_edge/attacks/noise.py").write_text(ATTACK)
        table = package / "robust_edge/attacks/table.py"
        table.write_text(table.read_text().replace("ATTACKS = {\n", "ATTACKS = {\n" + ROW))
    else:
        (tmp_path / "my_attacks.py").write_text(ATTACK)
        monkeypatch.syspath_prepend(tmp_path)
    lines = [
        "evaluate --help",
        "transfer --help",
        "compress --epochs 2 --steps 1 --keep 1 --threads 1 --set data.limit_train=60 --set data.limit_test=20 -o run",
        f"evaluate run --attack {name} --steps 2 --eps 0.1 --set scale=0.5",
        f"transfer --source run --target run --attack {name} --steps 2 --eps 0.1 -o transfer.json",
        "report run --transfer transfer.json -o report.html",
    ]
    output = run_lines(lines, cwd=tmp_path, package=package)
    assert ("noise random corners of the ball" in output) == (way == "row")
    assert output.count("[noise|pgd|") == (2 if way == "row" else 0)
    assert f"{name} 2 steps" in output
    assert "FLAG few_steps: 2 gradient steps; at least 3 are needed" in output
    stored = json.loads((tmp_path / f"run/evaluations/{record}.json").read_text())
    assert stored["attack"] == stored["result"]["attack"] == name
    assert stored["result"]["title"] == "Noise-2"
    assert stored["result"]["threat"] == {"eps": 0.1, "norm": "linf"}
    assert stored["result"]["stages"][0]["settings"] == {"steps": 2, "scale": 0.5}
    assert stored["result"]["stages"][0]["works_with"] == "logits"
    matrix = json.loads((tmp_path / "transfer.json").read_text())
    assert (matrix["attack"], matrix["settings"]["steps"]) == (name, 2)
    tables = (tmp_path / "report.md").read_text()
    assert "| Noise-2 ℓ∞ 0.1 |" in tables
    assert "Noise-2, last iterate" in tables
