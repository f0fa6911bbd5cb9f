"""The trials as a tree: who forked from whom, what each was to improve, and what came of it, in words and as a bar."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multistep.core.evidence.scores import Form
from multistep.report.words import WEIGHED_SHOWN, better_still, changes, is_as_it_is, sentence, title

Fields = Mapping[str, Any]
SHOWN = 12  # siblings of one fork that stand open; of more, those that led and the best of the others
WORST = 1.5  # times the best that was reached or asked: what is worse is cut off, or it would squeeze the rest


@dataclass
class Node:
    """A trial, the bar of its improvement over the plain run, and what forked from its checkpoints."""

    trial: Fields
    name: str
    chosen: bool = False
    proven: bool = False
    on_the_way: bool = False
    bar: Mapping[str, float | bool] | None = None
    said: list[tuple[str, str]] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)
    more: list[Node] = field(default_factory=list)

    @property
    def word(self) -> str:
        """What became of it, in a word or two: `chosen`, `led for a time`, `rejected`, `diverged`."""
        if self.chosen:
            return "chosen, proven" if self.proven else "chosen"
        if not self.trial["verdict"] and self.trial["stability"] == "diverged":
            return "diverged"
        if self.trial["kind"] in ("trunk", "probe", "rerun"):
            return {
                "trunk": "on the way" if self.on_the_way else "",
                "probe": "trial of a rate",
                "rerun": "another seed",
            }[str(self.trial["kind"])]
        if (self.trial.get("guard") or {}).get("forgets"):
            return "forgets"
        if not self.trial["verdict"] and not self.trial["ended"]:
            return "under way"
        words = {"leads": "led for a time", "behind": "rejected", "failed": "diverged", None: "not judged"}
        return words[self.trial["verdict"]]


def tree_of(trials: Sequence[Fields], leader: Fields | None, way: Sequence[str], form: Form) -> list[Node]:
    """The roots, in the order in which they were tried; `way` are the trials that led to the model.

    `leader` is what `summary` says of the one that was chosen: proven or not in the end, whatever its own verdict said.
    """
    nodes: dict[str, Node] = {}
    for trial in trials:
        chosen = bool(leader and leader["trial"] == trial["id"])
        proven = bool(leader["proven"] if leader and chosen else trial["proven"])
        nodes[str(trial["id"])] = Node(trial, title(trial), chosen, proven, trial["id"] in way)
    low, high = _limits(trials)
    roots: list[Node] = []
    for name, node in nodes.items():
        node.bar = _bar(node.trial, low, high)
        names = {name: other.name for name, other in nodes.items()}
        node.said = story(node.trial, form, names, chosen=node.chosen, proven=node.proven)
        froms = node.trial["of"] or [node.trial["start"]]
        parents = [str(start).rpartition("@")[0] for start in froms if start]
        parent = next((nodes[p] for p in parents if p in nodes and p != name), None)
        (parent.children if parent else roots).append(node)
    for node in nodes.values():
        node.children, node.more = _folded(node.children)
    shown, more = _folded(roots)
    if shown and more:
        shown[-1].more += more
    return shown


def _folded(nodes: list[Node]) -> tuple[list[Node], list[Node]]:
    """What stands open, and what is folded away, where there are too many; the order stays."""
    if len(nodes) <= SHOWN:
        return nodes, []

    def worth(node: Node) -> tuple[bool, bool, bool, float]:
        found = node.trial["improvement"]
        score = float(found["score"]) if found and math.isfinite(float(found["score"])) else -math.inf
        return (node.on_the_way, bool(node.children), bool(node.trial["leads"]), score)

    kept = sorted(nodes, key=worth, reverse=True)[:SHOWN]
    names = {id(node) for node in kept}
    return [n for n in nodes if id(n) in names], [n for n in nodes if id(n) not in names]


# The bar --------------------------------------------------------------------------------------------


def _limits(trials: Sequence[Fields]) -> tuple[float, float]:
    found = [t["improvement"] for t in trials if t["improvement"]]
    bounds = [bounded[side] for bounded in found for side in ("score", "low", "high")]
    asked = [t["demanded"]["improvement"] for t in trials if t["improvement"] and t["demanded"]]
    finite = [float(v) for v in (*bounds, *asked, 0.0) if v is not None and math.isfinite(float(v))]
    low, high = min(finite), max(finite)
    if high > 0:
        low = max(low, -WORST * high)
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def _bar(trial: Fields, low: float, high: float) -> Mapping[str, float | bool] | None:
    """Where zero, the improvement, its interval and what was asked of it stand, in percent of the width."""
    found = trial["improvement"]
    if not found or not math.isfinite(float(found["score"])):
        return None

    def at(value: object) -> float:
        number = float(value) if isinstance(value, int | float) else math.nan
        number = number if math.isfinite(number) else float(found["score"])
        return round(100 * min(1.0, max(0.0, (number - low) / (high - low))), 1)

    left, right = at(found["low"]), at(found["high"])
    bar: dict[str, float | bool] = {
        "zero": at(0.0), "left": left, "width": round(right - left, 1), "at": at(found["score"]),
        "beyond": float(found["score"]) < low,
    }  # fmt: skip
    if trial["demanded"] and trial["demanded"]["improvement"] is not None:
        bar["asked"] = at(trial["demanded"]["improvement"])
    return bar


# The story ------------------------------------------------------------------------------------------


def story(trial: Fields, form: Form, names: Mapping[str, str], *, chosen: bool, proven: bool) -> list[tuple[str, str]]:
    """What there is to say of a trial, as (question, answer)."""
    said = [("Why it was tried", sentence(trial["reason"]))]
    trained = trial["learning_rate"] and not is_as_it_is(trial)
    rate = f"learning rate {trial['learning_rate']:.3g}" if trained else ""
    changed = changes(trial)
    if changed:
        said.append(("What changed", sentence(changed)))
    start = trial["start"]
    if not trial["of"]:
        where = f"checkpoint {start}" if start else "the beginning"
        said.append(("It began at", sentence(f"{where}{', ' if rate else ''}{rate}")))
    if trial["verdict"]:
        # What forgets cannot lead, however good it is: the verdict says so itself.
        judged = (
            ""
            if (trial.get("guard") or {}).get("forgets")
            else verdict_of(trial, form, names, chosen=chosen, proven=proven)
        )
        if judged or trial["why"]:
            said.append(("Verdict", judged or sentence(trial["why"])))
    if trial["gain"]:
        control = names.get(str(trial["control"]), "its control")
        within, gained = form.within(trial["gain"]), float(trial["gain"]["score"])
        said.append(
            (
                "Against its control",
                f"{form.size(gained)} {'better' if gained >= 0 else 'worse'}{_in(within)} than "
                f"{trial['control'] or control}, in which nothing was changed.",
            )
        )
    guard = trial.get("guard")
    if guard and guard.get("worse"):
        worse, most = float(guard["worse"]["score"]), guard["at_most_worse"]
        side = "worse" if worse > 0 else "better"
        kept = "too much" if guard["forgets"] else "within what is allowed"
        said.append(
            ("What it forgot", f"{abs(worse):.4g} {side} on the guarded data, {kept} (at most {float(most):.3g}).")
        )
    return said


def verdict_of(trial: Fields, form: Form, names: Mapping[str, str], *, chosen: bool, proven: bool | None = None) -> str:
    """The verdict in full sentences, with the numbers that it rests on; empty where there was nothing to compare.

    Who led when it was judged need not be who is chosen: every later verdict weighs all anew. `proven` is what holds in
    the end (None: what the verdict says), when the plain run may have come to a better end than the one named here.
    """
    expected, found, asked = trial["expected"], trial["improvement"], trial["demanded"]
    if not expected or not expected["over"]:
        return ""
    rival, what = str(expected["over"]), names.get(expected["over"])
    rival = f"{rival} ({what})" if what else f"{rival}, which led before this phase"
    if what and not rival.partition(" ")[0].endswith(".base"):
        rival += ", the best plain run so far"
    gain = float(expected["gain"])
    size = form.size(gain)
    side = "better" if gain >= 0 else "worse"
    outcome = {
        (True, True): "It led when it was judged, and was chosen",
        (True, False): "It led for a time",
        (False, True): "It did not lead when it was judged, and was chosen when all were weighed anew",
        (False, False): "It was rejected",
    }[bool(trial["leads"]), chosen]
    said = f"{outcome}. All that was measured then made it {size} {side} than {rival}"
    said += f"; {trial['leader']} was better still." if gain >= 0 and better_still(trial) else "."
    if found:
        by = float(found["score"])
        measured = f"{form.size(by)} {'better' if by >= 0 else 'worse'}"
        said += f" Measured by itself, it is {measured}{_in(form.within(found))}"
        if asked and asked["improvement"] is not None:
            least = form.gap(float(asked["improvement"]))
            proof = "so it is proven" if trial["proven"] else "so it is not proven"
            if trial["proven"] and proven is False:
                proof = "so it is proven over that, but not over the plain run's best end"
            said += f"; attempt {asked['attempt']} needs {least} for a proof, {proof}"
        said += "."
    return said


def weighed_lines(weighed: Sequence[Fields], form: Form, unit: str) -> list[tuple[str, bool]]:
    """The candidates of a decision, the most valuable first, each in a line, and whether it was taken.

    `unit` is that of the costs: s, or steps.
    """
    said = []
    for index, c in enumerate(weighed):
        if index < WEIGHED_SHOWN or c["chosen"]:
            gain, worth = form.gap(float(c["mean"])), form.gap(float(c["worth"]))
            gain, spread = gain.removesuffix(" points"), form.gap(float(c["spread"])).lstrip("+")
            name = f"{c['name']}{' (taken)' if c['chosen'] else ''}"
            cost = f"cost {c['cost']:,.0f} {unit}"
            line = f"{name}: expected gain {gain} \N{PLUS-MINUS SIGN} {spread}, worth {worth}, {cost}"
            said.append((line, bool(c["chosen"])))
    return said


def _in(within: str) -> str:
    return f" (95% interval {within})" if within else ""
