"""Programs of torch.export become runs: they are read only with the user's leave, and compared with themselves."""

import pytest
import torch
from torch import nn

pytest.importorskip("onnx", reason="programs are converted to ONNX")
pytest.importorskip("onnxruntime", reason="the oracle is onnxruntime")

from robust_edge_runtimes.core.errors import InputError
from tests.robust_edge.importing.test_import import imported, network


def test_a_program_is_read_only_where_its_code_is_allowed(tmp_path):
    source = network()
    program = torch.export.export(source, (torch.rand(2, 1, 8, 8),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, tmp_path / "p.pt2")
    with pytest.raises(InputError, match="`allow_code`"):
        imported(tmp_path / "p.pt2", tmp_path / "run")
    run, _, _ = imported(tmp_path / "p.pt2", tmp_path / "run", allow_code=True)
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(run.load_model()(images), source[:-1](images), atol=1e-6)


def test_a_program_that_torch_converts_to_another_network_is_refused(tmp_path):
    """A pool's `divisor_override` is lost, and nothing says so."""
    pool = nn.AvgPool2d(2, divisor_override=3)
    source = nn.Sequential(nn.Conv2d(1, 8, 3), pool, nn.Flatten(), nn.Linear(72, 10)).eval()
    torch.export.save(torch.export.export(source, (torch.rand(2, 1, 8, 8),)), tmp_path / "p.pt2")
    with pytest.raises(InputError, match=r"p\.pt2: as ONNX, the program gives outputs that differ"):
        imported(tmp_path / "p.pt2", tmp_path / "run", allow_code=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("batch", [1, 2])
def test_a_program_for_one_number_of_images_takes_any(tmp_path, batch):
    torch.manual_seed(0)
    layers = [nn.Hardtanh(-0.5, 0.5, inplace=True), nn.Conv2d(1, 8, 3, 2), nn.Flatten(), nn.Linear(72, 10)]
    source = nn.Sequential(*layers).eval()
    torch.export.save(torch.export.export(source, (torch.rand(batch, 1, 8, 8),)), tmp_path / "p.pt2")
    run, _, _ = imported(tmp_path / "p.pt2", tmp_path / "run", allow_code=True)
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(run.load_model()(images), source(images.clone()), atol=1e-6)


class NamedLikeOperators(nn.Module):
    """Parameters and buffers with the names that torch gives to values of operators and to inputs."""

    def __init__(self):
        super().__init__()
        self.conv2d, self.x = nn.Parameter(torch.randn(8, 1, 3, 3)), nn.Parameter(torch.rand(8))
        self.relu, self.linear = nn.Parameter(torch.rand(1, 8, 1)), nn.Linear(8, 10)
        for name in ("mean", "sub", "add", "p_x", "mean_value_0"):
            self.register_buffer(name, torch.rand(1))

    def forward(self, x):
        kept = nn.functional.conv2d(x - self.mean, self.conv2d).relu().flatten(2) - self.sub
        kept = (kept * self.relu).mean(2) + self.add + self.x * self.p_x
        return self.linear(kept) + self.mean_value_0


def test_weights_of_a_program_may_be_named_like_operators(tmp_path):
    torch.manual_seed(0)
    source = NamedLikeOperators().eval()
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(
        torch.export.export(source, (torch.rand(2, 1, 8, 8),), dynamic_shapes=dynamic), tmp_path / "p.pt2"
    )
    run, checkpoint, _ = imported(tmp_path / "p.pt2", tmp_path / "run", allow_code=True)
    assert {layer.name for layer in checkpoint.sparsity.layers} == {"network.conv2d", "network.linear.weight"}
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(run.load_model()(images), source(images), atol=1e-6)
