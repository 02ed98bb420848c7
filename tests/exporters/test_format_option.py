from __future__ import annotations

import pytest

from robust_edge_exporters.bundle import refuse_choices
from robust_edge_exporters.format_option import FormatOption, resolved
from robust_edge_exporters.formats.csr.options import OPTIONS
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.errors import InputError

COUNT = FormatOption(name="count", type=int, help="A count", flag="--count", default=3, minimum=1)
SWITCH = FormatOption(name="switch", type=bool, help="A switch", flag="--switch", default=False)


def test_what_is_not_given_has_its_default():
    assert resolved((COUNT, SWITCH), {"switch": True}) == {"count": 3, "switch": True}
    assert resolved(OPTIONS, {}) == {"csr_threshold": None}


def test_whole_numbers_are_floats_too():
    (value,) = resolved(OPTIONS, {"csr_threshold": 1}).values()
    assert (value, type(value)) == (1.0, float)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        (COUNT, 0, r"count must be in \[1, inf\]; it is 0"),
        (COUNT, 1.5, "count must be of type int, not 1.5"),
        (COUNT, None, "count must be of type int, not None"),
        (COUNT, True, "count must be of type int, not True"),
        (SWITCH, 1, "switch must be of type bool, not 1"),
        (OPTIONS[0], float("nan"), "csr_threshold must be in"),
        (OPTIONS[0], 1.5, r"csr_threshold must be in \[0, 1\]; it is 1.5"),
    ],
)
def test_a_value_that_is_not_allowed(option, value, says):
    with pytest.raises(InputError, match=says):
        resolved((option,), {option.name: value})


@pytest.mark.parametrize(
    ("target", "options", "says"),
    [
        ("x86-cpu", {"csr_threshold": 0.5}, "of format onnx, which has no `csr_threshold`; leave `csr_threshold` out"),
        ("x86-cpu-csr", {"unheard": 1}, "has no `unheard`"),
        ("x86-cpu-csr", {"csr_threshold": 2.0}, "must be in"),
    ],
)
def test_an_option_of_another_format_is_refused(target, options, says):
    with pytest.raises(InputError, match=says):
        refuse_choices(target_named(target), batch=None, options=options)
