"""Layers, ranges, and what a mistake says."""

import math

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from robust_edge.config import settings as module
from robust_edge.config.compress import CompressConfig
from robust_edge.config.recipe import AveragingConfig, AwpConfig, SelectionConfig
from robust_edge.config.settings import differences, from_yaml, resolve, to_yaml
from robust_edge.config.training import AdmmConfig, AttackConfig, ComputeConfig, TrainingConfig
from robust_edge.data.settings import DataConfig
from robust_edge.pruning.schemes.filter import Filter
from robust_edge.pruning.schemes.funnel import Funnel
from robust_edge.pruning.schemes.irregular import Irregular
from robust_edge.pruning.schemes.nm import NOfM
from robust_edge.pruning.schemes.redundant import Redundant
from robust_edge.pruning.settings import PruningConfig
from robust_edge.settings.setting import walk
from robust_edge_runtimes.core.errors import InputError


def refused(match, **layers):
    with pytest.raises(InputError, match=match) as caught:
        resolve(**layers)
    return str(caught.value)


def test_later_layers_win(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("training: {epochs: 5, lr: 0.2}\nattack: {eps: 0.2}\n")
    flags = {"training.lr": 0.3, "training.epochs": None, "attack.steps": 3}
    found = resolve(preset="thesis", file=file, flags=flags, assignments=["attack.steps=4", "training.lr=0.4"])
    assert found.training.batch_size == 128  # the default
    assert found.training.lr_decay == 0.8  # the preset
    assert found.training.epochs == 5  # the file; a flag that was not given does not count
    assert found.attack.eps == 0.2
    assert found.attack.steps == 4  # --set over the flag
    assert found.training.lr == 0.4


def test_defaults_alone_are_a_config():
    assert resolve() == CompressConfig()


@pytest.mark.parametrize("preset", module.PRESETS)
def test_presets_are_configs_that_say_nothing_unknown(preset):
    assert resolve(preset=preset).sparse


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1E2", 100.0), ("0.5", 0.5), (" 0.25", 0.25), (".5e-1", 0.05), ("1", 1.0), ("+1e-2", 0.01),
     ("1/4", 0.25), ("2.5e-1/5", 0.05)],
)  # fmt: skip
def test_set_reads_numbers_as_people_write_them(text, value):
    found = resolve(assignments=[f"training.lr={text}"])
    assert found.training.lr == value
    assert type(found.training.lr) is float


def test_a_file_reads_numbers_as_people_write_them(tmp_path):
    (tmp_path / "c.yaml").write_text("attack: {eps: 8/255, eps_schedule: [2/255, 1e-2, 8/255]}\ntraining: {lr: 1e-2}\n")
    found = resolve(file=tmp_path / "c.yaml")
    assert (found.attack.eps, found.training.lr) == (8 / 255, 0.01)
    assert found.attack.eps_schedule == (2 / 255, 0.01, 8 / 255)


@pytest.mark.parametrize("text", ["2024/11", "1e-3", "1/0", "8/255/1"])
def test_text_like_a_number_stays_text_in_a_run(text):
    config = resolve(flags={"data.dir": text})
    assert from_yaml(to_yaml(config), "here") == config
    assert config.data.dir == text


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("data.augment=[flip, shift]", "data.augment", ("flip", "shift")),
        ("attack.eps_schedule=[0.05, 0.1]", "attack.eps_schedule", (0.05, 0.1)),
        ("attack.steps_schedule=grow", "attack.steps_schedule", "grow"),
        ("data.download=true", "data.download", True),
        ("data.limit_train=null", "data.limit_train", None),
        ("data.dir=a=b", "data.dir", "a=b"),
        ("data.dir=", "data.dir", None),
    ],
)
def test_set_reads_yaml(assignment, key, value):
    found = resolve(assignments=[assignment])
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize("assignment", ["training.lr", "=3", "", "training.lr 0.1"])
def test_set_without_key_or_value_shows_how(assignment):
    refused("given as NAME=VALUE", assignments=[assignment])


@pytest.mark.parametrize(
    "assignment", ["attack.eps.x=1", "data={a: [}", "attack.eps=2001-99-99", "training=3", "seed=a b"]
)
def test_set_of_something_else_is_one_line(assignment):
    assert "\n" not in refused(".", assignments=[assignment])


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("trainin.lr", "training"),
        ("training.epoch", "epochs"),
        ("pruning.kep", "keep"),
        ("sed", "seed"),
    ],
)
def test_unknown_keys_suggest_the_nearest(key, near):
    assert f"did you mean '{near}'" in refused("unknown key", assignments=[f"{key}=1"])


def test_unknown_preset():
    refused("unknown preset 'quik'; did you mean 'quick'", preset="quik")


