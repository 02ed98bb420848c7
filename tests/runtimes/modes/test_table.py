from __future__ import annotations

import pytest

from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.modes.mode import Default, Mode, chosen_modes, mode_help
from robust_edge_runtimes.modes.table import DEVICE_MODES

TABLE = (
    Mode("first", "what it is", "a:b", Default.ALWAYS),
    Mode("second", "what that is", "a:b", Default.WITH_RUN, needs="gradients"),
    Mode("third", "something else", "a:b"),
)


def names(modes):
    return [mode.name for mode in modes]


def test_defaults_follow_from_the_rows():
    assert names(chosen_modes((), TABLE)) == ["first"]
    assert names(chosen_modes((), TABLE, with_run=True)) == ["first", "second"]
    assert names(chosen_modes((), DEVICE_MODES)) == ["replay"]


def test_each_is_chosen_once_in_the_order_given():
    assert names(chosen_modes(("third", "first", "third"), TABLE, with_run=True)) == ["third", "first"]


def test_an_unknown_name():
    with pytest.raises(InputError, match="unknown mode 'secnd'; did you mean 'second'"):
        chosen_modes(("secnd",), TABLE)


def test_help_describes_every_row_and_the_defaults():
    text = mode_help(TABLE)
    assert "first: what it is; second: what that is; third: something else." in text
    assert text.endswith("[default: first; with --against first, second]")
    assert mode_help(TABLE[:2]).endswith("[default: first; with --against all]")
    assert mode_help(TABLE, with_run=False).endswith("[default: first]")


def test_every_row_of_the_device_runs(subject_for):
    from robust_edge_runtimes.modes.settings import ModeSettings

    measured = [mode.measure(subject_for(), ModeSettings(options={"queries": 2})) for mode in DEVICE_MODES]
    assert [item.mode for item in measured] == names(DEVICE_MODES)
