"""Settings that would have no effect are refused in one line, which names the value and the way out."""

from pathlib import Path

import pytest

from robust_edge.config.conflicts import refuse_conflicts
from robust_edge.config.presets import PRESETS
from robust_edge.config.settings import from_plain, resolve
from robust_edge_runtimes.core.errors import InputError

pytestmark = pytest.mark.quick

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
N_FGSM = {"attack.method": "n-fgsm", "attack.steps": 1}
REGROW = {"admm.regrow": 0.1}
CONFLICTS = [
    ({**N_FGSM, "attack.steps_schedule": "grow"}, "attack.steps_schedule is grow.*one step; set attack.steps_sch"),
    ({**N_FGSM, "attack.steps_schedule": [1, 1]}, r"attack.steps_schedule is \[1, 1\]"),
    ({"attack.eps_schedule": [0.1, 0.2]}, "attack.eps_schedule reaches 0.2.*is 0.1; raise attack.eps"),
    (
        {"training.adversarial_weight": 0.0, "training.clean_interval": 4},
        "training.clean_interval is 4.*set training.clean_interval=1",
    ),
    (
        {"training.adversarial_weight": 1.0, "training.clean_interval": 4},
        "training.clean_interval is 4.*no clean term; set training.clean_interval=1, or a smaller weight",
    ),
    *(
        ({"training.loss": loss, "training.clean_interval": 4}, f"training.loss={loss} computes.*in every batch; set")
        for loss in ("trades", "nuclear")
    ),
    (
        {"awp.gamma": 0.005, "awp.windows": [0.1, 0.5], "awp.warmup": 5},
        r"awp.warmup is 5.*awp.windows is \[0.1, 0.5\].*set awp.warmup=10, its default, or awp.windows=null",
    ),
    ({"awp.windows": [0.1, 0.5]}, r"awp.windows is \[0.1, 0.5\], but awp.gamma=0.*set awp.gamma"),
    ({**REGROW, "admm.masked_fraction": 0.25}, "admm.regrow is 0.1.*begins at 0.75.*is 0.75; raise admm.masked_frac"),
    (
        {**REGROW, "admm.regrow_until": 1, "selection.held_out": 9},
        "selection.held_out is 9.*set admm.regrow_until below",
    ),
    *(
        ({**REGROW, "pruning.scheme": scheme}, f"schemes irregular and block only.*{scheme}; set admm.regrow=0")
        for scheme in ("nm", "filter", "funnel", "redundant")
    ),
]


@pytest.mark.parametrize(("flags", "message"), CONFLICTS, ids=str)
def test_a_setting_without_effect_is_refused(flags, message):
    with pytest.raises(InputError, match=message) as caught:
        resolve(flags=flags)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "flags",
    [
        {**N_FGSM, "attack.steps_schedule": "constant"},
        {"attack.eps": 0.2, "attack.eps_schedule": [0.1, 0.2]},
        {"training.adversarial_weight": 0.1, "training.clean_interval": 4},
        {"awp.gamma": 0.005, "awp.windows": [0.1, 0.5]},
        {**REGROW, "admm.masked_fraction": 0.3},
        {**REGROW, "admm.masked_fraction": 0.25, "admm.prune_when": 0.1},  # the masked phase may begin earlier
        {**REGROW, "admm.regrow_until": 1.0},
        {**REGROW, "pruning.scheme": "nm", "pruning.keep": 1.0},  # nothing is pruned
        {**REGROW, "pruning.scheme": "block"},
        {**REGROW, "pruning.scope": "macs"},
        {"training.loss": "nuclear", "attack.steps": 2},  # its attack may take several steps
        {"training.loss": "nuclear", **N_FGSM},
    ],
    ids=str,
)
def test_what_has_an_effect_is_taken(flags):
    resolve(flags=flags)


def test_the_config_of_a_run_that_exists_is_read_as_it_is():
    plain = {"attack": {"eps": 0.1, "eps_schedule": [0.1, 0.2]}}
    config = from_plain(plain)
    with pytest.raises(InputError):
        refuse_conflicts(config)
    assert resolve(base=config) == config


@pytest.mark.parametrize("preset", PRESETS)
def test_the_presets_have_no_conflict(preset):
    refuse_conflicts(resolve(preset=preset))


@pytest.mark.parametrize("path", sorted(BENCHMARKS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_the_configs_of_the_benchmarks_have_no_conflict(path):
    """On top of the preset that their first line names."""
    head = " ".join(path.read_text("utf-8").splitlines()[:2]).lower()
    preset = next((name for name in PRESETS if f"preset {name}" in head), None)
    assert preset is not None or path.stem == "cifar_trial"
    refuse_conflicts(resolve(preset=preset, file=path))
