"""What a sweep does: its cells, the steps of each, and where their files are.

DIR/sweep.json             the grid and the steps
DIR/runs/CELL/             the run of a cell
DIR/bundles/CELL/TARGET/   what its steps export
DIR/results/CELL/          settings.yaml, state.json; N-COMMAND.json and N-COMMAND.log of each step
DIR/pareto.{html,csv}  DIR/latency.csv
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from robust_edge.config.settings import differences, from_yaml, read_text, to_yaml
from robust_edge.sweep.cell import CellJob, StepCommand
from robust_edge.sweep.grid import Axis, Cell
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import remove_leftovers, write_atomic, write_json
from robust_edge_runtimes.core.folders import owner_of
from robust_edge_runtimes.verdict.judge import EXIT_CODES

COMPRESS, EVALUATE, EXPORT, VERIFY, BENCH = "compress", "evaluate", "export", "verify", "bench"
RESULT_CODES = {VERIFY: tuple(sorted(EXIT_CODES.values())), BENCH: (0, 1)}
"""Exit codes after which a command has printed its result; for all others 0."""

MARKER, SETTINGS = "sweep.json", "settings.yaml"
PROGRAM = (sys.executable, "-m", "robust_edge.sweep.child")


@dataclasses.dataclass(frozen=True)
class Step:
    """A command for every cell.

    Attributes:
        command: COMPRESS, EVALUATE, EXPORT, VERIFY or BENCH.
        words: the options that the user gave it.
        target: of an export.
    """

    command: str
    words: tuple[str, ...] = ()
    target: str = ""

    @property
    def title(self) -> str:
        """The step as the user wrote it."""
        return shlex.join([self.command, *self.words])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep.

    Attributes:
        folder: of the sweep.
        steps: the first one is COMPRESS.
        allow_code: whether the steps get `--allow-code`.
        program: the command line that the arguments of a step are appended to.
    """

    folder: Path
    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]
    steps: tuple[Step, ...]
    allow_code: bool = False
    program: tuple[str, ...] = PROGRAM

    def __post_init__(self) -> None:
        for index, step in enumerate(self.steps):
            if step.command in (VERIFY, BENCH) and self.exported_before(index) is None:
                raise InputError(f"{step.title!r} needs a bundle; put an export before it")

    def run(self, cell: Cell) -> Path:
        """The run directory of a cell."""
        return self.folder / "runs" / cell.name

    def results(self, cell: Cell) -> Path:
        """The folder of the results of a cell."""
        return self.folder / "results" / cell.name

    def result(self, cell: Cell, index: int) -> Path:
        """The JSON that a step prints."""
        return self.results(cell) / f"{self._stem(index)}.json"

    def bundle(self, cell: Cell, export: int) -> Path:
        """The bundle of an export, the step with this index."""
        target = self.steps[export].target
        number = sum(step.target == target for step in self.steps[: export + 1])
        return self.folder / "bundles" / cell.name / (target if number == 1 else f"{target}-{number}")

    def exported_before(self, index: int) -> int | None:
        """The index of the last export before a step; None if there is none."""
        return next((i for i in reversed(range(index)) if self.steps[i].command == EXPORT), None)

    def job(self, cell: Cell) -> CellJob:
        """The steps of a cell as commands."""
        commands = tuple(
            StepCommand(step.title, self.arguments(cell, i), RESULT_CODES.get(step.command, (0,)), self._stem(i))
            for i, step in enumerate(self.steps)
        )
        return CellJob(cell.name, self.results(cell), commands, self.program)

    def arguments(self, cell: Cell, index: int) -> tuple[str, ...]:
        """The arguments of `robust-edge` for a step of a cell; options of the user come last and override."""
        step, run = self.steps[index], str(self.run(cell))
        code = ("--allow-code",) if self.allow_code and step.command != BENCH else ()
        return (step.command, *self._own_arguments(step, cell, run, index), "--json", *code, *step.words)

    def _own_arguments(self, step: Step, cell: Cell, run: str, index: int) -> Sequence[str]:
        if step.command == COMPRESS:
            return "--resume", "--config", str(self.results(cell) / SETTINGS), "-o", run
        if step.command == EVALUATE:
            return (run,)
        if step.command == EXPORT:
            return run, "-o", str(self.bundle(cell, index)), "--overwrite"
        export = self.exported_before(index)
        assert export is not None
        bundle = str(self.bundle(cell, export))
        if step.command == BENCH:
            return (bundle,)
        return bundle, "--against", run, "--seed", str(cell.config.seed)  # a seed, so that tables can be repeated

    def _stem(self, index: int) -> str:
        return f"{index + 1}-{self.steps[index].command}"

    def check_folder(self) -> None:
        """Raise InputError if the folder holds something else, or a cell was started with other settings."""
        if self.folder.is_dir() and any(self.folder.iterdir()) and not (self.folder / MARKER).is_file():
            raise InputError(f"{self.folder} exists and is not a sweep; choose another folder")
        owner = owner_of(self.folder)
        if owner is not None:
            raise InputError(f"{self.folder} belongs to a bundle or a run, {owner}; choose another folder")
        for cell in self.cells:
            path = self.results(cell) / SETTINGS
            if not path.is_file():
                continue
            changed = differences(from_yaml(read_text(path), str(path)), cell.config)
            if changed:
                listed = "; ".join(changed[:3])
                raise InputError(f"cell {cell.name} was started with other settings ({listed}); choose another folder")

    def write(self) -> None:
        """Write the description of the sweep and the settings of its cells."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        grid = {axis.key: list(axis.values) for axis in self.axes}
        write_json(self.folder / MARKER, {"grid": grid, "steps": [step.title for step in self.steps]})
        for folder in ("runs", "bundles", "results"):
            (self.folder / folder).mkdir(exist_ok=True)
        for cell in self.cells:
            self.results(cell).mkdir(exist_ok=True)
            remove_leftovers(self.results(cell))
            if not (self.results(cell) / SETTINGS).is_file():
                write_atomic(self.results(cell) / SETTINGS, to_yaml(cell.config))
