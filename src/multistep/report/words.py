"""How a run is put into words: one sentence for each thing that the page, the tables and the live view all say.

Trials are given as `engine.result.trial_entry` makes them, everything else as `summary` holds it.
"""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from multistep.core.evidence.scores import Form, metric_words
from multistep.core.values.units import Unit, format_seconds
from multistep.engine.result import LEAST_RERUNS

Fields = Mapping[str, Any]


def difference(found: Fields, form: Form) -> str:
    """`+0.031 (+0.012 to +0.050)` of {score, low, high}; without bounds the difference alone."""
    within = form.within(found)
    return form.gap(float(found["score"])) + (f" ({within})" if within else "")


def clean(text: str) -> str:
    """Text from data or a model without what steers a terminal (escape sequences) or cannot be encoded."""
    encodable = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) != "Cc" else "\N{REPLACEMENT CHARACTER}" for c in encodable
    )


def shortened(text: str, most: int) -> str:
    """So many characters of a text at most, the last of them an ellipsis where there are more."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def sentence(text: str) -> str:
    """A clause as a sentence of its own, with a capital and a full stop."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?', '!')) else '.'}" if text else ""


# A trial --------------------------------------------------------------------------------------------


def title(trial: Fields) -> str:
    """What a trial is, in a few words: `move dropout-up, round 2`, `rerun of the control, seed 3`, `cooldown`."""
    round_ = f", round {trial['round']}" if trial["round"] else ""
    match trial["kind"]:
        case "control" if is_as_it_is(trial):
            return as_it_is(trial["first_step"])
        case "move" if is_as_it_is(trial):
            return f"move {trial['move']}, {as_it_is(trial['first_step'])}"
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


def is_as_it_is(trial: Fields) -> bool:
    """Whether it is a checkpoint that was judged without a step of cooldown."""
    return trial["kind"] in ("control", "move") and not trial["steps"] and trial["score"] is not None


def as_it_is(step: int) -> str:
    return f"step {step:,} as it is"


TELLING = ("model", "batch_size")  # settings that are named first, since others follow from them


