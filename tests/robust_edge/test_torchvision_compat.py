import subprocess
import sys

import pytest

from robust_edge.torchvision_compat import torchvision_module


@pytest.mark.parametrize("name", ["models", "datasets", "transforms"])
def test_the_parts_that_are_used_can_be_imported(name):
    assert torchvision_module(name).__name__ == f"torchvision.{name}"
    assert torchvision_module(name) is torchvision_module(name)


def test_a_first_import_that_fails_on_the_missing_operators_succeeds():
    """As beside a CPU-only torch: a stand-in torchvision that raises until the two schemas are there."""
    script = """
import sys, types, importlib.abc, importlib.util, torch
tries = []
class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchvision":
            return importlib.util.spec_from_loader(name, self, is_package=True)
    def exec_module(self, module):
        if module.__name__ == "torchvision":
            tries.append(1)
            torch._C._dispatch_find_schema_or_throw("torchvision::nms", "")
            torch._C._dispatch_find_schema_or_throw("torchvision::qnms", "")
sys.meta_path.insert(0, Finder())
_find = torch._C._dispatch_find_schema_or_throw
def find(name, overload):
    try:
        return _find(name, overload)
    except RuntimeError:
        raise RuntimeError(f"operator {name} does not exist") from None
torch._C._dispatch_find_schema_or_throw = find
from robust_edge.torchvision_compat import torchvision_module
print(torchvision_module("models").__name__, len(tries))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["torchvision.models", "2"], done.stderr


def test_another_failure_is_not_hidden(monkeypatch):
    def broken(name):
        raise RuntimeError("something else")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(RuntimeError, match="something else"):
        torchvision_module("models")
