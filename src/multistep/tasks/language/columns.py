"""Which column is the text, its pair, and the label: given, or guessed where that is obvious."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from multistep.core.values.plan import DataSpec
from multistep.data.files import SEPARATED
from multistep.data.onehot import hot_columns, with_one_label
from multistep.data.table import Table, naming, quoted
from multistep.data.text import kind_of
from multistep.errors import DataError
from multistep.tasks.labelled.numerals import is_decorated, numbers_in

PAIRS = (
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("sentence_a", "sentence_b"),
    ("text1", "text2"),
    ("text_1", "text_2"),
    ("#1 string", "#2 string"),
    ("text_a", "text_b"),
    ("text", "text_pair"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("question", "answer"),
    ("query", "passage"),
    ("query", "document"),
)
TEXTS = (
    ("text",),
    ("sentence", "text_a", "review", "content", "document", "body", "comment", "tweet", "message", "utterance"),
    ("article", "passage", "abstract", "description", "headline", "question", "query", "title"),
)
LABELS = (
    ("label", "labels", "gold_label"),
    ("class", "category", "target", "categories", "classes", "tags"),
    ("sentiment", "polarity", "emotion", "topic", "intent", "rating", "stars", "score", "overall", "y"),
    ("genre", "genres"),
)
_ENDINGS = frozenset(name for group in LABELS for name in group) - {"y"}  # of longer names: airline_sentiment
_SPLIT_NAME = re.compile(r"[^\W_]+?(?=[A-Z][a-z])|[^\W_]+")  # a name's words: spam_label, airline sentiment, classIndex
NUMBERING = ("id", "idx", "index", "guid", "uid", "unnamed: 0", "")
LOOKED_AT = 1000  # rows, where columns are told apart by what is in them
_SENTENCE, _TOKEN = 2.0, 1.2  # words on average: of texts, and of ids and names
LONGER = 3.0  # times: what a text is to a label
FEW = 0.2  # of the rows, at most, are different labels where nothing but their look says that they are labels


@dataclass(frozen=True)
class Columns:
    text: str
    second: str | None
    label: str | None
    notes: tuple[str, ...] = ()  # what was guessed
    hot: tuple[str, ...] = ()  # the columns of zeros and ones that the label was made of

    @property
    def named(self) -> dict[str, str]:
        """The columns by the keys of a plan's data; those alone that there are."""
        found = {"text_column": self.text, "second_text_column": self.second, "label_column": self.label}
        return {key: name for key, name in found.items() if name is not None}


def find_columns(table: Table, data: DataSpec, *, labelled: bool) -> Columns:
    """The columns of a table. Raises DataError, which lists them, for what is neither given nor obvious.

    `labelled` says whether a label is needed; without, it is None where it is not obvious.
    """
    for key in ("text_column", "second_text_column", "label_column"):
        wanted = getattr(data, key)
        if wanted is not None:
            table.column(wanted)  # raises with the nearest name
    text, second = _texts(table, data)
    label = data.label_column or table.roles.get("label") or _label(table, text, second)
    if label is None and labelled:
        rest = [name for name in table.names if name not in (text, second)]
        which = f"which of {quoted(rest)} is the label?" if rest else "no column is left for the label;"
        of = quoted(table.names)
        raise DataError(f"{table.origin}: {which} columns: {of}; name it with {naming('label_column')}")
    if len({text, second, label} - {None}) < 1 + (second is not None) + (label is not None):
        raise DataError(f"{table.origin}: text and label are both column '{label or text}'; name two columns")
    # Of lines alone: others say themselves what columns are called. A name that is usual is one, whatever stands below.
    doubtful = kind_of(Path(table.origin)) in (*SEPARATED, ".txt", "") and table.unit != "row" and not data.header
    usual = {name for group in TEXTS for name in group}
    named = any(name.strip().lower() in usual for name in table.names if name != label)
    if label is not None and doubtful and not named and label in map(str, _some(table, label)):
        raise DataError(
            f"{table.origin}:1: the first line names a column '{label}', which is also a label in it, so the file "
            "seems to have no line with the names of its columns; say --set data.header=false, or add one"
        )
    made = {"text", "label"} <= set(table.roles)  # by whoever knows what its columns are
    guessed = not made and (data.text_column is None or (labelled and data.label_column is None))
    said = []
    if guessed:
        pair = f" and '{second}'" if second else ""
        of = f", label from '{label}'" if labelled else ""
        said.append(f"text from column '{text}'{pair}{of} (of {quoted(table.names)})")
    return Columns(text, second, label, tuple(said))


