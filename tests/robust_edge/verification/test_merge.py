"""A device's verdict beside the host's, through both command lines."""

import dataclasses
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from robust_edge.verification.merge import merged, read_verdict
from robust_edge_runtimes.cli import main as device_cli
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.verdict.flags import Flag
from robust_edge_runtimes.verdict.measurement import Budget
from robust_edge_runtimes.verdict.statistic import Drop

pytest.importorskip("onnxruntime", reason="the linear bundle runs on onnxruntime")
jsonschema = pytest.importorskip("jsonschema", reason="the schema is checked with jsonschema")

SCHEMA = Path(__file__).parents[3] / "docs/schema/verify.schema.json"


@pytest.fixture(scope="module")
def device_file(sealed, tmp_path_factory):
    """What the device found, replay and black box, on the linear bundle."""
    path = tmp_path_factory.mktemp("device") / "device.json"
    arguments = [
        "verify",
        sealed,
        "--mode",
        "replay",
        "--mode",
        "blackbox",
        "--queries",
        40,
        "-q",
        "-o",
        path,
        "--max-clean-drop",
        7,
    ]
    arguments += ["--max-robust-drop", 20]
    result = CliRunner().invoke(device_cli.main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return path


def test_the_schema_that_is_committed_is_the_codes(device_file):
    from robust_edge_exporters.schema import verdict_schema

    committed = json.loads(SCHEMA.read_bytes())
    assert committed == verdict_schema(), f"write json.dumps(verdict_schema(), indent=2) to {SCHEMA}"
    jsonschema.Draft202012Validator.check_schema(committed)
    validator = jsonschema.Draft202012Validator(committed)
    written = json.loads(device_file.read_bytes())
    validator.validate(written)
    assert [mode["mode"] for mode in written["modes"]] == ["replay", "blackbox"]
    for broken in ({**written, "passed": "yes"}, {**written, "more": 1}, {**written, "schema_version": 3}):
        assert list(validator.iter_errors(broken))


def test_both_are_shown_and_written(cli, sealed, device_file, tmp_path):
    out, junit = tmp_path / "verify.json", tmp_path / "verify.xml"
    lenient = ("--max-clean-drop", 7, "--max-robust-drop", 20)
    result = cli("verify", sealed, "--merge", device_file, *lenient, "-q", "-o", out, "--junit", junit)
    assert result.exit_code == 0, result.output
    assert "blackbox *" in result.stdout
    assert f"* measured on another machine: {device_file}" in result.stdout
    verdict = read_verdict(out)
    assert [mode.mode for mode in verdict.modes] == ["replay"]
    assert [mode.mode for mode in verdict.elsewhere[0].modes] == ["replay", "blackbox"]
    assert verdict.elsewhere[0].machine == read_verdict(device_file).machine
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_bytes())).validate(json.loads(out.read_bytes()))
    assert len(list(ElementTree.parse(junit).iter("testcase"))) == 1 + 2 + 4
    again = cli("verify", sealed, "--merge", out, "-q", "--json")  # what was merged once stays
    sources = [item["source"] for item in json.loads(again.stdout)["elsewhere"]]
    assert sources == [str(out), f"{out}, {device_file}"]


def test_another_artifact_is_refused_before_any_attack(refused, dense_sealed, sealed, device_file):
    line = refused("verify", dense_sealed, "--merge", device_file)
    assert "judged the artifact" in line
    assert "copy this bundle to the device" in line


def nested_at_another_eps(value):
    """A verdict that was itself merged from others."""
    mode = {**value["modes"][0], "attack": {**value["modes"][0]["attack"], "eps": 0.5}}
    fields = ("runtime", "machine", "parity", "flags", "worst")
    value["elsewhere"] = [{**{name: value[name] for name in fields}, "source": "another", "modes": [mode]}]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda value: value.update(checkpoint_sha256="d" * 64), "compared with the checkpoint dddddddddddd"),
        (lambda value: value.update(target="jetson-gpu"), "judged a bundle for jetson-gpu"),
        (lambda value: value["modes"][1]["attack"].update(eps=1e-9), "attacked in mode blackbox at eps 1e-09"),
        (lambda value: value.update(schema_version=9), "has schema_version 9"),
        (lambda value: value.pop("modes"), "modes is missing"),
        (lambda value: value.update(looks=2000), "names 2000 looks"),
        (lambda value: value.update(looks=0), "names 0 looks"),
        (lambda value: value["modes"][0].update(images=0), "of 0 images cannot be"),
        (lambda value: value["modes"][0].update(images=10**15), "images cannot be"),
        (lambda value: value["modes"][0].update(images=10**400), "64 bits"),
        (lambda value: value["modes"][0]["clean_drop"].update(lost=-3.0), "-3 lost"),
        (lambda value: value["modes"][0]["clean_drop"].update(lost=1e9, gained=1e9), "1e+09 lost"),
        (nested_at_another_eps, "at eps 0.5"),
        (lambda value: value.update(surprise=1), "unknown key"),
    ],
)
def test_what_is_no_verdict_of_this_bundle_is_refused(refused, sealed, device_file, tmp_path, change, says):
    value = json.loads(device_file.read_bytes())
    change(value)
    path = tmp_path / "other.json"
    path.write_text(json.dumps(value))
    assert says in refused("verify", sealed, "--merge", path)


def test_a_file_that_is_missing(refused, sealed, tmp_path):
    assert "nowhere.json is missing" in refused("verify", sealed, "--merge", tmp_path / "nowhere.json")


def losing(mode, share):
    """The same mode with a share of its images lost, and an interval that says nothing was."""
    lost = round(share * mode.images)
    drop = Drop(0.0, -0.1, 0.1, budget=100.0, lost=lost, gained=0)
    return dataclasses.replace(mode, robust_drop=drop, reference_robust=1.0, artifact_robust=1 - lost / mode.images)


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"artifact_robust": 0.5}, "contradict"), ({"images": 1000}, "contradict")],
    ids=["accuracy", "images"],
)
def test_figures_that_contradict_each_other_are_refused(device_file, changes, says):
    one = read_verdict(device_file)
    modes = tuple(dataclasses.replace(losing(mode, 0.2), **changes) for mode in one.modes)
    with pytest.raises(InputError, match=says):
        merged(one, {"other.json": dataclasses.replace(one, modes=modes)}, Budget())


def test_figures_count_and_the_devices_own_decision_does_not(device_file):
    """It says PASS, under a budget of its own and with a flag that it allowed."""
    one = read_verdict(device_file)
    modes = tuple(losing(mode, 0.2) for mode in one.modes)
    lax = dataclasses.replace(one, passed=True, modes=modes, flags=(Flag("randomised", "it was allowed"),))
    verdict = merged(one, {"lax.json": lax}, Budget())
    assert not verdict.passed
    assert [reason.split(":")[:2] for reason in verdict.reasons] == [
        ["lax.json", " robust_drop"],
        ["lax.json", " robust_drop"],
        ["lax.json", " randomised"],
    ]
    assert verdict.elsewhere[0].modes[0].robust_drop.budget == 1.0
    lenient = Budget(7, 50, ("randomised",))
    assert merged(one, {"lax.json": lax}, lenient).passed
    assert merged(one, {"same.json": one}, lenient).passed
