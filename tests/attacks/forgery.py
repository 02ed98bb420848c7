"""Bundles that are changed and sealed again, so that every hash in them agrees; and false claims for them to make."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil

import numpy as np

from robust_edge_exporters.formats.onnx.contents import contents_of
from robust_edge_runtimes.core import bundle as bundles
from robust_edge_runtimes.core import manifest as manifests
from robust_edge_runtimes.core.golden import GOLDEN, expected_of, write_golden
from robust_edge_runtimes.load import load

EPS = 0.1  # of the runs whose stored images are forged


def forged(honest, path, *files, manifest=None, golden=None, beside=None):
    """Write a copy of a bundle that is not what it claims.

    Args:
        honest: a bundle; it is not changed.
        path: the copy, a new folder.
        files: functions that change files in the folder that they are given.
        manifest: from the manifest to another one. Before, the number of non-zeros is that of the ONNX file, and after
            it the accuracies are those of the stored logits: other numbers are refused at once.
        golden: from the stored images to others.
        beside: a function that changes files in the folder after the bundle was sealed.
    """
    shutil.copytree(honest, path)
    opened = bundles.open_bundle(path)
    for change in files:
        change(path)
    written = counted(path, opened.manifest) if files and (path / "model.onnx").is_file() else opened.manifest
    written = written if manifest is None else manifest(written)
    if golden is not None:
        write_golden(path / GOLDEN, golden(opened.golden()))
    bundles.seal(path, written)
    _with_accuracies(path, written)
    if beside is not None:
        beside(path)
    return path


def _with_accuracies(path, manifest):
    stored = bundles.read_golden(path / GOLDEN, manifest)
    bundles.seal(path, dataclasses.replace(manifest, expected=expected_of(stored, manifest.expected.attack)))


def counted(path, manifest):
    """The manifest with the non-zeros that the artifact in the folder has; a wrong number is found out at once."""
    return dataclasses.replace(manifest, sparsity=contents_of(path / "model.onnx").sparsity)


def program(graph):
    """Another ONNX file."""
    return lambda path: (path / "model.onnx").write_bytes(graph.SerializeToString())


def of_another_network(workshop, path, target, name):
    """The robust network's bundle with the artifact of another one, exported for the same target."""
    compaction = bundles.open_bundle(workshop.bundle(target, name)).manifest.compaction
    artifact = program(workshop.program(name, target))
    return forged(workshop.bundle(target), path, artifact, manifest=field("compaction", lambda _: compaction))


def vouched(path):
    """Replace all stored logits by the artifact's own, so that nothing inside the bundle speaks against it."""
    opened = bundles.open_bundle(path)
    golden = opened.golden()
    with load(opened) as model:
        clean, attacked = model.infer_all(golden.clean), model.infer_all(golden.attacked)
    names = ("clean_logits", "attacked_logits", "artifact_clean_logits", "artifact_attacked_logits")
    write_golden(path / GOLDEN, dataclasses.replace(golden, **dict(zip(names, (clean, attacked) * 2, strict=True))))
    _with_accuracies(path, opened.manifest)
    return path


def written_as(text):
    """Other bytes of the manifest that say the same: `text(its bytes)`; SHA256SUMS follows."""

    def change(path):
        data = text((path / "manifest.json").read_bytes())
        (path / "manifest.json").write_bytes(data)
        sums = (path / "SHA256SUMS").read_text()
        digest = hashlib.sha256(data).hexdigest()
        (path / "SHA256SUMS").write_text(re.sub(r"(?m)^\w+(  manifest\.json)$", rf"{digest}\1", sums))

    return change


def indented(data):
    return json.dumps(json.loads(data), indent=3).encode()


def key_twice(data):
    return data.replace(b'"target": ', b'"target": "secret", "target": ', 1)


# Manifests


def attack(**fields):
    """Another attack."""

    def change(manifest):
        spec = dataclasses.replace(manifest.expected.attack, **fields)
        return dataclasses.replace(manifest, expected=dataclasses.replace(manifest.expected, attack=spec))

    return change


def field(name, value):
    """Another value: `value(manifest)`."""
    return lambda manifest: dataclasses.replace(manifest, **{name: value(manifest)})


def inner(name, /, **fields):
    """Other fields of a part of the manifest."""
    return field(name, lambda manifest: dataclasses.replace(getattr(manifest, name), **fields))


def another_seed(manifest):
    return attack(seed=manifest.expected.attack.seed + 1)(manifest)


def of_run(digest):
    """The hash of another run's checkpoint."""
    return inner("source", checkpoint_sha256=digest)


def one_weight_less(manifest):
    sparsity = manifest.sparsity
    first, *rest = sparsity.layers
    layers = (dataclasses.replace(first, nonzero=first.nonzero - 1), *rest)
    return inner("sparsity", nonzero=sparsity.nonzero - 1, layers=layers)(manifest)


def int8_row(manifest):
    """Claim the precision int8 on a target that has it."""
    artifact = dataclasses.replace(manifest.artifact, precision="int8")
    return dataclasses.replace(manifest, target="x86-cpu-int8", artifact=artifact)


