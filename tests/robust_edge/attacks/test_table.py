"""Attacks by name, and what the user's own classes must be."""

import dataclasses
import sys
import types

import pytest

from robust_edge.attacks.attack import Attack, AttackSet
from robust_edge.attacks.pgd import Pgd
from robust_edge.attacks.table import ATTACKS, attack_class, build_attack, is_own, setting_names
from robust_edge.evaluation.settings import EvaluateSettings, TransferSettings
from robust_edge_runtimes.attacks.threat import NORMS
from robust_edge_runtimes.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Own(Attack):
    """Does nothing."""

    strength: float
    steps: int = 1

    def perturb(self, model, batch, threat):
        return batch.images


class Undecorated(Pgd):
    pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class Abstract(Attack):
    pass


def function():
    pass


@pytest.fixture(autouse=True)
def _module(monkeypatch):
    module = types.ModuleType("mine")
    for item in (Own, Undecorated, Abstract, function):
        monkeypatch.setattr(item, "__module__", "mine")
        setattr(module, item.__name__, item)
    module.len = len
    monkeypatch.setitem(sys.modules, "mine", module)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_row_is_an_attack_with_defaults(name):
    attack = build_attack(name, {})
    assert isinstance(attack, Attack)
    assert not is_own(attack)
    assert attack.title
    assert set(attack.norms) <= set(NORMS)
    assert set(attack.settings()) <= set(setting_names(type(attack)))
    assert not attack.few_steps or "steps" in setting_names(type(attack))
    assert isinstance(attack.for_transfer(), type(attack))
    assert not (isinstance(attack, AttackSet) and attack.radii)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pdg", "did you mean 'pgd'"),
        ("nowhere:Own", "cannot be imported"),
        ("mine:Other", "cannot be imported"),
        ("mine:function", "must be a class derived from robust_edge.attacks.attack.Attack"),
        ("mine:len", "'mine:len' is not defined in that package but in builtins"),
        ("mine:Undecorated", "must be decorated with @dataclasses.dataclass"),
        ("mine:Abstract", "does not define perturb"),
    ],
)
def test_what_is_no_attack_is_one_error(name, says):
    with pytest.raises(InputError, match=says):
        attack_class(name)
    for settings in (EvaluateSettings, TransferSettings):
        with pytest.raises(InputError, match=says):
            settings(attack=name)


def test_settings_are_those_of_the_class():
    assert build_attack("pgd", {"steps": 7, "restarts": None}) == Pgd(steps=7)
    assert is_own(build_attack("mine:Own", {"strength": 2}))
    with pytest.raises(InputError, match=r"strength is missing"):
        build_attack("mine:Own", {})
    with pytest.raises(InputError, match="attack autoattack has no setting steps; its settings: none"):
        build_attack("autoattack", {"steps": 3})


def test_settings_are_checked_against_their_declared_range():
    with pytest.raises(InputError, match="confidence must be at least 0; it is -1"):
        build_attack("cw", {"confidence": -1})
    with pytest.raises(InputError, match="queries must be at least 1; it is 0"):
        EvaluateSettings(attack="square", options={"queries": 0})


def test_transfer_takes_attacks_of_one_radius():
    with pytest.raises(InputError, match="a single radius in linf"):
        TransferSettings(attack="curve")
    assert TransferSettings().build() == Pgd(steps=100, restarts=1, last=True)
    assert TransferSettings(attack="fgsm").build().last
