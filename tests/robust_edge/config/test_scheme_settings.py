"""The settings of pruning schemes: what each has, and which a config may hold."""

import dataclasses

import pytest
import yaml

from robust_edge.config.settings import differences, from_yaml, resolve, to_yaml
from robust_edge.pruning.schemes import SCHEMES, scheme_class
from robust_edge.pruning.schemes.filter import Filter
from robust_edge.pruning.schemes.funnel import Funnel
from robust_edge.pruning.schemes.irregular import Irregular
from robust_edge.pruning.schemes.nm import NOfM
from robust_edge.pruning.schemes.redundant import Redundant
from robust_edge.pruning.settings import PruningConfig
from robust_edge.settings.setting import settings_of
from robust_edge_runtimes.core.errors import InputError


def refused(match, **layers):
    with pytest.raises(InputError, match=match) as caught:
        resolve(**layers)
    return str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "scope", "takes"),
    [
        (
            "funnel",
            "layer",
            "pruning.scope does not apply to scheme funnel, which takes keep, keep_schedule, keep_mask, scheme",
        ),
        ("redundant", "macs", "pruning.scope does not apply to scheme redundant"),
        ("nm", "layer", "pruning.scope does not apply to scheme nm"),
        ("filter", "macs", "unknown pruning.scope 'macs' .known: global, layer"),
    ],
)
def test_a_scope_that_the_scheme_does_not_have(scheme, scope, takes):
    refused(takes, flags={"pruning.scheme": scheme, "pruning.scope": scope})


def test_a_bound_on_the_arithmetic_needs_its_scope():
    assert Irregular(scope="macs", macs=0.2).macs == 0.2
    with pytest.raises(InputError, match=r"null unless pruning\.scope is macs; it is 0\.2"):
        Irregular(macs=0.2)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_is_chosen_by_its_row_and_written_with_its_own_settings_only(scheme):
    config = resolve(flags={"pruning.scheme": scheme})
    assert isinstance(config.pruning.scheme, scheme_class(scheme))
    assert from_yaml(to_yaml(config), "here") == config
    own = yaml.safe_load(to_yaml(config))["pruning"].keys() - {"keep", "keep_mask", "keep_schedule", "scheme"}
    assert own == settings_of(scheme_class(scheme)).keys()


def test_unknown_scheme():
    refused("unknown scheme 'regular'; did you mean 'irregular'", assignments=["pruning.scheme=regular"])
    refused("pruning.scheme must be text", assignments=["pruning.scheme=3"])
    refused("pruning must be a mapping", assignments=["pruning=3"])


@pytest.mark.parametrize(
    ("assignments", "says"),
    [
        (["pruning.n=1"], "pruning.n does not apply to scheme irregular"),
        (["pruning.scheme=nm", "pruning.prune_depthwise=true"], "pruning.prune_depthwise does not apply to scheme nm"),
        (["pruning.scheme=nm", "pruning.dense=[]"], "unknown key of pruning 'dense'"),
        (["pruning.scheme=nm", "pruning.n=two"], "pruning.n must be a whole number"),
    ],
)
def test_a_setting_that_the_scheme_does_not_have(assignments, says):
    refused(says, assignments=assignments)


def test_another_scheme_in_a_later_layer_drops_the_settings_of_the_former(tmp_path):
    """Preset `thesis` sets `prune_depthwise`, which schemes other than irregular do not have."""
    assert resolve(preset="thesis", flags={"pruning.scheme": "funnel"}).pruning.scheme == Funnel()
    (tmp_path / "c.yaml").write_text("pruning: {scheme: nm, n: 1, floor: 0.01}\n")
    assert resolve(file=tmp_path / "c.yaml").pruning.scheme == NOfM(n=1, floor=0.01)
    changed = resolve(file=tmp_path / "c.yaml", flags={"pruning.scheme": "redundant"})
    assert changed.pruning.scheme == Redundant(floor=0.01)


@pytest.mark.parametrize(
    ("section", "scheme"),
    [
        ("scheme: irregular, scope: macs, floor: null, prune_depthwise: false, macs: 0.5, n: 2, m: 4",
         Irregular(scope="macs", macs=0.5)),
        ("scheme: funnel, scope: global, floor: 0.1, prune_depthwise: true, macs: null, n: 2, m: 4", Funnel(floor=0.1)),
        ("scheme: nm, scope: global, floor: null, prune_depthwise: true, macs: null, n: 1, m: 4", NOfM(n=1)),
        ("scheme: filter, scope: layer, floor: null, prune_depthwise: false, macs: null, n: 2, m: 8",
         Filter(scope="layer")),
        ("scheme: nm, n: 2, m: 4, scope: global", NOfM()),
    ],
)  # fmt: skip
def test_configs_of_release_0_1_which_named_every_setting_of_every_scheme(tmp_path, section, scheme):
    text = f"pruning: {{keep: 0.2, keep_schedule: constant, {section}}}\n"
    (tmp_path / "c.yaml").write_text(text)
    for config in (from_yaml(text, "config.yaml"), resolve(file=tmp_path / "c.yaml")):
        assert config.pruning == PruningConfig(keep=0.2, scheme=scheme)


def test_differences_of_two_schemes():
    left, right = resolve(), resolve(flags={"pruning.scheme": "nm", "pruning.floor": 0.1})
    assert differences(left, right) == ["pruning.scheme: irregular, not nm", "pruning.floor: None, not 0.1"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_module:Scheme", "cannot be imported"),
        ("json:dumps", r"must be a class derived from robust_edge\.pruning\.schemes\.scheme\.Scheme"),
        ("robust_edge.pruning.schemes.scheme:Scheme", "does not define support_impl"),
    ],
)
def test_a_scheme_of_ones_own_that_does_not_fit(name, says):
    refused(says, flags={"pruning.scheme": name})


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_row_of_a_scheme_lists_the_settings_of_its_class_that_have_an_option(scheme):
    cls = scheme_class(scheme)
    fields = {field.name: str(field.type) for field in dataclasses.fields(cls)}
    flags = {name: (fields[name], own.flag) for name, own in settings_of(cls).items() if own.flag}
    assert {name: (kind, own.flag) for name, (kind, own) in SCHEMES[scheme].options.items()} == flags