def long_versions(manifest):
    versions = {**manifest.source.versions, "secret": "s" * 9000}
    return inner("source", versions=versions)(manifest)


CONTRADICTIONS = {
    "classes": (field("classes", lambda m: m.classes[::-1]), "wrong class names"),
    "target": (field("target", lambda _: "toaster"), "unknown target"),
    "precision": (inner("artifact", precision="int8"), "the precision is"),
    "old opset": (inner("artifact", opset=9), "says that the"),
    "new opset": (inner("artifact", opset=99), "the opset is"),
    "int8 row": (int8_row, "stored"),
    "format": (field("target", lambda _: "x86-cpu-csr"), "format"),
    "range": (field("input_range", lambda _: (0.0, 2.0)), "range of pixels"),
}
"""What the run, the target or the artifact itself contradicts at once, with words of the error."""
FIELDS = {
    "notes": (field("notes", lambda _: ("Certified: 100% robust.",)), "notes"),
    "compaction": (field("compaction", lambda _: manifests.Compaction(1, 2, 1, 2, 1, 8, 4)), "compaction"),
    "source": (inner("source", arch="resnet152"), "source.arch is 'resnet152' instead of"),
    "input": (inner("input", name="pixels"), "input.name is 'pixels'"),
    "layers": (field("layers", lambda _: (manifests.LayerForm("a", "dense", 9, 1),)), "layers"),
    "size": (inner("size", artifact=10), "size.artifact is 10 instead of"),
    "parity": (field("parity", lambda _: None), "parity is missing"),
}
"""Fields that mode rebuild compares, with words of the difference."""


# Stored images and logits


def unmoved(golden):
    """No attack at all."""
    return dataclasses.replace(golden, attacked=golden.clean, attacked_logits=golden.clean_logits)


def unmoved_and_vouched(golden):
    """Attack images that are the clean ones, with all logits to match."""
    return dataclasses.replace(unmoved(golden), artifact_attacked_logits=golden.artifact_clean_logits)


def noisy(golden):
    """In place of the attack noise on the border of the ball; the logits are not asked."""
    noise = np.sign(np.random.default_rng(0).normal(size=golden.clean.shape)) * EPS
    moved = np.clip(golden.clean + noise, golden.clean - 0.0999, golden.clean + 0.0999).clip(0, 1)
    return dataclasses.replace(golden, attacked=moved.astype(np.float32))


def foreign(golden):
    """One image that the run's test split does not hold."""
    clean = golden.clean.copy()
    clean[3] = clean[3, :, ::-1]
    return dataclasses.replace(golden, clean=clean, attacked=clean, attacked_logits=golden.clean_logits)


def easy(golden):
    """Only images that the checkpoint gets right under attack."""
    right = golden.attacked_logits.argmax(1) == golden.labels
    logits = ("clean_logits", "attacked_logits", "artifact_clean_logits", "artifact_attacked_logits")
    arrays = ("clean", "attacked", "labels", *logits)
    return dataclasses.replace(golden, **{name: getattr(golden, name)[right] for name in arrays})


def lenient(golden):
    return dataclasses.replace(golden, tolerance=1e-3)


def lenient_to_itself(golden):
    return dataclasses.replace(golden, tolerance=1e-3, artifact_tolerance=1e-3)


def without_own(golden):
    names = ("artifact_clean_logits", "artifact_attacked_logits", "artifact_tolerance")
    return dataclasses.replace(golden, **dict.fromkeys(names))


def moved_own(golden):
    return dataclasses.replace(golden, artifact_attacked_logits=golden.artifact_attacked_logits * np.float32(1.01))


def robust_everywhere(golden):
    """Logits that are right on every attacked image, as the higher robust accuracy in the manifest demands."""
    return dataclasses.replace(golden, attacked_logits=10 * np.eye(10, dtype=np.float32)[golden.labels])


def weak_beyond(first, weak):
    """A function from stored images to the same with those of `weak` after the first ones."""

    def change(golden):
        attacked = np.concatenate([golden.attacked[:first], weak.attacked[first:]])
        return dataclasses.replace(golden, attacked=attacked)

    return change


def moved_back(golden, rows, share):
    """These images moved towards the clean ones, by a share of ε at every pixel."""
    attacked, step = golden.attacked.copy(), share * EPS
    attacked[rows] += np.clip(golden.clean - attacked, -step, step)[rows]
    return dataclasses.replace(golden, attacked=attacked)


# Files that use the artifact


def importing_more(path):
    text = (path / "run.py").read_text()
    (path / "run.py").write_text(text.replace("import json\n", "import json\nimport site\n"))


def other_requirements(path):
    (path / "requirements.txt").write_text("numpy-evil\n")


def without_readme(path):
    (path / "README.md").unlink()


def shadowing_numpy(path):
    (path / "numpy.py").write_text("print('mine')\n")


def empty_folder(path):
    (path / "predict").mkdir()


def swapped_labels(path):
    lines = (path / "labels.txt").read_text().splitlines()
    (path / "labels.txt").write_text("\n".join(lines[::-1]) + "\n")


def added(name):
    """An empty file that no export writes."""

    def change(path):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b"")

    return change
