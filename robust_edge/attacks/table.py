"""The table of attacks for `--attack`; an attack's module, and torch with it, is imported when the attack is used.

The user's own attacks need no row: `package.module:Class` names a subclass of `robust_edge.attacks.attack.Attack`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from robust_edge.plugins import OWN_CLASS, Row, load_class
from robust_edge_runtimes.core.decode import decode
from robust_edge_runtimes.core.errors import InputError, RobustEdgeError

if TYPE_CHECKING:
    from robust_edge.attacks.attack import Attack

PGD, CURVE, FGSM = "pgd", "curve", "fgsm"
OWN = OWN_CLASS

ATTACKS = {
    PGD: Row("robust_edge.attacks.pgd:Pgd", "projected gradient descent; every iterate counts"),
    CURVE: Row("robust_edge.attacks.curve:Curve", "pgd-100 at increasing eps until below chance (Algorithm 2)"),
    "autoattack": Row("robust_edge.attacks.autoattack:AutoAttack", "the standard set: apgd-ce, apgd-t, fab-t, square"),
    "thesis-autoattack": Row(
        "robust_edge.attacks.autoattack:ThesisAutoAttack",
        "the older set: apgd-ce, apgd-dlr, fab, square with 5 restarts (Table 4.2)",
    ),
    "cw": Row("robust_edge.attacks.carlini_wagner:CarliniWagner", "Carlini-Wagner's margin loss inside the l-inf ball"),
    FGSM: Row("robust_edge.attacks.fgsm:Fgsm", "one gradient step of length eps"),
    "square": Row("robust_edge.attacks.square:Square", "black box: random search that sees only logits"),
}


def attack_class(name: str) -> type[Attack]:
    """The class of an attack.

    Raises:
        InputError: the name is unknown, or the user's class is not an attack.
    """
    from robust_edge.attacks.attack import Attack

    return load_class("attack", name, ATTACKS, Attack)  # type: ignore[no-any-return]


def build_attack(name: str, options: Mapping[str, Any]) -> Attack:
    """Build an attack with the given settings; the others have their defaults.

    Args:
        name: as given to `--attack`.
        options: values by setting; None for the default.

    Raises:
        InputError: the name is unknown, the attack does not have a setting, or a value is not allowed.
    """
    cls, given = attack_class(name), {key: value for key, value in options.items() if value is not None}
    for option in given:
        if option not in setting_names(cls):
            own = ", ".join(setting_names(cls)) or "none"
            raise InputError(f"attack {name} has no setting {option}; its settings: {own}")
    try:
        return decode(cls, given, where=name)
    except RobustEdgeError:
        raise
    except Exception as cause:  # the class is the user's; it may raise anything
        raise InputError(f"attack {name!r} cannot be built ({type(cause).__name__}: {cause})") from cause


def setting_names(cls: type[Attack]) -> tuple[str, ...]:
    """The names of an attack's settings."""
    return tuple(field.name for field in dataclasses.fields(cls))


def is_own(attack: Attack) -> bool:
    """Whether the attack is the user's own class, from outside this package."""
    return type(attack).__module__.partition(".")[0] != __name__.partition(".")[0]
