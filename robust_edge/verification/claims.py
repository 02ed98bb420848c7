"""Compare the claims of a bundle with the run that it names, with the row of its target, and with its own artifact.

A claim that directly contradicts one of them is an error (exit 4). A claim that only makes the stored evidence weaker
than stated raises the flag `false_claim`, whose detail names the claim.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from robust_edge.config.export import MOST_STEPS, ExportChoices
from robust_edge.data import Split
from robust_edge.data.holdout import balanced_sample
from robust_edge.models import Normalized
from robust_edge.run.directory import Checkpoint, Run
from robust_edge.verification.stored_attack import ProgressOf, other_images
from robust_edge_exporters.artifact import Contents
from robust_edge_exporters.formats.table import format_named
from robust_edge_exporters.kernel_noise import INT8_CAP
from robust_edge_exporters.target import MIN_OPSET, Target, targets
from robust_edge_exporters.tolerance import LEAST
from robust_edge_runtimes.attacks.threat import LINF, USUAL_EPS
from robust_edge_runtimes.core.bundle import MANIFEST, Bundle
from robust_edge_runtimes.core.decode import short_repr, visible
from robust_edge_runtimes.core.errors import BundleError, RobustEdgeError, unknown_name
from robust_edge_runtimes.core.golden import GOLDEN, Golden, expected_of
from robust_edge_runtimes.core.logits import is_right
from robust_edge_runtimes.core.manifest import AttackSpec, Manifest, Sparsity
from robust_edge_runtimes.scoring import Score
from robust_edge_runtimes.verdict.flags import Check
from robust_edge_runtimes.verdict.measurement import Parity

LABELS = "labels.txt"
MOST_SEED = 2**63 - 1  # what torch and numpy both take
SAME_EPS = 1e-6
REACHED = 0.9  # of ε: PGD reaches the border of the ball at some pixel of some image
SAME_TOLERANCE = 2.0  # times; the error of fp32 depends on the CPU's kernels
SAME_ERROR = 3.0  # times; saturating 8-bit kernels of an older CPU make larger errors
SAME_ACCURACY = 0.005  # images near the decision boundary, whose class may differ in another version of torch
PIXELS = (0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement of a bundle beside what it should say.

    Attributes:
        what: the subject of the statement.
        claimed: the bundle's value.
        true: the value according to `source`.
        source: the run, the target's row or the artifact itself.
        why: the consequence of a difference; empty if it is obvious.
    """

    what: str
    claimed: Any
    true: Any
    source: str
    why: str = ""


def eps_of(run: Run) -> float:
    """The ε that a run is verified with: that of its adversary, or 8/255 if it was trained without one."""
    return run.config.attack.eps or USUAL_EPS[LINF]


def check_claims(bundle: Bundle, run: Run) -> None:
    """Refuse a bundle that contradicts its run, its target or its own artifact, or that leaves out how it was exported.

    Raises:
        BundleError: names the first false claim, and what is true.
    """
    manifest, checkpoint = bundle.manifest, run.checkpoint()
    if manifest.choices is None:
        raise BundleError(
            f"{bundle.path} does not record the choices of its export (`choices` in {MANIFEST}), which only "
            "release 0.1 left out: its files and its stored attack cannot be made again; export it again"
        )
    for claim in (*_of_the_run(bundle, checkpoint), *_of_the_target(manifest), *_of_the_artifact(bundle)):
        if claim.claimed != claim.true:
            raise BundleError(
                f"{bundle.path} says that {claim.what} is {short_repr(claim.claimed)}, {claim.source} says "
                f"{short_repr(claim.true)}{claim.why and f': {claim.why}'}; export it again"
            )
    _check_counts(bundle, checkpoint.sparsity)


