"""A verdict as JUnit XML, which continuous integration shows like its other tests."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import List, Optional, Tuple, Union
from xml.etree import ElementTree

from robust_edge_runtimes.core.files import write_atomic
from robust_edge_runtimes.present.tables import percent
from robust_edge_runtimes.present.verdict import attack_name, rebuild_line
from robust_edge_runtimes.verdict.judge import MachineResult, Verdict
from robust_edge_runtimes.verdict.measurement import ModeResult, WorstCase
from robust_edge_runtimes.verdict.statistic import MIN_IMAGES, Drop

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclasses.dataclass(frozen=True)
class TestCase:
    """One row of the report.

    Attributes:
        group: the `classname` of JUnit: target and mode.
        failure: why it failed; None if it passed.
        measured: what was measured, for the log.
    """

    group: str
    name: str
    seconds: float
    failure: Optional[str]
    measured: str


def write_junit(path: Path, verdict: Verdict) -> None:
    """Write one test case per mode and accuracy, and one for the verdict with every reason for a failure."""
    write_atomic(path, junit_text(verdict))


def junit_text(verdict: Verdict) -> str:
    """The XML itself."""
    cases = [_verdict_case(verdict), *_rebuild_cases(verdict)]
    here = (verdict.target, verdict.modes, verdict.worst)
    for where, modes, worst in (here, *(_elsewhere(verdict, other) for other in verdict.elsewhere)):
        for mode in modes:
            cases += _cases(f"{where}.{mode.mode}", attack_name(mode), mode, mode.seconds)
        if worst is not None:
            cases += _cases(f"{where}.all modes", "worst case", worst, 0.0)
    failures = sum(case.failure is not None for case in cases)
    seconds = sum(case.seconds for case in cases)
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": "0", "time": f"{seconds:.3f}"}
    suites = ElementTree.Element("testsuites", {"name": "robust-edge verify", **counts})
    suite = ElementTree.SubElement(
        suites, "testsuite", {"name": _plain(f"robust-edge verify {verdict.target}"), **counts}
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name in ("artifact_sha256", "checkpoint_sha256"):
        ElementTree.SubElement(properties, "property", {"name": name, "value": getattr(verdict, name)})
    for case in cases:
        _write(suite, case)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _elsewhere(verdict: Verdict, other: MachineResult) -> Tuple[str, Tuple[ModeResult, ...], Optional[WorstCase]]:
    return f"{verdict.target} ({other.source})", other.modes, other.worst


def _verdict_case(verdict: Verdict) -> TestCase:
    notes = "\n".join(verdict.notes)
    lines = (*verdict.reasons, *(f"undecided: {line}" for line in verdict.undecided))
    failure = None if verdict.passed else "\n".join(lines) or f"the verdict is {verdict.outcome.upper()}"
    return TestCase(verdict.target, "verdict", 0.0, failure, notes)


def _rebuild_cases(verdict: Verdict) -> List[TestCase]:
    rebuild = verdict.rebuild
    if rebuild is None:
        return []
    failure = None if rebuild.equal else "\n".join(rebuild.differences)
    measured = "\n".join([rebuild_line(rebuild), *rebuild.versions])
    return [TestCase(f"{verdict.target}.rebuild", "equals a new export", rebuild.seconds, failure, measured)]


def _cases(where: str, attack: str, result: Union[ModeResult, WorstCase], seconds: float) -> List[TestCase]:
    clean = _measured(result.reference_clean, result.artifact_clean, result.clean_drop, result.images)
    robust = _measured(result.reference_robust, result.artifact_robust, result.robust_drop, result.images)
    few = f"{result.images} images are too few, {MIN_IMAGES} are needed" if result.images < MIN_IMAGES else None
    return [
        TestCase(where, "clean accuracy", 0.0, few or _excess(result.clean_drop), clean),
        TestCase(where, f"robust accuracy under {attack}", seconds, few or _excess(result.robust_drop), robust),
    ]


def _measured(reference: float, artifact: float, drop: Drop, images: int) -> str:
    return (
        f"checkpoint {percent(reference)}, artifact {percent(artifact)} of {images} images; drop {drop.points:.2f} "
        f"points (interval {drop.low:.2f} to {drop.high:.2f}), budget {drop.budget:g}"
    )


def _excess(drop: Drop) -> Optional[str]:
    if not drop.exceeded:
        return None
    interval = f"interval {drop.low:.1f} to {drop.high:.1f}"
    return f"drop of {drop.points:.1f} points ({interval}) over a budget of {drop.budget:g}"


def _write(suite: ElementTree.Element, case: TestCase) -> None:
    attributes = {"classname": _plain(case.group), "name": _plain(case.name), "time": f"{case.seconds:.3f}"}
    element = ElementTree.SubElement(suite, "testcase", attributes)
    if case.failure is not None:
        failure = ElementTree.SubElement(element, "failure", {"message": _plain(case.failure.splitlines()[0])})
        failure.text = _plain(case.failure)
    if case.measured:
        ElementTree.SubElement(element, "system-out").text = _plain(case.measured)


def _plain(text: str) -> str:
    """Replace the characters that XML cannot contain, escaped or not."""
    return _NOT_XML.sub("?", text)
