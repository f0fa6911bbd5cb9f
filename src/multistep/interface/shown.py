"""A result in a few lines, for a terminal, and as a table, for a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multistep.core.evidence.function_metric import metric_known_as
from multistep.core.evidence.metric import Interval
from multistep.core.evidence.scores import between, metric_words, score_words, unit_words
from multistep.report.outcome import USED, Answer, answer
from multistep.report.words import clean

# Colours are those of the page around it, so that it is read in a light and in a dark notebook.
STYLE = (
    "<style>.multistep{color:inherit;max-width:48em}"
    ".multistep table{border-collapse:collapse;margin:.4em 0;background:none;color:inherit}"
    ".multistep td,.multistep th{text-align:left;padding:.15em 1.2em .15em 0;border:0;background:none;color:inherit}"
    ".multistep td:nth-child(2){font-variant-numeric:tabular-nums;white-space:nowrap}"
    ".multistep .ships td{font-weight:600}.multistep small,.multistep th{opacity:.75;font-weight:400}</style>"
)


def in_lines(record: Mapping[str, Any], folder: Path) -> str:
    """The score, what it stands beside, and where the model is."""
    found = answer(record)
    if found is None:
        return f"Result: no score; {folder}"
    lines = [f"  {name:<15}  {score}  {said}".rstrip() for name, score, _, said in _rows(record, found)]
    why = [f"  {clean(other['sentence'])}"] if (other := _passed_over(record)) else []
    return "\n".join([f"Result: {_metric(found)}", *lines, f"  {'model':<15}  {folder / str(record['model'])}", *why])


def in_html(record: Mapping[str, Any], folder: Path) -> str:
    """The same as a table, self-contained."""
    found = answer(record)
    if found is None:
        return f"<p>Result: no score; {html.escape(str(folder))}</p>"
    rows = "".join(
        f"<tr{' class=ships' if ships else ''}><td>{name}</td><td>{html.escape(score)}</td><td>{html.escape(said)}</td>"
        for name, score, ships, said in _rows(record, found)
    )
    other = _passed_over(record)
    said = [found.sentence, found.trained, other["sentence"] if other else None]
    sentences = " ".join(sentence for sentence in said if sentence)
    where = html.escape(str(folder))
    return (
        f"{STYLE}<div class=multistep><table><tr><th>{html.escape(_metric(found))}</th>"
        f"<th>in brackets: 95% interval</th><th></th></tr>{rows}</table>"
        f"<div>{html.escape(clean(sentences))}</div>"
        f"<small>{where}/{record['model']}, {where}/report.html</small></div>"
    )


def _passed_over(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The trial with the best validation score, where that was not chosen."""
    found: Mapping[str, Any] | None = (record.get("leader") or {}).get("passed_over")
    return found


def _metric(found: Answer) -> str:
    metric = metric_known_as(found.metric, found.goal, found.unit)
    return f"{metric_words(found.metric)} on the {found.split} split ({unit_words(metric)})"


def _score(found: Answer, score: Interval) -> str:
    """`79.2% (77.9 to 80.5%)`."""
    metric = metric_known_as(found.metric, found.goal, found.unit)
    about = between(metric, score)
    return score_words(metric, score.score) + (f" ({about})" if about else "")


def _rows(record: Mapping[str, Any], found: Answer) -> list[tuple[str, str, bool, str]]:
    """What was scored: its name, its score, whether it ships, and what is to be said of it."""
    baseline = record.get("ships") == "baseline"
    rows = [("network", _score(found, found.score), not baseline, "ships" if not baseline else "")]
    if found.baseline is not None:
        said = f"ships: {found.baseline_name}" if baseline else str(found.baseline_name)
        rows.append(("baseline", _score(found, found.baseline), baseline, said))
    if found.base is not None:
        rows.append(("before training", _score(found, found.base), False, ""))
    if found.used is not None:
        place = 1 if found.used.of == "network" else 2
        rows.insert(place, (found.used.name, _score(found, found.used.score), not baseline or place == 2, USED))
    return rows
