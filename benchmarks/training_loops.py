"""The loops that benchmarks/training.py compares: our step, and the straightforward one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from robust_edge.config.compress import CompressConfig
from robust_edge.config.settings import resolve
from robust_edge.data import Split
from robust_edge.models import ModelSpec, Normalized, build_model
from robust_edge.torchvision_compat import torchvision_module
from robust_edge.training.compress import prepare_device
from robust_edge.training.epoch import train_epoch
from robust_edge.training.forward import place
from robust_edge.training.learner import Learner
from robust_edge.training.schedules import schedules

SHAPE, CLASSES = (3, 32, 32), tuple("0123456789")
EPS = 8 / 255


@dataclasses.dataclass(frozen=True)
class Task:
    """What one worker trains."""

    network: str
    batch: int
    steps: int
    batches: int
    threads: int
    device: str
    precision: str
    compile: bool
    adversarial_weight: float = 0.9

    def config(self) -> CompressConfig:
        """Dense, so that both loops do the same."""
        return resolve(
            flags={
                "arch": self.network,
                "pruning.keep": 1.0,
                "attack.eps": EPS,
                "attack.steps": self.steps,
                "training.adversarial_weight": self.adversarial_weight,
                "training.batch_size": self.batch,
                "training.epochs": 1,
                "training.lr": 1e-3,
                "data.augment": ["flip", "rotate", "shift"],
                "device": self.device,
                "compute.precision": self.precision,
                "compute.compile": self.compile,
            }
        )

    def data(self) -> Split:
        """Noise: the time does not depend on what the images show."""
        generator = torch.Generator().manual_seed(0)
        count = self.batch * self.batches
        images = torch.randint(0, 256, (count, *SHAPE), generator=generator, dtype=torch.uint8)
        return Split(images, torch.randint(0, len(CLASSES), (count,), generator=generator))

    def model(self) -> Normalized:
        """The network, the same in both loops."""
        torch.manual_seed(0)
        return build_model(ModelSpec(arch=self.network, shape=SHAPE, classes=CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3))


class Pictures(Dataset[Any]):
    """PIL images and torchvision's transforms, one image at a time."""

    def __init__(self, split: Split) -> None:
        transforms = torchvision_module("transforms")
        assert isinstance(split.images, Tensor)  # resident, as Task.data makes them
        self.images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in split.images]
        self.labels = split.labels
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomRotation(15, transforms.InterpolationMode.BILINEAR),
                transforms.RandomAffine(0, translate=(1 / 8, 1 / 8)),
                transforms.ToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images[index]), self.labels[index]


def straightforward(task: Task) -> Callable[[], None]:
    """One call is one pass over the data."""
    device, config = torch.device(task.device), task.config()
    model = task.model().to(device)
    loader = DataLoader(Pictures(task.data()), batch_size=task.batch, shuffle=True)
    settings = config.training
    optimizer = torch.optim.SGD(model.parameters(), settings.lr, settings.momentum, weight_decay=settings.weight_decay)
    alpha, weight = 2.5 * EPS / task.steps, settings.adversarial_weight

    def epoch() -> None:
        for images, labels in loader:
            x, y = images.to(device), labels.to(device)
            model.eval()
            attacked = (x + EPS * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
            for _ in range(task.steps):
                attacked = attacked.detach().requires_grad_(True)
                functional.cross_entropy(model(attacked), y).backward()
                assert attacked.grad is not None
                moved = attacked.detach() + alpha * attacked.grad.sign()
                attacked = torch.minimum(torch.maximum(moved, x - EPS), x + EPS).clamp(0, 1)
            model.train()
            optimizer.zero_grad()
            adversarial, clean = model(torch.cat([attacked, x])).chunk(2)
            loss = weight * functional.cross_entropy(adversarial, y) + (1 - weight) * functional.cross_entropy(clean, y)
            loss.backward()
            optimizer.step()
            loss.item()

    return epoch


def ours(task: Task) -> Callable[[], None]:
    """One call is one pass over the data."""
    config = task.config()
    device = prepare_device(config)
    torch.set_num_threads(task.threads)
    plan, model = schedules(config), place(task.model(), device, config.compute)
    split = task.data().to(device)
    learner = Learner(model, config, plan, config.pruning.build(model, tuple(split.images.shape[1:])))

    def epoch() -> None:
        train_epoch(learner, split, plan, 0)

    return epoch