def _texts(table: Table, data: DataSpec) -> tuple[str, str | None]:
    if data.text_column is not None:
        return data.text_column, data.second_text_column
    if "text" in table.roles:
        return table.roles["text"], data.second_text_column
    usual = {
        name.strip().lower(): name for name in table.names if name not in (data.label_column, data.second_text_column)
    }
    if data.second_text_column is None:
        for first, second in PAIRS:
            if first in usual and second in usual:
                return usual[first], usual[second]
    for group in TEXTS:
        found = [usual[name] for name in group if name in usual]
        if len(found) == 1 and not (group is TEXTS[-1] and _is_beside_a_longer(table, found[0], data)):
            return found[0], data.second_text_column
    texts = [name for name in _candidates(table, (data.label_column, data.second_text_column)) if table.is_text[name]]
    if len(texts) > 1 and data.label_column is None:
        labels = [name for name in texts if name.strip().lower() in (n for group in LABELS for n in group)]
        texts = [name for name in texts if name not in labels] if len(labels) == 1 else texts
        texts = _longest(table, texts) if len(texts) > 1 else texts
    if len(texts) == 1:
        return texts[0], data.second_text_column
    problem = "which column is the text?" if texts else "no column holds text;"
    raise DataError(f"{table.origin}: {problem} columns: {quoted(table.names)}; name it with {naming('text_column')}")


def _is_beside_a_longer(table: Table, name: str, data: DataSpec) -> bool:
    """Whether another column holds much longer texts, as a plot beside its title."""
    others = [other for other in _candidates(table, (name, data.label_column)) if table.is_text[other]]
    return any(_longest(table, [name, other]) == [other] for other in others)


def _label(table: Table, text: str, second: str | None) -> str | None:
    """The label's column by its name, else the one that is left, if its values repeat as labels do."""
    rest = _candidates(table, (text, second))
    if named := named_label(table, rest):
        return named[0] if len(named) == 1 else None
    repeat = [name for name in rest if _repeats(_some(table, name), alone=len(rest) == 1)]
    if len(rest) == 1 and not repeat and _are_amounts(_some(table, rest[0])):
        return rest[0]
    return repeat[0] if len(repeat) == 1 else None


def _are_amounts(values: Sequence[object]) -> bool:
    """Whether values are numbers that count nothing: not all whole, or with signs of money, per cent or thousands."""
    told = [value for value in values if value is not None and str(value).strip()]
    numbers = numbers_in(told)
    return numbers is not None and (is_decorated(told) or any(number % 1 for number in numbers))


def _repeats(values: Sequence[object], *, alone: bool) -> bool:
    """Whether values come back as labels do; of several columns one that is always filled, and not always the same."""
    different = set(map(str, values))
    if not alone and (len(different) < 2 or any(value is None or not str(value).strip() for value in values)):
        return False
    return len(different) <= max(2, FEW * len(values))


def _candidates(table: Table, taken: Sequence[str | None]) -> list[str]:
    return [name for name in table.names if name not in taken and name.strip().lower() not in NUMBERING]


def _longest(table: Table, names: Sequence[str]) -> list[str]:
    """The column whose texts are much longer than all others', if there is one, times and dates aside."""
    names = [name for name in names if not _are_times(_some(table, name))] or names
    if len(names) == 1:
        return list(names)
    words = {name: statistics.fmean([len(str(v).split()) for v in _some(table, name)] or [0]) for name in names}
    if (
        len(wordy := [name for name in names if words[name] >= _SENTENCE]) == 1
        and max(words[name] for name in names if name != wordy[0]) < _TOKEN
    ):
        return wordy
    means = {name: statistics.fmean([len(str(v)) for v in _some(table, name)] or [0]) for name in names}
    first, second = sorted(means, key=lambda name: -means[name])[:2]
    return [first] if means[first] >= LONGER * means[second] else list(names)


def _are_times(values: Sequence[object]) -> bool:
    texts = [str(value) for value in values if value is not None and str(value).strip()]
    return all(len(text) < 40 and re.search(r"\d:\d\d|\d{4}-\d\d|\d/\d", text) for text in texts)


def with_label(table: Table, data: DataSpec, like: Sequence[str] = ()) -> tuple[Table, tuple[str, ...]]:
    """The table, with one column of labels in place of columns of zeros and ones, where no other is one; and which.

    `like` are the columns that it was in the training data, which need not hold both zeros and ones here.
    """
    if len(like) > 1 and set(like) <= set(table.names):
        return with_one_label(table, like), tuple(like)
    if data.label_column is not None or "label" in table.roles or named_label(table, table.names):
        return table, ()
    hot = tuple(hot_columns(table, _candidates(table, (data.text_column, data.second_text_column))))
    return (with_one_label(table, hot), hot) if len(hot) > 1 else (table, ())


def named_label(table: Table, names: Iterable[str]) -> list[str]:
    """The columns that are named for labels: as they are called most often, else by the last word of their names."""
    names = list(names)
    for group in LABELS:
        if found := [name for name in names if name.strip().lower() in group]:
            return found
    ending = [name for name in names if (words := _SPLIT_NAME.findall(name)) and words[-1].lower() in _ENDINGS]
    flags = [name for name in names if name.strip().lower().startswith(("is_", "is "))]
    for some in (ending, flags):  # which say less: of two of them neither is the label
        if len(found := [name for name in some if _repeats(_some(table, name), alone=False)]) == 1:
            return found
    return []


def _some(table: Table, name: str) -> list[object]:
    return list(islice(table.each(name), LOOKED_AT))
