"""Select the best network of all epochs by PGD accuracy on held-out training images."""

from __future__ import annotations

import copy
import dataclasses
import math

from torch import Tensor

from robust_edge.attacks.pgd import Pgd
from robust_edge.config.compress import CompressConfig
from robust_edge.data import Split
from robust_edge.evaluation.accuracy import accuracy_of, attack_split
from robust_edge.models import Normalized
from robust_edge.models.state_dict import with_versions
from robust_edge.training.schedules import Schedules, schedules
from robust_edge_runtimes.attacks.threat import Threat


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot:
    """A copy of the network after an epoch, with its accuracies on the held-out images.

    Attributes:
        epoch: the epoch after which it was copied, counted from 1.
        final: whether it satisfies the sparsity constraint and may become the checkpoint.
        clean: accuracy on the held-out images.
        robust: the same under PGD at the run's full radius.
        tensors: a copy of its state dict on the CPU.
        ranges: with which it was trained to compute in 8 bits; None if it was not.
    """

    epoch: int
    final: bool
    clean: float
    robust: float
    tensors: dict[str, Tensor]
    ranges: dict[str, tuple[float, float]] | None = None

    def network(self, like: Normalized) -> Normalized:
        """The network in evaluation mode, with the architecture and on the device of `like`."""
        network = copy.deepcopy(like)
        network.load_state_dict(with_versions(network, self.tensors))
        return network.eval()


def evaluate_held_out(
    network: Normalized, held_out: Split, config: CompressConfig, *, epoch: int, final: bool
) -> Snapshot:
    """Evaluate a network under PGD on the held-out images, with the same random starts in every epoch."""
    attack, threat = Pgd(steps=config.selection.steps, restarts=1), Threat(config.attack.eps)
    attacked = attack_split(network, held_out, attack, threat, seed=config.seed)
    clean, robust = accuracy_of(attacked.clean), accuracy_of(attacked.robust)
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    return Snapshot(epoch, final, clean.value, robust.value, tensors)


def is_due(config: CompressConfig, epoch: int) -> bool:
    """Whether the network is evaluated after this epoch, counted from 0."""
    settings, last = config.selection, config.training.epochs - 1
    return settings.held_out > 0 and (epoch == last or (epoch + 1) % settings.every == 0)


def is_final(config: CompressConfig, plan: Schedules, epoch: int) -> bool:
    """Whether the network after this epoch, counted from 0, may be written: in the last phase, the mask at rest."""
    first = plan.masked_from if config.training.quantize == "none" else plan.quantized_from
    return not config.sparse or (epoch >= first and config.admm.settled(epoch / config.training.epochs))


def note_on_selection(config: CompressConfig) -> str | None:
    """A note on held-out images among whose evaluations none can be chosen, since the run is too short; else None."""
    epochs, plan = config.training.epochs, schedules(config)
    due = [epoch for epoch in range(epochs) if is_due(config, epoch)]
    if not due or any(is_final(config, plan, epoch) for epoch in due):
        return None
    return (
        f"no epoch is chosen by the held-out images, and the network of epoch {epochs} is written: the mask moves "
        f"until {config.admm.regrow_until:g} of the run (admm.regrow_until), and no epoch begins after that; "
        "train for more epochs, or set admm.regrow=0"
    )


def better(best: Snapshot | None, found: Snapshot, guessing: float) -> Snapshot:
    """The better of two networks, the later one if they are equal.

    Robust accuracy above guessing comes first, then the sparsity constraint, robust accuracy, and clean accuracy.

    Args:
        best: the best of earlier epochs.
        found: the network of this epoch.
        guessing: the highest accuracy that counts as chance level, from `guessing_limit`.
    """

    def rank(network: Snapshot) -> tuple[bool, bool, float, float]:
        return network.robust > guessing, network.final, network.robust, network.clean

    return found if best is None or rank(found) >= rank(best) else best


def guessing_limit(classes: int, images: int) -> float:
    """The accuracy of guessing plus two standard deviations, for this number of images."""
    chance = 1 / classes
    return chance + 2 * math.sqrt(chance * (1 - chance) / images)
