"""The training loop itself: attack, loss, gradient, step, projection."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from robust_edge.attacks.pgd import Pgd
from robust_edge.config.compress import CompressConfig
from robust_edge.data import Source
from robust_edge.data.augment import augment
from robust_edge.models import Normalized
from robust_edge.parallel.ranks import Ranks
from robust_edge.parallel.rows import Rows, share_rows
from robust_edge.pruning import admm
from robust_edge.pruning.mask import apply_mask, hard_prune
from robust_edge.pruning.prunable import prunable_parameters, sparsity_of
from robust_edge.pruning.schemes.scheme import Scheme
from robust_edge.training import awp
from robust_edge.training.averaging import moving_average
from robust_edge.training.batchnorm import batchnorms
from robust_edge.training.forward import Forward
from robust_edge.training.losses import BatchLoss, attack_batch, batch_loss
from robust_edge.training.randomness import Randomness
from robust_edge.training.schedules import Schedules
from robust_edge.training.synchrony import LEAST_IMAGES, Share, total

BatchProgress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class EpochResult:
    """Averages over the epoch's training images, and the state at its end.

    Attributes:
        loss: what was minimised, without the ADMM penalty.
        clean_loss: cross-entropy on the augmented clean images.
        adversarial_loss: the same on the attacked ones.
        clean_accuracy: on the augmented clean images, in training mode.
        robust_accuracy: the same on the attacked ones.
        primal_residual: ‖θ − θ'‖ / ‖θ‖; 0 in the masked phase.
        dual_residual: ρ‖θ'_t − θ'_{t−1}‖ / ‖θ'_t‖.
    """

    loss: float
    clean_loss: float
    adversarial_loss: float
    clean_accuracy: float
    robust_accuracy: float
    nonzero: int
    rho: float
    primal_residual: float
    dual_residual: float


@dataclasses.dataclass(frozen=True, eq=False)
class EpochPart:
    """An epoch that was left between two batches.

    Attributes:
        batches: how many are done.
        sums: of their figures, over all ranks.
        random: for each rank, where its generators stand.
    """

    batches: int
    sums: Tensor
    random: list[dict[str, Tensor]]


class Learner:
    """The network and everything that changes with it: optimiser, ADMM state, masks, running mean.

    Args:
        model: on its device.
        config: what to do.
        plan: the schedules.
        scheme: the sparsity set, built for the network; None builds one that does not need the shape of an image.

    Attributes:
        average: the running mean of the weights; None where none is kept.
        awp: whether weights are still perturbed; False once that has diverged.
        forward: how training calls the network.
        momenta: of the batch-norm layers, as the network came with them.
        ranks: the processes that train the same network, each on its part of every batch.
    """

    def __init__(
        self,
        model: Normalized,
        config: CompressConfig,
        plan: Schedules,
        scheme: Scheme | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self.ranks = ranks or Ranks()
        self.forward = Forward(model, config.compute)
        self.weights = prunable_parameters(model)
        self.scheme = config.pruning.build(model, ()) if scheme is None else scheme
        training = config.training
        self.optimizer = torch.optim.SGD(
            model.parameters(), training.lr, training.momentum, weight_decay=training.weight_decay
        )
        self.masks: dict[str, Tensor] | None = None
        self.admm: admm.AdmmState | None = None
        if config.sparse:
            self.admm = admm.init(self.weights, self.scheme.project, plan.keep[0], config.admm.rho)
        self.average = self._moving_average()
        self.awp = config.awp.gamma > 0
        self.momenta = {layer: layer.momentum for layer in batchnorms(model) if layer.momentum is not None}

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next(self.model.parameters()).device

    def candidate(self) -> Normalized:
        """The network to judge and to write: the mean of the weights if one is kept, else the weights themselves."""
        return self.model if self.average is None else cast(Normalized, self.average.module.eval())

    def state(self) -> dict[str, Any]:
        """Plain containers and tensors, for `torch.load(weights_only=True)`."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "masks": self.masks,
            "admm": None if self.admm is None else dataclasses.asdict(self.admm),
            "average": None if self.average is None else self.average.state_dict(),
            "awp": self.awp,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` saved."""

        def moved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor.to(self.device) for name, tensor in tensors.items()}

        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.masks = None if state["masks"] is None else moved(state["masks"])
        self.admm = None
        if state["admm"] is not None:
            saved = {
                **state["admm"],
                "target": moved(state["admm"]["target"]),
                "dual": moved(state["admm"]["dual"]),
            }
            self.admm = admm.AdmmState(**saved)
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.awp = state["awp"]

    def prune(self, keep: float) -> None:
        """The hard projection: weights onto S, momentum and ADMM state dropped, mask fixed, the mean begun anew."""
        support = self.scheme.support(self.weights, keep)
        support |= self.scheme.support_beside(support)
        self.masks = hard_prune(self._named(support), support)
        self.admm = None
        self.optimizer.state.clear()
        self.average = self._moving_average()

    def violation(self, written: Mapping[str, Tensor], keep: float) -> str | None:
        """What keeps the weights of a file from lying in S; None where they do."""
        if self.masks is None:
            return "nothing was pruned"
        support = {name: self.masks[name].cpu() != 0 for name in self.weights}
        for name, kept in support.items():
            if torch.count_nonzero(written[name].masked_fill(kept, 0)):
                return f"{name} has weights off its mask"
        return self.scheme.violation(support, keep)

    def _moving_average(self) -> AveragedModel | None:
        decay = self.config.averaging.decay
        return moving_average(self.model, decay) if decay > 0 else None

    def _moving(self) -> dict[str, nn.Parameter]:
        """The weights that training may move; one that no image reaches has no gradient of the loss, which is zero."""
        moving = {name: weight for name, weight in self.weights.items() if weight.requires_grad}
        for weight in moving.values():
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        return moving

    def _named(self, names: Iterable[str]) -> dict[str, nn.Parameter]:
        return {name: self.model.get_parameter(name) for name in names}

    def update(self, keep: float, count: int) -> None:
        """One optimiser step with what the sparsity constraint adds to it."""
        if self.admm is not None:
            admm.add_penalty_gradient(self.admm, self._moving())
        self.optimizer.step()
        if self.masks is not None:
            apply_mask(self._named(self.masks), self.masks)
        if self.average is not None:
            self.average.update_parameters(self.model)
        settings = self.config.admm
        if self.admm is not None and count % settings.interval == 0:
            self.admm = admm.step(
                self.admm,
                self.weights,
                self.scheme.project,
                keep,
                rho_growth=settings.rho_growth,
                rho_max=settings.rho_max,
            )


def never() -> bool:
    """Nobody asks to stop."""
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

    All randomness follows from the seed and the epoch; several ranks draw the same and use their part of it.

    Args:
        learner: changed in place.
        source: gives batches on the learner's device.
        plan: the schedules.
        epoch: from 0.
        progress: called with (batches done, batches in all, text).
        part: go on after it, with a learner as it was then; None begins the epoch.
        stop: asked between two batches; the epoch is left where it says yes.

    Returns:
        The epoch's result, or the part that was done.
    """
    config, ranks = learner.config, learner.ranks
    random = Randomness(config.seed, epoch, learner.device, ranks.rank)
    for group in learner.optimizer.param_groups:
        group["lr"] = plan.lr[epoch]
    if epoch >= plan.masked_from and learner.masks is None:
        learner.prune(plan.keep[epoch])
    attack = Pgd(eps=plan.eps[epoch], steps=plan.steps[epoch], step_size=config.attack.step_size)
    order = torch.randperm(len(source), generator=random.generator)
    batches = _batches(order, config.training.batch_size, LEAST_IMAGES * ranks.world)
    shares = [share_rows(len(batch), ranks.rank, ranks.world) for batch in batches]
    own = [batch[rows.first : rows.last] for batch, rows in zip(batches, shares, strict=True)]
    done, sums, seen = 0, torch.zeros(5, dtype=torch.float64), 0
    if part is not None:
        done = part.batches
        random.load_state(part.random[min(ranks.rank, len(part.random) - 1)])
        if ranks.writes:
            sums, seen = part.sums.clone(), sum(map(len, batches[:done]))
    phase_start = plan.masked_from if learner.masks is not None else 0
    learner.model.train()
    turns = zip(shares[done:], source.batches(own[done:]), strict=True)
    for count, (rows, (pixels, labels)) in enumerate(turns, done + 1):
        images = augment(pixels, config.data.augment, random.generator, rows)  # line 2
        learner.forward.settled = _adapt_batchnorm(learner.momenta, (epoch - phase_start) * len(batches) + count)
        sums += _train_batch(learner, images, labels, attack, random.noise, rows, epoch)
        learner.update(plan.keep[epoch], epoch * len(batches) + count)
        seen += len(labels)
        if progress is not None:
            progress(count, len(batches), f"loss {float(sums[0]) / seen:.3f}")
        if count < len(batches) and stop():
            return EpochPart(count, total(sums, ranks), ranks.gather(random.state()))
    return _result(learner, total(sums, ranks) / len(source))


def _batches(order: Tensor, size: int, least: int) -> list[Tensor]:
    """Slices of `order`; a last one of fewer than `least` joins its neighbour, for batch-norm cannot train on one."""
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) < least:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _adapt_batchnorm(momenta: Mapping[_BatchNorm, float], seen: int) -> bool:
    """Let running statistics average the first batches of a phase instead of remembering what was before.

    Their start at 0 and 1, and the statistics before the hard projection, belong to another network; the attack
    uses them from the first batch on.

    Returns:
        Whether every layer has its own momentum again.
    """
    for layer, own in momenta.items():
        layer.momentum = max(own, 1 / seen)
    return all(1 / seen <= own for own in momenta.values())


def _train_batch(
    learner: Learner, images: Tensor, labels: Tensor, attack: Pgd, noise: torch.Generator, rows: Rows, epoch: int
) -> Tensor:
    """Gradient of one batch; returns sums of loss, clean and adversarial loss, clean and adversarial hits."""
    model, config, share = learner.forward, learner.config, Share(len(rows) / rows.total, learner.ranks)
    attacked = attack_batch(model, images, labels, attack, noise, config.training, rows)  # lines 3-5
    learner.optimizer.zero_grad(set_to_none=True)

    def loss_of() -> BatchLoss:
        return batch_loss(model, images, attacked, labels, config.training)

    if learner.awp and epoch >= config.awp.warmup:
        settings = config.awp
        loss, learner.awp = awp.backward(
            model,
            learner.weights,
            loss_of,
            gamma=settings.gamma,
            abort=settings.abort,
            masks=learner.masks,
            share=share,
        )
    else:
        loss = loss_of()
        loss.total.backward()
    share.average(model)
    return loss.figures.double().cpu() * len(labels)


def _result(learner: Learner, means: Tensor) -> EpochResult:
    loss, clean_loss, adversarial_loss, clean, robust = means.tolist()
    state = learner.admm
    gap = admm.residuals(state, learner.weights) if state is not None else admm.Residuals(0.0, 0.0)
    return EpochResult(
        loss=loss,
        clean_loss=clean_loss,
        adversarial_loss=adversarial_loss,
        clean_accuracy=clean,
        robust_accuracy=robust,
        nonzero=sparsity_of(learner.weights).nonzero,
        rho=0.0 if state is None else state.rho,
        primal_residual=gap.primal,
        dual_residual=gap.dual,
    )
