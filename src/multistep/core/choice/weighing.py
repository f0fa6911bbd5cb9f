"""The one choice: of everything that could be done with what is left of the budget, what is worth most.

Each candidate has a forecast: by how much the final score would get better, how surely, at what cost. Its worth is the
expected improvement: what it brings on average if it is taken when it turned out better and dropped when it did not.
A candidate is not weighed alone but with what still fits behind it, so that a long bet must be worth more than the
short ones whose time it takes.

Sources: expected improvement (Jones, Schonlau and Welch, J. Global Optim. 13, 1998), of what can only be seen through
noise (knowledge gradient: Frazier, Powell and Dayanik, INFORMS J. Comput. 21, 2009); under a budget: freeze-thaw, arXiv
1406.3896.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from multistep.core.evidence.expected import Gain
from multistep.core.values.trial import Proposal, Weighed

# Bets are not independent: what one has found, the next does not find again. With 1 a run would count on finding all
# of it and cut its trunk short for small bets; with 0 nothing would be kept for them.
FADE = 0.7
# Tolerances. Below it no candidate is begun, and the rest of the budget is given back. A guess.
LEAST_WORTH = 0.02


@dataclass(frozen=True)
class Option:
    """A candidate: its gain over who leads in tolerances, its cost in the budget's seconds or steps.

    The gain of one that `stacks` comes on top of what is found before it; a trunk goes its own way, and what was found
    beside it is lost to it. Of several with one `group` at most one is done: they are lengths of the
    same thing. `proposal` is None where the candidate is only looked at, as what could follow.
    """

    name: str
    gain: Gain
    cost: float
    proposal: Proposal | None = None
    group: str = ""
    stacks: bool = True


@dataclass(frozen=True)
class Choice:
    """What was taken, None for nothing, and all that it was weighed against, the most valuable first.

    `left` is what all of them had to fit into, in the budget's seconds or steps.
    """

    taken: Option | None
    options: tuple[Option, ...]
    noise: float
    left: float = math.inf

    def weighed(self, tolerance: float) -> tuple[Weighed, ...]:
        """For the journal, in the metric's unit: what could have been taken, so nothing that does not fit."""
        return tuple(
            Weighed(
                o.name,
                o.gain.mean * tolerance,
                o.gain.spread * tolerance,
                worth(o.gain, self.noise) * tolerance,
                round(o.cost, 1),
                o is self.taken,
            )
            for o in self.options
            if o.cost <= self.left
        )


def worth(gain: Gain, noise: float = 0.0) -> float:
    """The expected improvement in tolerances; `noise` is the standard error of judging it.

    What noise hides cannot be chosen, so of the spread only the part counts that judging will show.
    """
    if gain.spread <= 0:
        return max(0.0, gain.mean)
    shown = gain.spread**2 / math.hypot(gain.spread, noise)
    z = gain.mean / shown
    density = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return gain.mean * 0.5 * math.erfc(-z / math.sqrt(2)) + shown * density


def choose(
    options: Sequence[Option],
    left: float,
    noise: float,
    *,
    later: Sequence[Option] = (),
    least: float = LEAST_WORTH,
    awaited: float = 0.0,
) -> Choice:
    """The candidate that makes the rest of the budget worth most; none if none fits, or none is worth `least`.

    `later` are no candidates yet, but what could follow one. `awaited` is what a trial under way, on which no candidate
    builds, is expected to gain: the best bet beside it is the one most likely to be better still.
    """
    priced = [(o, worth(Gain(o.gain.mean - awaited, o.gain.spread), noise)) for o in options]
    follow = [*priced, *((o, worth(o.gain, noise)) for o in later)]
    values = [
        value + rest([p for p in follow if not _same(p[0], o)], left - o.cost) if o.cost <= left else -math.inf
        for o, value in priced
    ]
    ranked = sorted(range(len(priced)), key=lambda k: -values[k])
    ordered = (*(priced[k][0] for k in ranked), *sorted(later, key=lambda o: -worth(o.gain, noise)))
    fit = (options[k] for k in ranked if values[k] > -math.inf)
    taken = next((o for o in fit if worth(o.gain, noise) >= least), None)
    return Choice(taken, ordered, noise, left)


def rest(priced: Sequence[tuple[Option, float]], left: float) -> float:
    """What so much of the budget is worth, spent on these one after the other, the most valuable a second first."""
    total, fade, done = 0.0, FADE, set[str]()
    for option, value in sorted(priced, key=lambda p: -p[1] / max(p[0].cost, 1e-9)):
        if option.stacks and option.cost <= left and option.group not in done:
            total += fade * value
            fade *= FADE
            left -= option.cost
            done |= {option.group} - {""}
    return total


def _same(one: Option, other: Option) -> bool:
    return one is other or (one.group != "" and one.group == other.group)
