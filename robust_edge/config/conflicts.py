"""Settings that a config would carry without effect, since another of its settings rules them out.

Each alone is in its range. They are refused when a new run's config is resolved; the config of a run that exists is
read as it is.
"""

from __future__ import annotations

from collections.abc import Callable

from robust_edge.config.compress import CompressConfig
from robust_edge.config.recipe import AwpConfig
from robust_edge.config.training import N_FGSM
from robust_edge_runtimes.core.errors import InputError


def refuse_conflicts(config: CompressConfig) -> None:
    """Raise InputError for the first setting that would have no effect."""
    for conflict in CONFLICTS:
        problem = conflict(config)
        if problem is not None:
            raise InputError(problem)


def _steps(config: CompressConfig) -> str | None:
    attack = config.attack
    if attack.method != N_FGSM or attack.steps_schedule == "constant":
        return None
    return (
        f"attack.steps_schedule is {_text(attack.steps_schedule)}, but attack.method=n-fgsm always takes one step; set "
        "attack.steps_schedule=constant, or attack.method=pgd"
    )


def _radius(config: CompressConfig) -> str | None:
    schedule, eps = config.attack.eps_schedule, config.attack.eps
    if isinstance(schedule, str) or max(schedule) <= eps * (1 + 1e-9):
        return None
    return (
        f"attack.eps_schedule reaches {max(schedule):g}, but attack.eps, the radius of every evaluation, is {eps:g}; "
        "raise attack.eps, or lower the list"
    )


def _clean_term(config: CompressConfig) -> str | None:
    training = config.training
    if training.clean_interval == 1:
        return None
    if training.loss != "adversarial":
        return (
            f"training.clean_interval is {training.clean_interval}, but training.loss={training.loss} computes its "
            "clean term in every batch; set training.clean_interval=1, or training.loss=adversarial"
        )
    if training.adversarial_weight == 1:
        return (
            f"training.clean_interval is {training.clean_interval}, but with training.adversarial_weight=1 there is no "
            "clean term; set training.clean_interval=1, or a smaller weight"
        )
    if training.adversarial_weight > 0:
        return None
    return (
        f"training.clean_interval is {training.clean_interval}, but with training.adversarial_weight=0 the batches "
        "without a clean term train nothing; set training.clean_interval=1, or a larger weight"
    )


def _windows(config: CompressConfig) -> str | None:
    if config.awp.windows is None:
        return None
    if config.awp.gamma:
        return _warmup(config.awp)
    return (
        f"awp.windows is {list(config.awp.windows)}, but awp.gamma=0 switches the perturbation off; set awp.gamma "
        "(0.005 is usual), or awp.windows=null"
    )


def _warmup(awp: AwpConfig) -> str | None:
    default = AwpConfig().warmup
    if awp.warmup == default:
        return None
    return (
        f"awp.warmup is {awp.warmup}, but awp.windows is {list(awp.windows or ())}, which says when weights are "
        f"perturbed; set awp.warmup={default}, its default, or awp.windows=null"
    )


def _scheme(config: CompressConfig) -> str | None:
    if not _moves(config):
        return None
    from robust_edge.pruning.moving import check_movable  # imports torch, as every scheme does

    check_movable(config.pruning.scheme)
    return None


def _masked_phase(config: CompressConfig) -> str | None:
    settings, begin = config.admm, 1 - config.admm.masked_fraction
    early = settings.prune_when is not None or config.pruning.keep_mask
    if not _moves(config) or early or begin < settings.regrow_until - 1e-9:
        return None
    return (
        f"admm.regrow is {settings.regrow:g}, but no mask would move: the masked phase begins at {begin:g} of the run "
        f"(1 − admm.masked_fraction), and admm.regrow_until is {settings.regrow_until:g}; raise admm.masked_fraction, "
        "or set admm.regrow=0"
    )


def _selection(config: CompressConfig) -> str | None:
    if not _moves(config) or not config.selection.held_out or config.admm.regrow_until < 1:
        return None
    return (
        f"selection.held_out is {config.selection.held_out}, but with admm.regrow_until=1 the mask moves to the end, "
        "and no epoch could be selected; set admm.regrow_until below 1 (0.75 is the default), or selection.held_out=0"
    )


def _moves(config: CompressConfig) -> bool:
    return config.sparse and config.admm.regrow > 0


def _text(schedule: str | tuple[int, ...]) -> str:
    return schedule if isinstance(schedule, str) else str(list(schedule))


CONFLICTS: tuple[Callable[[CompressConfig], str | None], ...] = (
    _steps,
    _radius,
    _clean_term,
    _windows,
    _scheme,
    _masked_phase,
    _selection,
)
