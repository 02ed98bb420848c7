"""All parts of the recipe in one run: its phases, its constraint, and the same bytes after an interruption."""

import pytest
import safetensors.torch
import torch

from robust_edge.run.directory import open_run
from robust_edge.training.compress import compress, resume

RECIPE = {
    "training.epochs": 10,
    "training.lr_schedule": "linear",
    "training.nesterov": True,
    "training.adversarial_weight": 1.0,
    "attack.eps_schedule": "linear",
    "attack.eps_rise": 0.3,
    "attack.method": "n-fgsm",
    "attack.steps": 1,
    "admm.start": 0.1,
    "admm.masked_fraction": 0.6,
    "admm.rho_schedule": "window",
    "admm.rho": 1e-3,
    "admm.rho_max": 0.1,
    "admm.regrow": 0.3,
    "admm.regrow_interval": 2,
    "averaging.decay": 0.9,
    "awp.gamma": 0.005,
    "awp.windows": [0.1, 0.4],
    "selection.held_out": 40,
    "selection.steps": 2,
}


class Killed(BaseException):
    """Stands for the end of the process."""


def test_the_whole_recipe(tiny, tmp_path):
    config = tiny({**RECIPE, "pruning.scheme": "block"})
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    compress(config, unbroken)
    rows = open_run(unbroken).metrics()
    assert [row.phase for row in rows] == ["dense", *["admm"] * 3, *["masked"] * 6]
    assert [row.rho for row in rows[:1] + rows[4:]] == [0] * 7
    assert rows[3].rho == pytest.approx(0.1)
    assert [row.awp for row in rows] == [False, *[True] * 3, *[False] * 6]
    assert {(row.clean_loss, row.clean_accuracy) for row in rows} == {(None, None)}
    assert [row.nonzero for row in rows[4:]] == pytest.approx([0.1 * 93728] * 6, abs=6)  # some may be zero by chance

    def stop(done, total, text):
        if done == 25:  # in the sixth epoch, in which the mask moves
            raise Killed

    with pytest.raises(Killed):
        compress(config, broken, progress=stop)
    state = open_run(broken).read_resume()
    resume(broken)
    files = [safetensors.torch.load_file(path / "checkpoint.safetensors") for path in (unbroken, broken)]
    assert all(torch.equal(value, files[1][name]) for name, value in files[0].items())
    weights = {name: value for name, value in files[0].items() if name in state["masks"]}
    assert any((value[state["masks"][name] == 0] != 0).any() for name, value in weights.items()), "the mask moved"
