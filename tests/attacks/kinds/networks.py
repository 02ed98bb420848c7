"""Artifacts that compute something else than the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from robust_edge.config.export import GoldenSettings
from robust_edge_runtimes.core import bundle as bundles
from tests.attacks import forgery, scripts, surgery, two_faced
from tests.attacks.forgery import forged
from tests.attacks.kinds.kind import CSR, INT8, REFUSED, Make, benign, graph, of, reweighted, row
from tests.attacks.workshop import BENIGN, OTHER, Workshop


def another_run(shop: Workshop, path: Path) -> None:
    digest = shop.run().checkpoint().weights_sha256
    forged(shop.bundle(name=BENIGN), path, manifest=forgery.of_run(digest))


def other_in_8_bits(shop: Workshop, path: Path) -> None:
    forgery.of_another_network(shop, path, INT8, OTHER)


def with_table(shop: Workshop, path: Path) -> None:
    golden = bundles.open_bundle(shop.bundle()).golden()
    forged(shop.bundle(), path, forgery.program(surgery.with_table(shop.program(BENIGN), golden)))


def near_stored(shop: Workshop, path: Path) -> None:
    honest = shop.bundle(golden=GoldenSettings(images=10_000, steps=5))  # all test images
    far = two_faced.far_from(bundles.open_bundle(honest).golden().clean, 1.95)
    forged(honest, path, forgery.program(two_faced.two_faced(shop.program(), shop.program(BENIGN), far)))


def two_networks(condition: Callable[..., Any]) -> Make:
    """The benign network where the condition holds."""

    def make(shop: Workshop, path: Path) -> None:
        two = two_faced.two_faced(shop.program(), shop.program(BENIGN), condition)
        forged(shop.bundle(), path, forgery.program(two))

    return make


def two_scripts(kind: type) -> Make:
    """TorchScript of the robust and the benign network."""

    def make(shop: Workshop, path: Path) -> None:
        other = torch.jit.load(str(shop.bundle(CSR, BENIGN) / "model.ts")).eval()
        forged(shop.bundle(CSR), path, scripts.script(lambda network: kind(network, other)))

    return make


KINDS = [
    *row(
        "another network, as right on clean images",
        ("", benign()),
        ("with its own stored logits", benign(vouched=True), {"reasons": "not_the_checkpoint forged_answers"}),
        reasons="not_the_checkpoint robust_drop",
    ),
    *row("weights of another run under the run's hash", ("", another_run), reasons="rebuild_differs"),
    *row(
        "one, three or eight channels zeroed",
        *(
            (str(count), reweighted(surgery.without_channels(count)), {"words": (f"in row{'s' * (count > 1)} 0",)})
            for count in (1, 3, 8)
        ),
        reasons="rebuild_differs",
    ),
    *row(
        "noise of 0.5% on each layer",
        ("", reweighted(surgery.with_noise(0.005))),
        reasons="rebuild_differs",
        words=("values differ, by up to",),
    ),
    *row(
        "noise of 2% on the weights",
        ("", reweighted(surgery.with_noise(0.02))),
        reasons="not_the_checkpoint rebuild_differs",
    ),
    *row(
        "an operator, an attribute or an input of one changed",
        *((form, graph(change), {"words": words}) for form, (change, words) in surgery.OTHER_GRAPHS.items()),
        reasons="rebuild_differs",
    ),
    *row(
        "a benign network with an int8 claim, logits scaled or not",
        ("", benign(manifest=forgery.int8_row)),
        ("scaled", benign(manifest=forgery.int8_row, scaled=True)),
        exit=REFUSED,
        words=("the precision of the stored weights is 'int8', the artifact model.onnx itself says 'fp32'",),
    ),
    *row("a network of another seed, in honest 8 bits", ("", other_in_8_bits), reasons="not_the_checkpoint"),
    *row("a table of the bundle's images in the graph", ("", with_table), reasons="not_the_checkpoint robust_drop"),
    *row("robust near stored images only", ("", near_stored), reasons="not_the_checkpoint differs_elsewhere"),
    *row(
        "benign for one attacked image that comes alone",
        ("", two_networks(two_faced.attacked_in_batches_of(1, 1))),
        reasons="batch_dependent",
        words=("have other logits alone",),
    ),
    *row(
        "robust in batches of the attack's size only",
        ("", two_networks(two_faced.attacked_in_batches_of(2, 40))),
        reasons="batch_dependent",
        words=("in batches of",),
    ),
    *row(
        "TorchScript that looks at the batch, or at `requires_grad`",
        ("batch", two_scripts(two_faced.WhenAlone), {"reasons": "batch_dependent"}),
        ("requires_grad", two_scripts(two_faced.WhenRecorded), {"reasons": "twin_gradient_differs not_the_checkpoint"}),
        (
            "requires_grad, no gradient",
            two_scripts(two_faced.FlatWhenRecorded),
            {"reasons": "twin_gradient_differs zero_gradient no_black_box"},
        ),
    ),
    *row(
        "inputs rounded by many flat steps",
        ("", graph(lambda program: two_faced.staircase(program, 16))),
        reasons="twin_gradient_differs no_black_box",
    ),
    *row(
        "logits scaled, rounded, randomised, or probabilities; pixels rounded; normalised twice; channels swapped",
        *((form, graph(change), {"reasons": reasons}) for form, (change, reasons) in surgery.OTHER_LOGITS.items()),
    ),
    *row(
        "gradients masked by a saturated softmax",
        ("", graph(surgery.saturated, BENIGN)),
        reasons="saturated_gradient robust_drop",
    ),
    *row(
        "another TorchScript: code or one tensor",
        *(
            (form, of(CSR, scripts.script(change)), {"words": ("model.ts", *words)})
            for form, (change, words) in scripts.OTHER_SCRIPTS.items()
        ),
        reasons="rebuild_differs",
    ),
]
