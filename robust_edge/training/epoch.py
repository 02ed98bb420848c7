"""One epoch of training: attack, loss, gradient, optimiser step, projection."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from robust_edge.attacks.pgd import Pgd
from robust_edge.data import Source
from robust_edge.data.augment import augment
from robust_edge.parallel.ranks import Ranks
from robust_edge.parallel.rows import Rows, share_rows
from robust_edge.pruning import admm
from robust_edge.training import awp
from robust_edge.training.batchnorm import follow_batch
from robust_edge.training.learner import Learner
from robust_edge.training.losses import BatchLoss, attack_batch, batch_loss
from robust_edge.training.randomness import Randomness
from robust_edge.training.schedules import Schedules, learning_rate
from robust_edge.training.synchrony import LEAST_IMAGES, RankShare, sum_over_ranks
from robust_edge_exporters.weight_uses import sparsity_of
from robust_edge_runtimes.attacks.threat import Threat

BatchProgress = Callable[[int, int, str], None]
FIGURES = 6
"""The number of `BatchLoss.figures`."""
REPORT_SECONDS = 0.2
"""Between two calls of `progress` on a GPU, each of which waits for it; the last batch is always reported."""


@dataclasses.dataclass(frozen=True)
class EpochResult:
    """Averages over the epoch's training images, and the state at its end.

    Attributes:
        loss: the minimised loss, without the ADMM penalty.
        clean_loss: cross-entropy on the augmented clean images of the batches whose loss has a clean term; None if none
            has.
        adversarial_loss: the same on the attacked ones.
        clean_accuracy: on the same images, in training mode.
        robust_accuracy: the same on all attacked ones.
        primal_residual: ‖θ − θ'‖ / ‖θ‖; 0 in the masked phase.
        dual_residual: ρ‖θ'_t − θ'_{t−1}‖ / ‖θ'_t‖.
    """

    loss: float
    clean_loss: float | None
    adversarial_loss: float
    clean_accuracy: float | None
    robust_accuracy: float
    nonzero: int
    rho: float
    primal_residual: float
    dual_residual: float


@dataclasses.dataclass(frozen=True, eq=False)
class EpochPart:
    """An epoch that was interrupted between two batches.

    Attributes:
        batches: number of finished batches.
        sums: (6,) sums of `BatchLoss.figures` over their images, over all ranks.
        random: the state of each rank's random generators.
    """

    batches: int
    sums: Tensor
    random: list[dict[str, Tensor]]


def never() -> bool:
    """The default of `stop`: do not interrupt."""
    return False


def train_epoch(
    learner: Learner,
    source: Source,
    plan: Schedules,
    epoch: int,
    progress: BatchProgress | None = None,
    *,
    part: EpochPart | None = None,
    stop: Callable[[], bool] = never,
) -> EpochResult | EpochPart:
    """One pass over the training images; Algorithm 1, lines 2 to 8.

    Random numbers depend only on the seed and the epoch. All ranks draw them for whole batches and use those of their
    own images.

    Args:
        learner: changed in place.
        source: the training images, in batches on the learner's device.
        plan: the schedules.
        epoch: number of the epoch, from 0.
        progress: called with (batches done, batches in the epoch, text).
        part: the interrupted epoch to continue; the learner must have the state that it had then.
        stop: called between two batches; returns True to interrupt the epoch.

    Returns:
        The result of the epoch, or the finished part if it was interrupted.
    """
    config, ranks = learner.config, learner.ranks
    random = Randomness(config.seed, epoch, learner.device, ranks.rank)
    if epoch >= plan.masked_from and learner.masks is None:
        learner.prune(plan.keep[epoch])
    if plan.admm_from <= epoch < plan.masked_from:
        learner.begin_admm(
            plan.keep[epoch],
            plan.masked_from - plan.admm_from,
            batch_count(len(source), config.training.batch_size, ranks),
        )
    if epoch >= plan.quantized_from and part is None:
        learner.quantize(source)
    attack = config.attack.pgd(plan.steps[epoch])
    threat = Threat(plan.eps[epoch])
    order = torch.randperm(len(source), generator=random.generator)
    batches = _batches(order, config.training.batch_size, LEAST_IMAGES * ranks.world)
    shares = [share_rows(len(batch), ranks.rank, ranks.world) for batch in batches]
    own = [batch[rows.first : rows.last] for batch, rows in zip(batches, shares, strict=True)]
    done, sums, seen = 0, torch.zeros(FIGURES, dtype=torch.float64, device=learner.device), 0
    if part is not None:
        done = part.batches
        random.load_state(part.random[min(ranks.rank, len(part.random) - 1)])
        if ranks.writes:
            sums, seen = part.sums.to(learner.device, copy=True), sum(map(len, batches[:done]))
    shown = 0.0
    phase_start = plan.masked_from if learner.masks is not None else 0
    learner.train_mode()
    remaining = zip(shares[done:], source.batches(own[done:]), strict=True)
    for count, (rows, (pixels, labels)) in enumerate(remaining, done + 1):
        step = epoch * len(batches) + count  # of the run, from 1
        images = augment(pixels, config.data.augment, random.generator, rows)  # line 2
        middle = (count - 0.5) / len(batches)  # of the batch, as a part of the epoch
        for group in learner.optimizer.param_groups:
            group["lr"] = learning_rate(plan, config.training, epoch, middle)
        learner.forward.settled = _adapt_batchnorm(learner.momenta, (epoch - phase_start) * len(batches) + count)
        sums += _train_batch(learner, images, labels, attack, threat, random.noise, rows, epoch + middle, step)
        learner.update(plan.keep[epoch], step, epoch + count / len(batches))
        seen += len(labels)
        free = count == len(batches) or sums.device.type == "cpu"
        if progress is not None and (free or time.monotonic() >= shown + REPORT_SECONDS):
            progress(count, len(batches), f"loss {float(sums[0]) / seen:.3f}")  # waits for a GPU
            shown = time.monotonic()
        if count < len(batches) and stop():
            return EpochPart(count, sum_over_ranks(sums.cpu(), ranks), ranks.gather(random.state()))
    return _result(learner, sum_over_ranks(sums.cpu(), ranks), len(source))


def batch_count(images: int, size: int, ranks: Ranks) -> int:
    """The number of batches of an epoch, for a number of training images and a batch size."""
    return len(_batches(torch.arange(images), size, LEAST_IMAGES * ranks.world))


def _batches(order: Tensor, size: int, least: int) -> list[Tensor]:
    """Split `order` into batches; a last batch of fewer than `least` images is merged with the one before it.

    Batch norm needs two images on every rank.
    """
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) < least:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _adapt_batchnorm(momenta: Mapping[_BatchNorm, float], seen: int) -> bool:
    """Set the momenta so that the running statistics are the mean over the batches, at the start of a phase.

    The attack uses the running statistics from the first batch on, but neither their initial values, 0 and 1, nor those
    from before the hard projection describe the present network.

    Args:
        momenta: the momentum that the architecture sets, by layer.
        seen: number of batches of this phase, including the present one.

    Returns:
        Whether all layers have the momentum of the architecture again.
    """
    for layer, own in momenta.items():
        layer.momentum = max(own, 1 / seen)
    return all(1 / seen <= own for own in momenta.values())


def _train_batch(
    learner: Learner,
    images: Tensor,
    labels: Tensor,
    attack: Pgd,
    threat: Threat,
    noise: torch.Generator,
    rows: Rows,
    place: float,
    step: int,
) -> Tensor:
    """Compute the gradients of a step of the run; return `BatchLoss.figures` times the number of this rank's images.

    The figures stay on the device, so that nothing waits for it.
    """
    model, config, share = learner.forward, learner.config, RankShare(len(rows) / rows.total, learner.ranks)
    with model.attacked() as target:
        attacked = attack_batch(target, images, labels, attack, threat, noise, config.training, rows)  # lines 3-5
    learner.optimizer.zero_grad(set_to_none=True)
    if model.simulation is not None:
        follow_batch(learner.model, images if attacked is None else torch.cat([images, attacked]))
        share.average(learner.model)  # there are no gradients yet: all ranks compute with the same statistics

    def loss_of() -> BatchLoss:
        return batch_loss(model, images, attacked, labels, config.training, step - 1)

    if learner.awp and config.awp.active(place, config.training.epochs):
        settings = config.awp
        loss, learner.awp = awp.backward(
            learner.model,
            learner.weights,
            loss_of,
            gamma=settings.gamma,
            abort=settings.abort,
            masks=learner.masks or learner.pruning.held,
            share=share,
        )
    else:
        loss = loss_of()
        loss.total.backward()
    share.average(model)
    return loss.figures.double() * len(labels)


def _result(learner: Learner, sums: Tensor, images: int) -> EpochResult:
    loss, clean_loss, adversarial_loss, clean, robust, with_clean = sums.tolist()
    state = learner.admm
    residuals = admm.residuals(state, learner.weights) if state is not None else admm.Residuals(0.0, 0.0)
    return EpochResult(
        loss=loss / images,
        clean_loss=clean_loss / with_clean if with_clean else None,
        adversarial_loss=adversarial_loss / images,
        clean_accuracy=clean / with_clean if with_clean else None,
        robust_accuracy=robust / images,
        nonzero=sparsity_of(learner.weights).nonzero,
        rho=0.0 if state is None else state.rho,
        primal_residual=residuals.primal,
        dual_residual=residuals.dual,
    )
