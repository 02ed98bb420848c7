"""What the logits of a torch network say about single images; the counterpart of numpy's in the runtimes package."""

from __future__ import annotations

import torch
from torch import Tensor


def classes_of(logits: Tensor) -> Tensor:
    """(N,) the class of the largest logit; −1 for a row with NaN or infinity, which is never right."""
    largest = logits.argmax(1)
    return torch.where(logits.isfinite().all(1), largest, torch.full_like(largest, -1))


def is_right(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) bool: the largest logit is the label's; a row with NaN or infinity is never right."""
    return classes_of(logits) == labels


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) logit of the true class minus the largest other logit; below 0 the image is wrong."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -float("inf")).amax(1)
    return true - others
