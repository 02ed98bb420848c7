"""The interface of all schemes: which weights are kept, and whether a support lies in the sparsity set."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from robust_edge.pruning.prunable import budget_of
from robust_edge.settings.setting import check, setting

Weights = Mapping[str, Tensor]
"""Weight tensors by layer name, in order of depth."""

Support = Mapping[str, Tensor]
"""Bool tensors by layer name, shaped like the weights: True where a weight may be non-zero."""

HISTOGRAM_FROM = 2**17
"""The number of scores from which a histogram is faster than a selection."""

Projection = Callable[[Weights, float], dict[str, Tensor]]
"""Maps (weights, keep) to new tensors: the nearest point of the sparsity set."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheme(abc.ABC):
    """A pruning scheme: a sparsity set S for every kept fraction.

    A support is the set of weights that may be non-zero. Weights lie in S if all their non-zeros belong to an allowed
    support. A scheme chooses a support and checks its constraint on supports; a kept weight may be zero and is still
    trained.

    A subclass is a frozen dataclass. Its fields declared with `setting` are the scheme's settings, in section `pruning`
    of a config; all other fields depend on the network and are set by `build`.
    """

    def __post_init__(self) -> None:
        check(self, "pruning")

    def build(self, model: nn.Module, shape: tuple[int, ...], keep: float) -> Scheme:
        """Return the scheme with the properties of one network that it needs.

        Args:
            model: the network to prune, left as it was.
            shape: (C, H, W) of one image.
            keep: the kept fraction at the end of the run.
        """
        return self

    def support(self, weights: Weights, keep: float) -> dict[str, Tensor]:
        """The support of the nearest point of S, after a check by `violation`.

        Raises:
            InputError: S is empty for this network and `keep`.
        """
        finite = {name: weight.detach().nan_to_num() for name, weight in weights.items()}  # a loss that diverged
        support = self.support_impl(finite, keep)
        problem = self.violation(support, keep)
        assert problem is None, problem
        return support

    def project(self, weights: Weights, keep: float) -> dict[str, Tensor]:
        """New tensors: the weights inside the support, zero elsewhere."""
        return masked(weights, self.support(weights, keep))

    def support_beside(self, support: Support) -> dict[str, Tensor]:
        """Masks of other parameters that must be zero, too, by name: biases and batch-norm parameters of removed
        channels.
        """
        return {}

    @property
    def dense_layers(self) -> tuple[str, ...]:
        """Names of the layers that the scheme does not apply to and leaves dense."""
        return ()

    def violation(self, support: Support, keep: float) -> str | None:
        """An error message if the support is not allowed by the constraint; None if it is."""
        kept, budget = kept_in(support), budget_of(support, keep)
        return None if kept == budget else f"{kept} weights are kept; keep {keep:g} requires {budget}"

    @abc.abstractmethod
    def support_impl(self, weights: Weights, keep: float) -> dict[str, Tensor]:
        """Choose the support of the nearest point; the weights are detached."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlooredScheme(Scheme):
    """A scheme that keeps at least a given fraction of every layer."""

    floor: float | None = setting(
        None,
        "fraction of each layer's weights (or filters) that is always kept; null uses a quarter of keep",
        range="[0, 1]",
        noun="a fraction",
    )

    def floor_at(self, keep: float) -> float:
        """The floor at a kept fraction, in [0, 1]."""
        return keep / 4 if self.floor is None else self.floor

    @property
    def least(self) -> float:
        """The floor that `build` has set; 0 before."""
        return self.floor or 0.0


def masked(weights: Weights, support: Support) -> dict[str, Tensor]:
    """New tensors: the weights inside the support, zero elsewhere."""
    return {n: torch.where(support[n], weight.detach(), torch.zeros_like(weight)) for n, weight in weights.items()}


def kept_in(support: Support) -> int:
    """Number of weights that a support keeps."""
    return int(torch.stack([mask.sum() for mask in support.values()]).sum())


def kept_per_layer(support: Support) -> dict[str, int]:
    """Number of weights that a support keeps in each layer."""
    counts = torch.stack([mask.sum() for mask in support.values()]).tolist()
    return dict(zip(support, counts, strict=True))


def largest(weight: Tensor, count: int) -> Tensor:
    """Bool tensor of the `count` entries of largest magnitude; ties go to the first positions."""
    return highest(weight.abs(), count)


def highest(scores: Tensor, count: int) -> Tensor:
    """Bool tensor of the `count` highest scores; ties go to the first positions.

    Finds the lowest chosen score and compares all scores with it, which takes a tenth of the time of sorting.
    """
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    lowest = lowest_of_highest(scores.flatten(), count)
    kept = (scores > lowest).contiguous()  # contiguous, also if the scores are channels_last
    ties = (scores == lowest).flatten().nonzero().flatten()
    kept.view(-1)[ties[: count - int(kept.sum())]] = True
    return kept


def lowest_of_highest(scores: Tensor, count: int) -> Tensor:
    """The lowest of the `count` highest scores, exactly; `scores` has one axis, `count` is at least 1.

    The bits of non-negative floats are ordered as the floats are, so a histogram of their upper half leaves only the
    scores of one bin to select from: a fifth of the time of a selection from 11 million.
    """
    if len(scores) < HISTOGRAM_FROM or scores.dtype != torch.float32 or bool((scores < 0).any()):
        return scores.topk(count, sorted=False).values.min()
    bins = scores.contiguous().view(torch.int32) >> 16
    above = torch.bincount(bins, minlength=2**15).flip(0).cumsum(0)  # of a bin and all higher ones, highest first
    place = int((above < count).sum())
    before = int(above[place - 1]) if place else 0
    return scores[bins == 2**15 - 1 - place].topk(count - before, sorted=False).values.min()