def false_claims(
    bundle: Bundle,
    golden: Golden,
    run: Run,
    network: Normalized,
    score: Score,
    split: Split,
    training: Split,
    *,
    eps: float,
    seed: int,
    tolerance: float,
    artifact_tolerance: float,
    parity: Parity,
    progress: ProgressOf = lambda _: None,
) -> list[Check]:
    """Check whether the stored images, logits and figures are as strong as the bundle says.

    Args:
        bundle: opened.
        golden: the stored images.
        run: the run that the bundle was exported from.
        network: the run's network.
        score: the same network as a function from images to logits.
        split: the run's test images.
        training: those that it was trained on.
        eps: ε of this verification.
        seed: chooses the images on which the stored attack is repeated.
        tolerance: relative logit error that the run's arithmetic explains, from `logit_tolerance`.
        artifact_tolerance: relative difference between two machines that rounding explains.
        parity: of the artifact on the stored images, as measured here.
        progress: as `other_images`.
    """
    attack = bundle.manifest.expected.attack
    found = [_radius(attack, golden, run, eps), _known_attack(attack), _run_images(golden, split)]
    found += [_tolerance(golden, bundle.manifest, tolerance)]
    found += [_artifact_logits(golden, bundle.manifest, artifact_tolerance), _parity(bundle.manifest, parity)]
    found.append(_calibration(bundle.manifest, training))
    found.append(_stored_attack(attack, golden, network, score, seed, progress))
    own = dataclasses.replace(golden, clean_logits=score(golden.clean), attacked_logits=score(golden.attacked))
    found.append(_accuracies(bundle.manifest, own))
    return [Check("false_claim", bool(detail), detail) for detail in found]


def _of_the_run(bundle: Bundle, checkpoint: Checkpoint) -> Iterator[Claim]:
    manifest, names = bundle.manifest, "correct predictions would get wrong class names"
    classes = list(checkpoint.model.classes)
    yield Claim("the list of classes", list(manifest.classes), classes, "the run", names)
    yield Claim(LABELS, _labels(bundle), classes, "the run", names)
    yield Claim("the shape of one image", list(manifest.input.shape[1:]), list(checkpoint.model.shape), "the run")
    yield Claim("the range of pixels", tuple(manifest.input_range), PIXELS, "robust-edge")


def _of_the_target(manifest: Manifest) -> Iterator[Claim]:
    row, artifact = target_of(manifest), manifest.artifact
    source = f"target {row.name}"
    yield Claim("the artifact's format", artifact.format, row.format, source)
    if artifact.precision not in row.precisions:
        yield Claim("the precision", artifact.precision, " or ".join(row.precisions), source)
    if row.opset is None or row.opset_max is None or artifact.opset is None:
        yield Claim("the opset", artifact.opset, row.opset, source)
    elif not MIN_OPSET <= artifact.opset <= row.opset_max:
        yield Claim("the opset", artifact.opset, f"{row.opset_max} at most", source)
    else:
        yield Claim("the IR version", artifact.ir_version, row.with_opset(artifact.opset).ir_version, source)


def _of_the_artifact(bundle: Bundle) -> Iterator[Claim]:
    manifest, source = bundle.manifest, f"the artifact {bundle.manifest.artifact.file} itself"
    contents = _contents(bundle)
    if contents is None:
        return
    stored = target_of(manifest).in_file(manifest.artifact.precision)
    yield Claim("the precision of the stored weights", stored, contents.precision, source)
    yield Claim("the opset", manifest.artifact.opset, contents.opset, source)
    yield Claim("the IR version", manifest.artifact.ir_version, contents.ir_version, source)
    claimed, counted = (_counts(sparsity) for sparsity in (manifest.sparsity, contents.sparsity))
    yield Claim("the number of layers with weights", len(claimed), len(counted), source)
    for one, own in zip(claimed, counted, strict=False):
        yield Claim("(weights, non-zeros) of a layer", one, own, source)


def _contents(bundle: Bundle) -> Contents | None:
    try:
        return format_named(bundle.manifest.artifact.format).contents(bundle)
    except RobustEdgeError:
        raise
    except Exception as cause:  # whatever the bytes provoke
        raise BundleError(f"{bundle.artifact_path} cannot be read: {visible(str(cause))[:200]}") from cause


