from __future__ import annotations

from pathlib import Path

import pytest

from robust_edge_runtimes.core.errors import (
    BackendUnavailable,
    BundleError,
    ExportError,
    InputError,
    RobustEdgeError,
    TrainingDiverged,
    shown,
    shown_as,
    unknown_name,
)


def test_each_class_has_the_documented_exit_code():
    codes = {
        RobustEdgeError: 2,
        InputError: 2,
        ExportError: 1,
        TrainingDiverged: 1,
        BackendUnavailable: 3,
        BundleError: 4,
    }
    assert {kind: kind.exit_code for kind in codes} == codes
    assert all(issubclass(kind, RobustEdgeError) for kind in codes)


def test_an_unknown_name_brings_the_nearest_and_all():
    error = unknown_name("target", "x68-cpu", ["x86-cpu", "arm-cpu"], BundleError)
    assert type(error) is BundleError
    assert str(error) == "unknown target 'x68-cpu'; did you mean 'x86-cpu'? (known: arm-cpu, x86-cpu)"


@pytest.mark.parametrize("name", ["", "nothing like it"])
def test_a_far_name_brings_no_guess(name):
    assert "did you mean" not in str(unknown_name("target", name, ["x86-cpu"]))


def test_a_name_of_any_length_makes_a_short_message():
    assert len(str(unknown_name("target", "x" * 100_000, ["x86-cpu"]))) < 200


@pytest.mark.parametrize(
    "error",
    [BundleError("/tmp/copy/model.onnx is bad"), FileNotFoundError(2, "No such file", "/tmp/copy/model.onnx")],
)
def test_an_error_about_a_copy_names_the_original_wherever_it_is_printed(error):
    with pytest.raises(type(error)) as caught, shown_as(Path("/tmp/copy"), Path("given")):
        raise error
    assert "given/model.onnx" in str(caught.value)
    assert "/tmp/copy" not in str(caught.value)
    assert shown("/tmp/copy/a") == "/tmp/copy/a"  # it is forgotten where the copy is removed


@pytest.mark.parametrize("name", ["a" * 5000, "a " * 2500, "/".join("a" * 5000)])
def test_a_message_about_a_long_name_keeps_its_ends(name):
    text = str(InputError(f"the attack {name} is unknown; evaluate again"))
    assert text.startswith("the attack a")
    assert text.endswith("is unknown; evaluate again")
    assert len(text) <= InputError.longest


def test_a_message_of_usual_length_stays():
    text = " ".join(["words"] * 140)
    assert str(InputError(text)) == text
