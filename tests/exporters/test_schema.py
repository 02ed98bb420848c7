from __future__ import annotations

import copy
import json

import pytest

from robust_edge_exporters.schema import manifest_schema
from robust_edge_runtimes.core.errors import BundleError
from robust_edge_runtimes.core.manifest import Manifest

jsonschema = pytest.importorskip(
    "jsonschema", reason="the schema is checked with jsonschema; pip install 'robust-edge[dev]'"
)


@pytest.fixture(scope="module")
def validator():
    jsonschema.Draft202012Validator.check_schema(manifest_schema())
    return jsonschema.Draft202012Validator(manifest_schema())


@pytest.fixture(scope="module")
def manifest(exported):
    return json.loads((exported / "manifest.json").read_bytes())


def places(value, path=()):
    """Every (path, value) below a parsed JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key), item
        yield from places(item, (*path, key))


def changed(value, path, new):
    copied = copy.deepcopy(value)
    inner = copied
    for key in path[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return copied


def test_a_written_manifest_is_valid_and_the_bundle_holds_the_schema(exported, validator, manifest):
    validator.validate(manifest)
    assert json.loads((exported / "manifest.schema.json").read_bytes()) == manifest_schema()


def test_what_the_schema_refuses_the_reader_refuses(validator, manifest):
    refused = 0
    for path, _ in places(manifest):
        for new in (..., None, [], {}, "text", 1.5, -1, True):
            if new is ... and not isinstance(path[-1], str):
                continue
            broken = changed(manifest, path, new)
            if not validator.is_valid(broken):
                refused += 1
                with pytest.raises(BundleError):
                    Manifest.from_json(broken)
    assert refused > 300


@pytest.mark.parametrize("path", [(), ("artifact",), ("sparsity",), ("expected", "attack"), ("parity",), ("size",)])
def test_unknown_keys_are_refused_by_both(validator, manifest, path):
    broken = changed(manifest, (*path, "surprise"), 1)
    assert not validator.is_valid(broken)
    with pytest.raises(BundleError, match="surprise"):
        Manifest.from_json(broken)