def _check_counts(bundle: Bundle, checkpoint: Sparsity) -> None:
    """Refuse more non-zero weights than the run has.

    An export removes weights only with whole channels, which `compaction` records; 8 bits may round weights to zero.
    """
    claimed, compacted = bundle.manifest.sparsity, bundle.manifest.compaction is not None
    more = claimed.weights > checkpoint.weights or claimed.nonzero > checkpoint.nonzero
    own, run = _counts(claimed), _counts(checkpoint)
    sizes, kept = [weights for weights, _ in own], all(a[1] <= b[1] for a, b in zip(own, run, strict=False))
    if more or not (compacted or (sizes == [weights for weights, _ in run] and kept)):
        raise BundleError(
            f"{bundle.path} says that {claimed.nonzero} of {claimed.weights} weights are kept, the run has "
            f"{checkpoint.nonzero} of {checkpoint.weights}, or others in one layer; export it again"
        )


def _counts(sparsity: Sparsity) -> list[tuple[int, int]]:
    """Sorted, since a layer may have another name in the artifact."""
    return sorted((layer.weights, layer.nonzero) for layer in sparsity.layers)


def target_of(manifest: Manifest) -> Target:
    """The row of the bundle's target.

    Raises:
        BundleError: the manifest names none that there is.
    """
    table = targets()
    if manifest.target not in table:
        raise BundleError(f"{MANIFEST}: {unknown_name('target', manifest.target, table)}; export the run again")
    return table[manifest.target]


def _labels(bundle: Bundle) -> list[str]:
    path = bundle.path / LABELS
    if LABELS not in bundle.manifest.files:
        raise BundleError(f"{path} is missing; export the bundle again")
    return path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")


def _radius(attack: AttackSpec, golden: Golden, run: Run, eps: float) -> str:
    """Return what is false about the claim, or an empty string; the same holds for the functions below."""
    allowed = sorted({eps_of(run), eps})
    if not any(abs(attack.eps - one) <= SAME_EPS for one in allowed):
        named = " or ".join(f"{one:.4g}" for one in allowed)
        return f"eps {attack.eps:.4g}: the run's is {named}; export with that, or verify with this eps"
    if not is_right(golden.clean_logits, golden.labels).any():
        return ""  # an export leaves misclassified images as they are; other logits than the run's are forged_answers
    moved = float(np.abs(golden.attacked - golden.clean).max())
    if attack.steps and moved < REACHED * attack.eps:
        return f"eps {attack.eps:.4g}: the stored images move by {moved:.4g} at most"
    return ""


def _known_attack(attack: AttackSpec) -> str:
    if attack.steps < 1 or attack.eps <= 0:
        return f"attack of {attack.steps} steps at eps {attack.eps:.4g}: an export stores images that were attacked"
    if attack.name != "pgd":
        return f"attack {short_repr(attack.name)}: an export stores images of pgd"
    if attack.steps > MOST_STEPS or attack.seed > MOST_SEED:
        return f"attack of {attack.steps} steps with seed {attack.seed}: an export takes at most {MOST_STEPS} steps"
    usual = 2.5 * attack.eps / max(attack.steps, 1)
    if attack.steps and not math.isclose(attack.step_size, usual, rel_tol=1e-6, abs_tol=1e-9):
        return f"step size {attack.step_size:.4g}: {attack.steps} steps of pgd at eps {attack.eps:.4g} have {usual:.4g}"
    return ""


