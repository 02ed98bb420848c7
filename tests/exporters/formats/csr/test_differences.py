from __future__ import annotations

import importlib.util
import pickle
import struct

import pytest
import torch

from robust_edge_exporters.artifact import ExportSettings
from robust_edge_exporters.formats.csr.differences import _code, _pickles, _records, csr_differences
from robust_edge_exporters.formats.csr.export import FILE, export_csr, save_script
from robust_edge_exporters.target import target_named
from tests.attacks import hidden
from tests.exporters.conftest import SHAPE

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")


@pytest.fixture
def export(model, tmp_path):
    """export(name, **settings) -> a new file."""

    def write(name, **settings):
        folder = tmp_path / name
        folder.mkdir()
        export_csr(model, SHAPE, target_named("x86-cpu-csr"), str(folder), ExportSettings(**settings))
        return folder / FILE

    return write


def test_a_second_export_of_one_process_has_other_numbers_and_is_equal(export):
    first, second = export("first", options={"csr_threshold": 1.0}), export("second", options={"csr_threshold": 1.0})
    assert first.read_bytes() != second.read_bytes()
    assert csr_differences(first, second) == []


def test_a_trace_does_not_depend_on_what_the_process_did_before(tmp_path):
    """Training makes torch deterministic, which the trace of a convolution would record."""

    class Traced(torch.nn.Conv2d):
        def forward(self, x):
            # torch.fx follows no condition, TorchScript compiles no starred call
            return super().forward(x, *()).flatten(1) if len(x) else x

    model, files = Traced(1, 2, 3).eval(), []
    for deterministic in (False, True):
        folder = tmp_path / str(deterministic)
        folder.mkdir()
        torch.use_deterministic_algorithms(deterministic)
        try:
            export_csr(model, (1, 3, 3), target_named("x86-cpu-csr"), str(folder), ExportSettings(options={}))
            assert torch.are_deterministic_algorithms_enabled() == deterministic
        finally:
            torch.use_deterministic_algorithms(False)
        files.append(folder / FILE)
    assert csr_differences(*files) == []


def test_the_folder_of_the_package_and_lines_in_it_do_not_count(tmp_path):
    """torch prints the lines of Python even where it is asked for none, within loops."""
    source = """
import torch

class Loop(torch.nn.Module):
    def forward(self, x):
        for _ in range(len(x)):
            x = x.{operation}(1)
        return x
"""
    files = []
    for name, above, operation in (("one", "", "add"), ("other", "\n\n", "add"), ("third", "", "mul")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "loop.py").write_text(above + source.format(operation=operation))
        spec = importlib.util.spec_from_file_location("loop", folder / "loop.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        save_script(torch.jit.script(module.Loop()), str(folder / FILE))
        files.append(folder / FILE)
    assert csr_differences(files[0], files[1]) == []
    assert csr_differences(files[0], files[2])


def test_a_class_that_lies_in_a_file_of_its_own_is_the_same():
    """TorchScript puts a class into another file if the process knows another one of that name."""
    first, second = "class A(Module):\n  x : int\n", "class B(Module):\n  y : int\n"
    together = {"code/a.py": (first + second).encode()}
    apart = {"code/a.py": first.encode(), "code/___torch_mangle_3.py": second.encode()}
    assert list(_code(together, apart)) == []


def test_another_form_of_a_layer_is_a_difference(export, model):
    layer = next(name for name, item in model.named_modules() if isinstance(item, torch.nn.Linear))
    sparse, dense = export("sparse", options={"csr_threshold": 1.0}), export("dense", layer_forms={})
    lines = csr_differences(sparse, dense)
    assert any(f"tensor '{layer}.weight' is not in the export" in line for line in lines)
    assert any("the code lacks 'class CsrLinear" in line for line in lines)


@pytest.mark.parametrize("name", ["extra/hidden", "bytecode.pkl", "other.pkl", "code/none.py.debug_pkl"])
def test_parts_that_no_export_writes(name, export):
    """A mobile device executes `bytecode.pkl` instead of the code."""
    built, shipped = export("built", options={"csr_threshold": 1.0}), export("shipped", options={"csr_threshold": 1.0})
    shipped.write_bytes(hidden.with_part(name)(shipped.read_bytes()))
    (line,) = csr_differences(built, shipped)
    assert line.startswith(f"model.ts: part '{name}' of the archive differs")


def test_blanks_between_definitions(export):
    files = [export(name, options={"csr_threshold": 1.0}) for name in ("built", "shipped")]
    records = {name: text for name, text in _records(files[1]).items() if name.endswith(".py")}
    assert not [*_code(records, records)]
    assert [*_code(records, {name: text + b" \n" * 1000 for name, text in records.items()})]


@pytest.mark.parametrize("name", ["data.pkl", "constants.pkl"])
@pytest.mark.parametrize(
    ("written", "hides"),
    [
        (pickle.dumps([1.5, "__torch__.___torch_mangle_7.Net"], 2), False),
        (pickle.dumps([1.5, "__torch__.Net"], 2) + b"s" * 5000, True),
        (pickle.dumps([1.5, "__torch__.___torch_mangle_7.___torch_mangle_8.Net"], 2), True),
        (pickle.dumps([1.5, f"__torch__.___torch_mangle_{'7' * 5000}.Net"], 2), True),
    ],
    ids=["honest", "behind STOP", "two numbers", "long number"],
)
def test_bytes_hidden_in_attributes_or_constants(name, written, hides):
    """A pickle ends at STOP for its readers."""
    lines = [*_pickles({name: pickle.dumps([1.5, "__torch__.Net"], 2)}, {name: written})]
    assert len(lines) == hides


def test_values_that_print_alike_are_other_bytes():
    nans = [struct.pack(">Q", 0x7FF8 << 48 | payload) for payload in (0, 1)]
    first, second = ({"data.pkl": b"\x80\x02G" + nan + b"."} for nan in nans)
    assert len([*_pickles(first, second)]) == 1


@pytest.mark.parametrize(
    ("hide", "words"),
    [
        (hidden.behind_the_end, "belong to none of its parts"),
        (hidden.in_the_comment, "belong to none of its parts"),
        (hidden.between_the_parts, "belong to none of its parts"),
        (hidden.in_the_serial_number, "is no number: b'#!/bin/sh"),
    ],
)
def test_bytes_that_belong_to_no_part(hide, words, export):
    built, shipped = export("built", options={"csr_threshold": 1.0}), export("shipped", options={"csr_threshold": 1.0})
    shipped.write_bytes(hide(shipped.read_bytes()))
    (line,) = csr_differences(built, shipped)
    assert words in line


def test_bytes_that_are_no_archive(export):
    built, shipped = export("built"), export("shipped")
    shipped.write_bytes(b"PK no archive")
    (line,) = csr_differences(built, shipped)
    assert "cannot be read as TorchScript" in line


def test_temporaries_are_numbered_anew_in_every_function():
    """Torch goes on counting from the function before, which depends on what the process scripted before."""
    body = (
        "class A(Module):\n  _0 : Tensor\n  def forward(self: A,\n    x: Tensor) -> Tensor:\n    _{} = torch.relu(x)\n"
    )
    texts = [body.format(number) + f"    return torch.neg(_{number})\n" for number in (0, 7)]
    other = body.format(7) + "    return torch.neg(_8)\n"
    ours, same, wrong = ({"code/a.py": text.encode()} for text in (*texts, other))
    assert not [*_code(ours, same)]
    assert [*_code(ours, wrong)]
