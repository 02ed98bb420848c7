"""The settings of section `pruning`: those of all schemes, and the chosen scheme with its own settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from robust_edge.plugins import OWN_CLASS, summaries
from robust_edge.pruning.schemes import SCHEMES, scheme_class, scheme_name
from robust_edge.settings.setting import PER_EPOCH, FloatSchedule, check, setting, settings_of
from robust_edge_runtimes.core.decode import decode
from robust_edge_runtimes.core.errors import InputError, unknown_name

if TYPE_CHECKING:
    from torch import nn

    from robust_edge.pruning.schemes.scheme import Scheme
else:
    Scheme = Any  # the command line reads these declarations and must not wait for torch

DEFAULT = "irregular"
RELEASE_0_1 = {"scope": "global", "floor": None, "prune_depthwise": False, "macs": None, "n": 2, "m": 4}
"""The schemes' own settings with their defaults in release 0.1, which wrote all of them for every scheme."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruningConfig:
    """Section `pruning` of a config. In files and in `--set` it also has the chosen scheme's own settings."""

    keep: float = setting(
        0.1,
        "fraction of the prunable weights that stay non-zero; 1 trains a dense network",
        flag="--keep",
        range="(0, 1]",
        noun="a fraction",
        hint="10% of the weights is 0.1",
    )
    keep_schedule: FloatSchedule = setting(
        "constant",
        "schedule of the kept fraction up to the hard projection",
        choices={"constant": "", "halve": "1/2, 1/4, ... down to keep"},
        beside=PER_EPOCH,
        range="(0, 1]",
    )
    keep_mask: bool = setting(
        False,
        "hold the zeros of the initial network exactly, from the first step on; unless keep is given, nothing else is "
        "pruned",
        flag="--keep-mask",
    )
    scheme: Scheme = setting(
        factory=lambda: scheme_class(DEFAULT)(),
        help="pruning scheme: the pattern of the kept weights",
        flag="--scheme",
        choices=summaries(SCHEMES),
        beside=OWN_CLASS,
    )

    def __post_init__(self) -> None:
        check(self, "pruning")

    def build(self, model: nn.Module, shape: tuple[int, ...]) -> Scheme:
        """The scheme with the properties of one network; the network is not changed.

        Args:
            model: the network to prune.
            shape: (C, H, W) of one image.
        """
        return self.scheme.build(model, shape, self.keep)

    @classmethod
    def from_plain(cls, section: Any, where: str = "") -> PruningConfig:
        """Read section `pruning` of a config, which has the common settings and the scheme's own.

        Raises:
            InputError: a setting is unknown or not one of the scheme, or a value is outside its range.
        """
        group = f"{where}.pruning".lstrip(".")
        if not isinstance(section, Mapping):
            raise InputError(f"{group} must be a mapping, not {section!r:.60}")
        name = section.get("scheme", DEFAULT)
        if not isinstance(name, str):
            raise InputError(f"{group}.scheme must be text, not {name!r:.60}")
        scheme, common = scheme_class(name), settings_of(cls)
        section = _without_release_defaults(section, scheme)
        own = {key: value for key, value in section.items() if key in settings_of(scheme)}
        for key in section.keys() - common.keys() - own.keys():
            raise _unknown(group, str(key), name, [*common, *settings_of(scheme)])
        shared = {key: value for key, value in section.items() if key in common}
        return decode(cls, {**shared, "scheme": decode(scheme, own, where=group)}, where=group)

    def to_plain(self) -> dict[str, Any]:
        """The section as a dict, which `from_plain` reads."""
        own = {name: getattr(self.scheme, name) for name in settings_of(self.scheme)}
        return {
            "keep": self.keep,
            "keep_schedule": self.keep_schedule,
            "keep_mask": self.keep_mask,
            "scheme": scheme_name(type(self.scheme)),
            **own,
        }

    @classmethod
    def applicable(cls, section: Mapping[str, Any], scheme: str) -> dict[str, Any]:
        """The settings of a section that another scheme has, too: the common ones and its own of the same name."""
        kept = {**settings_of(cls), **settings_of(scheme_class(scheme))}
        return {key: value for key, value in section.items() if key in kept}


def _without_release_defaults(section: Mapping[str, Any], scheme: type[Scheme]) -> dict[str, Any]:
    """Remove the settings of other schemes that release 0.1 wrote without effect."""
    written = section.keys() >= RELEASE_0_1.keys()
    other = RELEASE_0_1.keys() - settings_of(scheme).keys()
    return {
        key: value for key, value in section.items() if key not in other or not (written or value == RELEASE_0_1[key])
    }


def _unknown(group: str, key: str, scheme: str, known: list[str]) -> Exception:
    if any(key in settings_of(scheme_class(name)) for name in SCHEMES):
        return InputError(f"{group}.{key} does not apply to scheme {scheme}, which takes {', '.join(known)}")
    return unknown_name(f"key of {group}", key, known)
