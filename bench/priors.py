"""The priors of the choice, from the journals of real runs: what each kind of attempt brought, by situation.

    python bench/priors.py read RUNS...     adds the attempts in these run directories to bench/attempts.jsonl
    python bench/priors.py write            makes src/multistep/core/choice/priors.json of them
    python bench/priors.py table            the table, and what it foretells of a data set that was left out

RUNS are folders of runs that `bench/regret.py` made, which have scored every judged checkpoint on the test split too; a
gain is the mean of both splits', so that a leader that was lucky on validation makes nobody look bad. Gains are in
tolerances of the metric, over who led when the attempt was chosen.
"""

import argparse
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from regret_rules import read_made
from regret_runs import SETS

from multistep.core.choice.known import situation_of
from multistep.core.choice.moves import MOVES
from multistep.core.choice.priors import most_particular
from multistep.core.evidence.compare import paired
from multistep.core.evidence.expected import Gain, Link
from multistep.core.evidence.metric import BESIDE, METRICS, Evaluation, Floats, Metric, beside
from multistep.core.values.events import TrialStarted
from multistep.core.values.history import History, TrialRecord, fold
from multistep.engine.journal import read_entries
from multistep.engine.rundir import RunDirectory

ATTEMPTS = Path(__file__).parent / "attempts.jsonl"
TABLE = Path(__file__).parent.parent / "src/multistep/core/choice/priors.json"
# What a row says before anything was recorded counts as so many data sets.
WEIGHT = 4.0
MOST = 20.0  # tolerances, beyond which a gain counts as that
LINK_WEIGHT = 2.0  # the same of a link
MOST_LOSS = 1 / 0.003  # tolerances of a loss: all of it; where next to none is left, a rise can be any number of them
MOST_ALIKE = 0.95  # how closely a loss may be said to go with a metric
LEAST_SPREAD = 1.0  # tolerances: no kind of attempt is known better than that
# Nobody records what is never tried, so what is guessed stands here: kind, situation, mean and spread in tolerances.
GUESSES: dict[tuple[str, str, str], Gain] = {
    # On little text; a classifier that is begun again at a lower rate has hardly begun when its time is over.
    ("restart", "overfitting", "text-generation"): Gain(5, 5),
    ("restart", "overfitting", "any"): Gain(-3, 6),
    ("restart", "plateau", "any"): Gain(-2, 5),
    ("restart", "improving", "any"): Gain(-4, 5),
    ("on", "plateau", "any"): Gain(0.5, 2.5),
    ("on", "improving", "any"): Gain(2, 3),
    ("on", "overfitting", "any"): Gain(-1, 3),
    ("on", "answered", "any"): Gain(0.5, 2),
    ("on", "pretrained", "any"): Gain(0.5, 2),
    ("extend", "any", "any"): Gain(0.5, 2),
    ("extend", "pretrained", "any"): Gain(1, 3),
    ("extend", "overfitting", "any"): Gain(-1, 2),
    ("model", "any", "any"): Gain(0, 8),
    ("average", "any", "any"): Gain(0.3, 1.5),
    ("fork", "any", "any"): Gain(2, 4),
    ("control", "any", "any"): Gain(2, 5),
    ("reseed", "any", "any"): Gain(-0.5, 1.5),
    ("move", "plateau", "any"): Gain(-1, 3),
    ("move", "improving", "any"): Gain(-1.5, 3),
    ("move", "overfitting", "any"): Gain(-1, 4),
    ("move", "answered", "any"): Gain(-1, 2.5),
    ("move", "pretrained", "any"): Gain(-1, 3),
    # docs/appendix/measured-moves.md: of five runs each, on little text.
    ("dropout-down", "answered", "any"): Gain(0.5, 2),
    ("context-up", "answered", "any"): Gain(-1, 1.5),
    ("dropout-up", "answered", "any"): Gain(-3, 2),
    **{(name, "overfitting", "any"): Gain(0, 4) for name in ("dropout-up", "augmentation-up", "decay-up", "rate-down")},
}

# Of accuracy on SST-2, from 30 trials that were judged by the rule before this one.
GUESSED_LINKS = {"calibrated_loss": Link(3.0, 0.8), "loss": Link(16.0, 0.7)}

