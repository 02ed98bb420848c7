"""TorchScript that does more than compute logits: it is refused before any of it runs."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="TorchScript is loaded by torch")

from robust_edge_runtimes.core.errors import BundleError  # noqa: E402
from robust_edge_runtimes.formats.csr.runtime import CsrRuntime  # noqa: E402
from robust_edge_runtimes.formats.csr.script import load_script  # noqa: E402
from tests.attacks.scripts import OPERATORS  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated since 2.10


class Rows(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = []
        for i in range(images.size(0)):
            rows.append(images[i].flatten())
        return torch.stack(rows)


@pytest.mark.parametrize("kind", OPERATORS)
def test_a_script_that_reaches_beyond_its_tensors(kind, tmp_path, capsys):
    written, operator = tmp_path / "written", OPERATORS[kind]
    torch.jit.script(kind(torch.nn.Flatten(), str(written))).save(str(tmp_path / "model.ts"))
    with pytest.raises(BundleError, match=f"by {operator}"):
        CsrRuntime(tmp_path / "model.ts", None).open()
    assert not written.exists()
    assert "PASS" not in capsys.readouterr().out


def test_a_script_that_computes_is_loaded(tmp_path):
    torch.jit.script(Rows()).save(str(tmp_path / "model.ts"))
    images = torch.rand(3, 1, 2, 2)
    assert np.array_equal(load_script(tmp_path / "model.ts")(images), images.flatten(1))


class Sparse(torch.nn.Module):
    """A matrix of two entries as CSR, of which `col` may be the second column."""

    def __init__(self, col: int):
        super().__init__()
        self.register_buffer("crow", torch.tensor([0, 1, 2], dtype=torch.int32))
        self.register_buffer("col", torch.tensor([0, col], dtype=torch.int32))
        self.register_buffer("values", torch.tensor([1.0, 2.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.matmul(
            torch.sparse_csr_tensor(self.crow, self.col, self.values, [2, 2]), images.flatten(1).t()
        ).t()


@pytest.mark.parametrize("col", [1, 2, -1, 1 << 30])
def test_indices_outside_of_a_matrix_are_refused(col, tmp_path):
    torch.jit.script(Sparse(col)).save(str(tmp_path / "model.ts"))
    images, model = np.ones((3, 1, 1, 2), np.float32), CsrRuntime(tmp_path / "model.ts", None)
    model.open_impl()
    try:
        if col == 1:
            assert model.infer_impl(images).tolist() == [[1.0, 2.0]] * 3
        else:
            with pytest.raises(BundleError, match="cannot run"):
                model.infer_impl(images)
    finally:
        model.close_impl()


def test_records_shorter_than_their_tensors_are_refused(tmp_path):
    torch.jit.script(Sparse(1)).save(str(tmp_path / "good.ts"))
    with zipfile.ZipFile(tmp_path / "good.ts") as good, zipfile.ZipFile(tmp_path / "model.ts", "w") as short:
        for name in good.namelist():
            short.writestr(name, good.read(name)[: 4 if name.endswith("data/2") else None])
    load_script(tmp_path / "good.ts")
    with pytest.raises(BundleError, match="data/2 does not have its length"):
        load_script(tmp_path / "model.ts")
