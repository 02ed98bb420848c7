"""The settings of `export`, with their defaults; nothing here imports torch, so that the command line can read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from robust_edge_runtimes.core.errors import InputError

MOST_STEPS = 1000  # of the stored attack, since `verify` makes it again


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoldenSettings:
    """How the stored attack images are made.

    Attributes:
        images: how many, from the start of the test split; fewer where golden.npz would exceed 1 GiB.
        eps: None for the radius of the run's own adversary (8/255 for a benign run).
        steps: of PGD, 1 to MOST_STEPS.
    """

    images: int = 512
    eps: float | None = None
    steps: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MOST_STEPS:
            raise InputError(f"steps must be 1 to {MOST_STEPS}, since `verify` repeats the stored attack: {self.steps}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportChoices:
    """What a target leaves open.

    Attributes:
        precision: one of the target's; None for its first.
        batch: fixed number of images of one call; None takes any.
        options: values of the format's own options by name, such as `csr_threshold`.
        layer_forms: how an earlier export stored each layer, by the layer's name; None to choose.
        compile_library: compile generated C for this machine, where it is of the target's kind.
        compact: take channels that do nothing out of the network first.
        calibration: how many training images int8 ranges are read from; what the run held out comes first.
        held_out: how many other training images choose between the ways of calibration.
        calibration_method: the way that an earlier export chose; kept where it is as good as the best one.
        explain_int8: measure what each layer loses in 8 bits.
    """

    precision: str | None = None
    batch: int | None = None
    options: Mapping[str, bool | int | float | str | None] = dataclasses.field(default_factory=dict)
    layer_forms: Mapping[str, str] | None = None
    compile_library: bool = True
    compact: bool = True
    calibration: int = 256
    held_out: int = 128
    calibration_method: str | None = None
    explain_int8: bool = False
