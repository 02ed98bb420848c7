"""The table of verify modes: a mode is one file and one row.

The command line's choices and help, verify.json and the table in docs/verification.md follow from the rows. The modes
that need torch are in the table of `robust_edge.verification.modes.table`, after these.
"""

from __future__ import annotations

from robust_edge_runtimes.modes.mode import Default, Mode

QUERIES_REFERENCE = "robust_edge_runtimes.modes.blackbox:QUERIES_OPTION"

DEVICE_MODES = (
    Mode(
        "replay",
        "the attack images that the bundle stores, made at export against the checkpoint",
        "robust_edge_runtimes.modes.replay:replay",
        Default.ALWAYS,
        draws=False,
    ),
    Mode(
        "blackbox",
        "Square, a random search that sees only the artifact's logits",
        "robust_edge_runtimes.modes.blackbox:blackbox",
        Default.WITH_RUN,
        options=(QUERIES_REFERENCE,),
    ),
)
