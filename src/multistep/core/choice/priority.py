"""Which moves come first: by what the plain run's curves call for, and by what has paid in this run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from multistep.core.choice.moves import MOVES, RESTART
from multistep.core.evidence.stability import Stability
from multistep.core.values.history import PhaseRecord

OVERFITTING_FIRST = (
    "dropout-up",
    "augmentation-up",
    "decay-up",
    "sharpness-on",
    "rate-down",
    "averaging-up",
    "layer-decay",
    "batch-down",
    "smoothing-up",
)
PLATEAU_FIRST = (
    "context-up",
    "dropout-down",
    "optimizer-muon",
    "rate-up",
    "batch-up",
    "unfreeze",
    "rate-down",
    "decay-up",
    "optimizer-soap",
    "optimizer-adamw",
    "averaging-up",
    "augmentation-down",
    "smoothing-down",
)
RESTARTED_FIRST = ("dropout-down", "augmentation-down", "smoothing-down", "decay-down")
NOISE_FIRST = ("averaging-up", "batch-up", "rate-down", "decay-down", "context-up", "dropout-down")


def in_order(phase: PhaseRecord, names: Iterable[str]) -> list[str]:
    """What has paid in this run first, then what the curves call for."""
    order = (*RESTARTED_FIRST, *PLATEAU_FIRST) if _answered(phase) else _prior(shown(phase))
    last = len(order)
    return sorted(names, key=lambda name: (-_pay(phase, name), order.index(name) if name in order else last))


def shown(phase: PhaseRecord) -> Stability:
    """What the plain run's curves came to: overfitting if either trunk or cooldown showed it."""
    plain = [*phase.of_kind("trunk"), *(t for t in phase.of_kind("control") if t.trial.length is None)]
    if any(t.reading and t.reading.stability is Stability.OVERFITTING for t in plain):
        return Stability.OVERFITTING
    return phase.trunk.reading.stability if phase.trunk and phase.trunk.reading else Stability.UNDECIDED


def _answered(phase: PhaseRecord) -> bool:
    """Whether a restart was kept: at its rate more regularising only costs, and less may be enough (docs/moves.md)."""
    return any(t.trial.move == RESTART and t.verdict and t.verdict.decision == "keep" for t in phase.of_kind("move"))


def _prior(stability: Stability) -> Sequence[str]:
    first = {Stability.OVERFITTING: OVERFITTING_FIRST, Stability.STABLE: PLATEAU_FIRST}.get(stability, NOISE_FIRST)
    return (*first, *(name for name in PLATEAU_FIRST if name not in first))


def _pay(phase: PhaseRecord, name: str) -> float:
    """What the run has seen of a move over its control, a second: its gain, or what its opposite clearly lost.

    0 if nothing is known, and hardly less if what it did was lost in noise.
    """
    pay = 0.0
    for record in phase.of_kind("move"):
        verdict = record.verdict
        if verdict is None or verdict.gain is None or verdict.gain_low is None or verdict.gain_high is None:
            continue
        sure = verdict.gain_low > 0 or verdict.gain_high < 0
        per_second = verdict.gain / max(record.seconds, 1e-9)
        if record.trial.move == name:
            pay = per_second if sure else -1e-12
        elif record.trial.move == MOVES[name].opposite and verdict.gain_high < 0:
            pay = max(pay, -per_second)
    return pay


def why(phase: PhaseRecord, name: str) -> str:
    """What is said of a move when it is proposed."""
    words = {
        Stability.OVERFITTING: "the plain run overfitted",
        Stability.STABLE: "the plain run came to a plateau",
    }.get(shown(phase), "the curve is noisy")
    if _answered(phase):
        words = "the plain run overfitted, which the restart has answered"
    if "+" in name:
        return "better than the control, but no match for the incumbent: further in that direction"
    pay = _pay(phase, name)
    seen = "; it paid in this run, or its opposite lost" if pay > 0 else "; it brought nothing from another fork"
    return f"{words}{seen if pay else ''} ({MOVES[name].source})"
