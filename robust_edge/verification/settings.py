"""Settings of `verify` on the host."""

from __future__ import annotations

import dataclasses

from robust_edge_runtimes.modes.settings import ModeOption, ModeSettings

STEPS_OPTION = ModeOption("steps", "Gradient steps per image, in the modes that use gradients", 20)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifySettings(ModeSettings):
    """The settings of all modes.

    Attributes:
        modes: names of rows in MODES; empty for the default modes.
        limit: largest number of images per mode; None for all.
        seed, options: as in ModeSettings.
        eps: ε of every attack; None for that of the run or, without a run, of the bundle.
        data_dir: folder of the run's images, if they were moved.
    """

    modes: tuple[str, ...] = ()
    eps: float | None = None
    data_dir: str | None = None
