"""All random numbers of one epoch: they follow from the seed and the epoch's number alone."""

from __future__ import annotations

import torch
from torch import Tensor


class Randomness:
    """The generators that an epoch draws from.

    Attributes:
        generator: of the CPU: order, augmentation, and the attack's noise where that is drawn on the CPU.
        noise: the attack's; a GPU draws its own, seeded by the CPU's, instead of waiting for it.
    """

    def __init__(self, seed: int, epoch: int, device: torch.device, rank: int = 0) -> None:
        self.device = device
        self.generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
        torch.manual_seed(int(torch.randint(2**62, (), generator=self.generator)) + rank)  # of dropout and the like
        self.noise = self.generator
        if device.type == "cuda":
            self.noise = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=self.generator)))

    def state(self) -> dict[str, Tensor]:
        """Where every generator stands, torch's global ones of the CPU and of the device included."""
        found = {"generator": self.generator.get_state(), "global": torch.get_rng_state()}
        if self.device.type == "cuda":
            found |= {"noise": self.noise.get_state(), "device": torch.cuda.get_rng_state(self.device)}
        return found

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on where `state` was taken, on the same kind of device."""
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["global"])
        if self.device.type == "cuda":
            self.noise.set_state(state["noise"])
            torch.cuda.set_rng_state(state["device"], self.device)
