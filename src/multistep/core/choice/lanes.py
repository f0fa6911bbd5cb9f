"""What trials that are under way mean for those that are begun beside them."""

from __future__ import annotations

from multistep.core.choice.known import leader_level, tolerance_of
from multistep.core.values.history import History, PhaseRecord
from multistep.core.values.trial import Trial


def on_the_line(trial: Trial) -> bool:
    """Whether a trial belongs to the plain run: one line of trunks and their cooldowns, each of which needs the one
    before.
    """
    return trial.kind in ("base", "trunk") or (trial.kind == "control" and trial.length is None)


def line_goes_on(phase: PhaseRecord) -> bool:
    """Whether the plain run's next part is under way."""
    return any(on_the_line(t.trial) for t in phase.under_way)


def judged_later(phase: PhaseRecord) -> bool:
    """Whether siblings are under way whose verdicts may change what is worth repeating."""
    return any(t.trial.kind in ("control", "move") for t in phase.under_way)


def awaited(history: History) -> float:
    """By how much the plain run is expected to lead once what is under way of it is judged, in tolerances; 0 if not.

    What forks from who leads now does not build on it, and must be better than that to matter.
    """
    going = [t for t in history.phase.under_way if on_the_line(t.trial)]
    if not going or history.leader is None:
        return 0.0
    unit, gains = tolerance_of(history), [0.0]
    for record in going:
        if record.forecast:
            level = history.expected.get(record.over or "", 0.0) + record.forecast.mean
            gains.append((level - leader_level(history)) / unit)
    return max(gains)
