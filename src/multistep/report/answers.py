"""The questions that a reader of a report has, with the answers that the run's numbers give, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from multistep.core.evidence.scores import Form, counted_word
from multistep.core.values.units import format_seconds
from multistep.report.outcome import Answer
from multistep.report.words import moves_ended_sentence, times, title

Record = Mapping[str, Any]


def questions(record: Record, found: Answer | None, form: Form) -> list[tuple[str, list[str]]]:
    """(question, sentences), in the order in which people ask; those without an answer are left out."""
    asked = [
        ("Is it better than a trivial model?", _trivial(record, found)),
        ("Is it better than before training?", _trained(record, found, form)),
        ("Did any change to the recipe help?", _changes(record, form)),
        ("Why not the trial with the best score?", _passed_over(record, form)),
        ("Did it overfit?", _overfitting(record, form)),
        ("What was it not to forget?", [p["guard"]["sentence"] for p in record["phases"] if p["guard"]]),
        ("Where did the time go?", _time(record)),
        ("What should I do next?", advice(record, found, form)),
    ]
    return [(question, said) for question, said in asked if said]


def _trivial(record: Record, found: Answer | None) -> list[str]:
    if found is None:
        return []
    if found.baseline_name is None:
        return ["That is not known: no trivial model was scored beside it."]
    gain = record["baseline"][found.split].get("gain")
    behind = "No." if gain and float(gain["high"]) < 0 else "Not as it is: it is behind, though within noise."
    if gain and float(gain["improvement"]) == 0:
        behind = "No: it is as good, and costs more."
    ahead = "Perhaps: it is ahead, but within noise."
    short = {"beats": "Yes.", "unproven": ahead, "loses": behind, "unknown": "That cannot be told here."}
    said = (
        f"{short[found.standing]} The trivial model, called the baseline, is {found.baseline_name}: "
        "a network that does not beat it does not earn what it costs."
    )
    return [said, *([record["ships_because"]] if record["ships_because"] and found.standing == "beats" else [])]


def _trained(record: Record, found: Answer | None, form: Form) -> list[str]:
    if found is None or found.trained is None:
        return []
    gain = record["base"][found.split].get("gain")
    if gain is None:
        return [found.trained]
    by, within = float(gain["improvement"]), form.within(gain)
    short = "Yes" if float(gain["low"]) > 0 else "No" if float(gain["high"]) < 0 else "That is within noise"
    made = f"made it {form.size(by)} {'better' if by > 0 else 'worse'}" if by else "left it as good as it was"
    return [f"{short}: training {made} ({found.split} split, 95% interval {within})."]


def _trials(record: Record) -> list[Record]:
    return [trial for phase in record["phases"] for trial in phase["trials"]]


def _changes(record: Record, form: Form) -> list[str]:
    if not record["leader"]:
        return []
    tried = [t for t in _trials(record) if t["kind"] in ("move", "average") and t["verdict"]]
    if not tried:
        said = "None was tried: the model is the plain run, which is training and then a cooldown."
        if record["leader"]["trial"].endswith(".base"):
            said = str(record["leader"]["sentence"])
        ended = record["phases"][-1]["moves_ended"]
        return [said, *([moves_ended_sentence(ended)] if ended else [])]
    chosen = [t for t in tried if t["id"] == record["leader"]["trial"]]
    others = [t for t in tried if t not in chosen]
    failed = sum(t["verdict"] == "failed" for t in others)
    led = [t for t in others if t["leads"]]
    rejected = len(others) - len(led) - failed
    proven = sum(bool(t["proven"]) for t in led)
    parts = ["1 was chosen"] if chosen else []
    parts += [f"{len(led)} led for a time ({proven or 'none'} proven)"] if led else []
    parts += [f"{rejected} {'was' if rejected == 1 else 'were'} rejected"] if rejected else []
    parts += [f"{failed} diverged"] if failed else []
    count = f"{len(tried)} change{'s were' if len(tried) != 1 else ' was'} tried"
    return [_chosen(record, form), f"{count}: {', '.join(parts)}. Each has its reason under What was tried."]


def _chosen(record: Record, form: Form) -> str:
    """What the model came from, what that is expected to be worth, and whether it is proven."""
    leader = record["leader"]
    trial = next(t for t in _trials(record) if t["id"] == leader["trial"])
    if trial["kind"] == "control" and not trial["round"]:
        return "No: the plain run, which is training and then a cooldown without any change, came out best."
    if leader["over"] is None:
        return str(leader["sentence"])
    gain = float(leader["expected"])
    side = "better" if gain >= 0 else "worse"
    what = title(trial)
    said = f"The model comes from {trial['id']} ({what}), expected to be {form.size(gain)} {side}"
    said += " than the plain run"
    if not leader["tested"]:
        # Its verdict was given over another end of the plain run than the one that is the best by now.
        rival = (trial["expected"] or {}).get("over")
        other = f"; its own verdict compares it with {rival}" if rival and rival != leader["over"] else ""
        return f"Whether one did was not tested. {said}{other}."
    if leader["proven"]:
        return f"Yes. {said}, which is proven."
    return f"That is not proven. {said}, but its measured gain is not beyond what luck can do."


def _passed_over(record: Record, form: Form) -> list[str]:
    """Only where another trial scored better on validation than what was chosen, and nothing above has said so."""
    other = (record["leader"] or {}).get("passed_over")
    if not other or any(other["sentence"] in sentence for sentence in _changes(record, form)):
        return []
    return [other["sentence"]]


def _overfitting(record: Record, form: Form) -> list[str]:
    said = [
        # By its loss alone is no plain yes: that sentence stands for itself.
        sentence if index or record["overfitting"][0]["by_loss"] else f"Yes: {sentence}"
        for index, sentence in enumerate(record["said"]["overfitting"])
    ]
    shown = _shown(record)
    if not said and shown:
        said.append(
            {
                "improving": "Not as far as the curves show: validation was still improving when training was left.",
                "stable": "Not as far as the curves show: validation had come to rest, and did not turn worse.",
                "diverged": "It diverged: the loss went up and did not come back.",
                "undecided": "The curves do not show it; they are too short or too noisy to tell more.",
            }.get(shown, "")
        )
    if (optimism := record["validation_optimism"]) is not None:
        by = float(optimism["score"])
        side = "better" if by > 0 else "worse"
        what = "network" if record["ships"] == "baseline" else "model"
        beyond, rival = float(optimism["low"]) > 0, optimism["baseline"]
        more = "which is within noise, so choosing the model there has not shown to flatter it"
        if beyond:
            more = "so choosing the model there flattered it"
        if float(optimism["high"]) < 0:
            more = "so validation is the harder split, and choosing the model there has not shown to flatter it"
        if beyond and rival is not None and float(rival) > by / 2:
            more = (
                f"but the baseline, which was not chosen there, looks {form.size(float(rival))} better too: "
                "test is the harder split"
            )
        looks = (
            f"looks {form.size(by)} {side} than" if by and form.size(by).split()[0].strip("0.") else "looks as good as"
        )
        said.append(
            f"On validation the {what} {looks} on test (95% interval {form.within(optimism)}), {more}. "
            f"Validation was looked at {times(record['looks_at_validation'])}, test once."
        )
    return [sentence for sentence in said if sentence]


def _shown(record: Record) -> str | None:
    """What the last curve of the last phase's plain run showed."""
    read = [t["stability"] for p in record["phases"][-1:] for t in p["trials"] if t["kind"] in ("trunk", "control")]
    return next((stability for stability in reversed(read) if stability), None)


