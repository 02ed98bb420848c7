"""The run directory: the files that `compress` writes, each of them completely or not at all.

config.yaml  metrics.jsonl  run.log  environment.json  network.onnx
checkpoint.safetensors  checkpoint.json  resume.pt  unfinished.pt  plots/  evaluations/  tensorboard/
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from robust_edge.config.compress import CompressConfig
from robust_edge.config.settings import from_plain, own_code, parse, read_text, to_plain, to_yaml
from robust_edge.models import ModelSpec, Normalized, build_model
from robust_edge.models.packed import TensorFile, load_tensors, open_tensors, save_tensors
from robust_edge.models.state_dict import with_versions
from robust_edge.models.table import GRAPH
from robust_edge.plugins import is_own
from robust_edge.pruning.parametrised import materialised
from robust_edge.run.environment import environment
from robust_edge.run.imported import Imported
from robust_edge.run.known_code import refuse_unknown, remember
from robust_edge.run.metrics import EpochRow
from robust_edge.run.per_class import ClassAccuracy, cause_of, no_better_than_constant
from robust_edge_runtimes.core.decode import decode, parse_json, read_json, short_repr
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import remove_leftovers, sha256_of, write_atomic, write_json
from robust_edge_runtimes.core.folders import check_new_directory
from robust_edge_runtimes.core.locks import locked
from robust_edge_runtimes.core.manifest import Sparsity
from robust_edge_runtimes.core.preprocessing import Preprocessing

CONFIG = "config.yaml"
WEIGHTS = "checkpoint.safetensors"
CHECKPOINT = "checkpoint.json"
METRICS = "metrics.jsonl"
RESUME = "resume.pt"
UNFINISHED = "unfinished.pt"
ENVIRONMENT = "environment.json"
LOG = "run.log"
RESTORE = "restore it, or train or import again"
FOLDERS = {"plots", "evaluations", "tensorboard"}
OWN = {CONFIG, GRAPH, WEIGHTS, CHECKPOINT, METRICS, RESUME, UNFINISHED, ENVIRONMENT, LOG, *FOLDERS}


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """Multiply-accumulates of the prunable layers for one image.

    Attributes:
        dense: with all weights.
        kept: with the non-zero weights; each of them counts once per output position.
    """

    dense: int
    kept: int

    @property
    def keep(self) -> float:
        """Fraction of the multiply-accumulates that is kept."""
        return self.kept / self.dense


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The content of `checkpoint.json`, which describes the weights in checkpoint.safetensors.

    Attributes:
        sparsity: numbers of non-zero weights in the written file.
        metrics: accuracies in [0, 1] on the test images, and the settings of the attack.
        epoch: the epoch of the weights, counted from 1; None in files of older versions.
        diverged: what went wrong after that epoch, if the training diverged; such weights may not have the target
            sparsity.
        arithmetic: multiply-accumulates of one image; None in files of older versions.
        preprocessing: how pictures become images of the network; None in files of older versions.
        notes: what a reader should know about the images or the network, one sentence each.
        per_class: accuracies on the test images of each class; empty in files of older versions.
        ranges: lowest and highest value of the tensors of the network in 8 bits, if it was trained to compute in them.
        imported: where the weights are from, if the run was not trained here; None otherwise, and in older files.
    """

    model: ModelSpec
    sparsity: Sparsity
    dataset: str
    dataset_fingerprint: str
    seed: int
    metrics: dict[str, float]
    weights_sha256: str
    versions: dict[str, str]
    epoch: int | None = None
    diverged: str | None = None
    arithmetic: Arithmetic | None = None
    preprocessing: Preprocessing | None = None
    notes: tuple[str, ...] = ()
    per_class: tuple[ClassAccuracy, ...] = ()
    ranges: dict[str, tuple[float, float]] | None = None
    imported: Imported | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """That the network is no better than a constant answer, if it is not."""
        return no_better_than_constant(self.per_class, self.no_better) if self.per_class else ()

    @property
    def no_better(self) -> str:
        """Why the network may be no better than a constant answer, as the end of the warning."""
        return cause_of(imported=self.imported is not None, epoch=self.epoch, sparsity=self.sparsity)


