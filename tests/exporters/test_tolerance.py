"""The tolerance of logits against an oracle: the same network in float64 as naive loops."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the tolerance is measured on a network of torch")

from torch import nn  # noqa: E402

from robust_edge_exporters.target import target_named  # noqa: E402
from robust_edge_exporters.tolerance import LEAST, MARGIN, logit_tolerance  # noqa: E402
from robust_edge_runtimes.core.closeness import logit_scale  # noqa: E402
from robust_edge_runtimes.core.golden import MAX_TOLERANCE  # noqa: E402

TARGETS = {"fp32": "x86-cpu", "fp16": "nvidia-gpu-onnx", "int8": "x86-cpu-int8"}
IMAGES = np.random.default_rng(0).random((8, 2, 5, 5), np.float32)


def network(cancelled=0.0, offset=0.0):
    """A convolution, ReLU and a linear layer.

    Args:
        cancelled: added to every hidden value; the weights of the linear layer cancel it, up to its rounding.
        offset: added to every logit.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(75, 4)).eval()
    with torch.no_grad():
        model[0].bias += cancelled
        model[3].weight -= model[3].weight.mean(1, keepdim=True)
        model[3].bias += offset
    return model


def naive_logits(model, images):
    """(N, 4) float64 logits of `network`, one product at a time."""
    kernel, shift, weight, bias = (value.detach().double().numpy() for value in model.parameters())
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    logits = np.zeros((len(images), len(bias)))
    for n in range(len(images)):
        hidden = np.zeros((3, 5, 5))
        for c, y, x in np.ndindex(hidden.shape):
            total = shift[c]
            for i, u, v in np.ndindex(kernel.shape[1:]):
                total += kernel[c, i, u, v] * padded[n, i, y + u, x + v]
            hidden[c, y, x] = max(total, 0.0)
        for k in range(len(bias)):
            logits[n, k] = bias[k] + sum(w * h for w, h in zip(weight[k], hidden.reshape(-1), strict=True))
    return logits


def spread_of(logits):
    """The largest logit, counted from the mean of its image's logits where that is less."""
    return min(np.abs(logits).max(), np.abs(logits - logits.mean(1, keepdims=True)).max())


@pytest.mark.parametrize(("cancelled", "expects"), [(0.0, "least"), (5.0, "measured"), (1e5, "cap")])
def test_tolerance_is_the_margin_times_the_error_of_float32(cancelled, expects):
    model = network(cancelled)
    exact = naive_logits(model, IMAGES)
    with torch.no_grad():
        error = np.abs(model(torch.from_numpy(IMAGES)).numpy() - exact).max() / spread_of(exact)
    cap = MAX_TOLERANCE["fp32"]
    kind = "least" if MARGIN["fp32"] * error < LEAST else "cap" if MARGIN["fp32"] * error > cap else "measured"
    assert kind == expects, error
    found = logit_tolerance(model, IMAGES, "fp32", target_named("x86-cpu"))
    assert found == pytest.approx(min(cap, max(LEAST, MARGIN["fp32"] * error)), rel=1e-6)


@pytest.mark.parametrize("precision", TARGETS)
def test_a_constant_on_all_logits_widens_no_tolerance(precision):
    """Counted in logits: a constant changes no class. In fp32 and fp16 it is rounded itself, at most up to the cap."""
    allowed = []
    for offset in (0.0, 1000.0):
        model = network(offset=offset)
        tolerance = logit_tolerance(model, IMAGES, precision, target_named(TARGETS[precision]), on_device=False)
        allowed.append(tolerance * logit_scale(naive_logits(model, IMAGES)))
    spread = spread_of(naive_logits(network(), IMAGES))
    assert allowed[1] <= MAX_TOLERANCE[precision] * spread * 1.001
    if precision == "int8":
        assert allowed[1] == pytest.approx(allowed[0], rel=0.05)
