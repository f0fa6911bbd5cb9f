"""What a classifier says of texts, for people to look at: examples, its worst mistakes, and tables of classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multistep.core.evidence.metric import Evaluation
from multistep.engine.learner import Exhibit
from multistep.tasks.classes import confusion, per_class, worst_first
from multistep.tasks.labelled.exhibits import by_label, farthest_off, label_words, labels_and_said
from multistep.tasks.labelled.labels import Labels

FEW, MISTAKES = 8, 8
SHOWN = 200  # characters of a text


def exhibits_of(table: Evaluation, texts: Sequence[str], labels: Labels) -> list[Exhibit]:
    """Exhibits of an evaluation whose rows are of these texts."""
    if labels.kind == "number":
        return _of_numbers(table, texts)
    if labels.kind == "classes":
        return _of_several(table, texts, labels)
    few = _spread(len(texts), FEW)
    wrong = worst_first(table, MISTAKES)
    found = [_examples("A few predictions", table, texts, labels.names, few)]
    if len(wrong):
        found.append(_examples("The worst mistakes", table, texts, labels.names, wrong))
    return [*found, per_class(table, labels.names), confusion(table, labels.names)]


def _examples(
    title: str,
    table: Evaluation,
    texts: Sequence[str],
    names: Sequence[str],
    rows: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> Exhibit:
    columns = table.columns
    found = tuple(
        (
            names[int(columns["label"][i])],
            names[int(columns["prediction"][i])],
            f"{columns['probability'][i]:.2f}",
            short(texts[i]),
        )
        for i in rows.tolist()
    )
    return Exhibit(title, columns=("label", "prediction", "probability", "text"), rows=found)


def _of_numbers(table: Evaluation, texts: Sequence[str]) -> list[Exhibit]:
    label, prediction = table.columns["label"], table.columns["prediction"]
    worst = farthest_off(table, MISTAKES)

    def rows(of: Sequence[int]) -> tuple[tuple[str, ...], ...]:
        return tuple((f"{label[i]:.4g}", f"{prediction[i]:.4g}", short(texts[i])) for i in of)

    names = ("label", "prediction", "text")
    return [
        Exhibit("A few predictions", columns=names, rows=rows(_spread(len(texts), FEW).tolist())),
        Exhibit("The worst mistakes", columns=names, rows=rows(worst.tolist())),
    ]


def _of_several(table: Evaluation, texts: Sequence[str], labels: Labels) -> list[Exhibit]:
    (truth, said), worst = labels_and_said(table, labels.names), farthest_off(table, MISTAKES)

    def rows(of: Sequence[int]) -> tuple[tuple[str, ...], ...]:
        return tuple(
            (label_words(truth[i], labels.names), label_words(said[i], labels.names), short(texts[i])) for i in of
        )

    names = ("labels", "prediction", "text")
    return [
        Exhibit("A few predictions", columns=names, rows=rows(_spread(len(texts), FEW).tolist())),
        Exhibit("The worst mistakes", columns=names, rows=rows(worst.tolist())),
        by_label(table, labels.names),
    ]


def _spread(examples: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A few rows from all over a split."""
    return np.unique(np.linspace(0, examples - 1, min(count, examples)).round().astype(np.int64))


def short(text: str) -> str:
    """One line of a text."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 3] + "..."