@dataclasses.dataclass(frozen=True)
class Run:
    """An existing run directory.

    Attributes:
        writes: whether this process writes its files; of several processes that train together only one does.
        allow_code: whether functions that the run names are imported, though this user never chose them.
    """

    path: Path
    config: CompressConfig
    writes: bool = True
    allow_code: bool = False

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.resolve().name

    @property
    def finished(self) -> bool:
        """Whether the final checkpoint has been written."""
        return (self.path / CHECKPOINT).is_file()

    @property
    def evaluations(self) -> Path:
        """The folder of evaluation results; created if it is missing."""
        folder = self.path / "evaluations"
        folder.mkdir(exist_ok=True)
        return folder

    def log(self, text: str) -> None:
        """Append a line to run.log."""
        if not self.writes:
            return
        with (self.path / LOG).open("a") as file:
            file.write(text + "\n")

    def metrics(self) -> list[EpochRow]:
        """One row per finished epoch."""
        path = self.path / METRICS
        try:
            lines = path.read_bytes().splitlines() if path.is_file() else []
            return [decode(EpochRow, parse_json(line)) for line in lines]
        except (ValueError, InputError) as cause:
            raise InputError(f"{path} is damaged ({cause}); restore it, or train the run again") from cause

    def write_metrics(self, rows: Sequence[EpochRow]) -> None:
        """Replace metrics.jsonl."""
        if not self.writes:
            return
        lines = (json.dumps(dataclasses.asdict(row), allow_nan=False) + "\n" for row in rows)
        write_atomic(self.path / METRICS, "".join(lines))

    def write_resume(self, state: dict[str, Any]) -> None:
        """Save the state after a finished epoch."""
        self._write_state(RESUME, state)
        if self.writes:
            (self.path / UNFINISHED).unlink(missing_ok=True)

    def write_unfinished(self, state: dict[str, Any]) -> None:
        """Save the state in the middle of an epoch; the state after the last finished epoch is kept, too."""
        self._write_state(UNFINISHED, state)

    def read_resume(self) -> dict[str, Any] | None:
        """The state after the last finished epoch, or None before the first one has ended."""
        return self._read_state(RESUME, "train again with `overwrite`")

    def read_unfinished(self) -> dict[str, Any] | None:
        """The state in the middle of an epoch, or None if there is none."""
        return self._read_state(UNFINISHED, "delete it to resume after the last finished epoch")

    def _write_state(self, name: str, state: dict[str, Any]) -> None:
        if not self.writes:
            return
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(self.path / name, buffer.getvalue())

    def _read_state(self, name: str, remedy: str) -> dict[str, Any] | None:
        path = self.path / name
        if not path.is_file():
            return None
        try:
            intact = _checksums_hold(path)
            state = torch.load(path, map_location="cpu", weights_only=True) if intact else None
        except Exception as cause:  # damaged bytes can make torch raise any exception
            raise InputError(f"{path} is damaged ({type(cause).__name__}); {remedy}") from cause
        if not isinstance(state, dict):
            raise InputError(f"{path} is damaged; {remedy}")
        return state

    def write_architecture(self, model: Normalized) -> None:
        """Write the graph of an imported network, which no code builds; nothing for other networks."""
        graph = getattr(model.network, "architecture", None)
        if self.writes and model.spec is not None and model.spec.arch == GRAPH and isinstance(graph, bytes):
            write_atomic(self.path / GRAPH, graph)

    def write_environment(self, *, peak_memory_bytes: int) -> None:
        """Replace environment.json by the environment and the peak memory of the process that finishes the run."""
        write_json(self.path / ENVIRONMENT, {**environment(), "peak_memory_bytes": peak_memory_bytes})

    def tidy(self) -> None:
        """Remove temporary files of a process that was killed while writing, and write a missing environment.json."""
        remove_leftovers(self.path)
        if not (self.path / ENVIRONMENT).is_file():
            write_json(self.path / ENVIRONMENT, environment())

    def write_checkpoint(self, model: Normalized, describe: Any) -> Checkpoint:
        """Write the weights, then the description of the written file.

        Args:
            model: the network to save.
            describe: takes the SHA-256 and the tensors of the written file and returns the Checkpoint.
        """
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        path = self.path / WEIGHTS
        write_atomic(path, save_tensors(tensors, pack=self.config.pack))
        checkpoint: Checkpoint = describe(sha256_of(path), load_tensors(path))
        write_json(self.path / CHECKPOINT, dataclasses.asdict(checkpoint))
        for name in (RESUME, UNFINISHED):
            (self.path / name).unlink(missing_ok=True)
        return checkpoint

    def checkpoint(self) -> Checkpoint:
        """Read checkpoint.json.

        Raises:
            InputError: the run is not finished, or the file was not written by robust-edge.
        """
        path = self.path / CHECKPOINT
        if not path.is_file():
            again = "repeat its `import`, or `compress`, with `overwrite`"
            if self.config.training.epochs:
                again = f"resume it: robust-edge compress --resume -o {self.path}"
            raise InputError(f"{self.path} is not finished; {again}")
        found: Checkpoint = decode(Checkpoint, read_json(path), where=str(path))
        if len(found.model.shape) != 3 or min(found.model.shape) < 1 or not found.model.classes:
            raise InputError(
                f"{path}: model describes images of shape {short_repr(found.model.shape)} and "
                f"{len(found.model.classes)} classes, expected (C, H, W) and at least one class; {RESTORE}"
            )
        return found

    def weights_file(self) -> Path:
        """The file of the weights, after it has been checked against checkpoint.json."""
        path = self.path / WEIGHTS
        if not path.is_file() or sha256_of(path) != self.checkpoint().weights_sha256:
            raise InputError(f"{path} is missing or not the file that {CHECKPOINT} describes; {RESTORE}")
        return path

    @contextlib.contextmanager
    def tensors(self) -> Iterator[TensorFile]:
        """Open the file of the weights.

        Raises:
            InputError: it is damaged, or the block reads a tensor that it does not hold.
        """
        try:
            with open_tensors(self.path / WEIGHTS) as file:
                yield file
        except SafetensorError as cause:
            reason = " ".join(str(cause).split())[:200]
            raise InputError(f"{self.path / WEIGHTS} is damaged ({reason}); {RESTORE}") from cause

    def load_model(self) -> Normalized:
        """The trained network in evaluation mode.

        Raises:
            InputError: the file of the weights is not the one that checkpoint.json describes, does not fit the
                network, or holds NaN; or the run names functions that this user never chose.
        """
        checkpoint, path = self.checkpoint(), self.weights_file()
        if is_own(checkpoint.model.arch) and not self.allow_code:
            refuse_unknown([checkpoint.model.arch], self.path)
        with self.tensors() as file:
            tensors = {name: file.tensor(name) for name in file.shapes}
        try:
            model = materialised(build_model(checkpoint.model, self.path))
            model.load_state_dict(with_versions(model, tensors))
        except RuntimeError as cause:  # a model function of the user may have changed since
            reason = " ".join(str(cause).split())[:200]
            raise InputError(f"{path} does not fit model {checkpoint.model.arch!r} as it is now: {reason}") from cause
        for name, tensor in tensors.items():  # infinity may be a mask of an imported graph
            if tensor.isnan().any():
                raise InputError(
                    f"{path}: {name} holds NaN, so that the network predicts nothing; train or import again"
                )
        return model.eval()


