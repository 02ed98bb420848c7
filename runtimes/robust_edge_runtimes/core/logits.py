"""What logits say about single images."""

from __future__ import annotations

import numpy as np


def is_right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) bool: the largest logit is the label's; a row with NaN or infinity is never right."""
    right: np.ndarray = (logits.argmax(1) == labels) & np.isfinite(logits).all(axis=1)
    return right
