"""The table of validity flags: signs that a figure, such as a robust accuracy, may be misleading.

`verify` raises them for artifacts, and `evaluate` for networks in torch; checks that both use are in
`robust_edge_runtimes.verdict.checks`. A flag is part of a verdict, or of the evaluation's record.
"""

from __future__ import annotations

import dataclasses
from typing import Iterable, List, Optional, Tuple

from robust_edge_runtimes.core.decode import bounded

VERIFY, EVALUATE = "verify", "evaluate"
TWIN_GRADIENT_DIFFERS = "twin_gradient_differs"
GRADIENT_UNTESTED = "gradient_untested"
OTHER_LOGITS = frozenset(
    (
        "not_the_checkpoint",
        "not_the_artifact",
        "rebuild_differs",
        "library_differs",
        "library_unverified",
        "scaled_logits",
        "batch_dependent",
        "randomised",
        "non_finite",
        "softmax_output",
        "rounded_logits",
        "twin_differs",
    )
)
"""Flags that say that the artifact may give other logits than the run's own export."""


@dataclasses.dataclass(frozen=True)
class ValidityFlag:
    """One row of the table.

    Attributes:
        name: as in verify.json, in an audit, and after `--allow`.
        meaning: when it is raised, in one sentence.
        raised_by: the commands that check for it.
    """

    name: str
    meaning: str
    raised_by: Tuple[str, ...] = (VERIFY,)