def open_run(path: Path, *, allow_code: bool = False) -> Run:
    """Open a run directory.

    Args:
        path: the directory.
        allow_code: whether to import functions that the run names, though this user never chose them.

    Raises:
        InputError: `path` is not a run, names functions that this user never chose, or holds links that would be
            written through.
    """
    plain = _plain_config(path)
    for name in (*sorted(FOLDERS), LOG):
        if (path / name).is_symlink():
            raise InputError(
                f"{path / name} is a symbolic link: what is written there would land outside of the run; replace it by "
                "what it leads to"
            )
    if not allow_code:
        refuse_unknown(own_code(plain), path)
    return Run(path, from_plain(plain, str(path / CONFIG)), allow_code=allow_code)


def _plain_config(path: Path) -> dict[str, Any]:
    file = path / CONFIG
    if not file.is_file():
        if path.is_file():
            raise InputError(f"{path} is a file, not a run; `robust-edge import` makes a run of a network in a file")
        raise InputError(f"{path} is not a run (no {CONFIG}); a run is what `robust-edge compress` or `import` writes")
    return parse(read_text(file), str(file))


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raise InputError if `create_run` would; fast enough to be called before the data is read."""
    remove_leftovers(path, CONFIG)  # of a process that was killed before it wrote its first file
    check_new_directory(path, overwrite=overwrite)
    if path.is_dir() and any(path.iterdir()):
        _refuse_foreign(path)
        _refuse_running_evaluations(path)


def create_run(path: Path, config: CompressConfig, *, overwrite: bool) -> Run:
    """Create a run directory that holds only its config and environment.

    Raises:
        InputError: `path` exists and is not a run, or `overwrite` is off.
    """
    check_free(path, overwrite=overwrite)
    if path.is_dir():
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    write_atomic(path / CONFIG, to_yaml(config))
    write_json(path / ENVIRONMENT, environment())
    remember(own_code(to_plain(config)))
    return Run(path, config)


def _checksums_hold(path: Path) -> bool:
    """Whether the checksums of a torch file are correct; torch.load does not check them."""
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() is None


def _refuse_running_evaluations(path: Path) -> None:
    """Raise InputError while another process evaluates the run that is to be replaced."""
    for file in (path / "evaluations").glob(".*.lock"):
        with locked(file.with_name(file.name[1:].removesuffix(".lock"))):
            pass  # left by a process that was killed


def _refuse_foreign(path: Path) -> None:
    """Raise InputError unless `path` is a run that contains only files of a run, so that it may be deleted."""
    try:
        plain = _plain_config(path)
        if not own_code(plain):  # which need not be imported to be replaced
            from_plain(plain, str(path / CONFIG))
    except InputError as cause:
        raise InputError(f"{path} exists and is not a run ({cause}); `overwrite` replaces runs only") from cause
    others = sorted(item.name for item in path.iterdir() if item.name not in OWN and not fnmatch(item.name, ".*.tmp"))
    if others:
        raise InputError(
            f"{path} holds {', '.join(others[:3])}, which no run contains; move it away, or delete the folder yourself"
        )
