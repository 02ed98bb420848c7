import json
import shlex

import pytest

from robust_edge.cli import main

STEPS = [
    part
    for step in ("evaluate --eps 0.1 --steps 5", "export --target x86-cpu", "verify --limit 50", "bench --images 10")
    for part in ("--then", step)
]


def test_a_dry_run_lists_commands_that_the_commands_take(cli, tmp_path):
    out = tmp_path / "sweep"
    given = ("--grid", "keep=0.2,0.1", "--grid", "preset=quick,strong", "--eps", "0.1", "--target", "x86-cpu,arm-cpu")
    done = cli("sweep", *given, *STEPS, "--dry-run", "-o", out)
    assert done.exit_code == 0, done.output
    assert not out.exists()
    lines = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("robust-edge ")]
    assert [line[1] for line in lines] == ["compress", "evaluate", "export", "verify", "bench"] * 4
    for line in lines:
        main.commands[line[1]].make_context(line[1], line[2:])
    assert [line.split()[:3] for line in done.stdout.splitlines()[2:6]] == [
        [f"keep={keep},preset={preset}", "open", "0/5"] for keep in ("0.2", "0.1") for preset in ("quick", "strong")
    ]
    value = json.loads(cli("sweep", *given, *STEPS, "--dry-run", "--json", "-o", out).stdout)
    assert [cell["commands"][0].split()[1] for cell in value] == ["compress"] * 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Missing option '--grid'"),
        (["--grid", "keep=0.1,2"], "cell keep=2"),
        (["--grid", "keep=0.1", "--keep", "0.2"], "is an axis of the grid and also given for all cells"),
        (["--grid", "keep=0.1", "--then", "train"], "unknown step 'train'"),
        (["--grid", "keep=0.1", "--then", "evaluate --eps red"], "--then 'evaluate --eps red': "),
        (["--grid", "keep=0.1", "--then", "evaluate --help"], "is not a command to run"),
        (["--grid", "keep=0.1", "--then", "evaluate '"], "is not a command (No closing quotation)"),
        (["--grid", "keep=0.1", "--then", "evaluate -o a.json"], "sweep sets --out itself"),
        (["--grid", "keep=0.1", "--then", "export"], "Missing option '--target'"),
        (["--grid", "keep=0.1", "--then", "export --target toaster"], "unknown target 'toaster'"),
        (["--grid", "keep=0.1", "--then", "export --target x86-cpu -o b"], "sweep sets --out itself"),
        (["--grid", "keep=0.1", "--then", "verify"], "'verify' needs a bundle"),
        (["--grid", "keep=0.1", "--launcher", "slurm"], "'slurm' is not one of"),
        (["--grid", "keep=0.1", "--slurm", "time=5"], "for the launcher submitit"),
        (["--grid", "keep=0.1", *STEPS[2:4], "--then", "verify --max-memory nan"], "it must be above 0"),
        (["--grid", "keep=0.1", "--jobs", "0"], "0 is not in the range"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_trained(refused, tmp_path, words, said):
    out = tmp_path / "sweep"
    assert said in refused("sweep", *words, "-o", out)
    assert not (out / "runs").exists() or not any((out / "runs").iterdir())
