"""One row of metrics.jsonl."""

from __future__ import annotations

import dataclasses

ADMM, MASKED, DENSE = "admm", "masked", "dense"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochRow:
    """The settings and results of one epoch; losses and accuracies are means over its training images.

    Attributes:
        epoch: counted from 1.
        phase: `admm`, `masked`, or `dense` before ADMM and where nothing is pruned.
        eps: radius of the attack in pixel units.
        steps: gradient steps of the attack.
        keep: target kept fraction of the projection.
        loss: the training loss, without the ADMM penalty.
        clean_loss: cross-entropy on the clean images of the batches whose loss has a clean term; None if none has, as
            `clean_accuracy`.
        adversarial_loss: the same on attacked images.
        nonzero: number of non-zero prunable weights at the end of the epoch.
        images: number of training images.
        seconds: training time, without the evaluation on held-out images.
        held_out_clean: accuracy on the held-out images at the end of the epoch; None where it was not evaluated.
        held_out_robust: the same under PGD at the full radius of the run.
        awp: whether adversarial weight perturbation was active: after its warm-up or in one of its windows, and not
            switched off until the end of the epoch.
    """

    epoch: int
    phase: str
    eps: float
    steps: int
    keep: float
    lr: float
    loss: float
    clean_loss: float | None
    adversarial_loss: float
    clean_accuracy: float | None
    robust_accuracy: float
    nonzero: int
    rho: float
    primal_residual: float
    dual_residual: float
    seconds: float
    images: int = 0
    held_out_clean: float | None = None
    held_out_robust: float | None = None
    awp: bool = False

    @property
    def images_per_second(self) -> float:
        """Training images per second."""
        return self.images / self.seconds if self.seconds > 0 else 0.0
