"""An evaluation that is ready to run: networks, images, the attack, and where the record goes."""

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
    """A network and the name that the record gives it."""

    name: str
    model: nn.Module


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Job:
    """A task and what is to be done.

    Attributes:
        name: of the attack, as `--attack` spells it.
        attack: with its settings.
        threat: the ball; an attack that runs through radii of its own is audited at this one.
        seed: of the attack.
        network: what is evaluated, the run's network or the average of two.
        out: the record to write; state files stand beside it until the end.
        fresh: throw away what a killed evaluation left.
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

    def identity(self, *what: object) -> str:
        """A short hash of everything that the figures depend on."""
        settings = (self.name, self.attack.settings(), dataclasses.astuple(self.threat), self.seed)
        return self.task.identity(settings, *what, self.memory.batch_size)

    def state(self, identity: str) -> Path:
        """The state file."""
        return state_file(self.out, identity, self.ranks, fresh=self.fresh)

    def audit(self, model: nn.Module) -> Audit:
        """Probe a network before it is attacked."""
        return audit_model(
            model,
            self.task.split,
            threat=self.threat,
            seed=self.seed,
            batch_size=self.memory.batch_size,
        )

    def run(
        self, attack: Attack, attacked: Network, judged: Network, progress: Progress | None
    ) -> tuple[AttackResult, int]:
        """One attack.

        Args:
            attack: what to run.
            attacked: the network whose gradients or scores it uses.
            judged: the network whose predictions count.
            progress: called with (done, total).

        Returns:
            The result, and how many batches a killed process had done.
        """
        stages = stages_of(self.name, attack, self.threat, self.task.classes)
        identity = self.identity(attack.settings(), attacked.name, judged.name)
        campaign = Campaign(
            model=attacked.model,
            judges=(judged.model,),
            split=self.task.split,
            positions=self.task.positions,
            stages=stages,
            cumulative=True,
            batch_size=self.memory.batch_size,
            seed=self.seed,
            identity=identity,
        )
        tally = run_campaign(campaign, state=self.state(identity), ranks=self.ranks, progress=progress)
        results, outcomes = stage_results(stages, tally)
        result = AttackResult(
            attacked=attacked.name,
            judged=judged.name,
            attack=self.name,
            title=attack.title,
            threat=self.threat,
            seed=self.seed,
            batch_size=self.memory.batch_size,
            clean=accuracy(int(tally.clean[0].sum()), len(outcomes)),
            stages=results,
            robust=results[-1].cumulative,
            positions=self.task.positions,
            outcomes=outcomes,
        )
        return result, tally.resumed
