"""A verdict as JUnit XML, which continuous integration shows beside its other tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import List, Optional, Tuple, Union
from xml.etree import ElementTree

from robust_edge_runtimes.core.files import write_atomic
from robust_edge_runtimes.present.tables import attack_name, percent
from robust_edge_runtimes.verdict.judge import Elsewhere, Verdict
from robust_edge_runtimes.verdict.measurement import ModeResult, WorstCase
from robust_edge_runtimes.verdict.statistic import MIN_IMAGES, Drop

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Case = Tuple[str, str, float, Optional[str], str]
"""Class, name, seconds, why it failed (None: it did not), what was measured."""


def write_junit(path: Path, verdict: Verdict) -> None:
    """Write one test case per mode and accuracy, and one for the verdict with every reason against it."""
    write_atomic(path, junit_text(verdict))


def junit_text(verdict: Verdict) -> str:
    """The XML itself."""
    cases = [_decision(verdict)]
    here = (verdict.target, verdict.modes, verdict.worst)
    for where, modes, worst in (here, *(_elsewhere(verdict, other) for other in verdict.elsewhere)):
        for mode in modes:
            cases += _cases(f"{where}.{mode.mode}", attack_name(mode.attack), mode, mode.seconds)
        if worst is not None:
            cases += _cases(f"{where}.all modes", "worst case", worst, 0.0)
    failures = sum(why is not None for _, _, _, why, _ in cases)
    seconds = sum(case[2] for case in cases)
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


def _elsewhere(verdict: Verdict, other: Elsewhere) -> Tuple[str, Tuple[ModeResult, ...], Optional[WorstCase]]:
    return f"{verdict.target} ({other.source})", other.modes, other.worst


def _decision(verdict: Verdict) -> Case:
    figures = "\n".join(verdict.notes)
    why = None if verdict.passed else "\n".join(verdict.reasons) or "the verdict is FAIL"
    return verdict.target, "verdict", 0.0, why, figures


def _cases(where: str, attack: str, result: Union[ModeResult, WorstCase], seconds: float) -> List[Case]:
    clean = _measured(result.reference_clean, result.artifact_clean, result.clean_drop, result.images)
    robust = _measured(result.reference_robust, result.artifact_robust, result.robust_drop, result.images)
    few = f"{result.images} images, at least {MIN_IMAGES} are needed" if result.images < MIN_IMAGES else None
    return [
        (where, "clean accuracy", 0.0, few or _excess(result.clean_drop), clean),
        (where, f"robust accuracy under {attack}", seconds, few or _excess(result.robust_drop), robust),
    ]


def _measured(reference: float, artifact: float, drop: Drop, images: int) -> str:
    return (
        f"checkpoint {percent(reference)}, artifact {percent(artifact)} of {images} images; drop {drop.points:.2f} "
        f"points (95% interval {drop.low:.2f} to {drop.high:.2f}), budget {drop.budget:g}"
    )


def _excess(drop: Drop) -> Optional[str]:
    if not drop.exceeded:
        return None
    interval = f"95% interval {drop.low:.1f} to {drop.high:.1f}"
    return f"drop of {drop.points:.1f} points ({interval}) over a budget of {drop.budget:g}"


def _write(suite: ElementTree.Element, case: Case) -> None:
    where, name, seconds, why, measured = case
    attributes = {"classname": _plain(where), "name": _plain(name), "time": f"{seconds:.3f}"}
    element = ElementTree.SubElement(suite, "testcase", attributes)
    if why is not None:
        failure = ElementTree.SubElement(element, "failure", {"message": _plain(why.splitlines()[0])})
        failure.text = _plain(why)
    if measured:
        ElementTree.SubElement(element, "system-out").text = _plain(measured)


def _plain(text: str) -> str:
    """Without the characters that XML cannot hold, escaped or not."""
    return _NOT_XML.sub("?", text)
