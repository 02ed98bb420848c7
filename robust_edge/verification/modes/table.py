"""The table of verify modes on the host: those of the device, and those that need torch."""

from __future__ import annotations

from robust_edge_runtimes.modes.mode import Default, Mode
from robust_edge_runtimes.modes.table import DEVICE_MODES, QUERIES_REFERENCE

STEPS_REFERENCE = "robust_edge.verification.settings:STEPS_OPTION"

MODES = (
    *DEVICE_MODES,
    Mode(
        "surrogate",
        "PGD with the checkpoint's gradients, taken at the points where the artifact is scored (BPDA)",
        "robust_edge.verification.modes.surrogate:surrogate",
        Default.WITH_RUN,
        needs="the checkpoint's gradients",
        options=(STEPS_REFERENCE,),
    ),
    Mode(
        "whitebox",
        "PGD with the gradients of a differentiable twin that is made from the artifact itself",
        "robust_edge.verification.modes.whitebox:whitebox",
        Default.WITH_RUN,
        options=(STEPS_REFERENCE, QUERIES_REFERENCE),
        restart=1,
    ),
    Mode(
        "difference",
        "PGD on loss(artifact) - loss(checkpoint) and on its negative, also from training images and mixtures of two",
        "robust_edge.verification.modes.difference:difference",
        Default.WITH_RUN,
        needs="the checkpoint's gradients",
        options=(STEPS_REFERENCE,),
        restart=2,
    ),
    Mode(
        "rebuild",
        "no attack: exports the run again and compares every file with the bundle's",
        "robust_edge.verification.modes.rebuild:rebuild",
        Default.WITH_RUN,
        needs="its checkpoint",
        draws=False,
        needs_runtime=False,
    ),
)
