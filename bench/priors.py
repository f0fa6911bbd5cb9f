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
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from regret_rules import read_made
from regret_runs import SETS

from multistep.core.choice.known import situation_of
from multistep.core.choice.moves import MOVES
from multistep.core.choice.priors import most_particular
from multistep.core.choice.verdicts import paired
from multistep.core.evidence.expected import Gain, Link
from multistep.core.evidence.metric import BESIDE, METRICS, Evaluation, Metric, beside
from multistep.core.values.events import TrialStarted
from multistep.core.values.history import History, TrialRecord, fold
from multistep.engine.journal import read_entries
from multistep.engine.rundir import RunDirectory

ATTEMPTS = Path(__file__).parent / "attempts.jsonl"
TABLE = Path(__file__).parent.parent / "src/multistep/core/choice/priors.json"
# What a row says before anything was recorded counts as so many data sets.
WEIGHT = 4.0
MOST = 20.0  # tolerances, beyond which a gain counts as that
# The same of a link, which is told by small differences of noisy gains.
LINK_WEIGHT = 60.0
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


def fitted(attempts: Iterable[Attempt]) -> dict[tuple[str, str, str], tuple[Gain, int]]:
    """Mean and spread of the true gains by kind, situation and task, with the number of attempts that they rest on.

    A mean is drawn to that of what is less particular. A spread is drawn to what was guessed, or the same few attempts
    would make the more particular row seem the surer one.
    """
    by: dict[tuple[str, str, str], list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        for kind in (attempt.kind, *(["move"] if attempt.kind in MOVES else [])):
            for situation in (attempt.situation, "any"):
                for task in (attempt.task, "any"):
                    by[kind, situation, task].append(attempt)
    found: dict[tuple[str, str, str], tuple[Gain, int]] = {}
    # The general before the particular: all moves before one, any situation before one, any task before one.
    keys = sorted({*by, *GUESSES}, key=lambda key: (key[0] != "move", key[1] != "any", key[2] != "any", key))
    for key in keys:
        kind, situation, task = key
        wider = (kind, situation, "any") if task != "any" else (kind, "any", "any")
        if key not in GUESSES and wider != key and len(by.get(wider, [])) == len(by.get(key, [])):
            continue  # all that is known of the kind is of this situation or task, and says nothing particular of it
        rows = {other: gain for other, (gain, _) in found.items()}
        guess = most_particular(GUESSES, *key)
        before = GUESSES.get(key) or Gain(most_particular(rows, *key).mean, guess.spread)
        found[key] = (_fit(by.get(key, []), before), len(by.get(key, [])))
    return found


def _fit(attempts: Sequence[Attempt], before: Gain) -> Gain:
    """The mean and the spread of true gains, which is less than that of those seen by the noise of seeing them.

    Every data set counts once, however many attempts it saw: what they have in common is the set.
    """
    if not attempts:
        return before
    # A single collapse says that such attempts can fail, not that they fail as far as it did.
    gains = np.clip([a.gain for a in attempts], -MOST, MOST)
    sets = [a.data for a in attempts]
    weights = np.array([1.0 / sets.count(data) for data in sets])
    noise = float(weights @ np.array([min(a.error, MOST) ** 2 for a in attempts])) / weights.sum()
    many = float(weights.sum())
    mean = (float(weights @ gains) + WEIGHT * before.mean) / (many + WEIGHT)
    seen = float(weights @ (gains - mean) ** 2) / many - noise
    variance = (many * max(seen, 0.0) + WEIGHT * before.spread**2) / (many + WEIGHT)
    return Gain(mean, max(LEAST_SPREAD, math.sqrt(variance)))


def linked(attempts: Iterable[Attempt]) -> dict[tuple[str, str], tuple[Link, int]]:
    """By metric and loss: how they go together, and the pairs of trials that this is known from."""
    by: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        if attempt.loss is not None:
            by[attempt.metric, attempt.loss].append(attempt)
            by["any", attempt.loss].append(attempt)
    found = {("any", loss): (link, 0) for loss, link in GUESSED_LINKS.items()}
    for (metric, loss), pairs in by.items():
        guess = GUESSED_LINKS[loss]
        metric_gains, losses = (np.clip([getattr(a, k) for a in pairs], -500, 500) for k in ("gain", "loss_gain"))
        noise = [np.mean([getattr(a, k) ** 2 for a in pairs]) for k in ("error", "loss_error")]
        shared = np.mean([a.covariance or 0.0 for a in pairs])
        metric_variance = max(float(np.mean(metric_gains**2) - noise[0]), 1.0)
        loss_variance = max(float(np.mean(losses**2) - noise[1]), 1.0)
        both = float(np.mean(metric_gains * losses) - shared)
        correlation = both / math.sqrt(metric_variance * loss_variance)
        # Few pairs are drawn to what was guessed.
        weight = len(pairs) / (len(pairs) + LINK_WEIGHT)
        seen = math.log(math.sqrt(loss_variance / metric_variance))
        ratio = math.exp(weight * seen + (1 - weight) * math.log(guess.ratio))
        correlation = min(0.9, max(0.0, weight * correlation + (1 - weight) * guess.correlation))
        found[metric, loss] = (Link(ratio, correlation), len(pairs))
    return found


def write() -> None:
    attempts = recorded()
    gains = [
        {"kind": k, "situation": s, "task": t, "mean": round(g.mean, 2), "spread": round(g.spread, 2), "attempts": n}
        for (k, s, t), (g, n) in sorted(fitted(attempts).items())
    ]
    links = [
        {"metric": m, "loss": loss, "ratio": round(k.ratio, 2), "correlation": round(k.correlation, 2), "pairs": n}
        for (m, loss), (k, n) in sorted(linked(attempts).items())
    ]
    sets, runs = {a.data for a in attempts}, {a.run for a in attempts}
    source = f"bench/priors.py: {len(attempts)} attempts of {len(runs)} runs on {len(sets)} data sets"
    rows = ",\n  ".join(map(json.dumps, gains)), ",\n  ".join(map(json.dumps, links))
    text = f'{{\n "source": {json.dumps(source)},\n "gains": [\n  {rows[0]}\n ],\n "links": [\n  {rows[1]}\n ]\n}}\n'
    TABLE.write_text(text, encoding="utf-8")
    print(source)


def table() -> None:
    attempts = recorded()
    print("| kind | situation | task | attempts | mean | spread |\n|---|---|---|---|---|---|")
    for (kind, situation, task), (gain, many) in sorted(fitted(attempts).items()):
        if many:
            print(f"| {kind} | {situation} | {task} | {many} | {gain.mean:+.1f} | {gain.spread:.1f} |")
    print(
        "\nWhat the others foretell of each data set: mean log likelihood of its gains, by the table and by the guesses"
    )
    print("\n| left out | attempts | guesses | table |\n|---|---|---|---|")
    guessed = {key: gain for key, (gain, _) in fitted([]).items()}
    total = np.zeros(3)
    for data in sorted({a.data for a in attempts}):
        inside = [a for a in attempts if a.data == data]
        without = {key: gain for key, (gain, _) in fitted(a for a in attempts if a.data != data).items()}
        scores = [sum(_likelihood(a, priors) for a in inside) for priors in (guessed, without)]
        total += np.array([len(inside), *scores])
        print(f"| {data} | {len(inside)} | {scores[0] / len(inside):.2f} | {scores[1] / len(inside):.2f} |")
    if total[0]:
        print(f"| all | {total[0]:.0f} | {total[1] / total[0]:.2f} | {total[2] / total[0]:.2f} |")


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
