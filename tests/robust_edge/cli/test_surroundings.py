"""Every command where stdout, disk, folders, HOME or locale are not as usual: the documented exit code, never 70.

Each case runs in a fork of this process, which has imported everything.
"""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from robust_edge.cli import main
from robust_edge.sweep.plan import Plan
from robust_edge_runtimes.cli.main import main as device

GROUPS = {"robust-edge": main, "robust-edge-device": device}
SURROUNDINGS = ("closed stdout", "closed pipe", "full disk", "read-only", "no HOME, no TMPDIR, C locale")
# Command, arguments, and whether its exit code is a verdict, which a full disk on stdout does not change.
COMMANDS = {
    "robust-edge bench": ("{bundle} {dense} --images 2 --seconds 0.001 -o out/b.json", True),
    "robust-edge check": ("{run} --target x86-cpu", True),
    "robust-edge compress": ("--init {weights} --epochs 0 --set data.limit_test=20 --steps 1 -o out/run", False),
    "robust-edge demo": ("--out out/demo --seed -1", False),
    "robust-edge doctor": ("", False),
    "robust-edge evaluate": ("{run} --limit 2 --steps 1 --restarts 1 -o out/e.json", False),
    "robust-edge export": ("{run} --target x86-cpu --golden 2 --steps 1 -o out/bundle", False),
    "robust-edge import": ("{weights} --arch small_cnn --set data.limit_test=20 --eps 0.1 -o out/run", False),
    "robust-edge report": ("{run} -o out/r.html", False),
    "robust-edge sweep": ("--grid keep=0.5 -o out/sweep", True),
    "robust-edge targets": ("", False),
    "robust-edge transfer": ("--source {run} --target {run} --limit 2 --eps 0.1 --steps 1 -o out/t.json", False),
    "robust-edge verify": ("{bundle} --mode replay -o out/v.json", True),
    "robust-edge-device bench": ("{bundle} --images 2 --seconds 0.001 -o out/b.json", True),
    "robust-edge-device doctor": ("", False),
    "robust-edge-device predict": ("{bundle} {image}", False),
    "robust-edge-device verify": ("{bundle} --mode replay -o out/v.json", True),
}
USUAL = {"robust-edge demo": 2, "robust-edge verify": 5, "robust-edge-device verify": 5}  # all others end with 0


@pytest.fixture(scope="module")
def trained_already(sparse_run):
    """The training of a sweep prints the checkpoint of another run at once."""
    code = f"print(open({str(sparse_run.path / 'checkpoint.json')!r}).read())"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(Plan.__init__.__kwdefaults__, "program", (sys.executable, "-E", "-S", "-c", code))
        yield


@pytest.fixture(scope="module")
def places(sparse_run, sealed, dense_sealed, tmp_path_factory, trained_already):
    """What the commands read; a first export imports what the forks would otherwise import each."""
    assert CliRunner().invoke(main, ["check", str(sparse_run.path), "--target", "x86-cpu"]).exit_code == 0
    folder = tmp_path_factory.mktemp("read")
    torch.save(sparse_run.load_model().network.state_dict(), folder / "weights.pth")
    np.save(folder / "image.npy", np.full((1, 4, 4), 0.5, np.float32))
    return {
        "run": sparse_run.path,
        "bundle": sealed,
        "dense": dense_sealed,
        "weights": folder / "weights.pth",
        "image": folder / "image.npy",
    }


def test_every_command_is_tried():
    named = {f"{group} {name}" for group, commands in GROUPS.items() for name in commands.list_commands(None)}
    assert named == set(COMMANDS)


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
@pytest.mark.parametrize("command", COMMANDS)
def test_exit_codes_do_not_depend_on_the_surroundings(command, surroundings, places, tmp_path):
    (tmp_path / "out").mkdir()
    arguments, is_verdict = COMMANDS[command]
    group, name = command.split()
    code = in_child(group, [name, *arguments.format_map(places).split()], surroundings, tmp_path)
    error = (tmp_path / "stderr").read_text()
    expected = USUAL.get(command, 0)
    if (surroundings == "full disk" and not is_verdict) or (surroundings == "read-only" and "out/" in arguments):
        expected = 2
    assert code == expected, error
    assert "Traceback" not in error
    assert error.count("error: ") == (expected == 2), error
    if surroundings == "read-only":
        assert not list((tmp_path / "out").iterdir())


def in_child(name, arguments, surroundings, folder):
    """The exit code of a command in a fork of this process; its stderr goes to a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside the threads of other tests
        child = os.fork()
    if child == 0:
        code = 99
        try:
            code = run(name, arguments, surroundings, folder)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(name, arguments, surroundings, folder):
    """Arrange the surroundings and run the command, then flush stdout as the interpreter does at its exit."""
    os.chdir(folder)
    os.dup2(os.open("stderr", os.O_CREAT | os.O_WRONLY), 2)
    read, write = os.pipe()
    os.close(read)
    stdout = {"closed pipe": write, "full disk": os.open("/dev/full", os.O_WRONLY)}
    os.dup2(stdout.get(surroundings, os.open(os.devnull, os.O_WRONLY)), 1)
    encoding = "ascii" if "C locale" in surroundings else "utf-8"
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding=encoding, closefd=False) for number in (1, 2))
    if surroundings == "closed stdout":
        sys.stdout = None
        os.close(1)
    elif surroundings == "read-only":
        Path("out").chmod(0o500)
        give_up_root()
    elif "C locale" in surroundings:
        del os.environ["HOME"]
        os.environ.update(TMPDIR="/nowhere", LC_ALL="C", LANG="C")
    sys.argv = [name, *arguments]  # not as an argument: commands that limit foreign files are to do so
    try:
        GROUPS[name].main()
    except SystemExit as ended:
        code = ended.code
    try:
        sys.stdout.flush()
    except OSError:
        code = 120
    return code


def give_up_root():
    """Let the permissions of files hold for root, too."""
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # _LINUX_CAPABILITY_VERSION_3
    libc.capget(header, sets)
    for i in (0, 1):
        sets[i] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, effective and permitted
    assert libc.capset(header, sets) == 0