Row: TypeAlias = tuple[str, str, str]  # kind, situation, task


@dataclass(frozen=True)
class Attempt:
    """One judged trial: its gain over who led, with its standard error, in tolerances; and the loss's beside it.

    `loss_gain` is in tolerances of the loss, `covariance` that of the errors of both gains.
    """

    data: str
    task: str
    run: str
    trial: str
    metric: str
    kind: str
    situation: str
    gain: float
    error: float
    loss: str | None = None
    loss_gain: float | None = None
    loss_error: float | None = None
    covariance: float | None = None


def read(folder: Path) -> list[Attempt]:
    """The attempts of one run."""
    made = read_made(folder)
    history = History()
    situations: dict[str, str] = {}
    for entry in read_entries(RunDirectory(folder / "run").journal):
        if isinstance(entry.event, TrialStarted) and history.leader:
            situations[entry.event.trial.id] = situation_of(history)
        history = fold([entry], history)
    tables = {one.trial: one for one in made.judged}
    found = []
    for name, one in tables.items():
        record = history.trial(name)
        over = tables.get(record.over or "")
        if name not in situations or over is None or record.verdict is None or record.verdict.failed:
            continue
        pairs = [(one.validation, over.validation), (one.test, over.test)]
        kind = kind_of(record, situations[name])
        about = (
            made.name,
            SETS[made.name].task,
            f"{folder.parent.name}/{folder.name}",
            name,
            made.metric.name,
            kind,
            situations[name],
        )
        found.append(Attempt(*about, *_gains(made.metric, pairs)))
    return found


def kind_of(record: TrialRecord, situation: str) -> str:
    """The name of a trial's kind among the priors."""
    trial = record.trial
    if trial.kind == "control":
        return "on" if trial.length else "fork" if situation == "pretrained" else "control"
    if trial.kind == "average":
        return "average"
    name = (trial.move or "").split("+")[0]
    return "model" if name.startswith("model-") else name


def _gains(metric: Metric, pairs: Sequence[tuple[Evaluation, Evaluation]]) -> tuple[Any, ...]:
    """Gain and its error, and where there is a loss beside the metric its gain, error and covariance with the metric's:
    means over the splits of paired differences.
    """
    measures = [metric]
    known = (name for name in BESIDE if all(METRICS[name].applies(table) for pair in pairs for table in pair))
    if loss := beside(metric, known):
        measures.append(loss)
    means, covariances = [], []
    for new, old in pairs:
        rows = np.stack([paired(m, new, old) / m.tolerance(m.score(old)) for m in measures])
        means.append(rows.mean(axis=1))
        covariances.append(np.atleast_2d(np.cov(rows)) / rows.shape[1])
    mean, covariance = np.mean(means, axis=0), np.mean(covariances, axis=0) / len(pairs)
    errors = np.sqrt(np.diag(covariance))
    found = (float(mean[0]), float(errors[0]))
    if len(measures) == 1:
        return found
    return (*found, measures[1].name, float(mean[1]), float(errors[1]), float(covariance[0, 1]))


# From attempts to the table -----------------------------------------------------------------------------


def recorded() -> list[Attempt]:
    lines = ATTEMPTS.read_text(encoding="utf-8").splitlines() if ATTEMPTS.exists() else []
    return [Attempt(**json.loads(line)) for line in lines]


