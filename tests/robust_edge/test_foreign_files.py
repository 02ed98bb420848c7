"""Whatever bytes a stranger sends: every reader of files takes them or refuses them in one line, and never crashes.

Each reader runs in processes of its own, so that a crash or a hang in a library of C++ is a failure of its case. The
mutations are seeded; `make fuzz` runs more of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robust_edge.config.settings import resolve
from robust_edge.evaluation.transfer import Transfer
from robust_edge.importing.source import Request
from robust_edge.importing.table import read_source
from robust_edge.models import packed
from robust_edge.models.spec import build_model
from robust_edge.models.state_dict import load_state_dict
from robust_edge.reporting.collect import collect_runs, read_result
from robust_edge.run import directory
from robust_edge.run.directory import open_run
from robust_edge.sweep.cell import CellJob, StepCommand, read_state
from robust_edge.verification.merge import read_verdict
from robust_edge_exporters.artifact import ExportSettings
from robust_edge_exporters.formats.csr.export import export_csr
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.bench.results import Bench
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.decode import visible
from robust_edge_runtimes.core.errors import RobustEdgeError
from robust_edge_runtimes.core.images import read_image
from robust_edge_runtimes.core.preprocessing import Preprocessing
from robust_edge_runtimes.load import load
from robust_edge_runtimes.verdict.history import add_to_history, history_file, with_history
from tests.attacks.mutations import (
    CASES,
    cases,
    numbers,
    odd_graph,
    odd_json,
    odd_tensors,
    odd_zip,
    spliced,
)
from tests.commands import forked, run
from tests.robust_edge.reporting.samples import bench_of, verdict_of, written

SECONDS = 30  # for one case, on a busy machine
CHUNK = 5000  # cases of one process: what libraries leak ends with it
MEMORY = 4 << 30  # that a case may have more than the process before it
NETWORKS, MOST_NETWORKS = {}, 100
DESCRIBING = ("config.yaml", "checkpoint.json", "checkpoint.safetensors")
"""Files of a run that its network is built from."""
NETWORK = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4))


@dataclasses.dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes:
        path: the good file.
        damage: (bytes, random) -> bytes.
        read: reads the damaged file.
        few: number of cases in CI.
        share: of the cases of `make fuzz`.
    """

    path: Path
    damage: Callable[[bytes, np.random.Generator], bytes]
    read: Callable[[], object]
    few: int = 30
    share: float = 1.0


def tensors_file(folder, name, data, damage):
    """Readers of weights: the same file, read into a network."""
    path = folder / name
    path.write_bytes(data)
    return Reader(path, damage, lambda: load_state_dict(NETWORK, path))


def safetensors(folder):
    data = packed.save_tensors(NETWORK.state_dict(), pack=False)
    return tensors_file(folder, "plain.safetensors", data, odd_tensors)


def packed_safetensors(folder):
    sparse = {name: torch.where(tensor > 0.1, tensor, 0) for name, tensor in NETWORK.state_dict().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "PACKED_FROM", 0)
        data = packed.save_tensors(sparse)
    assert b"::mask" in data
    return tensors_file(folder, "packed.safetensors", data, odd_tensors)


def state_dict(folder):
    buffer = io.BytesIO()
    torch.save(NETWORK.state_dict(), buffer)
    return tensors_file(folder, "weights.pth", buffer.getvalue(), odd_zip)


def onnx_import(folder):
    path = folder / "network.onnx"
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.BatchNorm2d(3), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(12, 4),
    ).eval()  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(net, (torch.zeros(2, 1, 4, 4),), path, dynamo=False, opset_version=17, verbose=False)
    return Reader(path, odd_graph, lambda: read_source(Request(path=path)), few=8)


def exported_program(folder):
    path = folder / "network.pt2"
    batch = {"input": {0: torch.export.Dim("batch")}}
    torch.export.save(torch.export.export(NETWORK, (torch.zeros(2, 1, 4, 4),), dynamic_shapes=batch), path)
    return Reader(path, odd_zip, lambda: read_source(Request(path=path, allow_code=True)), share=0.01)


def config(folder):
    path = folder / "config.yaml"
    path.write_text(
        json.dumps(
            {
                "arch": "small_cnn",
                "attack": {"eps": 0.1, "steps": 3, "eps_schedule": [0.05, 0.05, 0.1, 0.1]},
                "pruning": {"scheme": "irregular", "keep": 0.2, "keep_schedule": [0.5, 0.5, 0.2, 0.2]},
                "training": {"epochs": 4, "lr": 0.1},
                "data": {"dataset": "digits", "resize": "8x8", "mean": [0.1], "std": [0.2]},
            }
        )
    )
    return Reader(path, odd_json, lambda: resolve(file=path))


