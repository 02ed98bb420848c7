"""Everything that decides what a run does, as frozen dataclasses, and how the layers of it combine.

Order, later wins: defaults here, preset, `--config` file, command-line flags, `--set key=value`. The
resolved config is written into the run as `config.yaml`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from robust_edge.config.notation import BAD_YAML, read_yaml, write_yaml
from robust_edge.config.ranges import require as _require
from robust_edge.config.recipe import AveragingConfig, AwpConfig, SelectionConfig
from robust_edge_runtimes.core.decode import decode
from robust_edge_runtimes.core.errors import InputError, unknown_name
from robust_edge_runtimes.core.runtime import MAX_THREADS

PRESETS = ("quick", "strong", "thesis")
SCHEMES = ("irregular", "funnel", "redundant", "nm", "filter")
SCOPES = ("global", "layer", "macs")
SCOPES_OF = {"irregular": SCOPES, "filter": ("global", "layer")}  # any other scheme has one threshold
AUGMENTATIONS = ("crop", "flip", "rotate", "shift")
EPS_SCHEDULES = ("constant", "linear", "thirds")
LOSSES = ("adversarial", "trades")
PRECISIONS = ("fp32", "bf16")

EpsSchedule = str | tuple[float, ...]
StepsSchedule = str | tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images.

    Attributes:
        dataset: `digits`, `cifar10`, `cifar100`, `folder`, or `package.module:function`.
        dir: where `folder` and the CIFAR sets lie.
        download: fetch a CIFAR set that is not there.
        limit_train: use only this many training images, evenly over the classes.
        limit_test: the same for test images.
        resize: side in pixels that every image of a folder is brought to; None takes them as they are.
        augment: any of flip, rotate (up to 15 degrees), shift (up to an eighth of the side), crop (pad an eighth of
            the side, 4 pixels at 32, and cut a window: the field's name for shift).
        resident: whether all images lie in the memory of the device that trains; `auto` where they take no more than
            `resident_mib`. Others are read by worker processes while the network trains.
        resident_mib: MiB of pixels, training and test images together, one byte each.
    """

    dataset: str = "digits"
    dir: str | None = None
    download: bool = False
    limit_train: int | None = None
    limit_test: int | None = None
    resize: int | None = None
    augment: tuple[str, ...] = ()
    resident: bool | str = "auto"
    resident_mib: int = 4096

    def __post_init__(self) -> None:
        for name in ("limit_train", "limit_test", "resize"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"data.{name}", value, "at least 1, or null")
        for name in self.augment:
            if name not in AUGMENTATIONS:
                raise unknown_name("augmentation", name, AUGMENTATIONS)
        known = isinstance(self.resident, bool) or self.resident == "auto"
        _require(known, "data.resident", self.resident, "auto, true or false")
        _require(self.resident_mib >= 0, "data.resident_mib", self.resident_mib, "0 or above")

    def stays(self, pixels: int) -> bool:
        """Whether images of so many bytes in all are held in memory."""
        return self.resident if isinstance(self.resident, bool) else pixels <= self.resident_mib << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """The training adversary: PGD on the ℓ∞ ball, Eq. (3).

    Attributes:
        eps: largest radius, in pixel units on [0, 1]; 0 trains a benign network.
        eps_schedule: `constant`, `thirds` (ε/3, 2ε/3, ε), `linear` (up to ε over the first half), or one value per
            epoch.
        steps: most gradient steps, s.
        steps_schedule: `constant`, `grow` (1, 2, ... up to s, restarting when ε steps up), or one per epoch.
        step_size: None for 2.5·ε/s.
    """

    eps: float = 0.1
    eps_schedule: EpsSchedule = "constant"
    steps: int = 7
    steps_schedule: StepsSchedule = "constant"
    step_size: float | None = None

    def __post_init__(self) -> None:
        _require(0 <= self.eps <= 1, "attack.eps", self.eps, "a radius in pixel units, 0 to 1, as 8/255 or 0.0314")
        _require(self.steps >= 1, "attack.steps", self.steps, "at least 1")
        positive = self.step_size is None or self.step_size > 0
        _require(positive, "attack.step_size", self.step_size, "above 0, or null")
        _require_schedule("attack.eps_schedule", self.eps_schedule, EPS_SCHEDULES, lambda v: 0 <= v <= 1)
        _require_schedule("attack.steps_schedule", self.steps_schedule, ("constant", "grow"), lambda v: v >= 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruningConfig:
    """The sparsity set S.

    Attributes:
        keep: fraction of the prunable weights that stay non-zero, in (0, 1]; 1 trains a dense network.
        keep_schedule: `constant`, `halve` (1/2, 1/4, ... down to keep), or one value per ADMM epoch.
        scheme: the shape of S: `irregular` (any weights), `funnel` (less in every deeper layer), `redundant` (no
            filters alike), `nm` (n of m neighbours), `filter` (whole channels).
        scope: of `irregular` and `filter`: `global` (one threshold for all layers) or `layer` (the same fraction in
            every layer); of `irregular` also `macs` (one threshold that minds what a weight costs to run).
        floor: fraction of each layer's weights (or filters) that a threshold may never take; None takes a quarter of
            keep, so that no layer starves.
        prune_depthwise: whether `irregular`, with one threshold or the same fraction everywhere, may prune depthwise
            convolutions. Their filters have some nine weights and are the only way of a channel: at 10% most are empty.
        macs: scope `macs`: largest fraction of the dense network's multiply-accumulates; None takes keep.
        n: scheme `nm`: how many of m neighbours along the input channels may stay.
        m: the other number of `nm`.
    """

    keep: float = 0.1
    keep_schedule: EpsSchedule = "constant"
    scheme: str = "irregular"
    scope: str = "global"
    floor: float | None = None
    prune_depthwise: bool = False
    macs: float | None = None
    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        _require(0 < self.keep <= 1, "keep", self.keep, "a fraction above 0, at most 1 (10% is 0.1)")
        if self.scheme not in SCHEMES:
            raise unknown_name("scheme", self.scheme, SCHEMES)
        if self.scope not in SCOPES:
            raise unknown_name("scope", self.scope, SCOPES)
        if self.scope not in SCOPES_OF.get(self.scheme, ("global",)):
            raise InputError(
                f"pruning.scope {self.scope} does not apply to scheme {self.scheme}, which takes "
                f"{' or '.join(SCOPES_OF.get(self.scheme, ('global',)))}"
            )
        _require(self.macs is None or 0 < self.macs <= 1, "pruning.macs", self.macs, "a fraction above 0, or null")
        _require(self.macs is None or self.scope == "macs", "pruning.macs", self.macs, "null unless --scope is macs")
        _require(1 <= self.n < self.m, "pruning.n", self.n, f"at least 1 and below pruning.m ({self.m}), as in 2:4")
        _require(self.floor is None or 0 <= self.floor <= 1, "pruning.floor", self.floor, "a fraction, 0 to 1, or null")
        _require_schedule("pruning.keep_schedule", self.keep_schedule, ("constant", "halve"), lambda v: 0 < v <= 1)

    @property
    def layer_floor(self) -> float:
        """The floor in force, in [0, 1]."""
        return self.keep / 4 if self.floor is None else self.floor


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdmmConfig:
    """The alternating part, Eq. (7)-(9).

    Attributes:
        rho: first penalty, above 0.
        rho_growth: factor per update of θ' and u.
        rho_max: cap of the penalty.
        interval: optimiser steps between two updates of θ' and u; 1 is Algorithm 1 to the letter.
        masked_fraction: last part of the epochs, trained under a fixed mask after the hard projection.
        prune_when: project hard before that part begins, as soon as the primal residual ‖θ − θ'‖ / ‖θ‖ is at most
            this at the end of an epoch; None waits for it.
    """

    rho: float = 1e-3
    rho_growth: float = 1.0
    rho_max: float = 1.0
    interval: int = 1
    masked_fraction: float = 0.34
    prune_when: float | None = None

    def __post_init__(self) -> None:
        _require(self.rho > 0, "admm.rho", self.rho, "above 0")
        _require(self.rho_growth >= 1, "admm.rho_growth", self.rho_growth, "at least 1")
        _require(self.rho_max >= self.rho, "admm.rho_max", self.rho_max, f"at least admm.rho ({self.rho})")
        _require(self.interval >= 1, "admm.interval", self.interval, "at least 1")
        inside = 0 < self.masked_fraction < 1
        _require(inside, "admm.masked_fraction", self.masked_fraction, "between 0 and 1")
        positive = self.prune_when is None or self.prune_when > 0
        _require(positive, "admm.prune_when", self.prune_when, "above 0, or null")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The optimiser and its schedule.

    Attributes:
        epochs: T, the masked part included.
        batch_size: images per optimiser step.
        lr: first learning rate, η.
        lr_schedule: `cosine` (down to 0 once before and once after the hard projection), `step`, or one value per
            epoch.
        lr_step: epochs between two decays of `step`.
        lr_decay: factor of one decay of `step`.
        adversarial_weight: weight of the loss on attacked images; the rest goes to the clean loss.
        loss: `adversarial` (cross-entropy on attacked and clean images, so weighted) or `trades` (Zhang 2019:
            cross-entropy on clean images and β times the divergence between clean and attacked predictions).
        beta: β of `trades`.
        label_smoothing: share of the target that is spread over all classes.
    """

    epochs: int = 30
    batch_size: int = 128
    lr: float = 0.05
    lr_schedule: EpsSchedule = "cosine"
    lr_step: int = 10
    lr_decay: float = 0.5
    momentum: float = 0.9
    weight_decay: float = 5e-4
    adversarial_weight: float = 0.9
    loss: str = "adversarial"
    beta: float = 6.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("epochs", "lr_step"):
            _require(getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "at least 1")
        _require(self.batch_size >= 2, "training.batch_size", self.batch_size, "at least 2, as batch-norm needs")
        _require(self.lr > 0, "training.lr", self.lr, "above 0")
        _require(0 < self.lr_decay <= 1, "training.lr_decay", self.lr_decay, "above 0, at most 1")
        for name in ("momentum", "adversarial_weight"):
            _require(0 <= getattr(self, name) <= 1, f"training.{name}", getattr(self, name), "0 to 1")
        _require(self.weight_decay >= 0, "training.weight_decay", self.weight_decay, "0 or above")
        _require_schedule("training.lr_schedule", self.lr_schedule, ("cosine", "step"), lambda v: v > 0)
        if self.loss not in LOSSES:
            raise unknown_name("training.loss", self.loss, LOSSES)
        _require(self.beta > 0, "training.beta", self.beta, "above 0")
        smooth = 0 <= self.label_smoothing < 1
        _require(smooth, "training.label_smoothing", self.label_smoothing, "0 or above, below 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the arithmetic is done; the thesis is silent on it.

    Attributes:
        precision: `fp32`, or `bf16` for the layers (autocast); pixels, losses and attack steps stay fp32.
        channels_last: keep images and weights as NHWC, which convolutions prefer on CPUs and GPUs.
        compile: run the network through torch.compile; the first batches take minutes.
        workers: processes that read images while the network trains, where they do not lie on the device.
    """

    precision: str = "fp32"
    channels_last: bool = True
    compile: bool = False
    workers: int = 2

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        _require(0 <= self.workers <= MAX_THREADS, "compute.workers", self.workers, f"0 to {MAX_THREADS}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompressConfig:
    """A whole run.

    Attributes:
        arch: a name of the zoo, or `package.module:function`.
        init: a `.safetensors` or `.pth` state dict to start from; None starts from random weights.
        device: `cpu`, `cuda`, `cuda:1`, or `auto`.
        threads: CPU threads; None leaves torch's choice.
        tensorboard: write every epoch's row for TensorBoard, too, into RUN/tensorboard.
    """

    arch: str = "small_cnn"
    init: str | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    tensorboard: bool = False
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    attack: AttackConfig = dataclasses.field(default_factory=AttackConfig)
    pruning: PruningConfig = dataclasses.field(default_factory=PruningConfig)
    admm: AdmmConfig = dataclasses.field(default_factory=AdmmConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    averaging: AveragingConfig = dataclasses.field(default_factory=AveragingConfig)
    awp: AwpConfig = dataclasses.field(default_factory=AwpConfig)
    selection: SelectionConfig = dataclasses.field(default_factory=SelectionConfig)
    compute: ComputeConfig = dataclasses.field(default_factory=ComputeConfig)

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**63, "seed", self.seed, "0 to 2^63 - 1")
        _require(
            self.threads is None or 1 <= self.threads <= MAX_THREADS, "threads", self.threads, f"1 to {MAX_THREADS}"
        )

    @property
    def sparse(self) -> bool:
        """Whether anything is pruned at all."""
        return self.pruning.keep < 1

    @property
    def robust(self) -> bool:
        """Whether an adversary takes part in the training."""
        return self.attack.eps > 0


def resolve(
    *,
    preset: str | None = None,
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
    base: CompressConfig | None = None,
) -> CompressConfig:
    """Combine the layers into one config.

    Args:
        preset: a name of PRESETS.
        file: a YAML file with any part of a config.
        flags: dotted key to value, from the command line; None values are left out.
        assignments: `key=value` texts, the value in YAML.
        base: what to start from instead of the defaults.

    Raises:
        InputError: an unknown key, a value out of its range, a file that is not YAML.
    """
    merged: dict[str, Any] = {} if base is None else _plain(dataclasses.asdict(base))
    if preset is not None:
        if preset not in PRESETS:
            raise unknown_name("preset", preset, PRESETS)
        text = resources.files(__package__).joinpath(f"presets/{preset}.yaml").read_text()
        _merge(merged, _parse(text, preset))
    if file is not None:
        if not file.is_file():
            raise InputError(f"--config {file} is not a file")
        _merge(merged, _parse(read_text(file), str(file)))
    for key, value in (flags or {}).items():
        if value is not None:
            _put(merged, key, value)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise InputError(f"--set takes key=value, for example --set training.lr=0.1; got {assignment!r}")
        _put(merged, key, _parse_value(text, assignment))
    _refuse_bare(merged)
    return decode(CompressConfig, merged)


def from_yaml(text: str, where: str) -> CompressConfig:
    """Read a config that a run wrote."""
    return decode(CompressConfig, _parse(text, where), where=where)


def read_text(path: Path) -> str:
    """A text file's content.

    Raises:
        InputError: the file is not UTF-8, so not one of ours.
    """
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as cause:
        raise InputError(f"{path} is not a text file ({cause.reason} at byte {cause.start})") from cause


def to_yaml(config: CompressConfig) -> str:
    """The resolved config, every key written out."""
    return write_yaml(_plain(dataclasses.asdict(config)))


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        value = read_yaml(text)
    except BAD_YAML as cause:
        raise InputError(f"{where} is not valid YAML: {cause}") from cause
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where} must be a mapping of settings, it holds {type(value).__name__}")
    return value


def _parse_value(text: str, assignment: str) -> Any:
    try:
        return read_yaml(text)
    except BAD_YAML as cause:
        reason = f" ({cause})" if isinstance(cause, ValueError) else ""
        raise InputError(f"--set {assignment}: the value is not valid YAML{reason}") from cause


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _put(into: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        into = into.setdefault(parent, {})
        if not isinstance(into, dict):
            raise InputError(f"{dotted}: {parent} is a single value, not a group of settings")
    into[last] = value


def _refuse_bare(settings: Mapping[str, Any]) -> None:
    """Name in full what was given without its group, as `lr` for `training.lr`."""
    known = _plain(dataclasses.asdict(CompressConfig()))
    for key in settings.keys() - known.keys():
        full = [f"{group}.{key}" for group, inside in known.items() if isinstance(inside, dict) and key in inside]
        if full:
            raise InputError(f"unknown key {key!r}; did you mean {' or '.join(full)}?")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _require_schedule(name: str, value: Any, names: tuple[str, ...], valid: Any) -> None:
    if isinstance(value, str):
        if value not in names:
            raise unknown_name(name, value, (*names, "a list with one value per epoch"))
    elif not value or not all(valid(item) and math.isfinite(item) for item in value):
        raise InputError(f"{name} must be one of {', '.join(names)} or valid values per epoch; it is {list(value)}")


def differences(left: CompressConfig, right: CompressConfig) -> list[str]:
    """Every setting in which two configs differ, as `key: left, not right`."""
    return _differences(dataclasses.asdict(left), dataclasses.asdict(right), "")


def _differences(left: dict[str, Any], right: dict[str, Any], prefix: str) -> list[str]:
    found = []
    for key, value in left.items():
        if isinstance(value, dict):
            found += _differences(value, right[key], f"{prefix}{key}.")
        elif value != right[key]:
            found.append(f"{prefix}{key}: {value}, not {right[key]}")
    return found
