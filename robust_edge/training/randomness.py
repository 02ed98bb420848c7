"""The random generators of one epoch, seeded by the run's seed and the number of the epoch."""

from __future__ import annotations

import torch
from torch import Tensor


class Randomness:
    """The random generators of an epoch; torch's global one is seeded, too.

    Attributes:
        generator: on the CPU, for the order of images and augmentation.
        noise: for the attack: on the CPU the same generator, on a GPU a generator on that GPU.
    """

    def __init__(self, seed: int, epoch: int, device: torch.device, rank: int = 0) -> None:
        self.device = device
        self.generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
        torch.manual_seed(int(torch.randint(2**62, (), generator=self.generator)) + rank)  # for dropout and the like
        self.noise = self.generator
        if device.type == "cuda":
            self.noise = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=self.generator)))

    def state(self) -> dict[str, Tensor]:
        """The state of every generator, including torch's global ones of the CPU and of the device."""
        found = {"generator": self.generator.get_state(), "global": torch.get_rng_state()}
        if self.device.type == "cuda":
            found |= {"noise": self.noise.get_state(), "device": torch.cuda.get_rng_state(self.device)}
        return found

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore the state that `state` returned on the same kind of device."""
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["global"])
        if self.device.type == "cuda":
            self.noise.set_state(state["noise"])
            torch.cuda.set_rng_state(state["device"], self.device)
