"""TorchScript that is another network, that does more than compute logits, or that does not end."""

from __future__ import annotations

import torch
from torch import nn


def script(make):
    """Another model.ts: `make(network)` gives a module to script, or changes the network and gives None."""

    def change(path):
        network = torch.jit.load(str(path / "model.ts")).eval()
        made = make(network)
        torch.jit.save(network if made is None else torch.jit.script(made.eval()), str(path / "model.ts"))

    return change


class Around(nn.Module):
    """Computes with a network."""

    def __init__(self, network):
        super().__init__()
        self.network = network


class Branch(Around):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.network(x)
        return logits if x.size(0) == 1 else -logits


class WithGradient(Around):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.network(x)
        return logits * 2 if x.requires_grad else logits


def scaled_tensor(network):
    next(network.parameters()).data.mul_(1.001)


OTHER_SCRIPTS = {
    "batch size": (Branch, ("the code", "Branch")),
    "requires_grad": (WithGradient, ("the code", "WithGradient")),
    "weight": (scaled_tensor, ("tensor 'network.0.weight'", "values differ")),
}
"""Changes of a network, and words that mode rebuild says of each."""


class Reaches(Around):
    """Base of those that write to a file, whose path a test replaces."""

    def __init__(self, network, path="written"):
        super().__init__(network)
        self.path = path


class Saves(Reaches):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.size(0) > 1:
            torch.save(images, self.path)
        return self.network(images)


class Maps(Reaches):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        file = torch.from_file(self.path, shared=True, size=4, dtype=torch.uint8)
        return self.network(images) + file.fill_(65).sum()


class Prints(Reaches):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        print("PASS")
        return self.network(images)


class WhenLoaded(nn.Module):
    """A part of a network; it needs none of its own to write while it is loaded."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.path, self.training = state
        torch.save(torch.zeros(1), self.path)


class LoadsMore(Around):
    def __init__(self, network, path="written"):
        super().__init__(network)
        self.more = WhenLoaded(path)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(self.more(images))


OPERATORS = {
    Saves: "aten::save",
    Maps: "aten::from_file",
    Prints: "prim::Print",
    LoadsMore: "__setstate__",
}
"""What reaches beyond its tensors, with the operator that does."""


class Loops(Around):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.network(images)
        while bool((logits < 1e30).any()):
            logits = logits + 1
        return logits


class LoopsWithGradients(Around):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.network(images)
        while logits.requires_grad:
            logits = logits + 1
        return logits


class Allocates(Around):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images) + torch.zeros(2000000000).fill_(1.0).sum()