def fitted(attempts: Iterable[Attempt]) -> dict[Row, tuple[Gain, list[Attempt]]]:
    """Mean and spread of the true gains by kind, situation and task, with the attempts that they rest on.

    A mean is drawn to that of what is less particular, of the other attempts there: the same few would count twice. A
    spread is drawn to what was guessed, or the more particular row would seem the surer one.
    """
    by: dict[Row, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        for kind in (attempt.kind, *(["move"] if attempt.kind in MOVES else [])):
            for situation in (attempt.situation, "any"):
                for task in (attempt.task, "any"):
                    by[kind, situation, task].append(attempt)
    found = {}
    for row in {*by, *GUESSES}:
        wider = _wider(row)
        if row in GUESSES or wider is None or len(by.get(wider, [])) > len(by[row]):
            found[row] = (_fit(by.get(row, []), _before(row, by)), by.get(row, []))
        # Otherwise all that is known of the kind is of this situation or task, and says nothing particular of it.
    return found


def _wider(row: Row) -> Row | None:
    """The row that is less particular by one step."""
    kind, situation, task = row
    if task != "any":
        return kind, situation, "any"
    if situation != "any":
        return kind, "any", "any"
    return ("move", "any", "any") if kind in MOVES else None


def _before(row: Row, by: Mapping[Row, Sequence[Attempt]]) -> Gain:
    """What a row says before any of its own attempts."""
    guess, wider = most_particular(GUESSES, *row), _wider(row)
    if row in GUESSES or wider is None:
        return guess
    own = {(a.run, a.trial) for a in by.get(row, [])}
    others = [a for a in by.get(wider, []) if (a.run, a.trial) not in own]
    return Gain(_fit(others, _before(wider, by)).mean, guess.spread)


def _weights(attempts: Sequence[Attempt]) -> Floats:
    """One for each data set, shared by its runs, whose attempts share theirs."""
    in_run = Counter(a.run for a in attempts)
    in_set = Counter(data for data, _ in {(a.data, a.run) for a in attempts})
    return np.array([1.0 / (in_set[a.data] * in_run[a.run]) for a in attempts])


def _fit(attempts: Sequence[Attempt], before: Gain) -> Gain:
    """The mean and the spread of true gains, which is less than that of those seen by the noise of seeing them.

    Every data set counts once, however many attempts it saw: what they have in common is the set. In it each run does,
    or a single one with a chain of eighty would be all that is known of a set.
    """
    if not attempts:
        return before
    # A single collapse says that such attempts can fail, not that they fail as far as it did.
    gains = np.clip([a.gain for a in attempts], -MOST, MOST)
    weights = _weights(attempts)
    noise = float(weights @ np.array([min(a.error, MOST) ** 2 for a in attempts])) / weights.sum()
    many = float(weights.sum())
    mean = (float(weights @ gains) + WEIGHT * before.mean) / (many + WEIGHT)
    seen = float(weights @ (gains - mean) ** 2) / many - noise
    variance = (many * max(seen, 0.0) + WEIGHT * before.spread**2) / (many + WEIGHT)
    return Gain(mean, max(LEAST_SPREAD, math.sqrt(variance)))


def linked(attempts: Iterable[Attempt]) -> dict[tuple[str, str], tuple[Link, int]]:
    """By metric and loss: how they go together, and the attempts that this is known from.

    Found in each data set by itself, where each run counts once, and averaged over sets: how large a tolerance of the
    loss is depends on the set. Few sets are drawn to what was guessed. Attempts that came to nothing are left out: they
    would be all that is seen.
    """
    by: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        if attempt.loss_gain is not None and abs(attempt.gain) <= MOST and abs(attempt.loss_gain) <= MOST_LOSS:
            assert attempt.loss is not None
            by[attempt.metric, attempt.loss].append(attempt)
            by["any", attempt.loss].append(attempt)
    found = {("any", loss): (link, 0) for loss, link in GUESSED_LINKS.items()}
    for (metric, loss), some in by.items():
        sets = [link for data in {a.data for a in some} if (link := _linked_in([a for a in some if a.data == data]))]
        guess, weight = GUESSED_LINKS[loss], len(sets) / (len(sets) + LINK_WEIGHT)
        if sets:
            log_ratio = float(np.mean([math.log(link.ratio) for link in sets]))
            correlation = float(np.mean([link.correlation for link in sets]))
            ratio = math.exp(weight * log_ratio + (1 - weight) * math.log(guess.ratio))
            correlation = min(MOST_ALIKE, weight * correlation + (1 - weight) * guess.correlation)
            found[metric, loss] = (Link(ratio, correlation), len(some))
    return found


def _linked_in(attempts: Sequence[Attempt]) -> Link | None:
    """How true gains of the metric and of the loss go together in one data set; None where noise is all there is."""
    weights = _weights(attempts)

    def mean(one: str, other: str) -> float:
        return float(weights @ np.array([getattr(a, one) * getattr(a, other) for a in attempts]))

    metric = mean("gain", "gain") - mean("error", "error")
    loss = mean("loss_gain", "loss_gain") - mean("loss_error", "loss_error")
    both = mean("gain", "loss_gain") - float(weights @ np.array([a.covariance or 0.0 for a in attempts]))
    if min(metric, loss) <= 0:
        return None
    return Link(math.sqrt(loss / metric), min(1.0, max(0.0, both / math.sqrt(metric * loss))))


def write() -> None:
    attempts = recorded()
    gains = [
        {
            "kind": kind,
            "situation": situation,
            "task": task,
            "mean": round(gain.mean, 2),
            "spread": round(gain.spread, 2),
            "attempts": len(some),
            "runs": _runs(some),
        }
        for (kind, situation, task), (gain, some) in sorted(fitted(attempts).items(), key=lambda row: row[0])
    ]
    links = [
        {"metric": m, "loss": loss, "ratio": round(k.ratio, 2), "correlation": round(k.correlation, 2), "pairs": n}
        for (m, loss), (k, n) in sorted(linked(attempts).items())
    ]
    sets = {a.data for a in attempts}
    source = f"bench/priors.py: {len(attempts)} attempts of {_runs(attempts)} runs on {len(sets)} data sets"
    rows = ",\n  ".join(map(json.dumps, gains)), ",\n  ".join(map(json.dumps, links))
    text = f'{{\n "source": {json.dumps(source)},\n "gains": [\n  {rows[0]}\n ],\n "links": [\n  {rows[1]}\n ]\n}}\n'
    TABLE.write_text(text, encoding="utf-8")
    print(source)


def _runs(attempts: Iterable[Attempt]) -> int:
    return len({a.run for a in attempts})


def table() -> None:
    attempts = recorded()
    print("| kind | situation | task | attempts | runs | mean | spread |\n|---|---|---|---|---|---|---|")
    for (kind, situation, task), (gain, some) in sorted(fitted(attempts).items(), key=lambda row: row[0]):
        if some:
            numbers = f"{len(some)} | {_runs(some)} | {gain.mean:+.1f} | {gain.spread:.1f}"
            print(f"| {kind} | {situation} | {task} | {numbers} |")
    print(
        "\nWhat the others foretell of each data set: mean log likelihood of its gains, each run counting once, by the "
        "guesses and by such a table\n"
    )
    print("| left out | attempts | runs | guesses | table |\n|---|---|---|---|---|")
    guessed = {key: gain for key, (gain, _) in fitted([]).items()}
    found = []
    for data in sorted({a.data for a in attempts}):
        inside = [a for a in attempts if a.data == data]
        without = {key: gain for key, (gain, _) in fitted(a for a in attempts if a.data != data).items()}
        weights = _weights(inside)
        scores = [float(weights @ np.array([_likelihood(a, priors) for a in inside])) for priors in (guessed, without)]
        found.append(scores)
        print(f"| {data} | {len(inside)} | {_runs(inside)} | {scores[0]:.2f} | {scores[1]:.2f} |")
    if found:
        guesses, others = np.mean(found, axis=0)
        print(f"| mean of the sets | {len(attempts)} | {_runs(attempts)} | {guesses:.2f} | {others:.2f} |")


def _likelihood(attempt: Attempt, priors: dict[tuple[str, str, str], Gain]) -> float:
    gain = most_particular(priors, attempt.kind, attempt.situation, attempt.task)
    variance = gain.spread**2 + attempt.error**2
    value = min(MOST, max(-MOST, attempt.gain))
    return -0.5 * (math.log(2 * math.pi * variance) + (value - gain.mean) ** 2 / variance)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("read", "write", "table"))
    parser.add_argument("runs", nargs="*", type=Path)
    given = parser.parse_args()
    if given.what == "read":
        known = {(a.run, a.trial): a for a in recorded()}
        for folder in (run for run in given.runs if (run / "made.json").exists()):  # others were cut short
            known |= {(a.run, a.trial): a for a in read(folder)}
        lines = [json.dumps(asdict(a)) for a in known.values()]
        ATTEMPTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{len(known)} attempts")
    elif given.what == "write":
        write()
    else:
        table()


if __name__ == "__main__":
    main()
