"""How a run is put into words: one sentence for each thing that the page, the tables and the live view all say.

Trials are given as `engine.result.trial_entry` makes them, everything else as `summary` holds it.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from multistep.core.evidence.metric import Interval
from multistep.core.values.units import Unit, format_seconds
from multistep.engine.result import LEAST_RERUNS

Fields = Mapping[str, Any]


def number(value: float) -> str:
    """A score as people read it: `1.4321`, `5,012.3`."""
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"


def signed(value: float) -> str:
    """A difference of scores: `+0.0312`."""
    return f"{value:+.4f}" if abs(value) < 100 else f"{value:+,.1f}"


def with_interval(score: Interval) -> str:
    """`1.4321 [1.4100, 1.4542]`."""
    return f"{number(score.score)} [{number(score.low)}, {number(score.high)}]"


def difference(found: Fields) -> str:
    """`+0.0312 [+0.0120, +0.0504]` of {score, low, high}; without bounds the difference alone."""
    score = signed(float(found["score"]))
    if found["low"] is None or found["high"] is None:
        return score
    return f"{score} [{signed(float(found['low']))}, {signed(float(found['high']))}]"


def clean(text: str) -> str:
    """Text from data or a model without what steers a terminal (escape sequences) or cannot be encoded."""
    encodable = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) != "Cc" else "\N{REPLACEMENT CHARACTER}" for c in encodable
    )


# A trial --------------------------------------------------------------------------------------------


def title(trial: Fields) -> str:
    """What a trial is, in a few words: `move dropout-up, round 2`, `rerun of the control, seed 3`, `cooldown`."""
    round_ = f", round {trial['round']}" if trial["round"] else ""
    match trial["kind"]:
        case "control":
            return f"control{round_}" if trial["round"] else "cooldown"  # the plain run's cools down, and no more
        case "move":
            return f"move {trial['move']}{round_}"
        case "base":
            return "model before training"
        case "average":
            return f"average of {len(trial['of'])} checkpoints"
        case "rerun":
            return f"rerun of {trial['move'] or 'the control'}, seed {trial['seed']}"
        case kind:
            return str(kind)


def changes(trial: Fields) -> str:
    """Which settings a trial changed, in words: `dropout 0 to 0.1, batch size 16 to 32`; empty if none."""
    words = [
        f"{key.replace('_', ' ')} {_setting(pair['from'])} to {_setting(pair['to'])}"
        for key, pair in trial["settings"].items()
    ]
    if trial["of"]:
        return "the mean of " + ", ".join(trial["of"])
    if trial["carry"] == "weights":
        words.append("the optimizer begins anew")
    if trial["skip_examples"]:
        words.append(f"{trial['skip_examples']:,} examples passed over")
    return ", ".join(words)


def _setting(value: object) -> str:
    match value:
        case bool():
            return "on" if value else "off"
        case float() | int():
            return f"{value:.3g}" if isinstance(value, float) else str(value)
        case tuple() | list():
            return " and ".join(map(_setting, value)) or "none"
        case _:
            return "the default" if value is None else str(value)


def asked(trial: Fields) -> str:
    """What was demanded of an attempt: `+0.0150`; empty where nothing was."""
    demanded = trial["demanded"]
    if not demanded:
        return ""
    least = demanded["improvement"]
    return signed(float(least)) if least is not None else f"{demanded['standard_errors']:.3g} standard errors"


def over_control(trial: Fields) -> str:
    """`over 0.control-2: +0.0210 [+0.0100, +0.0320]`; empty where there is no gain to tell of."""
    if not trial["gain"]:
        return ""
    seed = " of the same seed" if trial["kind"] == "rerun" else ""
    return f"over {trial['control'] or 'the control'}{seed}: {difference(trial['gain'])}"


WEIGHED_SHOWN = 6  # candidates of a decision, the chosen one always among them


def weighed_rows(weighed: Sequence[Fields]) -> list[tuple[str, str, str, str, bool]]:
    """The candidates of a decision, most valuable first: name, gain, worth, cost, whether it was taken."""
    rows = [
        (
            str(c["name"]),
            f"{signed(c['mean'])} \N{PLUS-MINUS SIGN} {number(c['spread'])}",
            signed(c["worth"]),
            f"{c['cost']:,.0f}",
            bool(c["chosen"]),
        )
        for c in weighed
    ]
    return [row for k, row in enumerate(rows) if k < WEIGHED_SHOWN or row[-1]]


# What is said of all trials together ----------------------------------------------------------------


def noise_sentences(groups: Sequence[Fields], trials: Sequence[Fields]) -> list[str]:
    """The noise between seeds, and what may be said of each move in general: the rerun ones, and the kept ones."""
    said: list[str] = []
    rerun = {move["move"] for group in groups for move in group["moves"]}
    for group in groups:
        seeds, spread = len(group["seeds"]), group["standard_deviation"]
        where = f"The control from {group['start'] or 'the beginning'}"
        if spread is None:
            said.append(f"{where} was scored with {seeds} seed{'s' if seeds != 1 else ''}: its noise is not known.")
        else:
            low, high = number(min(group["scores"])), number(max(group["scores"]))
            said.append(
                f"{where}, with {seeds} seeds (A/A), scored {low} to {high}: "
                f"noise between seeds {number(spread)} {group['unit']} (standard deviation)."
            )
        said += [_in_general(move, spread) for move in group["moves"]]
    kept = dict.fromkeys(t["move"] for t in trials if t["kind"] == "move" and t["leads"])
    for name in kept:
        if name not in rerun:
            said.append(f"{name}: not shown to help in general, since it was not run again with other seeds.")
    return said


def _in_general(move: Fields, noise: float | None) -> str:
    count = move["reruns"]
    runs = f"{count} rerun{'s' if count != 1 else ''}"
    if count < LEAST_RERUNS:
        return f"{move['move']}: not shown to help in general, fewer than three reruns ({count})."
    if not math.isfinite(float(move["mean"])):
        return f"{move['move']}: not shown to help in general, since one of {runs} diverged."
    gain = f"its mean gain over {runs} is {signed(move['mean'])}, at least {signed(move['low'])} (one-sided 95%)"
    if move["helps"]:
        return f"{move['move']}: this move helps; {gain}, beyond the noise between seeds."
    if move["low"] <= 0:
        return f"{move['move']}: not shown to help in general; {gain}."
    return f"{move['move']}: not shown to help in general; {gain}, within the noise between seeds."


def optimism_sentence(found: Fields | None, looks: int) -> str:
    """Whether the winner's validation score flatters it; empty without a test split."""
    if not found:
        return ""
    score, low = float(found["score"]), float(found["low"])
    interval = f"[{signed(low)}, {signed(float(found['high']))}]"
    if low > 0:
        said = f"Validation was optimistic by {number(score)} {interval} against test"
    else:
        said = f"No optimism of validation is shown: {signed(score)} {interval} against test"
    if (rival := found["baseline"]) is not None:
        said += f" (the baseline, which was not chosen on it: {signed(float(rival))})"
    return f"{said}. Validation was looked at {looks} times, test opened once."


