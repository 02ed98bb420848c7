"""Which epoch's network is kept: judged by PGD on held-out training images."""

from __future__ import annotations

import copy
import dataclasses
import math

from torch import Tensor

from robust_edge.attacks.pgd import Pgd
from robust_edge.config.compress import CompressConfig
from robust_edge.data import Split
from robust_edge.evaluation.accuracy import evaluate_pgd
from robust_edge.models import Normalized


@dataclasses.dataclass(frozen=True, eq=False)
class Kept:
    """A network worth going back to.

    Attributes:
        epoch: after which it was judged, counted from 1.
        final: whether it meets the sparsity constraint, so that it may end the run.
        clean: accuracy on the held-out images.
        robust: the same under PGD at the run's full radius.
        tensors: its state dict, on the CPU and its own.
    """

    epoch: int
    final: bool
    clean: float
    robust: float
    tensors: dict[str, Tensor]

    def network(self, like: Normalized) -> Normalized:
        """The network itself, on the device of `like`, in evaluation mode."""
        network = copy.deepcopy(like)
        network.load_state_dict(self.tensors)
        return network.eval()


def judge(network: Normalized, held_out: Split, config: CompressConfig, *, epoch: int, final: bool) -> Kept:
    """Attack the held-out images; the same random starts at every epoch."""
    attack = Pgd(eps=config.attack.eps, steps=config.selection.steps)
    result = evaluate_pgd(network, held_out, attack, seed=config.seed)
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    return Kept(epoch, final, result.clean.value, result.robust.value, tensors)


def due(config: CompressConfig, epoch: int) -> bool:
    """Whether an epoch, counted from 0, is to be judged."""
    settings, last = config.selection, config.training.epochs - 1
    return settings.held_out > 0 and (epoch == last or (epoch + 1) % settings.every == 0)


def better(kept: Kept | None, found: Kept, guessing: float) -> Kept:
    """The one to keep; of equals the later one.

    A network that only guesses never replaces one that does not; else one that meets the constraint replaces one
    that does not.

    Args:
        kept: of earlier epochs.
        found: of this one.
        guessing: up to which accuracy a network only guesses.
    """

    def rank(network: Kept) -> tuple[bool, bool, float, float]:
        return network.robust > guessing, network.final, network.robust, network.clean

    return found if kept is None or rank(found) >= rank(kept) else kept


def guessing_limit(classes: int, images: int) -> float:
    """Two standard deviations above the accuracy of guessing."""
    chance = 1 / classes
    return chance + 2 * math.sqrt(chance * (1 - chance) / images)
