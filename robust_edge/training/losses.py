"""The loss on one batch, and the attack that belongs to it.

`adversarial`: Marshall 2020, section 3.1, 0.9 and 0.1 of the cross-entropies on attacked and on clean images. Clean
images that the loss does not depend on are not computed.
`trades`: Zhang 2019, Eq. (5), cross-entropy on clean images and β·KL(clean ‖ attacked), whose attack maximises that
divergence. `nuclear`: Sriramanan 2021 (NU-AT), cross-entropy on clean images and β times the nuclear norm of the
difference of clean and attacked logits, divided by the number of images; its attack maximises the cross-entropy on
attacked images and the same term. Label smoothing changes the loss only, neither the attack nor the reported
cross-entropies.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_edge.attacks.logits import is_right
from robust_edge.attacks.pgd import Pgd, craft, cross_entropy
from robust_edge.config.training import TrainingConfig
from robust_edge.parallel.rows import Rows
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.errors import InputError

TRADES, NUCLEAR = "trades", "nuclear"


@dataclasses.dataclass(frozen=True, eq=False)
class BatchLoss:
    """The loss on one batch.

    Attributes:
        total: the loss to minimise, with its autograd graph.
        figures: (6,) detached means over the images: total loss, cross-entropy on clean and on attacked images without
            smoothing, accuracy on clean and on attacked images; and 1, or 0 if clean images were not computed, whose
            figures are 0 then.
    """

    total: Tensor
    figures: Tensor


def attack_batch(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Pgd,
    threat: Threat,
    generator: torch.Generator,
    settings: TrainingConfig,
    rows: Rows | None = None,
) -> Tensor | None:
    """Attack a batch with the model in evaluation mode; None for ε = 0. Arguments as for `craft`."""
    if threat.eps == 0:
        return None
    if settings.loss not in (TRADES, NUCLEAR):
        return craft(model, images, labels, attack, threat, generator, rows=rows)
    with torch.no_grad(), evaluation_mode(model):
        clean = model(images)
    reference = functional.log_softmax(clean, 1)

    def raised(logits: Tensor, targets: Tensor) -> Tensor:
        if settings.loss == TRADES:
            return _divergence(reference, logits)
        return cross_entropy(logits, targets) + settings.beta * _nuclear(logits - clean)

    return craft(model, images, labels, attack, threat, generator, raised, rows)


def check_ranks(settings: TrainingConfig, world: int) -> None:
    """Raise InputError for a loss that is not a mean over images, where several processes share a batch."""
    if settings.loss == NUCLEAR and world > 1:
        raise InputError(
            f"training.loss=nuclear takes a norm over all logits of a batch, which {world} ranks do not have together; "
            "train with one process, or set training.loss to adversarial or trades"
        )


def has_clean_term(settings: TrainingConfig, count: int = 0) -> bool:
    """Whether the loss of batch `count`, counted from 0, depends on the clean images."""
    if settings.loss in (TRADES, NUCLEAR):
        return True
    return settings.adversarial_weight < 1 and count % settings.clean_interval == 0


def batch_loss(
    model: nn.Module,
    images: Tensor,
    attacked: Tensor | None,
    labels: Tensor,
    settings: TrainingConfig,
    count: int = 0,
) -> BatchLoss:
    """Compute the loss in the model's present mode, with clean and attacked images in one batch.

    Args:
        model: raw pixels to logits.
        images: (N, C, H, W) in [0, 1].
        attacked: of the same shape, or None for training without an adversary.
        labels: (N,) int64.
        settings: loss, its weights, and smoothing.
        count: number of the batch in the run, from 0; every `clean_interval`-th has the clean term, with as much more
            weight.
    """
    smoothing = settings.label_smoothing
    if attacked is None:
        logits = model(images)
        total = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        return BatchLoss(total, _figures(total, logits, logits, labels))
    if not has_clean_term(settings, count):
        adversarial = model(attacked)
        loss = functional.cross_entropy(adversarial, labels, label_smoothing=smoothing)
        total = settings.adversarial_weight * loss
        return BatchLoss(total, _figures(total, None, adversarial, labels))
    adversarial, clean = model(torch.cat([attacked, images])).chunk(2)
    clean_loss = functional.cross_entropy(clean, labels, label_smoothing=smoothing)
    if settings.loss == TRADES:
        reference = functional.log_softmax(clean, 1)
        total = clean_loss + settings.beta * _divergence(reference, adversarial) / len(labels)
    elif settings.loss == NUCLEAR:
        total = clean_loss + settings.beta * _nuclear(adversarial - clean) / len(labels)
    else:
        weight = settings.adversarial_weight
        adversarial_loss = functional.cross_entropy(adversarial, labels, label_smoothing=smoothing)
        total = weight * adversarial_loss + (1 - weight) * settings.clean_interval * clean_loss
    return BatchLoss(total, _figures(total, clean, adversarial, labels))


def _divergence(reference: Tensor, logits: Tensor) -> Tensor:
    """KL(reference ‖ softmax(logits)), summed over the images; `reference` holds log-probabilities."""
    return functional.kl_div(functional.log_softmax(logits, 1), reference, reduction="sum", log_target=True)


def _nuclear(difference: Tensor) -> Tensor:
    """The sum of the singular values of (N, K) differences of logits."""
    norm: Tensor = torch.linalg.matrix_norm(difference, ord="nuc")
    return norm


@torch.no_grad()
def _figures(total: Tensor, clean: Tensor | None, adversarial: Tensor, labels: Tensor) -> Tensor:
    zero = torch.zeros_like(total)

    def of(logits: Tensor) -> tuple[Tensor, Tensor]:
        return functional.cross_entropy(logits, labels), is_right(logits, labels).float().mean()

    clean_loss, clean_hits = (zero, zero) if clean is None else of(clean)
    loss, hits = of(adversarial)
    return torch.stack([total.detach(), clean_loss, loss, clean_hits, hits, zero if clean is None else zero + 1])
