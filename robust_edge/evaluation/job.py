"""An evaluation that is ready to run: networks, images, the attack, and the path of the record."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import nn

from robust_edge.attacks.attack import Attack
from robust_edge.evaluation.accuracy import accuracy
from robust_edge.evaluation.audit import Audit, audit_model
from robust_edge.evaluation.campaign import Campaign, Progress, run_campaign, stages_of
from robust_edge.evaluation.memory import Memory
from robust_edge.evaluation.outcome import AttackResult, stage_results
from robust_edge.evaluation.task import Task, state_file
from robust_edge.parallel.ranks import Ranks
from robust_edge_runtimes.attacks.threat import Threat


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Network:
    """A network and its name in the record."""

    name: str
    model: nn.Module


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Job:
    """A task, the attack to run on it, and where the result is written.

    Attributes:
        name: name of the attack, as given to `--attack`.
        attack: the attack with its settings.
        threat: the ball; for an attack with a list of radii of its own, the ball of the audit.
        seed: of the attack.
        network: the evaluated network: that of the run, or the average of two.
        memory: the batch size and its memory bound.
        out: path of the record; state files are written to the same folder and removed at the end.
        ranks: the processes that share the work.
        fresh: whether to discard the state file of an interrupted evaluation.
    """

    task: Task
    name: str
    attack: Attack
    threat: Threat
    seed: int
    network: Network
    memory: Memory
    out: Path
    ranks: Ranks
    fresh: bool

    def identity(self, *details: object) -> str:
        """A short hash of everything that the results depend on; `details` are included."""
        settings = (self.name, self.attack.settings(), dataclasses.astuple(self.threat), self.seed)
        return self.task.identity(settings, *details, self.memory.batch_size)

    def state(self, identity: str) -> Path:
        """The path of the state file with this identity."""
        return state_file(self.out, identity, self.ranks, fresh=self.fresh)

    def audit(self, model: nn.Module) -> Audit:
        """Check a network on a few images before it is attacked."""
        return audit_model(
            model,
            self.task.split,
            threat=self.threat,
            seed=self.seed,
            batch_size=self.memory.batch_size,
        )

    def run(
        self, attack: Attack, attacked: Network, evaluated: Network, progress: Progress | None
    ) -> tuple[AttackResult, int]:
        """Run one attack.

        Args:
            attack: the attack with its settings.
            attacked: the network whose gradients or scores the attack uses.
            evaluated: the network that classifies the candidates.
            progress: called with (done, total).

        Returns:
            The result, and the number of batches that an interrupted process had finished.
        """
        stages = stages_of(self.name, attack, self.threat, self.task.classes)
        identity = self.identity(attack.settings(), attacked.name, evaluated.name)
        campaign = Campaign(
            model=attacked.model,
            evaluated=(evaluated.model,),
            split=self.task.split,
            positions=self.task.positions,
            stages=stages,
            cumulative=True,
            batch_size=self.memory.batch_size,
            seed=self.seed,
            identity=identity,
        )
        finished = run_campaign(campaign, state=self.state(identity), ranks=self.ranks, progress=progress)
        results, outcomes = stage_results(stages, finished)
        result = AttackResult(
            attacked=attacked.name,
            judged=evaluated.name,
            attack=self.name,
            title=attack.title,
            threat=self.threat,
            seed=self.seed,
            batch_size=self.memory.batch_size,
            clean=accuracy(int(finished.clean[0].sum()), len(outcomes)),
            stages=results,
            robust=results[-1].cumulative,
            positions=self.task.positions,
            outcomes=outcomes,
        )
        return result, finished.resumed
