"""How a run prepares its device: which kernels torch may choose. A GPU is not needed for that."""

import os

import pytest
import torch

from robust_edge.config.settings import resolve
from robust_edge.training import compress as module


@pytest.fixture(autouse=True)
def _torch_as_before():
    benchmark, filled = torch.backends.cudnn.benchmark, torch.utils.deterministic.fill_uninitialized_memory
    deterministic, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    yield
    torch.backends.cudnn.benchmark = benchmark
    torch.utils.deterministic.fill_uninitialized_memory = filled
    torch.use_deterministic_algorithms(deterministic, warn_only=warns)


@pytest.mark.parametrize("deterministic", [False, True])
def test_cpus_always_use_deterministic_kernels(deterministic):
    torch.use_deterministic_algorithms(False)
    device = module.prepare_device(resolve(flags={"device": "cpu", "threads": 1, "deterministic": deterministic}))
    assert device == torch.device("cpu")
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory


@pytest.mark.parametrize("deterministic", [False, True])
def test_gpus_use_them_where_they_are_asked_for(monkeypatch, deterministic):
    chosen = []
    monkeypatch.setattr(module, "pick_device", torch.device)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    flags = {"device": "cuda:1", "threads": 1, "deterministic": deterministic}
    assert module.prepare_device(resolve(flags=flags)) == torch.device("cuda:1")
    assert chosen == [torch.device("cuda:1")]
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert torch.backends.cudnn.benchmark != deterministic
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == deterministic
    assert not torch.utils.deterministic.fill_uninitialized_memory
    # a kernel without a deterministic form only warns
    assert not deterministic or torch.is_deterministic_algorithms_warn_only_enabled()
