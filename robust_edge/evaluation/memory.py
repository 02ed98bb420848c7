"""The batch size that fits a memory budget, computed from the network; equal on all machines."""

from __future__ import annotations

import dataclasses
import importlib

import torch
from torch import Tensor, nn

from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_runtimes.core.environment import peak_rss_bytes
from robust_edge_runtimes.core.errors import InputError

LATER = ("scipy.stats", "matplotlib.figure")  # imported by results and plots; what they take is no batch's
COPIES = 8  # copies of an image that an attack keeps: clean, candidate, best, step, gradients
WORKSPACE = 3  # memory in units of the activations: the activations, their gradients, unfolded convolution inputs


@dataclasses.dataclass(frozen=True)
class Memory:
    """The memory bound and the memory use of an evaluation.

    Attributes:
        batch_size: number of images per batch.
        image_bytes: estimated memory per image: activations for the backward pass, and an attack's copies.
        before_bytes: memory in use when the evaluation started.
        bound_bytes: `before_bytes` plus the budget.
        peak_bytes: peak memory; None until the evaluation has finished.
    """

    batch_size: int
    image_bytes: int
    before_bytes: int
    bound_bytes: int
    peak_bytes: int | None = None

    @property
    def within_bound(self) -> bool | None:
        """Whether the peak is within the bound; None until the evaluation has finished."""
        return None if self.peak_bytes is None else self.peak_bytes <= self.bound_bytes

    def finished(self, device: torch.device) -> Memory:
        """A copy with the peak memory of this process."""
        return dataclasses.replace(self, peak_bytes=peak_bytes(device))

    def summary(self) -> str:
        """One line for the user, before the evaluation (without the peak) or after it."""
        text = f"batch {self.batch_size}, peak memory at most {self.bound_bytes >> 20} MiB"
        return text if self.peak_bytes is None else f"{text}, {self.peak_bytes >> 20} MiB used"


def plan_memory(model: nn.Module, image: Tensor, classes: int, *, budget_mib: int, most: int) -> Memory:
    """Choose the batch size.

    Args:
        model: the network, on its device.
        image: (1, C, H, W) on the same device.
        classes: K; the attack FAB keeps one gradient per class.
        budget_mib: memory budget in MiB, beyond what is in use now.
        most: largest batch size.

    Raises:
        InputError: the budget is too small for one image.
    """
    activations = _activation_bytes(model, image)
    need = WORKSPACE * activations + (COPIES + 3 * classes) * image.numel() * image.element_size()
    fits = (budget_mib << 20) // max(need, 1)
    if fits < 1:
        raise InputError(f"one image needs about {-(-need >> 20)} MiB, `memory_mib` allows {budget_mib}; raise it")
    before = current_bytes(image.device)
    return Memory(min(fits, most), need, before, before + (budget_mib << 20))


def current_bytes(device: torch.device) -> int:
    """Bytes in use now: by this process, or by torch on its GPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    for name in LATER:
        importlib.import_module(name)
    return peak_bytes(device)


def peak_bytes(device: torch.device) -> int:
    """Peak memory in bytes of this process, or of torch on its GPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_rss_bytes()


def _activation_bytes(model: nn.Module, image: Tensor) -> int:
    """Bytes that autograd saves for the backward pass of one image, without parameters and buffers."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with evaluation_mode(model), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(image.detach().requires_grad_(True))
    return sum(kept.values())