NAN, INF = math.nan, math.inf
RANGES = [
    (PruningConfig, "keep", [0.0, -0.1, 1.5, NAN, INF], [1e-9, 0.1, 1.0]),
    *((scheme, "floor", [-0.1, 1.1, NAN], [None, 0.0, 1.0]) for scheme in (Irregular, Funnel, Redundant, NOfM, Filter)),
    (AttackConfig, "eps", [-1.0, 1.01, 8.0, NAN, INF], [0.0, 8 / 255, 1.0]),
    (AttackConfig, "steps", [0, -1], [1, 100]),
    (AttackConfig, "eps_rise", [0.0, 1.1, NAN], [0.3, 1.0]),
    (AttackConfig, "method", ["fgsm", "n-fgsm"], ["pgd"]),  # n-fgsm: with one step only
    (AttackConfig, "step_size", [0.0, -0.1, NAN], [None, 0.01]),
    (AttackConfig, "eps_schedule", [(), (2.0,), (NAN,), (-0.1,), "third"], ["thirds", "linear", (0.0, 1.0)]),
    (AttackConfig, "steps_schedule", [(), (0,), "growing"], ["grow", (1, 2)]),
    (PruningConfig, "keep_schedule", [(0.0,), (1.5,), (NAN,), "half"], ["halve", (1.0, 0.1)]),
    (Irregular, "scope", ["Global", ""], ["global", "layer", "macs"]),
    (Filter, "scope", ["Global", "macs"], ["global", "layer"]),
    (Irregular, "macs", [0.0, 1.1, NAN, 0.5], [None]),
    (NOfM, "n", [0, 4, -1], [1, 3]),
    (NOfM, "m", [2, 0], [3, 16]),
    (AdmmConfig, "rho", [0.0, -1.0, NAN], [1e-6]),
    (AdmmConfig, "rho_growth", [0.9, NAN], [1.0]),
    (AdmmConfig, "rho_schedule", ["line"], ["growth", "window"]),
    (AdmmConfig, "start", [-0.1, 0.7, 1.0, NAN], [0.0, 0.1]),
    (AdmmConfig, "regrow", [-0.1, 1.0, NAN], [0.0, 0.5]),
    (AdmmConfig, "regrow_interval", [0], [1]),
    (AdmmConfig, "regrow_until", [0.0, 1.1, NAN], [0.5, 1.0]),
    (AdmmConfig, "rho_max", [1e-9, NAN], [1e-3]),
    (AdmmConfig, "interval", [0], [1]),
    (AdmmConfig, "masked_fraction", [0.0, 1.0, NAN], [0.5]),
    (AdmmConfig, "prune_when", [0.0, -1.0, NAN], [None, 0.1]),
    (TrainingConfig, "epochs", [-1], [0, 1]),
    (TrainingConfig, "batch_size", [0, 1], [2]),
    (TrainingConfig, "lr", [0.0, -0.1, NAN], [1e-9]),
    (TrainingConfig, "lr_schedule", ["cos", (), (0.0,), (NAN,)], ["cosine", "step", "linear", (0.1, 0.01)]),
    (TrainingConfig, "lr_warmup", [-0.1, 0.9, 1.0, NAN], [0.0, 0.5]),
    (TrainingConfig, "lr_end", [0.0, 1.1, NAN], [0.5, 1.0]),
    (TrainingConfig, "lr_tail", [0.0, 1.1, NAN], [0.01, 1.0]),
    (TrainingConfig, "clean_interval", [0], [1, 4]),
    (TrainingConfig, "lr_decay", [0.0, 1.1, NAN], [1.0]),
    (TrainingConfig, "momentum", [-0.1, 1.1, NAN], [0.0, 0.9]),
    (TrainingConfig, "weight_decay", [-0.1, NAN], [0.0]),
    (TrainingConfig, "adversarial_weight", [-0.1, 1.1, NAN], [0.0, 1.0]),
    (TrainingConfig, "loss", ["trade"], ["adversarial", "trades", "nuclear"]),
    (TrainingConfig, "beta", [0.0, -1.0, NAN], [6.0]),
    (TrainingConfig, "label_smoothing", [-0.1, 1.0, NAN], [0.0, 0.2]),
    (TrainingConfig, "quantize_share", [0.0, 1.1, NAN], [0.01, 1.0]),
    (TrainingConfig, "quantize", ["int4", "fp16"], ["none", "int8"]),
    (AveragingConfig, "decay", [-0.1, 1.0, NAN], [0.0, 0.999]),
    (AveragingConfig, "reestimate", [-1, 1], [0, 2]),
    (AwpConfig, "gamma", [-0.1, 1.0, NAN], [0.0, 0.005]),
    (AwpConfig, "warmup", [-1], [0]),
    (AwpConfig, "windows", [(), (0.5,), (0.5, 0.1), (0.5, 1.5)], [None, (0.1, 0.5)]),
    (AwpConfig, "abort", [1.0, NAN], [2.0]),
    (SelectionConfig, "held_out", [-1], [0, 1]),
    (SelectionConfig, "steps", [0], [1]),
    (SelectionConfig, "every", [0], [1]),
    (DataConfig, "limit_train", [0, -3], [None, 1]),
    (DataConfig, "limit_test", [0], [None, 1]),
    (DataConfig, "resize", [0, "32", "0x9", "ax9", "4x4x4", 1 << 20], [None, 32, "48x96"]),
    (DataConfig, "crop", [0, "x", "9x0"], [None, 32, "48x96"]),
    (DataConfig, "interpolation", ["cubic", ""], ["bilinear", "bicubic", "lanczos", "nearest"]),
    (DataConfig, "background", [(), (0, 0), (0, 0, 256), (-1, 0, 0)], [(0, 0, 0), (255, 255, 255)]),
    (DataConfig, "channels", [0, 2, 4], [None, 1, 3]),
    (DataConfig, "mean", [(), (NAN,)], [None]),
    (DataConfig, "std", [(), (0.0,), (-1.0,), (INF,)], [None]),
    (DataConfig, "augment", [("mirror",)], [(), ("flip", "rotate", "shift", "crop")]),
    (DataConfig, "resident", ["yes", ""], ["auto", True, False]),
    (DataConfig, "resident_mib", [-1], [0, 10**6]),
    (ComputeConfig, "precision", ["fp16", ""], ["fp32", "bf16"]),
    (ComputeConfig, "workers", [-1, 10**6], [0, 8]),
    (CompressConfig, "seed", [-1, 2**63], [0, 2**63 - 1]),
    (CompressConfig, "threads", [0], [None, 1]),
]