def changes(trial: Fields) -> str:
    """Which settings a trial changed, in words: `dropout 0 to 0.1, batch size 16 to 32`; empty if none."""
    words = [
        f"{key.replace('_', ' ')} {_setting(pair['from'])} to {_setting(pair['to'])}"
        for key, pair in sorted(trial["settings"].items(), key=lambda setting: setting[0] not in TELLING)
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


def asked(trial: Fields, form: Form) -> str:
    """What a proof would have taken: `+0.015`; empty where nothing was compared."""
    demanded = trial["demanded"]
    if not demanded:
        return ""
    least = demanded["improvement"]
    return form.gap(float(least)) if least is not None else "unknown"


def over_control(trial: Fields, form: Form) -> str:
    """`it is 0.020 nats a token better than 0.control-2, which changes nothing (95% interval ...)`; else empty."""
    if not trial["gain"]:
        return ""
    seed = " and has the same seed" if trial["kind"] == "rerun" else ""
    within = form.within(trial["gain"])
    by = float(trial["gain"]["score"])
    side = "better" if by >= 0 else "worse"
    control = trial["control"] or "the control"
    about = f" (95% interval {within})" if within else ""
    return f"it is {form.size(by)} {side} than {control}, which changes nothing{seed}{about}"


def better_still(trial: Fields) -> bool:
    """Whether another trial than its rival led when this one was judged: one may be better than the plain run, and yet
    not lead.
    """
    rival = (trial["expected"] or {}).get("over")
    return bool(rival and trial["leader"] and trial["leader"] not in (trial["id"], rival))


WEIGHED_SHOWN = 6  # candidates of a decision, the chosen one always among them


def cost_unit(record: Fields) -> str:
    """What the costs of a run's candidates are counted in."""
    return "s" if not record["end"] or record["end"]["unit"] == "seconds" else "steps"


def weighed_rows(weighed: Sequence[Fields], form: Form, unit: str) -> list[tuple[str, str, str, str, bool]]:
    """The candidates of a decision, most valuable first: name, gain, worth, cost in that unit, whether it was taken."""
    rows = [
        (
            str(c["name"]),
            f"{form.gap(c['mean']).removesuffix(' points')} \N{PLUS-MINUS SIGN} {form.gap(c['spread']).lstrip('+')}",
            form.gap(c["worth"]),
            f"{c['cost']:,.0f} {unit}",
            bool(c["chosen"]),
        )
        for c in weighed
    ]
    return [row for k, row in enumerate(rows) if k < WEIGHED_SHOWN or row[-1]]


# What is said of all trials together ----------------------------------------------------------------


def noise_sentences(
    groups: Sequence[Fields], trials: Sequence[Fields], forms: Mapping[int, Form], winner: str | None
) -> list[str]:
    """The noise between seeds, and what may be said of each move in general: the rerun ones, and the kept ones.

    `forms` are those of the phases' scores; `winner` is kept, whether it led when it was judged or not.
    """
    said: list[str] = []
    rerun = {move["move"] for group in groups for move in group["moves"]}
    for group in groups:
        seeds, spread = len(group["seeds"]), group["standard_deviation"]
        where = f"The control that starts from {group['start'] or 'the beginning'}"
        form = forms[group["phase"]]
        if spread is None:
            count = f"{seeds} seed{'s' if seeds != 1 else ''}"
            said.append(f"{where} was scored with {count}, too few to know how much seeds differ.")
        else:
            low, high = form.apart(min(group["scores"]), max(group["scores"]))
            said.append(
                f"{where} was trained with {seeds} seeds and nothing else changed: it scored {low} to {high}, so the "
                f"noise between seeds is {form.size(spread)} (standard deviation)."
            )
        said += [_in_general(move, spread, form) for move in group["moves"]]
    kept = dict.fromkeys(t["move"] for t in trials if t["kind"] == "move" and (t["leads"] or t["id"] == winner))
    for name in kept:
        if name not in rerun:
            said.append(f"Whether {name} helps in general is not known: it was not run again with other seeds.")
    return said


def _in_general(move: Fields, noise: float | None, form: Form) -> str:
    count, name = move["reruns"], move["move"]
    runs = f"{count} rerun{'s' if count != 1 else ''}"
    if count < LEAST_RERUNS:
        return f"{name} is not shown to help in general: that takes at least {LEAST_RERUNS} reruns, and it had {count}."
    if not math.isfinite(float(move["mean"])):
        return f"{name} is not shown to help in general, since one of {runs} diverged."
    gain = (
        f"its mean gain over {runs} is {form.gap(move['mean'])}, and at least {form.gap(move['low'])} (one-sided 95%)"
    )
    if move["helps"]:
        return f"{name} helps in general: {gain}, which is beyond the noise between seeds."
    if move["low"] <= 0:
        return f"{name} is not shown to help in general: {gain}."
    return f"{name} is not shown to help in general: {gain}, which is within the noise between seeds."


def optimism_sentence(found: Fields | None, looks: int, form: Form) -> str:
    """Whether the winner's validation score flatters it; empty without a test split."""
    if not found:
        return ""
    by, low = float(found["score"]), float(found["low"])
    within = form.within(found)
    said = f"On validation the model scores {_beside(by, form)} on test"
    said += f" (95% interval {within})" if within else ""
    rival = None if found["baseline"] is None else float(found["baseline"])
    harder = low > 0 and rival is not None and rival > by / 2
    if low > 0 and not harder:
        said += ", so choosing it there flattered it"
    elif float(found["high"]) < 0:
        said += ", so validation is the harder split"
    elif low <= 0:
        said += ", which does not show that choosing it there flattered it"
    if rival is not None:
        said += f". The baseline, which was not chosen on validation, scores {_beside(rival, form)} on test"
        said += ", too: test is the harder split" if harder else ""
    return f"{said}. Validation was looked at {times(looks)}, the test split once."


def _beside(by: float, form: Form) -> str:
    """`1.2 points better than`, or `the same as`."""
    return f"{form.size(by)} {'better' if by > 0 else 'worse'} than" if by else "the same as"


def times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def overfitting_sentences(found: Sequence[Fields], form: Form) -> list[str]:
    """The gap between training and validation with the kept move and without it; `form` is the loss's."""
    said: list[str] = []
    for number, case in enumerate(found):
        if not number or case["trial"] != found[number - 1]["trial"]:
            why = f"{case['trial']} was ended because it overfitted: {case['reason']}."
            if behind := case["behind"]:
                by, step = form.size(behind["by"]), f"{behind['step']:,}"
                why = f"{case['trial']} overfitted: its last look was {by} worse than that at step {step}."
            by_loss = f"{case['trial']} overfitted by its loss, not yet by {metric_words(case['metric'])}."
            said.append(by_loss if case["by_loss"] else why)
            if case["instead"]:
                said[-1] += f" {case['instead']} starts from an earlier step instead."
        if case["without"] is None:
            said[-1] += f" {_tried_against(case)}"
            continue
        said.append(
            f"Without {case['move']} ({case['without']['trial']}), {_gap(case['without'], form)}; "
            f"with it ({case['with']['trial']}), {_gap(case['with'], form)}."
        )
    return said


def _tried_against(case: Fields) -> str:
    """What came of the changes, where no gap can be told with one and without it."""
    if case["kept"]:
        return (
            f"Of the changes that were tried, {', '.join(case['kept'])} {'were' if case['kept'][1:] else 'was'} kept."
        )
    return "No change that was tried was kept." if case["tried"] else "No change was tried against it."


def _gap(found: Fields, form: Form) -> str:
    training, validation = form.of(found["training"]), form.of(found["validation"])
    side = "above" if found["gap"] >= 0 else "below"
    return f"the validation loss was {validation}, {form.size(found['gap'])} {side} the training loss of {training}"


def moves_ended_sentence(reason: str) -> str:
    return f"Nothing more was tried: {reason.rstrip('.')}."


def reused_sentence(name: str, run: str, key: str) -> str:
    return f"phase {name} was taken from the run {run}, which had done it with the same recipe, data and code ({key})"


def end_sentence(record: Fields) -> str:
    """The planned end against the real one, and which steps led to the winner."""
    said = []
    if end := record["end"]:
        share = float(end["real"]) / float(end["planned"])
        used = "were used" if record["state"] == "finished" else "are used so far"
        said.append(
            f"Of the budget of {record['budget']}, {_amount(end['real'], Unit(end['unit']))} {used} ({share:.0%})."
        )
    steps = record["steps_by_kind"]
    total = sum(steps.values())
    if total:
        shares = ", ".join(f"{name} {count / total:.0%}" for name, count in steps.items() if count)
        led = f"; {record['steps_to_winner'] / total:.0%} led to the chosen model" if record["steps_to_winner"] else ""
        said.append(f"The {total:,} steps went to: {shares}{led}.")
    return " ".join(said)


def _amount(value: float, unit: Unit) -> str:
    return format_seconds(value) if unit is Unit.SECONDS else f"{value:,.6g} {unit.value}"


def below_one_folder(names: Sequence[str]) -> tuple[str, list[str]]:
    """The folder that all of several absolute paths lie in, and what is left of each; "" where there is none.

    A narrow table cuts paths at their ends, where they differ.
    """
    if not names or not all(name.startswith("/") and "\n" not in name for name in names):
        return "", list(names)
    folder = os.path.commonpath([os.path.dirname(name) for name in names])  # noqa: PTH120  # as they are written
    return ("", list(names)) if folder == "/" else (folder, [name[len(folder) + 1 :] for name in names])
