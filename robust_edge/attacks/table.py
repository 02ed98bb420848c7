"""The attacks that `--attack` names: one row each, and no torch before one is built.

The user's own attacks need no row: `package.module:Class` names a subclass of `robust_edge.attacks.attack.Attack`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from robust_edge.plugins import OWN_CLASS, Row, load_class
from robust_edge_runtimes.core.errors import InputError, RobustEdgeError

if TYPE_CHECKING:
    from robust_edge.attacks.attack import Attack

PGD, CURVE, FGSM = "pgd", "curve", "fgsm"
OWN = OWN_CLASS

ATTACKS = {
    PGD: Row("robust_edge.attacks.pgd:Pgd", "projected gradient, every iterate counts"),
    CURVE: Row("robust_edge.attacks.curve:Curve", "pgd-100 at rising eps until below chance (Algorithm 2)"),
    "autoattack": Row(
        "robust_edge.attacks.autoattack:AutoAttack", "the leaderboard's set: apgd-ce, apgd-t, fab-t, square"
    ),
    "thesis-autoattack": Row(
        "robust_edge.attacks.autoattack:ThesisAutoAttack",
        "the older set: apgd-ce, apgd-dlr, fab, square with 5 restarts (Table 4.2)",
    ),
    "cw": Row("robust_edge.attacks.carlini_wagner:CarliniWagner", "Carlini-Wagner's margin loss inside the l-inf ball"),
    FGSM: Row("robust_edge.attacks.fgsm:Fgsm", "one step"),
}


def attack_class(name: str) -> type[Attack]:
    """The class of an attack.

    Raises:
        InputError: an unknown name, or a class of the user's that is no attack.
    """
    from robust_edge.attacks.attack import Attack

    return load_class("attack", name, ATTACKS, Attack)  # type: ignore[no-any-return]


def build_attack(name: str, options: Mapping[str, int | None]) -> Attack:
    """An attack with the settings that are given, and its own defaults for the others.

    Args:
        name: as `--attack` spells it.
        options: setting to value; None stands for the default.

    Raises:
        InputError: an unknown name, or a setting that the attack does not have or does not take.
    """
    cls, given = attack_class(name), {key: value for key, value in options.items() if value is not None}
    for option in given:
        if option not in setting_names(cls):
            having = ", ".join(key for key in ATTACKS if option in setting_names(attack_class(key)))
            raise InputError(f"--{option} belongs to {having}; {name} fixes its own")
    try:
        return cls(**given)
    except RobustEdgeError:
        raise
    except Exception as cause:  # the class is the user's; it may raise anything
        raise InputError(f"attack {name!r} cannot be built ({type(cause).__name__}: {cause})") from cause


def setting_names(cls: type[Attack]) -> tuple[str, ...]:
    """The fields of an attack's class."""
    return tuple(field.name for field in dataclasses.fields(cls))


def is_own(attack: Attack) -> bool:
    """Whether the attack is the user's, from outside this package."""
    return type(attack).__module__.partition(".")[0] != __name__.partition(".")[0]
