"""How 8 bits were calibrated and what they cost, in lines for the user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robust_edge_exporters.quantisation import QuantisationReport

LISTED = 10


def quantisation_in_words(report: QuantisationReport | None) -> Iterator[str]:
    """The errors of the ways of calibration, the chosen one marked, and the layers that lose most."""
    if report is None:
        return
    if report.candidates:
        yield f"  calibration {report.method}, by the logits' errors on {report.judged_on} other training images:"
    for item in report.candidates:
        mark = "*" if item.method == report.method else " "
        yield (
            f"  {mark} {item.method:18s} rms {item.rms:.4f}  mean {item.mean:.4f}  max {item.max:.4f}  "
            f"classes equal {100 * item.agreement:.1f}%"
        )
    if report.losses:
        yield "  share of the squared error that is gone if a layer is left in fp32, too (--int8-skip):"
    for loss in report.losses[:LISTED]:
        yield f"    {loss.layer:40s} {100 * loss.share:6.1f}%  (rms {loss.rms:.4f})"


def ranges_in_words(report: QuantisationReport | None) -> Iterator[str]:
    """The range of each layer's input."""
    for item in () if report is None else report.ranges:
        yield (
            f"{item.layer}: {item.precision}, input {item.low:.4g} to {item.high:.4g}, on the calibration images "
            f"{item.lowest:.4g} to {item.highest:.4g}"
        )