@pytest.mark.parametrize(("cls", "field", "bad", "good"), RANGES, ids=lambda value: str(value)[:20])
def test_ranges(cls, field, bad, good):
    for value in bad:
        with pytest.raises(InputError, match=field) as caught:
            cls(**{field: value})
        assert "\n" not in str(caught.value)
    for value in good:
        assert getattr(cls(**{field: value}), field) == value


def test_every_setting_that_is_no_plain_text_has_a_range():
    free = {"data.dataset", "data.dir", "data.download", "arch", "init", "device", "training.lr_step"}
    free |= {
        "targets",
        "new_head",
        "deterministic",
        "pack",
        "training.nesterov",
        "pruning.keep_mask",
        "training.freeze_batchnorm",
        "tensorboard",
        "compute.channels_last",
        "compute.compile",
        "pruning.prune_depthwise",
        "pruning.scheme",
    }
    checked = {field for _, field, _, _ in RANGES}
    for line in yaml.safe_load(to_yaml(resolve())).items():
        group, value = line
        for key in value if isinstance(value, dict) else [group]:
            dotted = f"{group}.{key}" if isinstance(value, dict) else key
            assert dotted in free or key in checked, dotted


@pytest.mark.parametrize(
    "assignment",
    ["pruning.keep=ten", "training.epochs=2.5", "training.epochs=true", "data.augment=flip", "attack.eps=.nan",
     "attack.eps=8/0", "attack.eps=!fraction x", "attack.eps=8/255/1", "data.dir=[a]", "attack.eps_schedule={a: 1}",
     "training.lr=.inf"],
)  # fmt: skip
def test_other_types_name_the_key(assignment):
    refused(assignment.partition("=")[0].replace(".", r"\."), assignments=[assignment])


@pytest.mark.parametrize(
    ("bare", "full"), [("lr", "training.lr"), ("eps", "attack.eps"), ("steps", "attack.steps or selection.steps")]
)
def test_a_setting_without_its_group_is_named_in_full(tmp_path, bare, full):
    refused(f"did you mean {full}\\?", assignments=[f"{bare}=1"])
    (tmp_path / "c.yaml").write_text(f"{bare}: 1\n")
    refused(f"did you mean {full}\\?", file=tmp_path / "c.yaml")


@pytest.mark.parametrize("name", ["attack.eps_schedule", "training.lr_schedule"])
def test_an_unknown_schedule_tells_names_from_the_list(name):
    assert "(known: a list with one value per epoch, co" in refused(name, assignments=[f"{name}=cubic"])