def pictures(folder, suffix):
    path = folder / f"picture{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    if suffix == ".npy":
        np.save(path, pixels.transpose(2, 0, 1)[:, :8, :8])
    else:
        Image.fromarray(pixels).save(path)
    rules = Preprocessing(resize=(8,), crop=(8, 8))
    return Reader(path, spliced, lambda: read_image(path, (3, 8, 8), rules))


def picture(suffix):
    return lambda folder: pictures(folder, suffix)


def verdict(folder, read=read_verdict):
    shutil.copy(folder / "read" / "verify.json", folder / "verify.json")
    return Reader(folder / "verify.json", odd_json, lambda: read(folder / "verify.json"))


def history(folder):
    known, out = read_verdict(folder / "read" / "verify.json"), folder / "v.json"
    shutil.copy(history_file(folder / "read" / "verify.json"), history_file(out))
    return Reader(history_file(out), odd_json, lambda: with_history(known, out))


def result_of(cls, command):
    def reader(folder):
        path = folder / "read" / f"{command}.json"
        return Reader(path, odd_json, lambda: read_result(cls, path, command))

    return reader


def built(spec, where):
    """Build each network once, which costs more than to read its weights."""
    found = NETWORKS.get(repr(spec))
    if found is None:
        found = build_model(spec, where)
        if len(NETWORKS) < MOST_NETWORKS:
            NETWORKS[repr(spec)] = found
    return found


def run_file(name, damage=odd_json):
    """A file of a run, which is opened as the report and an export open it; the hash of the weights is forged.

    The network is built only where the file describes it. The other files are short, since all of them are read again
    in each case.
    """

    def reader(folder):
        path = folder / "runs" / name.replace("/", "-")
        shutil.copytree(folder / "run", path)
        described = (path / "checkpoint.json").read_text()
        if name != "config.yaml":
            short = {"arch": "small_cnn", "data": {"dataset": "digits"}, "attack": {"eps": 0.1}}
            (path / "config.yaml").write_text(json.dumps(short))
        if not name.startswith("evaluations"):
            shutil.rmtree(path / "evaluations")

        def read():
            if name == "checkpoint.safetensors":
                sha256 = hashlib.sha256((path / name).read_bytes()).hexdigest()
                (path / "checkpoint.json").write_text(json.dumps({**json.loads(described), "weights_sha256": sha256}))
            opened = open_run(path)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(directory, "build_model", built)
                if name in DESCRIBING:
                    opened.load_model()
            collect_runs([opened])

        return Reader(path / name, damage, read, few=8)

    return reader


def resumed(folder):
    path = folder / "half"
    shutil.copytree(folder / "run", path)
    (path / "config.yaml").write_text(json.dumps({"arch": "small_cnn"}))
    state = {"epoch": 1, "masked_from": None, "kept": None, "weights": NETWORK.state_dict(), "seconds": 0.5}
    open_run(path).write_resume(state)
    return Reader(path / "resume.pt", odd_zip, lambda: open_run(path).read_resume(), few=8)


def sweep_state(folder):
    step = StepCommand("compress", ("compress",), (0,), "1-compress")
    job = CellJob("a", folder, (step, dataclasses.replace(step, title="export")), ())
    written = {"done": [{"title": "compress", "code": 0, "why": ""}], "failed": {"title": "b", "code": 1, "why": "c"}}
    (folder / "state.json").write_text(json.dumps(written))
    return Reader(folder / "state.json", odd_json, lambda: read_state(job))


def artifact(target, damage):
    """The model file of a bundle, which is loaded and run; the hashes are forged."""

    def reader(folder):
        bundle = folder / target
        manifest = json.loads((bundle / "manifest.json").read_text())
        path = bundle / manifest["artifact"]["file"]

        def read():
            data, value = path.read_bytes(), json.loads(json.dumps(manifest))
            entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            value["files"][path.name] = entry
            value["artifact"].update(entry)
            (bundle / "manifest.json").write_text(json.dumps(value))
            sums = {name: item["sha256"] for name, item in value["files"].items()}
            sums["manifest.json"] = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
            (bundle / "SHA256SUMS").write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))
            opened = open_bundle(bundle)
            with load(opened) as model:
                model.infer(np.zeros((1, *opened.manifest.input.shape[1:]), np.float32))

        return Reader(path, damage, read, few=4)

    return reader


