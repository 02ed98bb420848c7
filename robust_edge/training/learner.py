"""The network and everything that changes with it during training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from robust_edge.config.compress import CompressConfig
from robust_edge.data import Source
from robust_edge.models import Normalized
from robust_edge.parallel.ranks import Ranks
from robust_edge.pruning import loop
from robust_edge.pruning.admm import AdmmState, add_penalty_gradient
from robust_edge.pruning.mask import apply_mask
from robust_edge.pruning.moving import check_movable, move_mask
from robust_edge.pruning.parametrised import attach_effective_masks
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.pruning.schemes.scheme import Scheme
from robust_edge.training.averaging import moving_average
from robust_edge.training.batchnorm import batchnorms
from robust_edge.training.folded import folded
from robust_edge.training.forward import Forward
from robust_edge.training.schedules import Schedules


class Learner:
    """The network with its optimiser, ADMM state, masks and moving average.

    Args:
        model: the network, on its device.
        config: the settings of the run.
        plan: the schedules of the run.
        scheme: the pruning scheme, built for the network.
        ranks: the processes that train the same network, each on its part of every batch.
        held: masks of the zeros that are held from the start, as `pruning.keep_mask` asks; None for none.

    Attributes:
        pruning: scheme, ADMM state and masks.
        average: the moving average of the weights; None where `averaging.decay` is 0.
        awp: whether adversarial weight perturbation is in use; False once it has diverged.
        forward: how training calls the network.
        momenta: the momentum that the architecture sets, by batch-norm layer.
    """

    def __init__(
        self,
        model: Normalized,
        config: CompressConfig,
        plan: Schedules,
        scheme: Scheme,
        ranks: Ranks | None = None,
        *,
        held: dict[str, Tensor] | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self.ranks = ranks or Ranks()
        self.forward = Forward(model, config.compute)
        attach_effective_masks(model, prunable_parameters(model))
        if model.spec is not None and not config.compute.compile:
            self.forward.folded = folded(model, model.spec.shape)
        training, settings = config.training, config.admm
        self._frozen = batchnorms(model) if training.freeze_batchnorm else []
        for layer in self._frozen:
            layer.requires_grad_(False)
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            training.lr,
            training.momentum,
            weight_decay=training.weight_decay,
            nesterov=training.nesterov,
        )
        self.pruning = loop.PruningState(
            scheme=scheme,
            keep=config.pruning.keep,
            rho_growth=settings.rho_growth,
            rho_max=settings.rho_max,
            held=held,
        )
        if held is not None:
            loop.attach_masks(model, self.optimizer, held)
        if settings.regrow and config.sparse:
            check_movable(scheme)
        if config.sparse and plan.masked_from and not plan.admm_from:
            self.pruning = loop.begin(self.pruning, model, settings.rho, plan.keep[0])
        self.average = self._moving_average()
        self.awp = config.awp.gamma > 0
        self.momenta = {layer: layer.momentum for layer in batchnorms(model) if layer.momentum is not None}

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.model.parameters()).device

    @property
    def weights(self) -> dict[str, Tensor]:
        """The prunable weights by name, as `prunable_parameters` gives them."""
        return prunable_parameters(self.model)

    @property
    def admm(self) -> AdmmState | None:
        """θ' and u; None in the masked phase, and where nothing is pruned."""
        return self.pruning.admm

    @property
    def masks(self) -> dict[str, Tensor] | None:
        """The masks of the masked phase; None before it."""
        return self.pruning.masks

    def train_mode(self) -> None:
        """Switch the network to training mode, but frozen batch-norm layers, which use their running statistics."""
        self.model.train()
        for layer in self._frozen:
            layer.eval()

    def candidate(self) -> Normalized:
        """The network to evaluate and to write: the moving average if there is one, otherwise the trained network."""
        return self.model if self.average is None else cast(Normalized, self.average.module.eval())

    def state(self) -> dict[str, Any]:
        """The state as plain containers and tensors, which `torch.load(weights_only=True)` can read."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **self.pruning.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "awp": self.awp,
            "ranges": self.ranges,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the state that `state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.pruning = self.pruning.load_state_dict(state, self.model, self.optimizer)
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.awp = state["awp"]
        self.forward.simulation = None
        if state.get("ranges") is not None:
            from robust_edge.training.quantised import simulated  # imports the exporters

            self.forward.simulation = simulated(self.model, state["ranges"])

    @property
    def ranges(self) -> dict[str, tuple[float, float]] | None:
        """The ranges of the tensors with which the network computes in integers; None while it computes in floats."""
        return None if self.forward.simulation is None else dict(self.forward.simulation.ranges)

    def quantize(self, source: Source) -> None:
        """Train from here on with the integers of the present network; the first time, the moving average restarts."""
        from robust_edge.training.quantised import begun, in_integers  # imports the exporters

        if self.forward.simulation is None:
            if not self._frozen:
                begun(self.model, source)
            self.average = self._moving_average()
        self.forward.simulation = in_integers(self.model, source)

    def candidate_ranges(self, source: Source) -> dict[str, tuple[float, float]] | None:
        """The ranges of `candidate()` if training computes in integers, else None."""
        if self.forward.simulation is None:
            return None
        from robust_edge.training.quantised import measured  # imports the exporters

        return dict(measured(self.candidate(), source))

    def begin_admm(self, keep: float, epochs: int, batches: int) -> None:
        """Begin ADMM if that has not been done, and set the growth of ρ for `admm.rho_schedule`.

        Args:
            keep: kept fraction of the first projection.
            epochs: number of epochs of ADMM.
            batches: number of optimiser steps of an epoch.
        """
        settings = self.config.admm
        if self.admm is None:
            self.pruning = loop.begin(self.pruning, self.model, settings.rho, keep)
        if settings.rho_schedule == "window":
            growth = (settings.rho_max / settings.rho) ** (1 / max(1, epochs * batches // settings.interval))
            self.pruning = dataclasses.replace(self.pruning, rho_growth=growth)

    def prune(self, keep: float) -> None:
        """Do the hard projection onto S and set the mask; momentum, ADMM state and moving average are reset."""
        self.pruning = loop.finish(self.pruning, self.model, self.optimizer, keep=keep)
        self.average = self._moving_average()

    def violation(self, written: Mapping[str, Tensor], keep: float) -> str | None:
        """The reason why the weights of a file do not lie in S, or not in the mask; None if they do."""
        if self.masks is None:
            return "nothing was pruned"
        support = {name: self.masks[name].cpu() != 0 for name in self.weights}
        for name, kept in support.items():
            if torch.count_nonzero(written[name].masked_fill(kept, 0)):
                return f"{name} has non-zero weights outside its mask"
        if self.pruning.held is not None:  # S was checked when its support was chosen; the mask lacks the held zeros
            return None
        return self.pruning.scheme.violation(support, keep)

    def _mask_average(self) -> None:
        """Hold the zeros of a mask that moved in the moving average, too."""
        if self.average is not None and self.masks is not None:
            averaged = prunable_parameters(self.average.module)
            apply_mask(averaged, self.masks)  # type: ignore[arg-type]

    def _moving_average(self) -> AveragedModel | None:
        decay = self.config.averaging.decay
        return moving_average(self.model, decay) if decay > 0 else None

    def _trainable(self) -> dict[str, Tensor]:
        """The prunable weights that are not frozen; a missing gradient is set to zero."""
        trainable = {name: weight for name, weight in self.weights.items() if weight.requires_grad}
        for weight in trainable.values():
            if weight.is_leaf and weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        return trainable

    def update(self, keep: float, count: int, epoch: float = 0.0) -> None:
        """One step of the optimiser, then apply the mask and update the moving average and the ADMM state.

        Args:
            keep: kept fraction of the projection.
            count: number of this step in the run, from 1; the ADMM state is updated every `admm.interval` steps, the
                mask every `admm.regrow_interval` steps.
            epoch: number of epochs so far, for the share of the mask that moves.
        """
        settings = self.config.admm
        if self.masks is not None and settings.regrow and count % settings.regrow_interval == 0:
            share = settings.regrow_share(epoch / self.config.training.epochs)
            if share:
                move_mask(self.pruning, self.model, self.optimizer, share)
                self._mask_average()
        if self.admm is not None:
            add_penalty_gradient(self.admm, self._trainable())
        self.optimizer.step()  # applies the masks, too
        if self.average is not None:
            self.average.update_parameters(self.model)
        if count % self.config.admm.interval == 0:
            self.pruning = loop.step(self.pruning, self.model, keep=keep)
