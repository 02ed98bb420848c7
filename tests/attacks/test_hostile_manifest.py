"""Manifests written to break their reader, in bundles whose hashes agree."""

from __future__ import annotations

import copy
import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError
from robust_edge_runtimes.load import load
from robust_edge_runtimes.modes.replay import replay
from robust_edge_runtimes.modes.settings import ModeSettings
from robust_edge_runtimes.verdict.inspection import inspect_artifact
from robust_edge_runtimes.verdict.judge import judge
from robust_edge_runtimes.verdict.measurement import Budget
from robust_edge_runtimes.verdict.subject import subject_of


def refused(bundle, match=None):
    with pytest.raises(BundleError, match=match) as caught:
        open_bundle(bundle)
    assert len(str(caught.value)) < 1000
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"manifest"',
        b"{}",
        b"\xff\xfe{}",
        b"\0" * 100,
        b"{" * 5000,
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"schema_version": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"schema_version": 1' + b"0" * 4000 + b"}",
        b'{"schema_version": 1' + b"0" * 100_000 + b"}",
        b'{"schema_version": 1, "schema_version": 1}',
        b'{"schema_version": "\\ud800"}',
        b'{"schema_version": 1, "' + b"k" * 500_000 + b'": 1}',
        b'{"schema_version": NaN}',
    ],
    ids=range(17),
)
def test_malformed_manifests_are_refused(bundle, forge, raw):
    refused(forge(bundle, raw=raw))


def text_with(bundle, old, new):
    text = (bundle / "manifest.json").read_text()
    assert old in text
    return text.replace(old, new, 1).encode()


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 400])
@pytest.mark.parametrize("field", ["eps", "clean_accuracy"])
def test_invalid_numbers_are_refused(bundle, forge, field, value):
    number = json.loads((bundle / "manifest.json").read_text())["expected"]
    number = number["attack"][field] if field == "eps" else number[field]
    refused(forge(bundle, raw=text_with(bundle, f'"{field}": {number}', f'"{field}": {value}')))


@pytest.mark.parametrize("field", ["schema_version", "target", "files", "sha256", "name"])
def test_a_key_given_twice(bundle, forge, field):
    raw = text_with(bundle, f'"{field}": ', f'"{field}": 1, "{field}": ')
    refused(forge(bundle, raw=raw), "is given twice")


@pytest.mark.parametrize("version", [0, 2, -1, 10**18, "1", None, True, 1.0])
def test_another_schema_version(bundle, forge, version):
    refused(forge(bundle, lambda value: value.update(schema_version=version)))


def test_a_manifest_larger_than_any_of_ours(bundle):
    with (bundle / "manifest.json").open("r+b") as file:
        file.truncate((64 << 20) + 1)
    refused(bundle, "larger than")


def test_a_table_of_very_many_files_ends_at_the_first_that_is_missing(bundle, forge):
    many = {f"f{i}": {"sha256": "0" * 64, "bytes": 1} for i in range(50_000)}
    refused(forge(bundle, lambda value: value["files"].update(many)), "f0 is missing")


@pytest.mark.parametrize(
    "value",
    [
        {"resize": [4, 4, 4]},
        {"resize": [4]},
        {"resize": [-4, 4]},
        {"resize": [1 << 40, 4]},
        {"resize": [8, 8], "crop": [4, 5]},
        {"crop": []},
        {"background": [0, 0, 300]},
        {"interpolation": "os:system"},
    ],
    ids=str,
)
def test_a_preprocessing_that_gives_no_image_of_the_network(bundle, forge, value):
    refused(forge(bundle, lambda manifest: manifest.update(preprocessing=value)), "preprocessing does not give")


def nodes(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from nodes(item, (*path, key))


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**40), max_value=10**40)
    | st.floats()
    | st.text(alphabet=st.characters(), max_size=8)
    | st.sampled_from(["../x", "/etc/passwd", "model.onnx", "\ud800", "\x1b[2J", "", "float32", "onnx"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def victim(sealed, tmp_path_factory):
    return shutil.copytree(sealed, tmp_path_factory.mktemp("victim") / "bundle")


@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_mutations_raise_only_bundle_errors(victim, opened, forge, data):
    """One to three places of the manifest replaced, removed or added; then everything a device does."""
    mutated = json.loads(json.dumps(opened.manifest.to_json()))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([p for p in nodes(mutated) if p]))
        holder = mutated
        for key in path[:-1]:
            holder = holder[key]
        action = data.draw(st.sampled_from(["replace", "remove", "copy"]))
        if action == "replace":
            holder[path[-1]] = data.draw(junk)
        elif action == "remove":
            del holder[path[-1]]
        elif isinstance(holder, dict):
            holder[data.draw(st.text(max_size=5))] = copy.deepcopy(holder[path[-1]])
        else:
            holder.append(copy.deepcopy(holder[path[-1]]))
    (victim / "manifest.json").write_text(json.dumps(opened.manifest.to_json()))
    forge(victim, raw=json.dumps(mutated).encode())
    try:
        bundle = open_bundle(victim)
        golden = bundle.golden()
        with load(bundle) as model:
            subject = subject_of(bundle, model)
            verdict = judge(inspect_artifact(subject), [replay(subject, ModeSettings())], Budget())
            label, p = model.classify(golden.clean[0])
        assert label in bundle.manifest.classes
        assert np.isfinite(p)
        assert verdict.passed == (not verdict.reasons and not verdict.undecided)
    except BundleError:
        pass
    except BackendUnavailable:
        assert mutated["artifact"]["format"] != "onnx"
