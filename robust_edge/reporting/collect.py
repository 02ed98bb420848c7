"""Read the data of the report: runs, verdicts and bench results, and what is missing."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import safetensors

from robust_edge.config.compress import CompressConfig
from robust_edge.evaluation.accuracy import PgdResult
from robust_edge.evaluation.curve import CurveResult
from robust_edge.evaluation.record import Evaluation, stored_evaluations
from robust_edge.evaluation.saliency import Saliency, stored_saliency
from robust_edge.evaluation.transfer import Transfer
from robust_edge.run.directory import WEIGHTS, Checkpoint, Run
from robust_edge.run.metrics import EpochRow
from robust_edge_runtimes.bench.results import Bench
from robust_edge_runtimes.core.decode import decode, read_json
from robust_edge_runtimes.core.environment import Machine
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import sha256_of
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.verdict.judge import FAIL, PASS, UNDECIDED, Verdict

T = TypeVar("T")
BINS = 120


@dataclasses.dataclass(frozen=True)
class Missing:
    """A part of the report without data: the reason, and the commands that produce the data."""

    why: str
    commands: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Environment:
    """The content of environment.json.

    Attributes:
        peak_memory_bytes: peak memory of the training, on its GPU if it used one. It is not compared, so that runs on
            one machine have equal environments.
    """

    versions: dict[str, str]
    machine: Machine
    cuda_devices: tuple[str, ...]
    torch_threads: int
    peak_memory_bytes: int | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True, eq=False)
class WeightCounts:
    """Histogram of the non-zero prunable weights of a run.

    Attributes:
        edges: (B + 1,) float64 edges of the bins, the same for all runs of a report.
        counts: (B,) int64 numbers of non-zero weights; their sum is `nonzero`.
    """

    edges: np.ndarray
    counts: np.ndarray
    nonzero: int
    zeros: int


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RunData:
    """The data of one run.

    Results that do not exist are None or empty; `unfinished` and `not_evaluated` say how to produce them.

    Attributes:
        name: unique in the report.
        index: position in the report; determines colour and marker.
        limits: attack to the number of test images, where it was limited.
        records: every stored evaluation of these weights.
        saliency: input gradients.
        stale: names of stored evaluations of other weights (of this run or of the run that it was averaged with), or of
            release 0.1.
    """

    name: str
    index: int
    run: Run
    epochs: tuple[EpochRow, ...]
    environment: Environment | None
    checkpoint: Checkpoint | None = None
    pgd: PgdResult | None = None
    curve: CurveResult | None = None
    weights: WeightCounts | None = None
    records: tuple[Evaluation, ...] = ()
    saliency: Saliency | None = None
    limits: dict[str, int] = dataclasses.field(default_factory=dict)
    stale: tuple[str, ...] = ()

    @property
    def config(self) -> CompressConfig:
        """The resolved config."""
        return self.run.config

    @property
    def sparse(self) -> bool:
        """Whether the run prunes."""
        return self.config.sparse

    @property
    def roles(self) -> tuple[str, str]:
        """Benign or robust, and dense or sparse, according to the config of the run."""
        return ("robust" if self.config.robust else "benign", "sparse" if self.config.sparse else "dense")

    @property
    def masked_from(self) -> int | None:
        """First epoch of the masked phase, counted from 1; None if there is none yet."""
        return next((row.epoch for row in self.epochs if row.phase == "masked"), None)

    @property
    def shell_path(self) -> str:
        """The path of the run, quoted for a shell."""
        return shlex.quote(clean_text(str(self.run.path)))

    @property
    def unfinished(self) -> Missing | None:
        """How to finish the run; None if it is finished."""
        if self.checkpoint is not None:
            return None
        done, planned = len(self.epochs), self.config.training.epochs
        why = f"{self.name} is not finished: {done} of {planned} epochs, no checkpoint"
        return Missing(why, (f"robust-edge compress --resume -o {self.shell_path}",))

    def not_evaluated(self, attack: str, reference: AttackSpec | None = None) -> Missing | None:
        """How to produce the result of `pgd` or `curve`, with the attack of the other runs; None if there is one."""
        if self.unfinished is not None:
            return self.unfinished
        if getattr(self, attack) is not None:
            return None
        flags = ""
        if attack == "curve":
            flags = " --attack curve"
        elif reference is not None:
            flags = f" --eps {reference.eps:.6g} --steps {reference.steps}"
        older = (
            "its stored result belongs to an older checkpoint or release"
            if attack in self.stale
            else "no result is stored"
        )
        return Missing(f"{self.name}: {older}", (f"robust-edge evaluate {self.shell_path}{flags}",))


@dataclasses.dataclass(frozen=True, eq=False)
class VerdictData:
    """A verdict, the run of its checkpoint, and the labels of the bench entries of the same artifact."""

    path: str
    verdict: Verdict
    run: RunData | None
    timed_as: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class BenchData:
    """A bench result, and for each entry whether its artifact passed verification; None without a verdict."""

    path: str
    bench: Bench
    verdicts: tuple[bool | None, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class ReportData:
    """The data of the whole report; failed verdicts come first."""

    runs: tuple[RunData, ...]
    verdicts: tuple[VerdictData, ...]
    benches: tuple[BenchData, ...]
    transfers: tuple[Transfer, ...] = ()
    transfer_paths: tuple[str, ...] = ()


def collect(
    runs: Sequence[Run], verdicts: Sequence[Path], benches: Sequence[Path], transfers: Sequence[Path] = ()
) -> ReportData:
    """Read all files of the report.

    Raises:
        InputError: there is no run, a file was not written by its command, or weights do not match their
            checkpoint.json.
    """
    if not runs:
        raise InputError("a report needs at least one run; give a folder that `robust-edge compress -o` wrote")
    data = collect_runs(list({run.path.resolve(): run for run in runs}.values()))  # runs/* names some twice
    verdicts_by_path = [(path, read_result(Verdict, path, "verify")) for path in verdicts]
    timed = [(path, read_result(Bench, path, "bench")) for path in benches]
    shown = tuple(read_result(Transfer, path, "transfer") for path in transfers)
    by_checkpoint = {run.checkpoint.weights_sha256: run for run in data if run.checkpoint is not None}
    verdict_data = [
        VerdictData(
            clean_text(str(path)),
            verdict,
            by_checkpoint.get(verdict.checkpoint_sha256),
            tuple(
                entry.label
                for _, bench in timed
                for entry in bench.entries
                if entry.artifact_sha256 == verdict.artifact_sha256
            ),
        )
        for path, verdict in verdicts_by_path
    ]
    bench_data = [
        BenchData(
            clean_text(str(path)),
            bench,
            tuple(
                _passed_verification(entry.artifact_sha256, [v for _, v in verdicts_by_path]) for entry in bench.entries
            ),
        )
        for path, bench in timed
    ]
    ordered = sorted(verdict_data, key=lambda item: (FAIL, UNDECIDED, PASS).index(item.verdict.outcome))
    places = tuple(clean_text(str(path)) for path in transfers)
    return ReportData(data, tuple(ordered), tuple(bench_data), shown, places)


def collect_runs(runs: Sequence[Run]) -> tuple[RunData, ...]:
    """Read runs; the histograms of their weights have common bins."""
    names = _unique_names(runs)
    data = [_run_data(run, name, index) for index, (run, name) in enumerate(zip(runs, names, strict=True))]
    finished = [item for item in data if item.checkpoint is not None]
    largest = max((_largest_weight(item) for item in finished), default=0.0) or 1.0
    edges = np.linspace(-largest, largest, BINS + 1)
    return tuple(
        item if item.checkpoint is None else dataclasses.replace(item, weights=_count_weights(item, edges))
        for item in data
    )


def read_result(cls: type[T], path: Path, command: str) -> T:
    """Read a JSON file that `robust-edge COMMAND -o` wrote.

    Raises:
        InputError: the file is missing, or was not written by that command.
    """
    if not path.is_file():
        raise InputError(f"--{command} {path} is not a file; `robust-edge {command} -o {path}` writes one")
    try:
        return decode(cls, read_json(path), where=path.name)
    except InputError as cause:
        raise InputError(f"--{command} {path} is not what `robust-edge {command} -o` writes: {cause}") from cause


def clean_text(text: str) -> str:
    """The text with characters that UTF-8 cannot encode, as in some file names, replaced by question marks."""
    return text.encode("utf-8", "replace").decode()


def _passed_verification(artifact: str, verdicts: Sequence[Verdict]) -> bool | None:
    found = [verdict.passed for verdict in verdicts if verdict.artifact_sha256 == artifact]
    return all(found) if found else None


def _unique_names(runs: Sequence[Run]) -> list[str]:
    names = [clean_text(run.name) for run in runs]
    return [
        name if names.count(name) == 1 else clean_text(str(run.path)) for run, name in zip(runs, names, strict=True)
    ]


def _run_data(run: Run, name: str, index: int) -> RunData:
    data = RunData(name=name, index=index, run=run, epochs=tuple(run.metrics()), environment=_environment(run))
    if not run.finished:
        return data
    checkpoint = run.checkpoint()
    file = run.path / WEIGHTS
    if not file.is_file() or sha256_of(file) != checkpoint.weights_sha256:
        raise InputError(f"{file} is missing or not the file that checkpoint.json describes; train again")
    stored = stored_evaluations(run)
    pgd, curve = stored.get("pgd"), stored.get("curve")
    if curve is not None and curve.curve is not None:
        _check_panel(curve.curve, checkpoint, run.path)
    return dataclasses.replace(
        data,
        checkpoint=checkpoint,
        pgd=None if pgd is None else pgd.pgd,
        curve=None if curve is None else curve.curve,
        records=tuple(record for record in stored.values() if record is not None),
        saliency=stored_saliency(run),
        limits={record.attack: record.limit for record in (pgd, curve) if record is not None and record.limit},
        stale=tuple(name for name, record in stored.items() if record is None),
    )


def _environment(run: Run) -> Environment | None:
    path = run.path / "environment.json"
    return decode(Environment, read_json(path), where=str(path)) if path.is_file() else None


def _check_panel(curve: CurveResult, checkpoint: Checkpoint, path: Path) -> None:
    """Check the part of an evaluation that `decode` cannot check: nested lists of pixels, and class indices."""
    panel, classes = curve.panel, len(checkpoint.model.classes)
    expected = (len(curve.points), len(panel.truth), *checkpoint.model.shape)
    try:
        valid = np.asarray(panel.pixels, dtype=np.float32).shape == expected
        valid &= np.asarray(panel.predicted).shape == expected[:2]
    except (TypeError, ValueError):
        valid = False
    indices = (*panel.truth, *(index for row in panel.predicted for index in row))
    if not valid or not all(0 <= index < classes for index in indices):
        file = path / "evaluations" / "curve.json"
        raise InputError(f"{file} contains images of another shape or class; run evaluate --attack curve again")


def _tensors(data: RunData) -> Iterator[np.ndarray]:
    """Yield the prunable weights layer by layer, so that the whole network is never in memory."""
    assert data.checkpoint is not None
    with safetensors.safe_open(data.run.path / WEIGHTS, framework="pt") as file:
        for layer in data.checkpoint.sparsity.layers:
            yield file.get_tensor(layer.name).float().numpy().ravel()


def _largest_weight(data: RunData) -> float:
    return max(float(np.abs(values).max()) for values in _tensors(data))


def _count_weights(data: RunData, edges: np.ndarray) -> WeightCounts:
    counts, nonzero, total = np.zeros(len(edges) - 1, dtype=np.int64), 0, 0
    for values in _tensors(data):
        kept = values[values != 0].astype(np.float64)
        counts += np.histogram(kept, bins=edges)[0]
        nonzero, total = nonzero + kept.size, total + values.size
    return WeightCounts(edges, counts, nonzero, total - nonzero)
