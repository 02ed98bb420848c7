from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_edge_runtimes.core import decode as module
from robust_edge_runtimes.core.decode import decode, parse_json, read_json
from robust_edge_runtimes.core.errors import BundleError, InputError


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    ratio: float
    on: bool
    inner: Inner
    many: tuple[Inner, ...] = ()
    table: dict[str, int] = dataclasses.field(default_factory=dict)
    maybe: int | None = None
    either: int | str = 0
    anything: Any = None


GOOD = {"name": "a", "ratio": 0.5, "on": True, "inner": {"size": 3}}


def test_every_kind_of_field_arrives():
    value = {**GOOD, "many": [{"size": 1}, {"size": 2}], "table": {"k": 4}, "maybe": 5, "either": "x", "anything": [1]}
    assert decode(Outer, value) == Outer("a", 0.5, True, Inner(3), (Inner(1), Inner(2)), {"k": 4}, 5, "x", [1])


def test_defaults_stand_in_and_whole_numbers_are_numbers():
    built = decode(Outer, {**GOOD, "ratio": 1})
    assert built.many == ()
    assert built.maybe is None
    assert built.ratio == 1.0
    assert type(built.ratio) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, r"f\.name must be text, not 3"),
        ({"ratio": True}, r"f\.ratio must be a number, not True"),
        ({"ratio": "0.5"}, r"f\.ratio must be a number, not '0\.5'"),
        ({"ratio": float("nan")}, r"f\.ratio must be a finite number"),
        ({"ratio": float("inf")}, r"f\.ratio must be a finite number"),
        ({"ratio": 10**400}, r"f\.ratio must be a finite number"),
        ({"on": 1}, r"f\.on must be true or false, not 1"),
        ({"inner": [3]}, r"f\.inner must be a mapping"),
        ({"inner": {"size": True}}, r"f\.inner\.size must be a whole number, not True"),
        ({"inner": {"size": 3.0}}, r"f\.inner\.size must be a whole number, not 3\.0"),
        ({"inner": {"size": 2**70}}, r"f\.inner\.size must be a whole number of 64 bits, not 11805916"),
        ({"inner": {}}, r"f\.inner\.size is missing"),
        ({"many": {"size": 1}}, r"f\.many must be a list"),
        ({"many": [{"size": 1}, {"size": "2"}]}, r"f\.many\[1\]\.size must be a whole number"),
        ({"table": {"k": "4"}}, r"f\.table\.k must be a whole number"),
        ({"table": [4]}, r"f\.table must be a mapping"),
        ({"table": {3: 4}}, r"f\.table must be a mapping with text keys"),
        ({"maybe": "five"}, r"f\.maybe must be a whole number"),
        ({"either": 0.5}, r"f\.either must be a whole number.* or .*f\.either must be text"),
        ({"nmae": "a"}, r"unknown key of f 'nmae'; did you mean 'name'"),
        ({"name": "half \ud800 pair"}, r"f\.name must be text.*UTF-8"),
        ({"table": {"\ud800": 1}}, r"UTF-8"),
    ],
)
def test_one_error_per_cause_with_its_path(change, message):
    with pytest.raises(BundleError, match=message):
        decode(Outer, {**GOOD, **change}, where="f", error=BundleError)


def test_the_root_is_named_by_its_class_when_nobody_names_it():
    with pytest.raises(InputError, match="Inner must be a mapping, not 3"):
        decode(Inner, 3)


@pytest.mark.parametrize("value", ["x" * 10**6, [1] * 10**6, {"k" * 10**6: 1}, 10**3000])
def test_messages_stay_short_whatever_the_value(value):
    for whole in ({**GOOD, "on": value}, {**GOOD, "k" * 10**6: value}, {**GOOD, "table": {"k" * 10**6: "no number"}}):
        with pytest.raises(InputError) as caught:
            decode(Outer, whole)
        assert len(str(caught.value)) < 500


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_strict_parsing_agrees_with_the_standard_library(value):
    text = json.dumps(value)
    assert parse_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "blob",
    [
        b'{"a": 1, "a": 1}',
        b'[{"b": {"a": 1, "a": 2}}]',
        b"NaN",
        b"\xef\xbb\xbf{}",
        b"[Infinity]",
        b'{"a": -Infinity}',
        b"",
        b"{",
        b'"\xff"',
    ],
)
def test_loose_json_is_refused(blob, tmp_path):
    with pytest.raises(ValueError):
        parse_json(blob)
    path = tmp_path / "f.json"
    path.write_bytes(blob)
    with pytest.raises(BundleError, match=r"f\.json is not valid JSON .* copy it again"):
        read_json(path, BundleError)


@pytest.mark.parametrize("blob", [b"[" * 10**5 + b"]" * 10**5, b'{"a":' * 10**5 + b"1" + b"}" * 10**5])
def test_deep_nesting_is_an_error_not_a_crash(blob, tmp_path):
    path = tmp_path / "deep.json"
    path.write_bytes(blob)
    with pytest.raises(InputError, match=r"deep\.json is not valid JSON"):
        read_json(path)


def test_missing_and_oversized_files_are_named(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is missing"):
        read_json(tmp_path / "none.json")
    monkeypatch.setattr(module, "MAX_JSON_BYTES", 10)
    (tmp_path / "big.json").write_text('"' + 10 * "a" + '"')
    with pytest.raises(InputError, match="larger than"):
        read_json(tmp_path / "big.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders")
def test_pipes_and_devices_are_refused_before_they_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError, match="is not a regular file"):
            read_json(path)


def test_a_long_key_that_is_given_twice_is_shortened(tmp_path):
    (tmp_path / "twice.json").write_text(f'{{"{5000 * "k"}": 1, "{5000 * "k"}": 2}}')
    with pytest.raises(InputError, match="is given twice") as caught:
        read_json(tmp_path / "twice.json")
    assert len(str(caught.value)) < 400