def _time(record: Record) -> list[str]:
    seconds = record["seconds"]
    total = float(seconds["total"])
    if total <= 0:
        return []
    words = {
        "train": "training",
        "evaluate": "measuring",
        "save": "saving",
        "compile": "compiling",
        "other": "the rest",
    }
    shares = sorted(((float(seconds[key]) / total, word) for key, word in words.items()), reverse=True)
    listed = ", ".join(f"{share:.0%} {word}" for share, word in shares if share >= 0.005)
    said = [f"{format_seconds(total)} in all: {listed}."]
    if record["steps"] and record["steps_to_winner"] and record["steps_to_winner"] < record["steps"]:
        share = record["steps_to_winner"] / record["steps"]
        said.append(f"{share:.0%} of the steps led to the model; the others were spent on finding out what is better.")
    return said


# What next --------------------------------------------------------------------------------------------


def advice(record: Record, found: Answer | None, form: Form) -> list[str]:
    """What a reader may do about what this run showed; each with the number that speaks for it."""
    if record["state"] == "failed":
        rates = [t["learning_rate"] for t in _trials(record) if t["learning_rate"]]
        lower = f" (it was {rates[-1]:.3g}; try {rates[-1] / 3:.2g})" if rates else ""
        return [
            f"Lower the learning rate{lower}, with --set recipe.learning_rate=..., "
            "and look at the largest values in the data."
        ]
    if record["state"] != "finished":
        return [f"Go on with: {record['resume']}"] if record["resume"] and record["state"] == "unfinished" else []
    said = []
    shown = _shown(record)
    behind = found is not None and found.standing == "loses"
    cheaper = " As it is, the baseline is the better or the cheaper choice." if behind else ""
    diverged = [t["learning_rate"] for t in _trials(record) if t["kind"] == "trunk" and t["stability"] == "diverged"]
    if behind and diverged:
        said.append(
            f"Lower the learning rate, with --set recipe.learning_rate=...: training diverged at {diverged[0]:.3g}."
            f"{cheaper}"
        )
    elif any(not case["by_loss"] for case in record["overfitting"]):
        bring = "More training examples" + ("" if record["base"] else " or a pretrained model")
        said.append(f"{bring} will do more than more time: the run overfitted.{cheaper}")
    elif behind:
        pretrained = "" if record["base"] else " start it from a pretrained model (--model),"
        said.append(f"Give the network more time (--budget),{pretrained} or bring more examples.{cheaper}")
    elif shown == "improving" and record["stopped"] in ("budget", "length"):
        said.append(
            "A longer budget is likely to help: validation was still improving when "
            f"{record['budget'] or 'the budget'} had passed."
        )
    elif record["stopped"] in ("moves", "stable"):
        said.append("More time alone is not expected to help: the run gave back what it had no use for.")
    said += _proof(record)
    if not record["test"]:
        where = "test=..." if record["task"] == "own-model" else "data.test"
        said.append(
            f"Keep some examples as a test split ({where}): without one the score comes from the split on which the "
            "model was chosen, and flatters it."
        )
    optimism = record["validation_optimism"]
    if optimism and float(optimism["low"]) > 0 and record["ships"] != "baseline":
        said.append("Quote the test score: the validation score looks better than what new data will give.")
    if found and math.isfinite(found.shipped.high - found.shipped.low) and form.percent:
        half = (found.shipped.high - found.shipped.low) / 2
        owner = " of the baseline" if found.ships == "baseline" else ""
        if half > 0.02:
            said.append(
                f"With {found.shipped.n:,} {counted_word(found.unit)} the {found.split} score{owner} is known to "
                f"{form.size(half)} either way; four times as many halve that."
            )
    return said or [
        "Nothing in this run asks for a change; more time or more examples are what is left to try. "
        "How to use the model stands below."
    ]


def _proof(record: Record) -> list[str]:
    """How many validation examples it would take to prove what leads, if what was measured is true."""
    winner: Sequence[Record] = [t for t in _trials(record) if t["id"] == record["winner"]]
    for trial in winner:
        found, asked = trial["improvement"], trial["demanded"]
        if trial["proven"] or not found or not asked or not asked["improvement"] or not trial["validation"]:
            continue
        if not record["leader"]["tested"] or (trial["kind"] == "control" and not trial["round"]):
            continue  # a cooldown of the plain run is the plain run
        gain, examples = float(found["score"]), int(trial["validation"]["n"])
        if gain > 0 and math.isfinite(gain):
            times = (float(asked["improvement"]) / gain) ** 2
            if 1 < times < 50:
                needed = int(float(f"{examples * times:.2g}"))
                return [
                    f"To prove that {trial['id']} is better than the plain run takes about {needed:,} validation "
                    f"examples, if what was measured is true; there are {examples:,}."
                ]
    return []
