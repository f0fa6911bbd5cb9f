"""How far the probabilities of what ships can be trusted, and at which one its labels are said.

Found on the validation split once the leader is chosen, and measured on the test split: pure functions of the journal's
tables, so that nothing of it needs to be journaled, and no verdict can depend on it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from multistep.core.evidence.calibration import (
    HALF,
    Calibration,
    at_threshold,
    calibrate,
    logits_of,
    reliability,
)
from multistep.core.evidence.metric import METRICS, Evaluation
from multistep.core.evidence.scores import metric_words, told_apart
from multistep.core.values.history import History
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import DataSpec
from multistep.engine.learner import Exhibit

ReadTable = Callable[[str], Evaluation]
ABOUT = "multistep.json"  # beside exported weights
COLUMNS = ("text_column", "second_text_column", "label_column", "path_column")
READING = ("delimiter", "header", "encoding", "root")


def calibration_of(history: History, read_table: ReadTable, model: str = "network") -> Calibration | None:
    """The temperature and the threshold of the network, or of the baseline; None where there are no classes."""
    tables = _tables(history, model)
    if "validation" not in tables:
        return None
    return _calibrated(read_table, tables["validation"], metric_of(history.phase.started).name)


@lru_cache(maxsize=8)
def _calibrated(read_table: ReadTable, name: str, deciding: str) -> Calibration | None:
    return calibrate(read_table(name), deciding)


def findings(history: History, read_table: ReadTable) -> dict[str, Any] | None:
    """For result.json: what was found of what ships, with its measures on each split before and after."""
    model = "baseline" if history.shipping and history.shipping.ships == "baseline" else "network"
    found = calibration_of(history, read_table, model)
    if found is None:
        return None
    tables = {split: read_table(name) for split, name in _tables(history, model).items()}
    tables = {split: table for split, table in tables.items() if logits_of(table) is not None}
    measures = {
        split: {"before": asdict(reliability(table, 1.0)), "after": asdict(reliability(table, found.temperature))}
        for split, table in tables.items()
    }
    record = {"of": model, "temperature": found.temperature, **measures, "threshold": _threshold(found, tables)}
    return {**record, "sentence": _sentence(record)}


def _sentence(record: Mapping[str, Any]) -> str:
    """What a reader should know of it, with the numbers of the test split, or of validation where there is no test."""
    split = "test" if "test" in record else "validation"
    before, after = record[split]["before"], record[split]["after"]
    own = "" if split == "test" else ", which is the split that they were calibrated on"
    said = (
        f"The {record['of']}'s probabilities were calibrated on the validation split (logits divided by a temperature "
        f"of {record['temperature']:.3g}). On {split}, the calibration error, which is how far a probability is from "
        f"how often it is right, went from {before['ece']:.3f} to {after['ece']:.3f}, and the negative log-likelihood "
        f"from {before['nll']:.3f} to {after['nll']:.3f}{own}."
    )
    if record["temperature"] == 1.0:
        said = (
            f"The {record['of']}'s probabilities are as it gives them: on validation no temperature makes them better "
            f"by more than one further mistake would cost. On {split}, the calibration error, which is how far a "
            f"probability is from how often it is right, is {before['ece']:.3f}."
        )
    threshold = record["threshold"]
    if threshold is None or threshold["value"] == HALF:
        return said
    metric, scores, value = METRICS[threshold["by"]], threshold[split], f"{threshold['value']:.3g}"
    there, half = told_apart(metric, scores["at_threshold"], scores["at_half"])
    of = f"the {split} {metric_words(metric.name)}"
    if threshold["used"]:
        return (
            f"{said} A label is predicted where its probability is above {value}, which was chosen on validation: {of} "
            f"is {there}, and {half} with a threshold of 0.5."
        )
    return (
        f"{said} With {value}, the best threshold on validation, {of} is {there}, and {half} with 0.5, which is used."
    )


def _tables(history: History, model: str) -> dict[str, str]:
    """The names of the tables of each split."""
    if model == "baseline":
        return {b.split: b.table for b in history.baselines}
    full = history.trial(history.leader.trial).full if history.leader else None
    looks = {"validation": full, "test": history.test}
    return {split: look.table for split, look in looks.items() if look is not None}


def _threshold(found: Calibration, tables: Mapping[str, Evaluation]) -> dict[str, Any] | None:
    if found.threshold is None:
        return None
    metric = METRICS[found.threshold.by]
    scores = {}
    for split, table in tables.items():
        there = metric.interval(at_threshold(table, found, found.threshold.value))
        at_half = metric.score(at_threshold(table, found, HALF))
        scores[split] = {"at_half": at_half, "at_threshold": there.score, "low": there.low, "high": there.high}
    return {**asdict(found.threshold), **scores}


def exhibit_of(record: Mapping[str, Any] | None) -> list[Exhibit]:
    """What was found, for the report and the terminal."""
    if record is None:
        return []
    splits = [split for split in ("validation", "test") if split in record]
    rows = []
    for name, key in (("negative log-likelihood", "nll"), ("expected calibration error", "ece")):
        pairs = [(record[split]["before"][key], record[split]["after"][key]) for split in splits]
        rows.append((name, *(f"{before:.4f} -> {after:.4f}" for before, after in pairs)))
    title = f"Probabilities of the {record['of']}: temperature {record['temperature']:.3g}, found on validation"
    threshold = record["threshold"]
    if threshold is not None:
        said = f"{metric_words(threshold['by'])} at 0.5 -> at {threshold['value']:.2f}"
        said += " (used)" if threshold["used"] else " (not used)"
        pairs = [(threshold[split]["at_half"], threshold[split]["at_threshold"]) for split in splits]
        rows.append((said, *(f"{half:.4f} -> {there:.4f}" for half, there in pairs)))
    return [Exhibit(title, columns=("before -> after", *splits), rows=tuple(rows))]


def for_card(calibration: Calibration | None, *, folded: bool, predicts: bool) -> str:
    """What whoever loads the model elsewhere has to know; empty where that is nothing."""
    if calibration is None or (calibration.temperature == 1.0 and calibration.cut == HALF):
        return ""
    said = "the weights give calibrated probabilities as they are"
    if calibration.temperature != 1.0 and not folded:
        said = f"divide the logits by {calibration.temperature:.4f} for calibrated probabilities"
    if calibration.cut != HALF:
        said += (
            f"; a label, or the second of two classes, is meant where its probability is above {calibration.cut:.4f}"
        )
    by_itself = " `multistep predict` does so by itself." if predicts else ""
    return f"\n## Probabilities\nCalibrated on the validation split: {said}.{by_itself}\n"


def write_about(folder: Path, calibration: Calibration | None, data: DataSpec | None, *, folded: bool) -> None:
    """Add to what lies beside exported weights what was found of their probabilities, and what the user said of the
    training data: which columns count, and how to read them.

    `folded` tells that the weights themselves give calibrated probabilities, whoever loads them.
    """
    path = folder / ABOUT
    if not path.is_file():
        return
    content = json.loads(path.read_text(encoding="utf-8"))
    said = {key: value for key in (*COLUMNS, *READING) if (value := getattr(data, key, None)) is not None}
    for name, keys in (("columns", COLUMNS), ("reading", READING)):
        if told := {key: said[key] for key in keys if key in said}:
            content[name] = {**content.get(name, {}), **told}
    if calibration is not None and math.isfinite(calibration.temperature):
        content["calibration"] = {**asdict(calibration), "folded": folded}
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")
