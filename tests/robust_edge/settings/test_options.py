"""A dataclass of settings becomes options: names, types, help and errors follow from the fields."""

import dataclasses

import click
import pytest
from click.testing import CliRunner

from robust_edge.settings.options import setting_options
from robust_edge.settings.setting import check, setting, walk
from robust_edge_runtimes.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Oven:
    """Settings that nothing else knows."""

    heat: float = setting(0.5, "share of full power", flag="--heat", range="(0, 1]", noun="a share", hint="half is 1/2")
    trays: int = setting(1, "trays at a time", flag="--trays", range="[1, 4]")
    mode: str = setting("fan", "how it heats", flag="--mode", choices={"fan": "moving air", "grill": ""})
    light: bool = setting(False, "whether the lamp is on", flag="--light")
    timer: tuple[int, ...] = setting((1,), "minutes of every step", range="[1, inf)")

    def __post_init__(self):
        check(self, "oven")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kitchen:
    """A config with one section."""

    oven: Oven = dataclasses.field(default_factory=Oven)


@click.command()
@setting_options([(key, field.type.__name__, declared) for key, field, declared in walk(Kitchen) if declared.flag])
def cook(**flags):
    click.echo(sorted((name, value) for name, value in flags.items() if value is not None))


def test_values_come_under_the_names_of_the_settings():
    result = CliRunner().invoke(cook, ["--heat", "1/4", "--trays", "2", "--mode", "grill", "--light"])
    assert result.output.strip() == (
        "[('oven_heat', 0.25), ('oven_light', True), ('oven_mode', 'grill'), ('oven_trays', 2)]"
    )
    assert CliRunner().invoke(cook, []).output.strip() == "[]"


def test_help_says_what_the_fields_say():
    text = " ".join(CliRunner().invoke(cook, ["--help"]).output.split())
    assert "--heat SHARE Share of full power." in text
    assert "How it heats: fan (moving air), grill." in text
    assert "timer" not in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--heat hot", "'hot' is not a share; half is 1/2"),
        ("--heat 0", "0 is not above 0, at most 1; half is 1/2"),
        ("--heat nan", "nan is not above 0"),
        ("--trays 5", "5 is not in the range 1<=x<=4"),
        ("--mode gril", "unknown --mode 'gril'; did you mean 'grill'?"),
    ],
)
def test_errors_name_the_flag_and_the_range(arguments, says):
    result = CliRunner().invoke(cook, arguments.split())
    assert result.exit_code != 0
    assert says in result.output + str(result.exception)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"heat": 1.5}, r"oven\.heat must be a share above 0, at most 1 \(half is 1/2\); it is 1\.5"),
        ({"mode": "steam"}, r"unknown oven\.mode 'steam' \(known: fan, grill\)"),
        ({"timer": (3, 0)}, r"oven\.timer must be at least 1; it is 0"),
        ({"timer": ()}, r"oven\.timer must be .*a list with one value per epoch; it is \[\]"),
    ],
)
def test_a_section_refuses_what_its_fields_do_not_allow(values, says):
    with pytest.raises(InputError, match=says):
        Oven(**values)
