import importlib.metadata

import pytest

from robust_edge_runtimes.core.references import resolve


def test_a_reference_is_a_module_and_a_name():
    assert resolve("importlib.metadata:version") is importlib.metadata.version


def test_what_is_not_there_is_an_error():
    with pytest.raises(ImportError):
        resolve("no_such_module:name")
    with pytest.raises(AttributeError):
        resolve("importlib.metadata:no_such_name")
