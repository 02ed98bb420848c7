from __future__ import annotations

import zipfile

import pytest
import torch

from robust_edge_exporters.artifact import ExportSettings
from robust_edge_exporters.formats.csr.differences import csr_differences
from robust_edge_exporters.formats.csr.export import FILE, export_csr
from robust_edge_exporters.target import target_named
from tests.exporters.conftest import SHAPE

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


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


def test_another_form_of_a_layer_is_a_difference(export, model):
    layer = next(name for name, item in model.named_modules() if isinstance(item, torch.nn.Linear))
    sparse, dense = export("sparse", options={"csr_threshold": 1.0}), export("dense", layer_forms={})
    lines = csr_differences(sparse, dense)
    assert any(f"tensor '{layer}.weight' is not in the export" in line for line in lines)
    assert any("the code lacks 'class CsrLinear" in line for line in lines)


def test_parts_that_no_export_writes(export, tmp_path):
    built, shipped = export("built", options={"csr_threshold": 1.0}), export("shipped", options={"csr_threshold": 1.0})
    with zipfile.ZipFile(shipped) as archive:
        top = archive.namelist()[0].split("/")[0]
    with zipfile.ZipFile(shipped, "a") as archive:
        archive.writestr(f"{top}/extra/hidden", b"more")
    assert csr_differences(built, shipped) == ["model.ts: part 'extra/hidden' of the archive differs"]
    shipped.write_bytes(b"PK no archive")
    (line,) = csr_differences(built, shipped)
    assert "cannot be read as TorchScript" in line
