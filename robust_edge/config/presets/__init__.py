"""The presets of `compress`: a YAML file of this folder each, named as after `--preset`."""

from __future__ import annotations

from importlib import resources

SUFFIX = ".yaml"
DEFAULT = "quick"
"""The preset that `compress` starts from where it is given neither preset nor file."""

_FOLDER = resources.files(__package__)
PRESETS = tuple(sorted(file.name[: -len(SUFFIX)] for file in _FOLDER.iterdir() if file.name.endswith(SUFFIX)))


def preset_text(name: str) -> str:
    """The YAML of a preset, one of PRESETS."""
    return _FOLDER.joinpath(name + SUFFIX).read_text("utf-8")
