"""Everything that decides what a run of `compress` does, as one frozen dataclass.

The command line reads these declarations for its options, so nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from robust_edge.config.recipe import AveragingConfig, AwpConfig, SelectionConfig
from robust_edge.config.training import AdmmConfig, AttackConfig, ComputeConfig, TrainingConfig
from robust_edge.data.settings import DataConfig
from robust_edge.models.table import ARCHITECTURES, DEFAULT_ARCHITECTURE
from robust_edge.plugins import OWN_FUNCTION
from robust_edge.pruning.schemes import SCHEMES
from robust_edge.pruning.settings import PruningConfig
from robust_edge.settings.ranges import require
from robust_edge.settings.setting import Setting, check, setting, walk
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.runtime import MAX_THREADS


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompressConfig:
    """All settings of a run of `compress`."""

    arch: str | None = setting(
        None,
        f"network architecture: {', '.join(ARCHITECTURES)}, torchvision/NAME, timm/NAME, or {OWN_FUNCTION}; by default "
        f"that of the run in init, else {DEFAULT_ARCHITECTURE}",
        flag="--arch",
    )
    init: str | None = setting(
        None,
        "where to start: a run, also an imported one, or a state dict, .safetensors or .pth; by default random weights",
        flag="--init",
    )
    new_head: bool = setting(
        False,
        "replace the classifier of the initial network by a new one for the classes of the data set",
        flag="--new-head",
    )
    seed: int = setting(
        0,
        "random seed; the same seed gives the same weights on the same kind of CPU, and on GPUs with deterministic",
        flag="--seed",
        range=f"[0, {2**63 - 1}]",
    )
    deterministic: bool = setting(
        False,
        "use deterministic kernels on GPUs, which are slower: two runs with one seed, and a resumed run, then have the "
        "same weights; without this setting the weights agree up to rounding. A kernel that has no deterministic form "
        "is used with a warning. CPUs always use deterministic kernels",
        flag="--deterministic",
    )
    device: str = setting("auto", "where to train: cpu, cuda, cuda:1 or auto", flag="--device")
    threads: int | None = setting(
        None, "number of CPU threads; by default torch's choice", flag="--threads", range=f"[1, {MAX_THREADS}]"
    )
    targets: tuple[str, ...] = setting(
        (),
        "target that the network must be exportable to, which is checked before the training; repeatable",
        flag="--target",
    )
    pack: bool = setting(
        True,
        "store sparse tensors as their non-zero values and one bit per weight if the checkpoint has 1 MiB or more; "
        "robust_edge.models.packed.load_tensors reads such a file. false writes plain safetensors",
    )
    tensorboard: bool = setting(
        False, "also write the metrics of every epoch for TensorBoard, to RUN/tensorboard", flag="--tensorboard"
    )
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
        check(self)
        for name in self.targets:
            target_named(name)
        if self.training.quantize != "none":
            require(
                self.sparse,
                "training.quantize",
                self.training.quantize,
                "none where pruning.keep is 1: there is no masked phase",
            )
        if self.init is not None:
            return
        epochs = self.training.epochs
        require(epochs > 0, "training.epochs", epochs, "at least 1 where `init` names no network to write")
        for name, asked in (
            ("pruning.keep_mask", self.pruning.keep_mask),
            ("`new_head`", self.new_head),
            ("training.freeze_batchnorm", self.training.freeze_batchnorm),
        ):
            require(not asked, name, "true", "false where `init` names no network to start from")

    @property
    def sparse(self) -> bool:
        """Whether the network is pruned."""
        return self.pruning.keep < 1

    @property
    def robust(self) -> bool:
        """Whether the network is trained with attacks."""
        return self.attack.eps > 0


def command_settings() -> Iterator[tuple[str, str, Setting]]:
    """Dotted name, type and declaration of the settings that may have an option of `compress`."""
    for key, field, declaration in walk(CompressConfig):
        yield key, str(field.type), declaration
        if key == "pruning.scheme":
            own = {name: option for row in SCHEMES.values() for name, option in row.options.items()}
            yield from ((f"pruning.{name}", *option) for name, option in own.items())
