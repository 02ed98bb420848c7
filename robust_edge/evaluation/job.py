"""An evaluation that is ready to run: networks, images, the attack, and the path of the record."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from robust_edge.attacks.attack import Attack
from robust_edge.evaluation.accuracy import accuracy_of
from robust_edge.evaluation.audit import Audit, audit_model
from robust_edge.evaluation.averaged import Averaged
from robust_edge.evaluation.campaign import Campaign, CampaignResult, Progress, Stage, run_campaign, stages_of
from robust_edge.evaluation.memory import Memory
from robust_edge.evaluation.outcome import AttackResult, stage_results
from robust_edge.evaluation.settings import EvaluationSettings
from robust_edge.evaluation.task import Task, prepare_task, state_file
from robust_edge.parallel.ranks import Ranks
from robust_edge.run.directory import Run
from robust_edge.run.per_class import per_class
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import write_json


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Network:
    """A network and its name in the record."""

    name: str
    model: nn.Module


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Job:
    """A task, the attack to run on it, and where the result is written.

    Attributes:
        settings: how the images are chosen and attacked.
        attack: the attack with its settings.
        threats: the balls; the audit uses the middle one, and an attack with a list of radii of its own none.
        networks: those of the runs, or the average of all.
        memory: the batch size and its memory bound.
        out: path of the record; state files are written to the same folder and removed at the end.
        ranks: the processes that share the work.
        states: the state files so far.
    """

    task: Task
    settings: EvaluationSettings
    attack: Attack
    threats: tuple[Threat, ...]
    networks: tuple[Network, ...]
    memory: Memory
    out: Path
    ranks: Ranks
    states: set[Path] = dataclasses.field(default_factory=set)

    @property
    def audited(self) -> Threat:
        """The ball of the audit: the middle one, since at the largest radius hardly any image is still right."""
        return self.threats[len(self.threats) // 2]

    def identity(self, *details: object) -> str:
        """A short hash of everything that the results depend on; `details` are included."""
        threats = [dataclasses.astuple(threat) for threat in self.threats]
        settings = (self.settings.attack, self.attack.settings(), threats, self.settings.seed)
        return self.task.identity(settings, *details, self.memory.batch_size)

    def state(self, identity: str) -> Path:
        """The path of the state file with this identity, which stays until the record is written."""
        path = state_file(self.out, identity, self.ranks, fresh=self.settings.fresh)
        self.states.add(path)
        return path

    def write(self, record: Any) -> None:
        """Write the record, a dataclass, and remove the state files; on rank 0 only."""
        if self.ranks.writes:
            write_json(self.out, dataclasses.asdict(record))
            for path in self.states:
                path.unlink(missing_ok=True)

    def audit(self, model: nn.Module) -> Audit:
        """Check a network on a few images before it is attacked."""
        seed, batch_size = self.settings.seed, self.memory.batch_size
        return audit_model(model, self.task.split, threat=self.audited, seed=seed, batch_size=batch_size)

    def run(
        self, attack: Attack, attacked: Network, evaluated: Network, progress: Progress | None
    ) -> tuple[AttackResult, int]:
        """Run one attack, or a sequence of attacks on the images that the earlier ones did not break.

        Args:
            attack: the attack with its settings.
            attacked: the network whose gradients or scores the attack uses.
            evaluated: the network that classifies the candidates.
            progress: called with (done, total).

        Returns:
            The result, and the number of batches that an interrupted process had finished.
        """
        name, (threat,) = self.settings.attack, self.threats
        stages = stages_of(name, attack, threat, self.task.classes)
        finished = self.run_stages(stages, attacked, [evaluated], cumulative=True, progress=progress)
        results, outcomes = stage_results(stages, finished)
        result = AttackResult(
            attacked=attacked.name,
            judged=evaluated.name,
            attack=name,
            title=attack.title,
            threat=threat,
            seed=self.settings.seed,
            batch_size=self.memory.batch_size,
            clean=accuracy_of(finished.clean[0]),
            stages=results,
            robust=results[-1].cumulative,
            positions=self.task.positions,
            outcomes=outcomes,
            per_class=per_class(
                self.task.checkpoints[0].model.classes,
                self.task.split.labels.cpu(),
                finished.clean[0].cpu(),
                finished.robust[-1, 0].cpu(),
            ),
        )
        return result, finished.resumed

    def run_stages(
        self,
        stages: tuple[Stage, ...],
        attacked: Network,
        evaluated: Sequence[Network],
        *,
        cumulative: bool,
        progress: Progress | None,
    ) -> CampaignResult:
        """Run several attacks on one network, and let others classify the candidates; arguments as of Campaign."""
        attacks = [(stage.name, stage.attack.settings()) for stage in stages]
        identity = self.identity(attacks, *map(self._place, (attacked, *evaluated)))
        campaign = self.campaign(stages, attacked, evaluated, cumulative=cumulative, identity=identity)
        return run_campaign(campaign, state=self.state(identity), ranks=self.ranks, progress=progress)

    def _place(self, network: Network) -> int:
        """Which network it is; unlike its name, this stays when the folder of its run is renamed."""
        return [*self.task.names, _average(self.task)].index(network.name)

    def campaign(
        self,
        stages: tuple[Stage, ...],
        attacked: Network,
        evaluated: Sequence[Network],
        *,
        cumulative: bool,
        identity: str,
    ) -> Campaign:
        """Attacks on the images of the task; arguments as of Campaign."""
        return Campaign(
            model=attacked.model,
            evaluated=tuple(network.model for network in evaluated),
            split=self.task.split,
            positions=self.task.positions,
            stages=stages,
            cumulative=cumulative,
            batch_size=self.memory.batch_size,
            seed=self.settings.seed,
            identity=identity,
        )


def prepare_job(
    runs: Sequence[Run],
    settings: EvaluationSettings,
    attack: Attack,
    threats: Sequence[Threat],
    out: Path,
    ranks: Ranks,
    *,
    average: bool = False,
) -> Job:
    """Load the runs and their images, and choose the batch size.

    Args:
        runs: one or several.
        settings: how the images are chosen.
        attack: the attack with its settings.
        threats: at least one ball.
        out: the JSON file to write.
        ranks: the processes that share the work.
        average: whether the only network is the average of all runs.

    Raises:
        InputError: `out` is a folder, the runs cannot be compared, or the memory does not suffice for one image.
    """
    if out.is_dir():
        raise InputError(f"the output {out} is a folder; name the JSON file to write")
    task = prepare_task(runs, limit=settings.limit, data_dir=settings.data_dir, device=settings.device)
    networks = [Network(name=name, model=model) for name, model in zip(task.names, task.models, strict=True)]
    if average:
        networks = [Network(name=_average(task), model=Averaged(task.models))]
    if ranks.writes:
        out.parent.mkdir(parents=True, exist_ok=True)
    return Job(
        task=task,
        settings=settings,
        attack=attack,
        threats=tuple(threats),
        networks=tuple(networks),
        memory=task.plan([one.model for one in networks], budget_mib=settings.memory_mib, most=settings.batch),
        out=out,
        ranks=ranks,
    )


def _average(task: Task) -> str:
    """The name of the average of all networks."""
    return " + ".join(task.names)
