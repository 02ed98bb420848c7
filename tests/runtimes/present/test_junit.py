from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest

from robust_edge_runtimes.modes.settings import ModeSettings
from robust_edge_runtimes.modes.table import DEVICE_MODES
from robust_edge_runtimes.present.junit import junit_text, write_junit
from robust_edge_runtimes.verdict.inspection import inspect_artifact
from robust_edge_runtimes.verdict.judge import MachineResult, judge
from robust_edge_runtimes.verdict.measurement import Budget, Rebuild
from robust_edge_runtimes.verdict.subject import subject_of

(replay,) = (mode.measure for mode in DEVICE_MODES if mode.name == "replay")


@pytest.fixture
def verdict(Fake, opened, golden, linear):
    def of(function=linear.logits, limit=None, budget=Budget(7, 7)):  # noqa: B008 - frozen
        with Fake(opened.manifest, function) as model:
            subject = subject_of(opened, model)
            return judge(inspect_artifact(subject), [replay(subject, ModeSettings(limit))], budget)

    return of


def read(text):
    root = ElementTree.fromstring(text)
    cases = {f"{case.get('classname')}: {case.get('name')}": case for case in root.iter("testcase")}
    return root, cases


def test_a_pass_has_no_failure(verdict, tmp_path):
    result = verdict()
    write_junit(tmp_path / "verify.xml", result)
    root, cases = read((tmp_path / "verify.xml").read_text("utf-8"))
    assert root.tag == "testsuites"
    assert (root.get("tests"), root.get("failures")) == ("3", "0")
    assert list(cases) == [
        "x86-cpu: verdict",
        "x86-cpu.replay: clean accuracy",
        "x86-cpu.replay: robust accuracy under pgd eps=0.05, 1 steps, seed 7",
    ]
    assert not list(root.iter("failure"))
    assert {p.get("name"): p.get("value") for p in root.iter("property")} == {
        "artifact_sha256": result.artifact_sha256,
        "checkpoint_sha256": result.checkpoint_sha256,
    }
    assert "of 60 images; drop 0.00 points" in cases["x86-cpu.replay: clean accuracy"].find("system-out").text


def test_a_fail_names_every_reason_and_counts_them(verdict, linear):
    result = verdict(lambda images: linear.logits(images)[:, ::-1].copy())
    root, cases = read(junit_text(result))
    assert cases["x86-cpu: verdict"].find("failure").text.splitlines() == list(result.reasons)
    assert root.get("failures") == str(len(list(root.iter("failure")))) == "3"


def test_an_undecided_verdict_is_a_failure_that_says_how_many_images_would_decide(verdict):
    result = verdict(budget=Budget())
    root, cases = read(junit_text(result))
    lines = cases["x86-cpu: verdict"].find("failure").text.splitlines()
    assert lines == [f"undecided: {line}" for line in result.undecided]
    assert all("images would decide" in line for line in lines)
    assert root.get("failures") == "1"


def test_few_images_fail_their_cases(verdict):
    root, _ = read(junit_text(verdict(limit=10)))
    assert root.get("failures") == "3"


def test_other_machines_have_cases_of_their_own(verdict):
    one = verdict()
    other = MachineResult("jetson.json", one.runtime, one.machine, one.parity, one.modes, ())
    _, cases = read(junit_text(dataclasses.replace(one, elsewhere=(other,))))
    assert "x86-cpu (jetson.json).replay: clean accuracy" in cases
    assert len(cases) == 5


def test_text_that_xml_cannot_hold_is_shown_as_question_marks(verdict):
    ugly = dataclasses.replace(verdict(), passed=False, reasons=("bell \a & <tag> \ud800 \u2014",))
    _, cases = read(junit_text(ugly))
    assert cases["x86-cpu: verdict"].find("failure").text == "bell ? & <tag> ? \u2014"


def test_a_rebuild_is_a_case_of_its_own(verdict):
    rebuild = Rebuild(
        False, ("model.onnx: another", "run.py: another"), ("model.onnx", "run.py"), 1.5, ("torch 2, here 3",)
    )
    _, cases = read(junit_text(dataclasses.replace(verdict(), rebuild=rebuild)))
    case = cases["x86-cpu.rebuild: equals a new export"]
    assert case.find("failure").text.splitlines() == list(rebuild.differences)
    assert "torch 2, here 3" in case.find("system-out").text
    assert case.get("time") == "1.500"
    same = dataclasses.replace(rebuild, equal=True, differences=())
    _, cases = read(junit_text(dataclasses.replace(verdict(), rebuild=same)))
    assert cases["x86-cpu.rebuild: equals a new export"].find("failure") is None
