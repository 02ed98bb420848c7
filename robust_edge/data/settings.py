"""The settings of a run's images, with the choice of the data set."""

from __future__ import annotations

import dataclasses

from robust_edge.data.read_settings import ReadSettings
from robust_edge.data.table import DATASETS
from robust_edge.plugins import OWN_FUNCTION, summaries
from robust_edge.settings.setting import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(ReadSettings):
    """The data set of a run and its augmentation."""

    dataset: str = setting(
        "digits", "name of the data set", flag="--dataset", choices=summaries(DATASETS), beside=OWN_FUNCTION
    )
