"""Read the data of the report: runs, verdicts and bench results, and what is missing."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from robust_edge.attacks.table import CURVE, PGD
from robust_edge.config.compress import CompressConfig
from robust_edge.evaluation.curve import CurveResult
from robust_edge.evaluation.outcome import AttackResult
from robust_edge.evaluation.record import Evaluation, record_name, stored_evaluations
from robust_edge.evaluation.saliency import Saliency, stored_saliency
from robust_edge.evaluation.transfer import Transfer
from robust_edge.models.table import GRAPH
from robust_edge.run.directory import CHECKPOINT, RESTORE, WEIGHTS, Checkpoint, Run
from robust_edge.run.imported import Imported
from robust_edge.run.metrics import EpochRow
from robust_edge_runtimes.attacks.threat import LINF
from robust_edge_runtimes.bench.results import Bench
from robust_edge_runtimes.core.decode import decode, read_json
from robust_edge_runtimes.core.environment import Machine
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import sha256_of
from robust_edge_runtimes.verdict.judge import FAIL, PASS, UNDECIDED, Verdict

T = TypeVar("T")
BINS = 120
WORST_FIRST = (FAIL, UNDECIDED, PASS)
SUMMARISED = record_name(PGD, LINF, None)  # the record whose accuracies the summary shows


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

    Results that do not exist are None or empty; `unfinished`, `missing_result` and `missing_curve` say how to produce
    them.

    Attributes:
        name: unique in the report.
        index: position in the report; determines colour and marker.
        records: every stored evaluation of these weights.
        summarised: the one whose accuracies the summary shows.
        rising: the one at increasing radii.
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
    weights: WeightCounts | None = None
    records: tuple[Evaluation, ...] = ()
    summarised: Evaluation | None = None
    rising: Evaluation | None = None
    saliency: Saliency | None = None
    stale: tuple[str, ...] = ()

    @property
    def result(self) -> AttackResult | None:
        """The accuracies that the summary shows."""
        return None if self.summarised is None else self.summarised.result

    @property
    def curve(self) -> CurveResult | None:
        """The accuracies at increasing radii."""
        return None if self.rising is None else self.rising.curve

    @property
    def config(self) -> CompressConfig:
        """The resolved config."""
        return self.run.config

    @property
    def sparse(self) -> bool:
        """Whether the run prunes."""
        return self.config.sparse

    @property
    def imported(self) -> Imported | None:
        """The file of an imported network; None for one that was trained here."""
        return None if self.checkpoint is None else self.checkpoint.imported

    @property
    def network(self) -> str:
        """The architecture; of an imported graph, which has none, the name of its file."""
        graph = self.imported is not None and self.config.arch == GRAPH
        return clean_text(Path(self.imported.file).name if graph and self.imported else str(self.config.arch))

    @property
    def roles(self) -> tuple[str, str]:
        """Benign or robust (or imported), and dense or sparse, according to the config of the run."""
        trained = "robust" if self.config.robust else "benign"
        return (trained if self.imported is None else "imported", "sparse" if self.config.sparse else "dense")

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

    @property
    def missing_training(self) -> Missing | None:
        """Why the training of the run cannot be drawn; None if it can."""
        if self.epochs:
            return None
        if self.unfinished is not None:
            return self.unfinished
        if self.imported is not None:
            return Missing(f"{self.name} was imported, not trained here", ())
        if self.config.training.epochs == 0:
            return Missing(f"{self.name} was not trained (0 epochs)", ())
        return Missing(f"{self.name}: metrics.jsonl is gone from the run, so its training cannot be drawn", ())

    def missing_result(self, reference: AttackResult | None) -> Missing | None:
        """How to evaluate the run with the attack of the other runs; None if there is a result."""
        flags = "" if reference is None else _attack_flags(reference)
        return None if self.result is not None else self._missing(SUMMARISED, flags)

    @property
    def missing_curve(self) -> Missing | None:
        """How to evaluate the run at increasing radii; None if there is a curve."""
        return None if self.curve is not None else self._missing(CURVE, f" --attack {CURVE}")

    def _missing(self, record: str, flags: str) -> Missing:
        if self.unfinished is not None:
            return self.unfinished
        stale = record in self.stale
        why = "its stored result belongs to an older checkpoint or release" if stale else "no result is stored"
        return Missing(f"{self.name}: {why}", (f"robust-edge evaluate {self.shell_path}{flags}",))


@dataclasses.dataclass(frozen=True, eq=False)
class VerdictData:
    """A verdict, the run of its checkpoint, and the labels of the bench entries of the same artifact."""

    path: str
    verdict: Verdict
    run: RunData | None
    timed_as: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class BenchData:
    """A bench result, and for each entry the worst outcome among its artifact's verdicts; None without a verdict."""

    path: str
    bench: Bench
    outcomes: tuple[str | None, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class ReportData:
    """The data of the whole report; failed verdicts come first."""

    runs: tuple[RunData, ...]
    verdicts: tuple[VerdictData, ...]
    benches: tuple[BenchData, ...]
    transfers: tuple[Transfer, ...] = ()
    transfer_paths: tuple[str, ...] = ()

    @property
    def outcome(self) -> str | None:
        """The worst outcome of all verdicts; None without a verdict."""
        return _worst(item.verdict for item in self.verdicts)


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
    judged = [(path, read_result(Verdict, path, "verify")) for path in verdicts]
    timed = [(path, read_result(Bench, path, "bench")) for path in benches]
    verdict_data = _verdict_data(judged, data, [bench for _, bench in timed])
    return ReportData(
        data,
        tuple(sorted(verdict_data, key=lambda item: WORST_FIRST.index(item.verdict.outcome))),
        tuple(_bench_data(path, bench, [verdict for _, verdict in judged]) for path, bench in timed),
        tuple(read_result(Transfer, path, "transfer") for path in transfers),
        tuple(clean_text(str(path)) for path in transfers),
    )


def _verdict_data(
    judged: Sequence[tuple[Path, Verdict]], runs: Sequence[RunData], benches: Sequence[Bench]
) -> list[VerdictData]:
    """Find the run and the bench entries of every verdict."""
    by_checkpoint = {run.checkpoint.weights_sha256: run for run in runs if run.checkpoint is not None}
    entries = [entry for bench in benches for entry in bench.entries]
    return [
        VerdictData(
            clean_text(str(path)),
            verdict,
            by_checkpoint.get(verdict.checkpoint_sha256),
            tuple(entry.label for entry in entries if entry.artifact_sha256 == verdict.artifact_sha256),
        )
        for path, verdict in judged
    ]


def _bench_data(path: Path, bench: Bench, verdicts: Sequence[Verdict]) -> BenchData:
    """Find the verdicts on the entries of a bench result."""
    outcomes = tuple(
        _worst(verdict for verdict in verdicts if verdict.artifact_sha256 == entry.artifact_sha256)
        for entry in bench.entries
    )
    return BenchData(clean_text(str(path)), bench, outcomes)


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
        raise InputError(f"{path} is not a file; `robust-edge {command} -o {path}` writes one")
    try:
        return decode(cls, read_json(path), where=path.name)
    except InputError as cause:
        raise InputError(f"{path} is not what `robust-edge {command}` writes: {cause}") from cause


def clean_text(text: str) -> str:
    """The text with characters that UTF-8 cannot encode, as in some file names, replaced by question marks."""
    return text.encode("utf-8", "replace").decode()


def _worst(verdicts: Iterable[Verdict]) -> str | None:
    return min((verdict.outcome for verdict in verdicts), key=WORST_FIRST.index, default=None)


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
        raise InputError(f"{file} is missing or not the file that {CHECKPOINT} describes; {RESTORE}")
    stored = stored_evaluations(run)
    records = tuple(record for record in stored.values() if record is not None)
    rising = next((record for record in records if record.curve is not None), None)
    if rising is not None and rising.curve is not None:
        _check_panel(rising.curve, checkpoint, f"the evaluation of {run.path} with attack {rising.attack}")
    return dataclasses.replace(
        data,
        checkpoint=checkpoint,
        records=records,
        summarised=stored.get(SUMMARISED),
        rising=rising,
        saliency=stored_saliency(run),
        stale=tuple(name for name, record in stored.items() if record is None),
    )


def _attack_flags(result: AttackResult) -> str:
    """The options that repeat an attack on another run."""
    settings = result.stages[0].settings
    given = [f" --{name} {settings[name]}" for name in ("steps", "restarts") if name in settings]
    return f" --eps {result.threat.eps:.6g}" + "".join(given)


def _environment(run: Run) -> Environment | None:
    path = run.path / "environment.json"
    return decode(Environment, read_json(path), where=str(path)) if path.is_file() else None


def _check_panel(curve: CurveResult, checkpoint: Checkpoint, where: str) -> None:
    """Check the part of an evaluation that `decode` cannot check: nested lists of pixels, and class indices."""
    panel, classes = curve.panel, len(checkpoint.model.classes)
    expected = (len(curve.points), len(panel.truth), *checkpoint.model.shape)
    try:
        pixels = np.asarray(panel.pixels, dtype=np.float64)
        valid = pixels.shape == expected and bool(((pixels >= 0) & (pixels <= 1)).all())
        valid &= np.asarray(panel.predicted).shape == expected[:2]
    except (TypeError, ValueError, OverflowError):
        valid = False
    indices = (*panel.truth, *(index for row in panel.predicted for index in row))
    if not valid or not all(0 <= index < classes for index in indices):
        raise InputError(f"{where} contains images of another shape, range or class; evaluate again")


def _tensors(data: RunData) -> Iterator[np.ndarray]:
    """Yield the prunable weights layer by layer, so that the whole network is never in memory."""
    assert data.checkpoint is not None
    with data.run.tensors() as file:
        for layer in data.checkpoint.sparsity.layers:
            yield file.tensor(layer.name).float().numpy().ravel()


def _largest_weight(data: RunData) -> float:
    return max((float(np.abs(values).max()) for values in _tensors(data)), default=0.0)


def _count_weights(data: RunData, edges: np.ndarray) -> WeightCounts:
    counts, nonzero, total = np.zeros(len(edges) - 1, dtype=np.int64), 0, 0
    for values in _tensors(data):
        kept = values[values != 0].astype(np.float64)
        counts += np.histogram(kept, bins=edges)[0]
        nonzero, total = nonzero + kept.size, total + values.size
    return WeightCounts(edges, counts, nonzero, total - nonzero)