READERS = {
    "safetensors": safetensors,
    "packed checkpoint": packed_safetensors,
    "state dict": state_dict,
    "ONNX import": onnx_import,
    "torch.export import": exported_program,
    "config": config,
    **{f"picture {suffix}": picture(suffix) for suffix in (".npy", ".png", ".jpg", ".gif", ".webp", ".tif", ".bmp")},
    "verdict": verdict,
    "history": history,
    "bench": result_of(Bench, "bench"),
    "transfer": result_of(Transfer, "transfer"),
    "run: config": run_file("config.yaml", spliced),
    "run: checkpoint.json": run_file("checkpoint.json"),
    "run: metrics": run_file("metrics.jsonl"),
    "run: environment": run_file("environment.json"),
    "run: evaluation": run_file("evaluations/pgd.json"),
    "run: curve": run_file("evaluations/curve.json"),
    "run: weights": run_file("checkpoint.safetensors", odd_tensors),
    "run: state": resumed,
    "sweep: state": sweep_state,
    "ONNX artifact": artifact("x86-cpu", odd_graph),
    "TorchScript artifact": artifact("x86-cpu-csr", odd_zip),
}
SLOW = {"torch.export import"}  # writing the good file alone takes seconds; left to `make fuzz`


@pytest.fixture(scope="module")
def samples(sparse_run, sealed, tmp_path_factory):
    """A run with evaluations, a verdict, a benchmark and a transfer of it, and two bundles."""
    folder = tmp_path_factory.mktemp("samples")
    shutil.copytree(sparse_run.path, folder / "run")
    shutil.copytree(sealed, folder / "x86-cpu")
    (folder / "read").mkdir()
    for line in (
        "evaluate run --limit 4 --steps 1 --restarts 1",
        "evaluate run --attack curve --limit 4 --steps 1",
        "transfer --source run --target run --limit 4 --eps 0.1 --steps 1 -o read/transfer.json",
        "export run --target x86-cpu-csr --golden 2 --steps 1 -o x86-cpu-csr",
    ):
        run("robust-edge", *line.split(), "-q", cwd=folder)
    shorten(folder / "run" / "evaluations" / "curve.json")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    export_csr(network, (1, 8, 8), target_named("x86-cpu-csr"), str(folder / "x86-cpu-csr"), ExportSettings())
    verdict = verdict_of(sparse_run)
    written(verdict, folder / "read" / "verify.json")
    add_to_history(verdict, folder / "read" / "verify.json")
    written(bench_of(), folder / "read" / "bench.json")
    return folder


def shorten(path):
    """Keep two images at two radii of a curve."""
    value = json.loads(path.read_text())
    panel, curve = value["curve"]["panel"], value["curve"]
    curve["points"] = curve["points"][:2]
    panel["truth"] = panel["truth"][:2]
    for name in ("pixels", "predicted"):
        panel[name] = [row[:2] for row in panel[name][:2]]
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("name", [name for name in READERS if CASES or name not in SLOW])
def test_damaged_files_are_taken_or_refused_in_one_line(name, samples, tmp_path):
    reader = READERS[name](samples)
    good, chosen, found = reader.path.read_bytes(), numbers(reader.few, reader.share), []
    reader.read()
    try:
        for first in range(0, len(chosen), CHUNK):
            found.append(read_in_a_fork(name, reader, good, chosen[first : first + CHUNK], tmp_path))
    finally:
        reader.path.write_bytes(good)
    taken, refused, seconds = map(sum, zip(*found, strict=True))
    print(f"{name}: {taken} taken, {refused} refused, {len(chosen) / seconds:.0f} per second of a core", flush=True)
    assert taken + refused == len(chosen)
    assert refused > 0 or name == "history"


def read_in_a_fork(name, reader, good, chosen, folder):
    """The numbers of files taken and refused, and the processor time in seconds; any other outcome fails the test."""
    report, errors = folder / "report", folder / "errors"
    child = forked(lambda: print_failure(lambda: read_all(reader, good, chosen, report)), errors=errors)
    _, status, used = os.wait4(child, 0)
    code, told = os.waitstatus_to_exitcode(status), report.read_text()
    if code:
        how = signal.Signals(-code).name if code < 0 else f"exit {code}"
        pytest.fail(f"{name}: case {told} ended by {how}\n{errors.read_text()[-4000:]}")
    return (*map(int, told.split()), used.ru_utime + used.ru_stime)


def print_failure(action):
    """Print the traceback of an exception of an action in a fork."""
    try:
        action()
    except BaseException:
        traceback.print_exc()
        raise


def read_all(reader, good, chosen, report):
    """Read every case; the number of the present one is in `report`, at the end the numbers taken and refused."""
    taken = refused = 0
    before = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (before + MEMORY, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with report.open("w") as file:
        for number, random in cases(chosen):
            file.seek(0)
            file.write(f"{number}\n")
            file.flush()
            damaged = reader.damage(good, random)
            reader.path.write_bytes(damaged)
            signal.alarm(SECONDS)
            try:
                reader.read()
                taken += 1
            except RobustEdgeError as error:
                refused += 1
                check_message(str(error))
            signal.alarm(0)
    report.write_text(f"{taken} {refused}")


def check_message(text):
    """One line of bounded length, as the command line prints it."""
    shown = visible(" ".join(text.split()))
    assert shown.isprintable(), shown
    assert 0 < len(shown) < 1000, shown
