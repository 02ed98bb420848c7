import math

import pytest

from robust_edge.sweep.grid import MAX_NAME, CommonSettings, grid_cells, read_axis
from robust_edge_runtimes.core.errors import InputError

NOTHING = CommonSettings()


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("pruning.keep=0.1,0.05", "pruning.keep", ("0.1", "0.05")),
        ("keep=0.1", "pruning.keep", ("0.1",)),
        ("eps=8/255, 0.1", "attack.eps", ("8/255", "0.1")),
        ("preset=quick,strong", "preset", ("quick", "strong")),
        ("data.resize=[48,96],32", "data.resize", ("[48,96]", "32")),
    ],
)
def test_an_axis_is_a_setting_or_its_option(text, key, values):
    axis = read_axis(text)
    assert (axis.key, axis.values) == (key, values)


@pytest.mark.parametrize("text", ["", "keep", "keep=", "=0.1", "keep=0.1,", "keep=,0.1", "keep=0.1,0.1"])
def test_an_axis_without_values_or_with_one_twice_is_refused(text):
    with pytest.raises(InputError):
        read_axis(text)


def test_cells_are_all_combinations_with_their_settings(tmp_path):
    (tmp_path / "common.yaml").write_text("training: {epochs: 3}\n")
    common = CommonSettings(file=tmp_path / "common.yaml", flags={"attack.eps": 0.1}, assignments=("training.lr=0.5",))
    cells = grid_cells([read_axis("keep=0.2,0.1"), read_axis("seed=0,1,2")], common)
    assert [cell.name for cell in cells] == [f"keep={keep},seed={seed}" for keep in ("0.2", "0.1") for seed in "012"]
    assert [(cell.config.pruning.keep, cell.config.seed) for cell in cells[2:4]] == [(0.2, 2), (0.1, 0)]
    for config in (cell.config for cell in cells):
        assert (config.training.epochs, config.attack.eps, config.training.lr) == (3, 0.1, 0.5)


def test_a_preset_is_the_base_that_other_settings_override():
    cells = grid_cells([read_axis("preset=quick,thesis")], CommonSettings(assignments=("training.epochs=2",)))
    assert [cell.config.training.epochs for cell in cells] == [2, 2]
    assert cells[0].config.training.lr_schedule != cells[1].config.training.lr_schedule


def test_names_are_the_same_in_a_larger_grid_and_can_be_files():
    small = grid_cells([read_axis("eps=8/255,0.1")], NOTHING)
    large = grid_cells([read_axis("eps=4/255,8/255,0.1")], NOTHING)
    assert {cell.name for cell in small} < {cell.name for cell in large}
    assert [cell.name for cell in small] == ["eps=8-255", "eps=0.1"]
    long = grid_cells([read_axis(f"data.dir=/{'a' * 200}/b,/{'a' * 200}/c")], NOTHING)
    assert len({cell.name for cell in long}) == 2
    assert all(len(cell.name) <= MAX_NAME and "/" not in cell.name for cell in long)
    alike = grid_cells([read_axis("data.dir=a/b,a:b")], NOTHING)
    assert len({cell.name for cell in alike}) == 2


@pytest.mark.parametrize(
    ("grid", "common", "said"),
    [
        (["keep=0.1", "pruning.keep=0.2"], NOTHING, "two axes pruning.keep"),
        (["keep=0.1"], CommonSettings(assignments=("pruning.keep=0.2",)), "also given for all cells"),
        (["preset=quick"], CommonSettings(preset="strong"), "also given for all cells"),
        (["keep=0.1,2"], NOTHING, "cell keep=2: "),
        (["lr=0.1"], NOTHING, "did you mean training.lr"),
        (["keeep=0.1"], NOTHING, "did you mean pruning.keep"),
        (["preset=fast"], NOTHING, "unknown preset"),
        ([f"seed={','.join(map(str, range(200)))}", f"epochs={','.join(map(str, range(1, 101)))}"], NOTHING, "20000"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(grid, common, said):
    with pytest.raises(InputError, match=said):
        grid_cells(list(map(read_axis, grid)), common)


def test_the_number_of_cells_is_the_product():
    axes = [read_axis("keep=0.3,0.2,0.1"), read_axis("seed=0,1"), read_axis("epochs=1,2")]
    assert len(grid_cells(axes, NOTHING)) == math.prod(len(axis.values) for axis in axes)
