"""The findings of `doctor` as text."""

from __future__ import annotations

from typing import List

from robust_edge_runtimes.diagnosis import Diagnosis
from robust_edge_runtimes.formats.backends import Backend
from robust_edge_runtimes.present.tables import table


def diagnosis_table(diagnosis: Diagnosis) -> str:
    """The machine, then one line per artifact format, then the other packages and tools."""
    facts = diagnosis.machine
    rows = [
        [item.name, item.version or "missing", item.enables, "" if item.version else item.remedy]
        for item in diagnosis.capabilities
    ]
    return "\n".join(
        [
            f"robust-edge {diagnosis.robust_edge}, Python {facts.python}, numpy {facts.numpy}, {facts.system}",
            f"{facts.cpu} ({facts.architecture}), {facts.cores} core(s)"
            + (f", governor {facts.governor}" if facts.governor else "")
            + (f", {facts.power_mode}" if facts.power_mode else ""),
            "",
            *(line for item in diagnosis.backends for line in _backend_lines(item)),
            "",
            table(["name", "version", "needed for", "to install"], rows, words=4),
        ]
    )


def _backend_lines(item: Backend) -> List[str]:
    if item.runs_on is not None:
        return [f"{item.format:9}  yes  {item.bundles}: {item.runs_on}"]
    return [f"{item.format:9}  no   {item.bundles}: {item.missing}", f"{'':16}to install: {item.remedy}"]
