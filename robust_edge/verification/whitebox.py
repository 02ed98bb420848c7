"""Mode `whitebox`: PGD that climbs the artifact's own arithmetic, every candidate scored by the artifact itself."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.verification.twins.twin import Differentiable
from robust_edge_runtimes.attacks.pgd import surrogate_pgd
from robust_edge_runtimes.core.bundle import Golden
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.scoring import Score, is_right, relative_error, score_of
from robust_edge_runtimes.verdict.fresh import Fresh
from robust_edge_runtimes.verdict.outputs import repeat_flags
from robust_edge_runtimes.verdict.verdict import WHITEBOX, Flag, Trial, Twin
from robust_edge_runtimes.verdict.verify import BLIND, stored_answers

TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.05}
AGREEMENT = {"fp32": 0.999, "fp16": 0.99, "int8": 0.97}
PROBED = 64
PROBE_STEPS = 5
SCALES = (0.1, 1.0, 10.0)

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """What the mode needs beside its settings.

    Attributes:
        model: the artifact's open runtime.
        twin: what gradients are taken from.
        golden: the bundle's images, on which twin and artifact are compared.
        precision: of the artifact.
        reference: the checkpoint; None where only its stored answers are at hand.
    """

    model: BaseRuntime
    twin: Differentiable
    golden: Golden
    precision: str
    reference: Score | None


def whitebox(parts: Parts, fresh: Fresh, attack: AttackSpec, *, progress: Progress | None = None) -> Trial:
    """Check the twin against the artifact, choose the temperature that breaks most, attack.

    Args:
        parts: artifact, twin and checkpoint.
        fresh: the images; at least one.
        attack: ε, steps, step size and seed.
        progress: called with (steps done, steps in all).
    """
    start, score, labels = time.monotonic(), score_of(parts.model), fresh.labels
    twin = compare(parts, fresh)
    logits = score(fresh.probes)
    clean, unsteady = is_right(logits, labels), repeat_flags(score, fresh.probes, logits)
    temperature, blind = _temperature(parts, fresh, score, attack)
    oracle = TorchOracle(parts.twin.network, temperature=temperature)
    outcome = surrogate_pgd(score, oracle, fresh.images, labels, attack, reference=parts.reference, progress=progress)
    if parts.reference is None:
        reference_clean, reference_robust = stored_answers(parts.golden, fresh.ids)
    else:
        reference_clean = is_right(parts.reference(fresh.probes), labels)
        reference_robust = reference_clean & outcome.reference_right
    twin = dataclasses.replace(twin, temperature=temperature)
    return Trial(
        WHITEBOX,
        attack,
        fresh.ids,
        reference_clean,
        clean,
        reference_robust,
        clean & outcome.artifact_right,
        (*unsteady, *_flags(parts, twin, outcome.zero_gradients, blind)),
        paired=parts.reference is not None,
        twin=twin,
        seconds=time.monotonic() - start,
    )


def compare(parts: Parts, fresh: Fresh) -> Twin:
    """How far the twin's logits are from the artifact's, on clean, on fresh and on attacked images."""
    images = np.concatenate([parts.golden.clean, parts.golden.attacked, fresh.probes])
    ours, theirs = TorchOracle(parts.twin.network).logits(images), score_of(parts.model)(images)
    error = relative_error(ours, theirs)
    return Twin(
        made_from=parts.twin.made_from,
        max_logit_error=error if np.isfinite(error) else 1e308,
        tolerance=TOLERANCE[parts.precision],
        argmax_agreement=float((ours.argmax(1) == theirs.argmax(1)).mean()),
        temperature=1.0,
    )


def _temperature(parts: Parts, fresh: Fresh, score: Score, attack: AttackSpec) -> tuple[float, float]:
    """The temperature at which a short attack on a few images leaves fewest right.

    Logits that are scaled up saturate the softmax and end its gradient; at the right temperature it is there again.

    Returns:
        The temperature, 1 unless another breaks more; and the share of gradients that were zero at 1.
    """
    images, labels = fresh.images[:PROBED], fresh.labels[:PROBED]
    ordered = np.sort(TorchOracle(parts.twin.network).logits(images), axis=1)
    lead = float(np.median(ordered[:, -1] - ordered[:, -2]))
    lead = lead if np.isfinite(lead) and lead > 0 else 1.0
    steps = min(PROBE_STEPS, attack.steps)
    short = dataclasses.replace(attack, steps=steps, step_size=2.5 * attack.eps / max(steps, 1))
    found = []
    for temperature in (1.0, *(scale * lead for scale in SCALES)):
        oracle = TorchOracle(parts.twin.network, temperature=temperature)
        outcome = surrogate_pgd(score, oracle, images, labels, short)
        found.append((int(outcome.artifact_right.sum()), outcome.zero_gradients, temperature))
    _, _, best = min(found, key=lambda item: item[:2])
    return best, found[0][1]


def _flags(parts: Parts, twin: Twin, zero: float, blind: float) -> list[Flag]:
    flags = []
    alike = twin.max_logit_error <= twin.tolerance and twin.argmax_agreement >= AGREEMENT[parts.precision]
    if not alike:
        detail = (
            f"{twin.made_from} in torch gives logits {twin.max_logit_error:.2g} (relative, tolerance "
            f"{twin.tolerance:.2g}) from the artifact's, classes agree on {100 * twin.argmax_agreement:.1f}%: its "
            "gradients are not the artifact's"
        )
        flags.append(Flag("twin_differs", detail))
    if zero > BLIND:
        detail = f"{100 * zero:.0f}% of the twin's gradients were zero at every temperature tried: the attack was blind"
        flags.append(Flag("zero_gradient", detail))
    elif blind > BLIND:
        detail = (
            f"{100 * blind:.0f}% of the gradients vanish at the logits' own scale; attacked with the logits divided "
            f"by {twin.temperature:.3g}"
        )
        flags.append(Flag("saturated_gradient", detail))
    return flags
