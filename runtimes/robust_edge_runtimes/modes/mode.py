"""The rows of the tables of verify modes, and their selection by name."""

from __future__ import annotations

import dataclasses
import enum
from typing import Callable, Dict, Iterable, Optional, Sequence, Tuple, Union

from robust_edge_runtimes.core.errors import unknown_name
from robust_edge_runtimes.core.references import resolve
from robust_edge_runtimes.modes.settings import ModeOption, ModeSettings
from robust_edge_runtimes.verdict.measurement import Measurement, Rebuild
from robust_edge_runtimes.verdict.rescoring import scored_again
from robust_edge_runtimes.verdict.subject import Subject
from robust_edge_runtimes.verdict.ways_out import Sample

Progress = Optional[Callable[[int, int], None]]
"""Called with (steps done, all steps)."""


def part_of(progress: Progress, part: int, parts: int) -> Progress:
    """The progress of one of several equal parts of a computation."""
    if progress is None:
        return None
    shown = progress
    return lambda done, total: shown(part * total + done, parts * total)


class Default(enum.Enum):
    """When a mode runs although `--mode` was not given."""

    ALWAYS = "always"
    WITH_RUN = "with a run"
    NEVER = "no"


@dataclasses.dataclass(frozen=True)
class Mode:
    """One row of the table.

    Attributes:
        name: name after `--mode` and in verify.json.
        help: describes the attack in one phrase.
        function: `package.module:function`, which takes a subject, the settings and `progress`, and returns a
            Measurement, or a Rebuild; imported when the mode runs.
        default: when it runs although `--mode` was not given.
        needs: the part of the run that it requires; empty if the bundle is enough.
        draws: whether it attacks the drawn images, block by block; otherwise it runs once.
        needs_runtime: whether it executes the artifact; if not, it only compares files.
        options: `package.module:NAME` of each ModeOption that it has besides the settings of all modes.
        restart: added to the seed, so that modes with the same attack use different random starts.
    """

    name: str
    help: str
    function: str
    default: Default = Default.NEVER
    needs: str = ""
    draws: bool = True
    needs_runtime: bool = True
    options: Tuple[str, ...] = ()
    restart: int = 0

    @property
    def declared(self) -> Tuple[ModeOption, ...]:
        """The options."""
        return tuple(resolve(name) for name in self.options)

    def measure(
        self, subject: Subject, settings: ModeSettings, progress: Progress = None
    ) -> Union[Measurement, Rebuild]:
        """Run the mode, add its name and the labels to the measurement, and score its final candidates again."""
        function: Callable[..., Union[Measurement, Rebuild]] = resolve(self.function)
        options = {option.name: settings.value(option) for option in self.declared}
        own = dataclasses.replace(settings, seed=settings.seed + self.restart, options=options)
        found = function(subject, own, progress)
        if isinstance(found, Rebuild):
            return found
        labels = None if found.candidates is None else found.candidates.labels
        found = dataclasses.replace(found, mode=self.name, labels=labels, available=self.sample(subject).available)
        return scored_again(subject, found, settings.seed)

    def sample(self, subject: Subject, limit: Optional[int] = None) -> Sample:
        """The images that the mode attacks, of all blocks together.

        Args:
            subject: the artifact under test.
            limit: largest number of images; None for all.
        """
        stored = len(subject.golden.labels)
        if not self.draws:
            return Sample(self.name, stored if limit is None else min(limit, stored), stored, stored=True)
        return Sample(self.name, subject.available, subject.total, stored=subject.reference is None)


def chosen_modes(names: Sequence[str], table: Sequence[Mode], *, with_run: bool = False) -> Tuple[Mode, ...]:
    """The modes with these names, in this order and without repetitions; without names, the default modes.

    Raises:
        InputError: a name that no row has.
    """
    defaults = (Default.ALWAYS, Default.WITH_RUN) if with_run else (Default.ALWAYS,)
    rows = {mode.name: mode for mode in table}
    for name in names:
        if name not in rows:
            raise unknown_name("mode", name, tuple(rows))
    return tuple(rows[name] for name in dict.fromkeys(names)) or tuple(row for row in table if row.default in defaults)


def options_of(modes: Iterable[Mode]) -> Dict[str, ModeOption]:
    """The options that the rows of a table of modes declare, by name."""
    return {option.name: option for mode in modes for option in mode.declared}


def mode_help(table: Sequence[Mode], *, with_run: bool = True) -> str:
    """The help text of `--mode`.

    Args:
        table: the modes of the command.
        with_run: the command takes a run.
    """
    always = [mode.name for mode in table if mode.default is Default.ALWAYS]
    more = [mode.name for mode in table if mode.default is Default.WITH_RUN]
    default = ", ".join(always)
    if with_run and more:
        every = len(always) + len(more) == len(table)
        default += f"; with --against {'all' if every else ', '.join([*always, *more])}"
    modes = "; ".join(f"{mode.name}: {mode.help}" for mode in table)
    return f"Attack to run, may be repeated. {modes}.  [default: {default}]"
