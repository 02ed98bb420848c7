"""How many images fit into a batch: counted on the network, so that the same budget gives the same batch anywhere."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from robust_edge.attacks.modes import evaluation_mode
from robust_edge_runtimes.core.environment import peak_rss_bytes
from robust_edge_runtimes.core.errors import InputError

DEFAULT_BUDGET_MIB = 2048
MOST_IMAGES = 250
COPIES = 8  # clean, candidate, best, step, gradients of an attack, per image
WORKSPACE = 3  # activations, their gradients, and what convolutions unfold


@dataclasses.dataclass(frozen=True)
class Memory:
    """What an evaluation may use and has used.

    Attributes:
        batch_size: images at a time.
        image_bytes: counted need of one image: activations kept for the gradient, and an attack's copies.
        before_bytes: in use when the evaluation began.
        bound_bytes: before_bytes and the budget.
        peak_bytes: the most that was in use; None until the end.
    """

    batch_size: int
    image_bytes: int
    before_bytes: int
    bound_bytes: int
    peak_bytes: int | None = None

    @property
    def held(self) -> bool | None:
        """Whether the bound was kept; None until the end."""
        return None if self.peak_bytes is None else self.peak_bytes <= self.bound_bytes

    def finished(self, device: torch.device) -> Memory:
        """The same with the peak."""
        return dataclasses.replace(self, peak_bytes=peak_bytes(device))

    def line(self) -> str:
        """For a person, before or after."""
        text = f"batch {self.batch_size}, peak memory at most {self.bound_bytes >> 20} MiB"
        return text if self.peak_bytes is None else f"{text}, {self.peak_bytes >> 20} MiB used"


def plan_memory(model: nn.Module, image: Tensor, classes: int, *, budget_mib: int, most: int) -> Memory:
    """Size the batch.

    Args:
        model: on its device.
        image: (1, C, H, W) on the same device.
        classes: K; FAB holds a gradient per class.
        budget_mib: MiB beyond what is in use now.
        most: images at a time, however much memory there is.

    Raises:
        InputError: not even one image fits.
    """
    kept = _kept_for_gradient(model, image)
    need = WORKSPACE * kept + (COPIES + 3 * classes) * image.numel() * image.element_size()
    fits = (budget_mib << 20) // max(need, 1)
    if fits < 1:
        raise InputError(f"one image needs about {-(-need >> 20)} MiB, --memory allows {budget_mib}; raise it")
    before = current_bytes(image.device)
    return Memory(min(fits, most), need, before, before + (budget_mib << 20))


def current_bytes(device: torch.device) -> int:
    """Bytes in use now: of the process, or of torch on its GPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    return peak_bytes(device)


def peak_bytes(device: torch.device) -> int:
    """The most bytes that were in use at once."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_rss_bytes()


def _kept_for_gradient(model: nn.Module, image: Tensor) -> int:
    """Bytes of everything that one pass keeps; weights are kept once for all images and do not count."""
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