def _run_images(golden: Golden, split: Split) -> str:
    """An export stores the first images of the test split, so that they cannot have been selected."""
    first = split.first(len(golden.labels))
    images, labels = first.floats(slice(None)).numpy(), first.labels.numpy()
    count = len(golden.labels)
    if len(labels) == count and images.shape == golden.clean.shape:
        bits = (np.ascontiguousarray(item).view(np.uint32) for item in (images, golden.clean))  # -0 is another image
        others = np.not_equal(*bits).any(axis=(1, 2, 3)) | (labels != golden.labels)
        if not others.any():
            return ""
        return (
            f"stored images: {int(others.sum())} of {count} are not the run's first {count} test images in their order"
        )
    return f"stored images: there are {count} of shape {golden.clean.shape[1:]}, the run has {len(labels)} test images"


def _tolerance(golden: Golden, manifest: Manifest, measured: float) -> str:
    """Compare the tolerance that the bundle gives to a device with the error of the run's arithmetic."""
    stored = [golden.tolerance, *([] if manifest.parity is None else [manifest.parity.tolerance])]
    if max(stored) <= SAME_TOLERANCE * measured:
        return ""
    return f"tolerance {max(stored):.3g}: the run's arithmetic gives {measured:.3g}"


def _calibration(manifest: Manifest, training: Split) -> str:
    """Fewer images than an export reads give ranges that clip; `rebuild` reads as many as the bundle records."""
    assert manifest.choices is not None, "`check_claims` has refused the bundle otherwise"
    if manifest.artifact.precision != "int8":
        return ""
    usual = len(balanced_sample(training, ExportChoices.calibration))
    others = len(balanced_sample(training, ExportChoices.calibration + ExportChoices.held_out)) - usual
    if manifest.choices.calibration < usual:
        return f"ranges of 8 bits from {manifest.choices.calibration} images: an export reads {usual} of this run"
    if manifest.choices.held_out < others:
        return f"calibration chosen by {manifest.choices.held_out} images: an export takes {others} of this run"
    return ""


def _artifact_logits(golden: Golden, manifest: Manifest, measured: float) -> str:
    """Whether the artifact's own logits are stored, and compare the tolerance of a device with that measured here."""
    if golden.artifact_tolerance is None:
        return f"{GOLDEN} without the artifact's own logits, which every export stores"
    other_kernels = INT8_CAP if manifest.artifact.precision == "int8" else 0.0
    if golden.artifact_tolerance <= max(SAME_TOLERANCE * measured, other_kernels):
        return ""
    return f"tolerance {golden.artifact_tolerance:.3g} of the artifact's own logits: here it is {measured:.3g}"


def _parity(manifest: Manifest, found: Parity) -> str:
    """Compare the figures of the parity, which another machine's kernels may have measured."""
    claimed = manifest.parity
    if claimed is None:
        return ""
    if found.max_logit_error > SAME_ERROR * claimed.max_logit_error + LEAST:
        return f"largest logit error {claimed.max_logit_error:.2g}: it is {found.max_logit_error:.2g} here"
    if claimed.argmax_agreement > found.argmax_agreement + max(SAME_ACCURACY, 1.5 / (2 * manifest.expected.images)):
        agree = f"{100 * found.argmax_agreement:.2f}%"
        return f"equal classes on {100 * claimed.argmax_agreement:.2f}% of the images: {agree} here"
    return ""


def _stored_attack(
    attack: AttackSpec, golden: Golden, network: Normalized, score: Score, seed: int, progress: ProgressOf
) -> str:
    if not (0 < attack.steps <= MOST_STEPS and attack.eps and attack.seed <= MOST_SEED):
        return ""  # `_known_attack` says so
    return other_images(attack, golden, network, score, seed=seed, progress=progress)


def _accuracies(manifest: Manifest, own: Golden) -> str:
    stated, found = manifest.expected, expected_of(own, manifest.expected.attack)
    for name in ("clean", "robust"):
        claimed, true = getattr(stated, f"{name}_accuracy"), getattr(found, f"{name}_accuracy")
        if abs(claimed - true) > max(SAME_ACCURACY, 1.5 / found.images):
            return f"{name} accuracy {100 * claimed:.1f}%: the run's checkpoint has {100 * true:.1f}% on these images"
    return ""
