"""TorchScript that does more than compute logits: it is refused before any of it runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="TorchScript is loaded by torch")

from robust_edge_runtimes.core.errors import BundleError  # noqa: E402
from robust_edge_runtimes.formats.csr.runtime import CsrRuntime  # noqa: E402
from robust_edge_runtimes.formats.csr.script import load_script  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated since 2.10


class Honest(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.path = "written"

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = []
        for i in range(images.size(0)):
            rows.append(images[i].flatten())
        return torch.stack(rows)


class Saves(Honest):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.size(0) > 1:
            torch.save(images, self.path)
        return images.flatten(1)


class Maps(Honest):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        file = torch.from_file(self.path, shared=True, size=4, dtype=torch.uint8)
        return images.flatten(1) + file.fill_(65).sum()


class Prints(Honest):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        print("PASS")
        return images.flatten(1)


class WhenLoaded(Honest):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.path, self.training = state
        torch.save(torch.zeros(1), self.path)


@pytest.mark.parametrize(
    ("kind", "operator"),
    [(Saves, "aten::save"), (Maps, "aten::from_file"), (Prints, "prim::Print"), (WhenLoaded, "__setstate__")],
)
def test_a_script_that_reaches_beyond_its_tensors(kind, operator, tmp_path, capsys):
    network = kind()
    network.path = str(tmp_path / "written")
    torch.jit.script(network).save(str(tmp_path / "model.ts"))
    with pytest.raises(BundleError, match=f"by {operator}"):
        CsrRuntime(tmp_path / "model.ts", None).open()
    assert not Path(network.path).exists()
    assert "PASS" not in capsys.readouterr().out


def test_a_script_that_computes_is_loaded(tmp_path):
    torch.jit.script(Honest()).save(str(tmp_path / "model.ts"))
    images = torch.rand(3, 1, 2, 2)
    assert np.array_equal(load_script(tmp_path / "model.ts")(images), images.flatten(1))
