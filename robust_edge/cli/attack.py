"""The options of the commands that attack a checkpoint, made from the declared settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from robust_edge.attacks.table import PGD
from robust_edge.cli.types import AttackName
from robust_edge.evaluation.settings import EvaluationSettings, options_of
from robust_edge.settings.options import setting_options

C = TypeVar("C", bound=Callable[..., Any])
S = TypeVar("S", bound=EvaluationSettings)


def attack_options(settings: type[EvaluationSettings], *, help: str, without: tuple[str, ...] = ()) -> Callable[[C], C]:
    """A decorator that adds `--attack`, an option for every setting, and `--set`.

    The command passes what it receives to `read_settings`.

    Args:
        settings: the settings of the command.
        help: of `--attack`.
        without: attacks that the command does not take.
    """

    def decorate(command: C) -> C:
        command = click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="NAME=VALUE",
            help="Any setting of the attack; repeatable. An unknown name lists all.",
        )(command)
        command = setting_options(options_of(settings))(command)
        return click.option("--attack", type=AttackName(without), default=PGD, show_default=True, help=help)(command)

    return decorate


def read_settings(settings: type[S], attack: str, assignments: Iterable[str], given: Mapping[str, Any]) -> S:
    """The settings of a command; those that are not given have their defaults."""
    from robust_edge.settings.notation import read_assignment

    values = {name: value for name, value in given.items() if value not in (None, ())}
    return settings(attack=attack, options=dict(map(read_assignment, assignments)), **values)
