"""The settings of a run's images, with the choice of the data set."""

from __future__ import annotations

import dataclasses

from robust_edge.data.normalisation import refuse_large_means
from robust_edge.data.read_settings import ReadSettings
from robust_edge.data.table import DATASETS
from robust_edge.plugins import OWN_FUNCTION, summaries
from robust_edge.settings.ranges import require
from robust_edge.settings.setting import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(ReadSettings):
    """The data set of a run and its augmentation."""

    dataset: str = setting(
        "digits", "name of the data set", flag="--dataset", choices=summaries(DATASETS), beside=OWN_FUNCTION
    )
    mean: tuple[float, ...] | None = setting(
        None,
        "mean that the network subtracts from pixels in [0, 1], one value or one per channel; null takes that of the "
        "run in init, else that of the training images",
        range="(-inf, inf)",
    )
    std: tuple[float, ...] | None = setting(
        None, "what the network divides by after that; given together with data.mean", range="(0, inf)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require((self.mean is None) == (self.std is None), "data.std", self.std, "given together with data.mean")
        if self.mean is not None and self.std is not None:
            refuse_large_means(self.mean, self.std, "data.mean", "--set data.mean={} --set data.std={}", "[{}]")
