from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from robust_edge_runtimes.core import golden as module
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import BundleError
from robust_edge_runtimes.core.golden import MAX_TOLERANCE, read_golden, write_golden


def test_golden_comes_back_bit_for_bit(bundle, make_golden, linear):
    written, found = make_golden(linear), open_bundle(bundle).golden()
    for field in dataclasses.fields(written):
        expected, got = getattr(written, field.name), getattr(found, field.name)
        assert np.array_equal(expected, got), field.name
        assert np.asarray(expected).dtype == np.asarray(got).dtype


def test_same_arrays_same_bytes(tmp_path, make_golden, linear):
    for name in ("a.npz", "b.npz"):
        write_golden(tmp_path / name, make_golden(linear))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.fixture
def with_own(golden):
    """The golden images with the artifact's own logits, which bundles of release 0.1 do not hold."""
    own = {
        f"artifact_{name}": getattr(golden, name) * np.float32(1.001) for name in ("clean_logits", "attacked_logits")
    }
    return dataclasses.replace(golden, **own, artifact_tolerance=golden.tolerance)


def test_the_artifacts_own_logits_come_back(with_own, opened, tmp_path):
    write_golden(tmp_path / "golden.npz", with_own)
    found = read_golden(tmp_path / "golden.npz", opened.manifest)
    assert found.artifact_tolerance == with_own.artifact_tolerance
    clean = found.clean_logits * np.float32(1.001)
    assert np.array_equal(found.artifact_logits, np.concatenate([clean, with_own.artifact_attacked_logits]))
    assert opened.golden().artifact_logits is None


@pytest.mark.parametrize(
    ("field", "change", "says"),
    [
        ("artifact_tolerance", lambda value: 1.01 * value, "artifact_tolerance has values outside"),
        ("artifact_tolerance", lambda value: None, "must hold"),
        ("artifact_clean_logits", lambda value: None, "must hold"),
        ("artifact_clean_logits", lambda value: value[:-1], "artifact_clean_logits is"),
        ("artifact_attacked_logits", lambda value: value + np.float32(np.inf), "NaN or infinity"),
    ],
)
def test_logits_of_the_artifact_that_do_not_fit_are_refused(field, change, says, with_own, opened, tmp_path):
    write_golden(tmp_path / "golden.npz", changed(with_own, **{field: change(getattr(with_own, field))}))
    with pytest.raises(BundleError, match=says):
        read_golden(tmp_path / "golden.npz", opened.manifest)


def changed(golden, **arrays):
    return dataclasses.replace(golden, **arrays)


BROKEN = {
    "no images": lambda g: changed(g, **{f: getattr(g, f)[:0] for f in ARRAYS}),
    "pixels above 1": lambda g: changed(g, clean=g.clean + np.float32(1)),
    "pixels below 0": lambda g: changed(g, attacked=g.attacked - np.float32(1)),
    "pixels not numbers": lambda g: changed(g, clean=np.full_like(g.clean, np.nan)),
    "infinite logits": lambda g: changed(g, clean_logits=np.full_like(g.clean_logits, np.inf)),
    "float64 images": lambda g: changed(g, clean=g.clean.astype(np.float64)),
    "big-endian images": lambda g: changed(g, clean=g.clean.astype(">f4")),
    "int32 labels": lambda g: changed(g, labels=g.labels.astype(np.int32)),
    "label of no class": lambda g: changed(g, labels=g.labels + 1),
    "negative label": lambda g: changed(g, labels=g.labels - 1),
    "labels in a table": lambda g: changed(g, labels=g.labels[:, None]),
    "one label": lambda g: changed(g, labels=np.int64(1)),
    "fewer labels": lambda g: changed(g, labels=g.labels[:-1]),
    "fewer attacked images": lambda g: changed(g, attacked=g.attacked[:-1]),
    "other image size": lambda g: changed(g, clean=g.clean[:, :, :3]),
    "other class count": lambda g: changed(g, attacked_logits=g.attacked_logits[:, :3]),
    "a tolerance that lets any network pass for fp32": lambda g: changed(g, tolerance=2e-3),
    "negative tolerance": lambda g: changed(g, tolerance=-1e-4),
    "tolerance not a number": lambda g: changed(g, tolerance=float("nan")),
    "float32 tolerance": lambda g: changed(g, tolerance=np.float32(1e-4)),
    "tolerance in a list": lambda g: changed(g, tolerance=np.array([1e-4])),
}
ARRAYS = ("clean", "attacked", "labels", "clean_logits", "attacked_logits")


@pytest.mark.parametrize("case", BROKEN)
def test_golden_arrays_that_do_not_fit_are_refused(case, golden, opened, tmp_path):
    write_golden(tmp_path / "golden.npz", BROKEN[case](golden))
    with pytest.raises(BundleError, match=r"golden\.npz"):
        read_golden(tmp_path / "golden.npz", opened.manifest)


@pytest.mark.parametrize(("precision", "widest"), MAX_TOLERANCE.items())
def test_the_widest_tolerance_is_that_of_the_precision(precision, widest, golden, opened, tmp_path):
    artifact = dataclasses.replace(opened.manifest.artifact, precision=precision)
    manifest = dataclasses.replace(opened.manifest, artifact=artifact)
    write_golden(tmp_path / "golden.npz", changed(golden, tolerance=widest))
    assert read_golden(tmp_path / "golden.npz", manifest).tolerance == widest
    write_golden(tmp_path / "golden.npz", changed(golden, tolerance=widest * 1.01))
    with pytest.raises(BundleError, match="tolerance has values outside"):
        read_golden(tmp_path / "golden.npz", manifest)


@pytest.mark.parametrize(("figure", "change"), [("images", 1), ("clean_accuracy", -0.1), ("robust_accuracy", 0.1)])
def test_a_manifest_that_promises_more_than_the_stored_answers_show_is_refused(figure, change, bundle, forge):
    forge(bundle, lambda value: value["expected"].update({figure: value["expected"][figure] + change}))
    with pytest.raises(BundleError, match=r"manifest\.json states"):
        open_bundle(bundle).golden()


@pytest.mark.parametrize("change", ["drop", "add"])
def test_missing_and_extra_arrays_are_refused(change, golden, opened, tmp_path):
    arrays = {field.name: np.asarray(getattr(golden, field.name)) for field in dataclasses.fields(golden)}
    if change == "drop":
        arrays.pop("attacked")
    else:
        arrays["more"] = np.zeros(1)
    np.savez(tmp_path / "golden.npz", **arrays)
    with pytest.raises(BundleError, match="must hold clean, attacked"):
        read_golden(tmp_path / "golden.npz", opened.manifest)


def test_size_is_checked_before_unpacking(golden, opened, tmp_path, monkeypatch):
    write_golden(tmp_path / "golden.npz", golden)
    monkeypatch.setattr(module, "MAX_GOLDEN_BYTES", 1000)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *a, **k: pytest.fail("unpacked"))
    with pytest.raises(BundleError, match="unpacks to more than"):
        read_golden(tmp_path / "golden.npz", opened.manifest)


def test_arrays_in_fortran_order_hold_the_same_images(golden, opened, tmp_path):
    write_golden(tmp_path / "golden.npz", changed(golden, clean=np.asfortranarray(golden.clean)))
    assert np.array_equal(read_golden(tmp_path / "golden.npz", opened.manifest).clean, golden.clean)
