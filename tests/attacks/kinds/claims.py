"""Bundles whose manifest or stored images claim what is not true."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robust_edge.config.export import GoldenSettings
from robust_edge_runtimes.core import bundle as bundles
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.core.logits import is_right
from tests.attacks import forgery
from tests.attacks.forgery import forged
from tests.attacks.kinds.kind import INT8, REFUSED, benign, of, row
from tests.attacks.workshop import STORED, Workshop


def weak_beyond(shop: Workshop, path: Path) -> None:
    weak = bundles.open_bundle(shop.bundle(golden=GoldenSettings(images=STORED.images, steps=1))).golden()
    forgery.vouched(forged(shop.bundle(), path, golden=forgery.weak_beyond(40, weak)))


def moved_back(shop: Workshop, path: Path) -> None:
    def back(golden: Golden) -> Golden:
        broken = is_right(golden.clean_logits, golden.labels) & ~is_right(golden.attacked_logits, golden.labels)
        return forgery.moved_back(golden, broken, 0.098)

    forgery.vouched(forged(shop.bundle(), path, golden=back))


def benign_at_a_tiny_eps(shop: Workshop, path: Path) -> None:
    bundle = benign(vouched=True)(shop, path.with_name("benign"))
    forged(bundle, path, manifest=forgery.attack(eps=1e-9), golden=forgery.unmoved_and_vouched)


def attacked_at_the_runs_eps(verdict: Mapping[str, Any], shop: Workshop) -> bool:
    eps = {mode["attack"]["eps"] for mode in verdict["modes"] if mode["mode"] != "replay"}
    return eps == {shop.run().config.attack.eps}


KINDS = [
    *row(
        "ε of 1 (both networks at 0%), or of next to nothing",
        ("1", of(manifest=forgery.attack(eps=1.0))),
        ("next to nothing", of(manifest=forgery.attack(eps=1e-9), golden=forgery.unmoved_and_vouched)),
        reasons="false_claim",
        words=("the run's is 0.1",),
        holds=attacked_at_the_runs_eps,
    ),
    *row(
        "stored attack another one than claimed, or noise",
        ("autoattack", of(manifest=forgery.attack(name="autoattack")), {"words": ("attack 'autoattack'",)}),
        ("step size", of(manifest=forgery.attack(step_size=0.5)), {"words": ("step size 0.5",)}),
        ("none", of(golden=forgery.unmoved_and_vouched), {"words": ("move by 0 at most",)}),
        ("noise", of(golden=forgery.noisy), {"words": ("made again",)}),
        reasons="false_claim",
    ),
    *row(
        "stored attack of fewer steps than claimed, with another seed, or weak beyond the first images",
        ("steps", of(manifest=forgery.attack(steps=20, step_size=0.0125))),
        ("seed", of(manifest=forgery.another_seed)),
        ("weak beyond", weak_beyond),
        reasons="false_claim",
        words=("made again from seed",),
    ),
    *row(
        "stored attack images moved back over the decision boundary, with logits and accuracies to match",
        ("", moved_back),
        reasons="false_claim",
        words=("made again from seed",),
    ),
    *row(
        "stored logits of the artifact that are not its own",
        ("", of(golden=forgery.moved_own)),
        reasons="not_the_artifact",
    ),
    *row(
        "stored logits that are not the checkpoint's",
        ("", benign_at_a_tiny_eps),
        reasons="forged_answers robust_drop",
    ),
    *row(
        "classes, target, precision, opset, format or pixel range that are not the run's or the target's",
        *((form, of(manifest=change), {"words": (words,)}) for form, (change, words) in forgery.CONTRADICTIONS.items()),
        exit=REFUSED,
    ),
    *row(
        "labels swapped, fewer non-zeros claimed",
        ("labels", of("x86-cpu", forgery.swapped_labels), {"words": ("labels.txt is",)}),
        ("non-zeros", of(manifest=forgery.one_weight_less), {"words": ("(weights, non-zeros) of a layer",)}),
        exit=REFUSED,
    ),
    *row(
        "the recorded choices of the export taken out",
        ("", of(manifest=forgery.field("choices", lambda _: None))),
        exit=REFUSED,
        words=("does not record the choices of its export",),
    ),
    *row(
        "any other field of the manifest",
        *(
            (form, of(manifest=change), {"words": (f"manifest.json: {words}",)})
            for form, (change, words) in forgery.FIELDS.items()
            if form != "input"
        ),
        (
            "input",
            of(manifest=forgery.FIELDS["input"][0]),
            {"exit": REFUSED, "reasons": "", "words": ("model.onnx has the inputs and outputs ['images', 'logits']",)},
        ),
        reasons="rebuild_differs",
    ),
    *row(
        "stored images that were chosen, or a stored tolerance that is too wide",
        *(
            (form, of(golden=change), {"words": (words,)})
            for form, change, words in (
                ("easy images", forgery.easy, "are not the run's first"),
                ("an image", forgery.foreign, "1 of 200 are not the run's first 200 test images"),
                ("tolerance", forgery.lenient, "tolerance 0.001"),
                ("tolerance of its own logits", forgery.lenient_to_itself, "tolerance 0.001 of the artifact's own"),
                ("no logits of its own", forgery.without_own, "without the artifact's own logits"),
            )
        ),
        reasons="false_claim",
    ),
    *row(
        "accuracies that are not the checkpoint's, with stored logits to match",
        ("", of(golden=forgery.robust_everywhere)),
        reasons="false_claim forged_answers",
        words=("robust accuracy",),
    ),
    *row(
        "ranges of 8 bits from a few images",
        ("", of(INT8, manifest=forgery.inner("choices", calibration=3))),
        reasons="false_claim",
        words=("ranges of 8 bits from 3 images",),
    ),
    *row(
        "errors of the export that are not true",
        (
            "8 bits",
            of(INT8, manifest=forgery.inner("parity", max_logit_error=0.0)),
            {"words": ("largest logit error 0",)},
        ),
        ("tolerance", of(manifest=forgery.inner("parity", tolerance=0.5)), {"words": ("tolerance 0.5",)}),
        reasons="false_claim",
    ),
]
