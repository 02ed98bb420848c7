"""A trace that an interrupt ends, at every line of torch's own that is run for it."""

import math
import sys

import pytest
import torch
from torch import fx, nn
from torch.fx import _symbolic_trace

from robust_edge_exporters.tracing import REPLACED, tracing

NETWORK = nn.Sequential(nn.Linear(2, 2), nn.ReLU())


def state():
    """What a trace replaces: attributes, and functions in the namespaces of `math` and of the network."""
    functions = {**vars(math), **vars(sys.modules[nn.Sequential.__module__])}
    return [getattr(owner, name) for owner, name in REPLACED], {n: f for n, f in functions.items() if callable(f)}


def interrupted_at(line):
    """Trace, and raise KeyboardInterrupt at the line of this number; return whether there was one."""
    lines = 0

    def local(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        if event == "line" and lines == line:
            raise KeyboardInterrupt
        return local

    before = sys.gettrace()
    sys.settrace(lambda frame, *_: local if frame.f_code.co_filename == _symbolic_trace.__file__ else None)
    try:
        fx.symbolic_trace(NETWORK)
    finally:
        sys.settrace(before)
    return lines >= line


def test_nothing_is_left_of_an_interrupted_trace():
    before, line = state(), 0
    while True:
        line += 1
        with tracing():
            try:
                if not interrupted_at(line):
                    break
            except (KeyboardInterrupt, AssertionError):  # torch's, of an interrupt before there is a patcher
                pass
        assert state() == before, f"after an interrupt at line {line}"
        assert NETWORK(torch.ones(1, 2)).shape == (1, 2)
    assert line > 100


def test_an_error_passes():
    with pytest.raises(ZeroDivisionError), tracing():
        raise ZeroDivisionError
