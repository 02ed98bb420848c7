import pytest
import torch

from robust_edge.parallel.device import pick_device
from robust_edge_runtimes.core.errors import InputError


def test_auto_is_the_gpu_if_there_is_one():
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_cpu_is_always_there():
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "meta", "cpu:x"])
def test_what_cannot_compute_here_is_refused_in_one_line(name):
    with pytest.raises(InputError, match="use cpu or auto") as caught:
        pick_device(name)
    assert "\n" not in str(caught.value)
