"""What `verify` attacks with."""

from __future__ import annotations

import dataclasses

from robust_edge_runtimes.modes.settings import ModeOption, ModeSettings

STEPS_OPTION = ModeOption("steps", "Gradient steps per image, in the modes that use gradients", 20)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifySettings(ModeSettings):
    """The settings of all modes.

    Attributes:
        modes: names of rows in MODES; empty for those that run by default.
        limit: most images per mode; None for all that there are.
        seed, options: as in ModeSettings.
        eps: radius of every attack; None for the run's own, without a run the bundle's.
        data_dir: where the run's images lie now, if elsewhere.
    """

    modes: tuple[str, ...] = ()
    eps: float | None = None
    data_dir: str | None = None