VALIDITY_FLAGS = (
    ValidityFlag(
        "not_the_checkpoint",
        "logits differ from the checkpoint's by more than the arithmetic of the precision explains, on stored or on "
        "drawn images, clean or attacked, on training images, shifted or mixed images or noise (int8: on more than a "
        "tenth of the drawn images, clean or where the surrogate attack left them)",
    ),
    ValidityFlag(
        "not_the_artifact",
        "on the stored images the artifact gives other logits here than those that the bundle stores of it: this "
        "machine computes something else than the exporting one did, or the stored logits are forged (int8: on more "
        "than a tenth of the images)",
    ),
    ValidityFlag("forged_answers", "the logits that the bundle stores are not those of the run's checkpoint"),
    ValidityFlag(
        "rebuild_differs",
        "the run, exported again with the recorded choices, gives other files than the bundle holds (`rebuild`)",
    ),
    ValidityFlag(
        "library_differs",
        "a compiled library in the bundle is not, byte for byte, what the compiler here makes of the source beside it",
    ),
    ValidityFlag(
        "library_unverified",
        "a compiled library in the bundle was made for another CPU or by another compiler, and cannot be compared with "
        "its source here: verify on a machine like the exporting one, or export where the device's CPU is (not raised "
        "without a run)",
    ),
    ValidityFlag(
        "false_claim",
        "the bundle claims an ε other than the run's, an attack that its stored images do not show, accuracies that "
        "are not the checkpoint's, or images that are none of the run's",
    ),
    ValidityFlag(
        "nothing_to_lose",
        "the checkpoint itself is right on at most 5% of the images under attack, or no more often than by chance, "
        "over all images or as a mean over the classes: no artifact could do worse",
    ),
    ValidityFlag("scaled_logits", "logits are a multiple of the checkpoint's"),
    ValidityFlag(
        "batch_dependent",
        "an image's logits alone, in batches of another size or with another number of threads differ from those in "
        "a batch by more than 2% of the largest logit (int8: on more than a tenth of the images; the int8 engine, "
        "whose integers do not depend on the batch: by more than a rounding on any image), or a pass changes the "
        "network's buffers",
        (VERIFY, EVALUATE),
    ),
    ValidityFlag(
        "randomised", "the same images give logits that differ by more than 1e-4 (relative)", (VERIFY, EVALUATE)
    ),
    ValidityFlag("non_finite", "a logit is NaN or infinite", (VERIFY, EVALUATE)),
    ValidityFlag("softmax_output", "the outputs are probabilities", (VERIFY, EVALUATE)),
    ValidityFlag(
        "rounded_logits",
        "logits lie on a grid of fewer than 200 steps (int8: 100) between zero and the largest, or take at most 400 "
        "values, half as many as there are logits",
        (VERIFY, EVALUATE),
    ),
    ValidityFlag(
        "zero_gradient",
        "more than 5% of the gradients are zero at every pixel, and not because the loss is saturated",
        (VERIFY, EVALUATE),
    ),
    ValidityFlag(
        "saturated_gradient",
        "more than 5% of the cross-entropy's gradients vanish where the logits do have a gradient; in `verify`: more "
        "than of the checkpoint's, from which an artifact inherits them",
        (VERIFY, EVALUATE),
    ),
    ValidityFlag("no_twin", "the artifact's format has a differentiable twin, and this artifact cannot be made one"),
    ValidityFlag("twin_differs", "the twin does not compute what the artifact computes"),
    ValidityFlag(
        TWIN_GRADIENT_DIFFERS,
        "the twin's gradient is not the slope of the artifact: finite differences of the artifact contradict it at a "
        "scale of eps, eps/4 or eps/16, and those of the checkpoint do not contradict the checkpoint's gradient as "
        "much, or the twin's logits change when gradients are recorded. `verify` then "
        "requires 500 queries or more of `blackbox`, whether the flag is allowed or not",
    ),
    ValidityFlag(
        GRADIENT_UNTESTED,
        "the checkpoint's own gradient predicts nothing (cosine below 0.2) at any step of the finite differences that "
        "changes the artifact, so that they cannot test the twin's. This is a note; the verdict is no PASS without 500 "
        "queries or more of `blackbox`, whether the flag is allowed or not",
    ),
    ValidityFlag(
        "differs_elsewhere",
        "mode `difference`, started from training images and mixtures of two images, breaks the artifact and not the "
        "checkpoint on more of them than the other way round, by more than 1 point and beyond chance",
    ),
    ValidityFlag(
        "more_robust_than_parent",
        "the artifact is more robust than its checkpoint by more than the budget, beyond chance (not in `replay`, "
        "whose images were chosen against the checkpoint: an honest int8 artifact is right on more of them)",
    ),
    ValidityFlag(
        "black_box_beats_white_box",
        "an attack that sees only logits breaks images that all attacks with gradients left: more than 0.2% in "
        "AutoAttack; more than 1%, beyond chance, in `verify`, whose gradients are a twin's or a surrogate's",
        (VERIFY, EVALUATE),
    ),
    ValidityFlag("training_mode", "a module is in training mode when the network is handed over", (EVALUATE,)),
    ValidityFlag(
        "more_steps_help_the_model", "5 gradient steps break fewer images than 1, or 20 fewer than 5", (EVALUATE,)
    ),
    ValidityFlag(
        "survives_large_eps",
        "more than 5% of the probed images survive ε = 0.5 and ε = 1 (ℓ2: the diagonal of the pixel cube)",
        (EVALUATE,),
    ),
    ValidityFlag(
        "black_box_beats_gradients",
        "100 queries of Square break more than 5% of the probed images after 20 gradient steps left them",
        (EVALUATE,),
    ),
    ValidityFlag("left_the_ball", "more than 5% of the candidates had to be brought back into the ball", (EVALUATE,)),
    ValidityFlag(
        "transfer_beats_white_box",
        "images made on another network (`transfer`, `--with`) break more than a network's own gradients do: beyond "
        "one image and 0.2%",
        (EVALUATE,),
    ),
    ValidityFlag(
        "few_steps",
        "the attack takes fewer gradient steps than its class asks for (`few_steps`, 10 for PGD)",
        (EVALUATE,),
    ),
    ValidityFlag("memory_exceeded", "the peak of memory was above the bound that was printed", (EVALUATE,)),
    ValidityFlag("nothing_right", "no probed image is right without an attack", (EVALUATE,)),
    ValidityFlag("nothing_attacked", "no image was right, so that nothing was attacked", (EVALUATE,)),
)
FLAGS = tuple(flag.name for flag in VALIDITY_FLAGS if VERIFY in flag.raised_by)


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: of the flag that it raises.
        raised: whether the flag is raised; None if the check could not be made.
        detail: what was measured, in one line.
    """

    name: str
    raised: Optional[bool]
    detail: str


@dataclasses.dataclass(frozen=True)
class Flag:
    """A validity flag that was raised, with what was measured, in at most MAX_LINE characters."""

    name: str
    detail: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", bounded(self.detail))


def raised(checks: Iterable[Check]) -> List[Flag]:
    """The flags of the checks that were raised."""
    return [Flag(check.name, check.detail) for check in checks if check.raised]
