"""The network and everything that changes with it during training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from robust_edge.config.compress import CompressConfig
from robust_edge.models import Normalized
from robust_edge.parallel.ranks import Ranks
from robust_edge.pruning import admm
from robust_edge.pruning.mask import apply_mask, hard_prune
from robust_edge.pruning.parametrised import attach_effective_masks, mask_of, set_effective_masks
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.pruning.schemes.scheme import Scheme
from robust_edge.training.averaging import moving_average
from robust_edge.training.batchnorm import batchnorms
from robust_edge.training.forward import Forward
from robust_edge.training.schedules import Schedules


class Learner:
    """The network with its optimiser, ADMM state, masks and moving average.

    Args:
        model: the network, on its device.
        config: the settings of the run.
        plan: the schedules of the run.
        scheme: the pruning scheme, built for the network.

    Attributes:
        average: the moving average of the weights; None where `averaging.decay` is 0.
        awp: whether adversarial weight perturbation is in use; False once it has diverged.
        forward: how training calls the network.
        momenta: the momentum that the architecture sets, by batch-norm layer.
        ranks: the processes that train the same network, each on its part of every batch.
    """

    def __init__(
        self,
        model: Normalized,
        config: CompressConfig,
        plan: Schedules,
        scheme: Scheme,
        ranks: Ranks | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self.ranks = ranks or Ranks()
        self.forward = Forward(model, config.compute)
        attach_effective_masks(model, prunable_parameters(model))
        self.scheme = scheme
        training = config.training
        self.optimizer = torch.optim.SGD(
            model.parameters(), training.lr, training.momentum, weight_decay=training.weight_decay
        )
        self.masks: dict[str, Tensor] | None = None
        self.admm: admm.AdmmState | None = None
        if config.sparse and plan.keep:
            self.admm = admm.init(self.weights, self.scheme.project, plan.keep[0], config.admm.rho)
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
    def parameters(self) -> dict[str, nn.Parameter]:
        """Those of them that are parameters of their own, not parametrised."""
        return {name: weight for name, weight in self.weights.items() if isinstance(weight, nn.Parameter)}

    def candidate(self) -> Normalized:
        """The network to evaluate and to write: the moving average if there is one, otherwise the trained network."""
        return self.model if self.average is None else cast(Normalized, self.average.module.eval())

    def state(self) -> dict[str, Any]:
        """The state as plain containers and tensors, which `torch.load(weights_only=True)` can read."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "masks": self.masks,
            "admm": None if self.admm is None else dataclasses.asdict(self.admm),
            "average": None if self.average is None else self.average.state_dict(),
            "awp": self.awp,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the state that `state` returned."""

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
        """Do the hard projection onto S and fix the mask; momentum, ADMM state and moving average are reset."""
        support = self.scheme.support(self.weights, keep)
        support |= self.scheme.support_beside(support)
        set_effective_masks(self.model, support)
        self.masks = hard_prune(self._plain(support), support)
        self.admm = None
        self.optimizer.state.clear()
        self.average = self._moving_average()

    def violation(self, written: Mapping[str, Tensor], keep: float) -> str | None:
        """The reason why the weights of a file do not lie in S; None if they do."""
        if self.masks is None:
            return "nothing was pruned"
        support = {name: self.masks[name].cpu() != 0 for name in self.weights}
        for name, kept in support.items():
            if torch.count_nonzero(written[name].masked_fill(kept, 0)):
                return f"{name} has non-zero weights outside its mask"
        return self.scheme.violation(support, keep)

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

    def _plain(self, names: Iterable[str]) -> dict[str, nn.Parameter]:
        """The parameters of these names, without parametrised weights, which are masked by a parametrization."""
        return {name: self.model.get_parameter(name) for name in names if mask_of(self.model, name) is None}

    def update(self, keep: float, count: int) -> None:
        """One step of the optimiser, then apply the mask and update the moving average and the ADMM state.

        Args:
            keep: kept fraction of the projection.
            count: number of this step in the run, from 1; the ADMM state is updated every `admm.interval` steps.
        """
        if self.admm is not None:
            admm.add_penalty_gradient(self.admm, self._trainable())
        self.optimizer.step()
        if self.masks is not None:
            apply_mask(self._plain(self.masks), self.masks)
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
