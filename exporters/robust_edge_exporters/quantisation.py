"""What is known of an 8-bit artifact beside its file: how its ranges were chosen, and where it loses accuracy."""

from __future__ import annotations

import dataclasses

from robust_edge_runtimes.core.errors import ExportError


class TooFewBits(ExportError):
    """8 bits do not hold the weights or values of a network; other weights may fit.

    Attributes:
        reason: what is too large.
    """

    reason: str = ""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"8 bits are too few for this network: {reason}; nothing was written. Export it in fp32 or fp16, or train "
            "it with weight decay, which keeps weights and activations of a layer alike in size"
        )


class SameLogits(TooFewBits):
    """A network has the same logits for every image, so that 8-bit logits cannot be compared with them."""

    def __init__(self) -> None:
        ExportError.__init__(
            self,
            "the checkpoint gives the same logits for every image, so that nothing shows whether 8 bits keep what it "
            "computes; nothing was written. Train it until it tells images apart, import it with the --mean and "
            "--std of its training, or export it in fp32",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationError:
    """How far the logits of one way of calibration are from the network's on images that it was not calibrated on.

    Attributes:
        method: as in `formats/onnx/calibration.py`.
        mean, rms, max: of the absolute errors, relative to the largest absolute logit.
        agreement: fraction of the images with the same class.
    """

    method: str
    mean: float
    rms: float
    max: float
    agreement: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerRange:
    """The range of a layer's input that 8 bits cover.

    Attributes:
        layer: name of its weight's module, or of its node.
        low, high: of the covered values.
        lowest, highest: of all values on the calibration images.
        precision: `int8`, or `fp32` for a layer that is left out.
    """

    layer: str
    low: float
    high: float
    lowest: float
    highest: float
    precision: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerLoss:
    """What one layer costs.

    Attributes:
        layer: its name, as `int8_skip` takes it.
        rms: error of the logits if this layer, too, is left in fp32, relative to the largest absolute logit.
        share: of the mean squared error of all layers, which is gone then; may be negative where errors cancel.
    """

    layer: str
    rms: float
    share: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantisationReport:
    """Attributes:
    method: of calibration, with the smallest error on the images in `judged_on`.
    judged_on: number of training images that are not among those of the calibration; 0 if there were none.
    candidates: all methods that were tried.
    ranges: of the layers with weights.
    losses: the largest share first; empty unless asked for.
    """

    method: str
    judged_on: int
    candidates: tuple[CalibrationError, ...]
    ranges: tuple[LayerRange, ...]
    losses: tuple[LayerLoss, ...] = ()