def overfitting_sentences(found: Sequence[Fields]) -> list[str]:
    """The gap between training and validation with the kept move and without it."""
    said = []
    for case in found:
        said.append(f"{case['trial']} was left for overfitting: {case['reason']}.")
        if case["without"] is None:
            said[-1] += " No move was kept against it."
            continue
        said.append(
            f"Without {case['move']} ({case['without']['trial']}) {_gap(case['without'])}; "
            f"with it ({case['with']['trial']}) {_gap(case['with'])}."
        )
    return said


def _gap(found: Fields) -> str:
    return (
        f"training loss {number(found['training'])}, validation {number(found['validation'])}, "
        f"gap {number(found['gap'])}"
    )


def moves_ended_sentence(reason: str) -> str:
    return f"No further move was tried: {reason.rstrip('.')}."


def reused_sentence(name: str, run: str, key: str) -> str:
    return f"phase {name} was taken from {run}, where recipe, data and code were the same ({key})"


def end_sentence(record: Fields) -> str:
    """The planned end against the real one, and which steps led to the winner."""
    said = []
    if end := record["end"]:
        share = float(end["real"]) / float(end["planned"])
        now = "real end" if record["state"] == "finished" else "so far"
        said.append(f"Planned end {record['budget']}, {now} {_amount(end['real'], Unit(end['unit']))} ({share:.0%}).")
    steps = record["steps_by_kind"]
    total = sum(steps.values())
    if total:
        shares = ", ".join(f"{name} {count / total:.0%}" for name, count in steps.items() if count)
        led = f"; {record['steps_to_winner'] / total:.0%} led to the winner" if record["steps_to_winner"] else ""
        said.append(f"Of {total:,} steps: {shares}{led}.")
    return " ".join(said)


def _amount(value: float, unit: Unit) -> str:
    return format_seconds(value) if unit is Unit.SECONDS else f"{value:,.6g} {unit.value}"