def test_a_mask_to_keep_prunes_nothing_else_unless_keep_is_given(tmp_path):
    (tmp_path / "c.yaml").write_text("pruning: {keep_mask: true}\n")
    init, mask = {"init": "runs/a"}, {"init": "runs/a", "pruning.keep_mask": True}
    assert resolve(preset="quick", flags=init).pruning.keep == 0.1
    assert resolve(preset="quick", flags=mask).pruning.keep == 1
    assert resolve(preset="quick", file=tmp_path / "c.yaml", flags=init).pruning.keep == 1
    assert resolve(preset="quick", flags=mask, assignments=["pruning.keep=0.05"]).pruning.keep == 0.05
    resumed = resolve(flags={**mask, "pruning.keep": 0.05})
    assert resolve(base=resumed, flags=mask).pruning.keep == 0.05


@pytest.mark.parametrize(
    "flags",
    [{"training.epochs": 0}, {"pruning.keep_mask": True}, {"new_head": True}, {"training.freeze_batchnorm": True}],
)
def test_what_needs_an_initial_network_is_refused_without_one(flags):
    refused("where `init` names no network", flags=flags)
    resolve(flags={**flags, "init": "runs/a"})


@pytest.mark.parametrize("given", ["data.mean=[0.5]", "data.std=[0.2]"])
def test_mean_and_standard_deviation_are_given_together(given):
    refused(r"data\.std must be given together with data\.mean", assignments=[given])
    assert resolve(assignments=["data.mean=[0.5]", "data.std=[1/255]"]).data.std == (1 / 255,)
    way_out = r"--set data\.mean=\[0\.2,0\.4\] --set data\.std=\[0\.2,0\.2\]"
    with pytest.raises(InputError, match=rf"data\.mean is \[51,102\].*{way_out}"):
        resolve(assignments=["data.mean=[51, 102]", "data.std=[51, 51]"])


def test_values_out_of_range_are_shown():
    assert "1.5" in refused("keep must be a fraction above 0", assignments=["pruning.keep=1.5"])


@pytest.mark.parametrize(
    "content", [b"\xff\xd8\xff\xe0 a photo", b"a: [1", b"- a\n- b", b"just text", b"a: 2001-99-99", b"\0", b"[" * 2000]
)
def test_a_config_file_of_something_else(tmp_path, content):
    (tmp_path / "c.yaml").write_bytes(content)
    refused(r"c\.yaml", file=tmp_path / "c.yaml")


def test_a_config_file_that_is_not_there(tmp_path):
    refused("is not a file", file=tmp_path / "c.yaml")


def test_an_empty_config_file_is_the_defaults(tmp_path):
    (tmp_path / "c.yaml").write_text("# nothing yet\n")
    assert resolve(file=tmp_path / "c.yaml") == CompressConfig()


def test_yaml_in_a_config_cannot_build_objects(tmp_path):
    (tmp_path / "c.yaml").write_text("arch: !!python/object/apply:os.mkdir ['mark']\n")
    refused("not valid YAML", file=tmp_path / "c.yaml")


configs = st.builds(
    CompressConfig,
    arch=st.none() | st.text(max_size=20),
    init=st.none() | st.text(max_size=20),
    seed=st.integers(0, 2**63 - 1),
    attack=st.builds(
        AttackConfig,
        eps=st.floats(0, 1),
        eps_schedule=st.sampled_from(["constant", "thirds"])
        | st.lists(st.floats(0, 1), min_size=1, max_size=4).map(tuple),
        step_size=st.none() | st.floats(1e-300, 1e300),
    ),
    data=st.builds(DataConfig, dir=st.none() | st.text(max_size=20), augment=st.just(("flip", "shift"))),
    pruning=st.builds(PruningConfig, keep=st.floats(1e-12, 1)),
)


@hypothesis.given(configs)
def test_yaml_holds_everything(config):
    assert from_yaml(to_yaml(config), "here") == config


def test_written_yaml_names_every_key():
    def keys(value, prefix=""):
        for name, item in value.items():
            yield prefix + name
            if isinstance(item, dict):
                yield from keys(item, prefix + name + ".")

    written = set(keys(yaml.safe_load(to_yaml(resolve(preset="quick")))))
    own = {"pruning.scope", "pruning.floor", "pruning.prune_depthwise", "pruning.macs"}
    groups = {key.partition(".")[0] for key in written if "." in key}
    assert written - groups == {key for key, _, _ in walk(CompressConfig)} | own


def test_differences_name_key_and_both_values():
    left = resolve(preset="quick")
    assert differences(left, left) == []
    right = resolve(preset="quick", flags={"pruning.keep": 0.2, "seed": 5, "data.augment": ["flip"]})
    assert sorted(differences(left, right)) == [
        "data.augment: (), not ('flip',)",
        "pruning.keep: 0.1, not 0.2",
        "seed: 0, not 5",
    ]


def test_sparse_and_robust():
    assert not resolve(flags={"pruning.keep": 1.0}).sparse
    assert not resolve(flags={"attack.eps": 0.0}).robust
    assert resolve().sparse
    assert resolve().robust
