"""Settings of the training: the attack, ADMM, the optimiser, and the compute precision."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from robust_edge.attacks.pgd_settings import STEP_SIZE, STEPS
from robust_edge.settings.ranges import require
from robust_edge.settings.setting import PER_EPOCH, FloatSchedule, IntSchedule, check, declared, setting
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.runtime import MAX_THREADS

if TYPE_CHECKING:
    from robust_edge.attacks.pgd import Pgd

N_FGSM = "n-fgsm"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """The attack in training: PGD in the ℓ∞ ball, Eq. (3)."""

    eps: float = setting(
        0.1,
        "radius of the training attack in pixel units on [0, 1]; 0 trains a benign network",
        flag="--eps",
        range="[0, 1]",
        noun="a radius",
        hint="write it as 8/255 or 0.03",
    )
    eps_schedule: FloatSchedule = setting(
        "constant",
        "schedule of the radius over the epochs",
        choices={"constant": "", "linear": "up to eps over `eps_rise` of the epochs", "thirds": "ε/3, 2ε/3, ε"},
        beside=PER_EPOCH,
        range="[0, 1]",
    )
    eps_rise: float = setting(
        0.5, "fraction of the epochs over which schedule `linear` raises the radius", range="(0, 1]"
    )
    method: str = setting(
        "pgd",
        "the attack in training",
        choices={
            "pgd": "`steps` steps of length `step_size` from a random start, each projected onto the ball",
            N_FGSM: "de Jorge 2022: one step (`attack.steps=1`) of length ε from noise of radius 2ε, not projected "
            "onto the ball",
        },
    )
    steps: int = declared(
        dataclasses.replace(STEPS, help="gradient steps of the training attack, s", flag="--steps"), 7
    )
    steps_schedule: IntSchedule = setting(
        "constant",
        "schedule of the steps over the epochs",
        choices={"constant": "", "grow": "1, 2, ... up to s, starting again when ε steps up"},
        beside=PER_EPOCH,
        range="[1, inf)",
    )
    step_size: float | None = declared(
        dataclasses.replace(STEP_SIZE, help="step size α; null uses 2.5·ε/s, or ε with method `n-fgsm`"), None
    )

    def __post_init__(self) -> None:
        check(self, "attack")
        if self.method == N_FGSM and self.steps != 1:
            raise InputError(
                f"attack.steps is {self.steps}, but attack.method=n-fgsm takes one step; set attack.steps=1, or "
                "attack.method=pgd for several steps"
            )

    def pgd(self, steps: int | None = None) -> Pgd:
        """The attack with one random start; `steps` of an epoch, None for all."""
        from robust_edge.attacks.noisy_fgsm import NoisyFgsm
        from robust_edge.attacks.pgd import Pgd

        if self.method == N_FGSM:
            return NoisyFgsm(step_size=self.step_size)
        return Pgd(steps=self.steps if steps is None else steps, restarts=1, step_size=self.step_size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdmmConfig:
    """ADMM, Eq. (7)-(9), and the masked phase after it."""

    rho: float = setting(1e-3, "initial penalty ρ", range="(0, inf)")
    rho_schedule: str = setting(
        "growth",
        "schedule of ρ",
        choices={
            "growth": "times `rho_growth` at each update",
            "window": "a geometric sequence from `rho` at the start of ADMM to `rho_max` at the hard projection",
        },
    )
    rho_growth: float = setting(1.0, "factor of ρ per update of θ' and u in schedule `growth`", range="[1, inf)")
    rho_max: float = setting(1.0, "largest ρ, at least `rho`", range="(0, inf)")
    start: float = setting(
        0.0,
        "fraction of the epochs that train without ADMM at the beginning, less than 1 − masked_fraction",
        range="[0, 1)",
    )
    interval: int = setting(1, "optimiser steps between two updates of θ' and u; Algorithm 1 uses 1", range="[1, inf)")
    masked_fraction: float = setting(
        0.34,
        "fraction of the epochs that train under a mask after the hard projection, at the end; the mask is fixed "
        "unless `regrow` is above 0",
        range="(0, 1)",
    )
    prune_when: float | None = setting(
        None,
        "do the hard projection earlier if the primal residual ‖θ − θ'‖ / ‖θ‖ is at most this value at the end of an "
        "epoch; null never does",
        range="(0, inf)",
    )

    regrow: float = setting(
        0.0,
        "fraction of each layer's kept weights (or blocks) that moves at each update of the mask in the masked phase: "
        "the smallest leave, those of largest gradient return; 0 holds the mask fixed. The fraction falls as a cosine "
        "from this value at the first epoch of the run to 0 at `regrow_until`, so that less than this value moves at "
        "the first update, which comes after the hard projection. Schemes `irregular` and `block`",
        range="[0, 1)",
        noun="a fraction",
        hint="0.1 is usual",
    )
    regrow_interval: int = setting(100, "optimiser steps between two updates of the mask", range="[1, inf)")
    regrow_until: float = setting(
        0.75, "fraction of the run after which the mask is fixed; only later epochs are selected", range="(0, 1]"
    )

    def __post_init__(self) -> None:
        check(self, "admm")
        require(self.start < 1 - self.masked_fraction, "admm.start", self.start, "below 1 − admm.masked_fraction")
        require(self.rho_max >= self.rho, "admm.rho_max", self.rho_max, f"at least admm.rho ({self.rho})")

    def regrow_share(self, place: float) -> float:
        """Fraction of the kept weights that moves at this place of the run, from 0 to 1."""
        if place >= self.regrow_until:
            return 0.0
        return self.regrow * (1 + math.cos(math.pi * place / self.regrow_until)) / 2

    def settled(self, place: float) -> bool:
        """Whether the mask moves no more from this place of the run on."""
        return not self.regrow or place >= self.regrow_until


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The optimiser and its schedule."""

    epochs: int = setting(
        30,
        "number of passes over the training images, including the masked phase; 0 writes the initial network, "
        "projected onto the scheme where keep is below 1",
        flag="--epochs",
        range="[0, inf)",
    )
    batch_size: int = setting(128, "images per optimiser step; batch norm needs at least 2", range="[2, inf)")
    lr: float = setting(0.05, "initial learning rate, η", range="(0, inf)")
    lr_schedule: FloatSchedule = setting(
        "cosine",
        "schedule of the learning rate",
        choices={
            "cosine": "down to 0 once before and once after the hard projection",
            "step": "every `lr_step` epochs",
            "linear": "up over `lr_warmup` of the run, down in a line that ends at `lr_end`, then `lr_tail` of lr",
        },
        beside=PER_EPOCH,
        range="(0, inf)",
    )
    lr_step: int = setting(10, "epochs between two decays of schedule `step`", range="[1, inf)")
    lr_decay: float = setting(0.5, "factor of each decay of schedule `step`", range="(0, 1]")
    lr_warmup: float = setting(0.05, "fraction of the run over which schedule `linear` rises", range="[0, 1)")
    lr_end: float = setting(0.85, "fraction of the run at which the line of schedule `linear` ends", range="(0, 1]")
    lr_tail: float = setting(
        0.005,
        "lowest learning rate of schedule `linear`, as a fraction of lr; it is used from `lr_end` on",
        range="(0, 1]",
    )
    momentum: float = setting(0.9, "momentum of SGD", range="[0, 1]")
    nesterov: bool = setting(False, "Nesterov's momentum, which needs momentum above 0")
    weight_decay: float = setting(5e-4, "weight decay of SGD", range="[0, inf)")
    adversarial_weight: float = setting(
        0.9,
        "weight w of the loss on attacked images in loss `adversarial`; the clean loss has weight 1 − w",
        range="[0, 1]",
    )
    clean_interval: int = setting(
        1,
        "compute the clean term of loss `adversarial` in every n-th batch only, with n times its weight, which saves "
        "its forward and backward passes in the others; it is never computed where adversarial_weight is 1",
        range="[1, inf)",
    )
    loss: str = setting(
        "adversarial",
        "the training loss",
        flag="--loss",
        choices={
            "adversarial": "cross-entropy on attacked and clean images, weighted",
            "trades": "Zhang 2019: cross-entropy on clean images and β times the divergence between clean and attacked "
            "predictions",
            "nuclear": "NU-AT, Sriramanan 2021: cross-entropy on clean images and β times the nuclear norm of the "
            "difference of clean and attacked logits; made for one attack step, attack.steps=1",
        },
    )
    beta: float = setting(6.0, "β of losses `trades` and `nuclear`, for which 4 is usual", range="(0, inf)")
    label_smoothing: float = setting(
        0.0, "fraction of the target distribution that is spread over all classes", range="[0, 1)"
    )
    quantize: str = setting(
        "none",
        "the arithmetic of the last epochs of the masked phase",
        choices={
            "none": "floats",
            "int8": "the integers of the int8 engine, also in the attack, with straight-through gradients; targets of "
            "the engine then use the ranges of this training, not those of a calibration",
        },
    )
    quantize_share: float = setting(
        0.34,
        "fraction of the epochs of the masked phase, at its end, that compute in the arithmetic of `quantize`; those "
        "before compute in floats. Batch norms compute with running statistics in integers, which takes a low learning "
        "rate",
        range="(0, 1]",
    )
    freeze_batchnorm: bool = setting(
        False,
        "freeze every batch norm of the initial network: it normalises by its running statistics in training, too, and "
        "neither they nor its scale and shift change; averaging.reestimate has no effect then",
        flag="--freeze-batchnorm",
    )

    def __post_init__(self) -> None:
        check(self, "training")
        require(self.lr_warmup < self.lr_end, "training.lr_warmup", self.lr_warmup, "below training.lr_end")
        require(not self.nesterov or self.momentum > 0, "training.nesterov", "true", "false where momentum is 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Precision, memory layout and compilation, which the thesis does not specify."""

    precision: str = setting(
        "fp32",
        "precision of convolutions and linear layers",
        flag="--precision",
        choices={
            "fp32": "",
            "bf16": "autocast, for GPUs and CPUs with bfloat16; pixels, losses and attack steps stay fp32",
        },
    )
    channels_last: bool = setting(
        True, "store images and weights as NHWC, which makes convolutions faster on CPUs and GPUs"
    )
    compile: bool = setting(
        False,
        "run the network through torch.compile; the first batches take minutes, and the attack runs without the "
        "folding of batch norms into convolutions",
        flag="--compile",
    )
    workers: int = setting(
        2,
        "number of processes that read images during the training, if they are not kept on the device",
        range=f"[0, {MAX_THREADS}]",
    )

    def __post_init__(self) -> None:
        check(self, "compute")
