"""Questions on texts as public sets nest them -> flat rows: SQuAD, CoQA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multistep.data.flat import Flat, Forms, Row


def _is_article(row: Row) -> bool:
    held = row.get("paragraphs")
    return isinstance(held, list) and all(isinstance(p, Mapping) and isinstance(p.get("qas"), list) for p in held)


def _of_articles(path: Path, rows: Sequence[Row]) -> Flat:
    """arXiv 1606.05250: questions on the paragraphs of articles, a row each, as the hub has them."""
    flat, origins = [], []
    for i, row in enumerate(rows):
        for paragraph in row["paragraphs"]:
            for asked in paragraph["qas"]:
                told = [each.get("text") for each in asked.get("answers") or () if isinstance(each, Mapping)]
                own = {name: asked[name] for name in ("id", "question", "is_impossible") if name in asked}
                flat.append({"title": row.get("title"), "context": paragraph.get("context"), **own, "answers": told})
                origins.append(i)
    note = f"{path}: read as articles with paragraphs, and questions on these (SQuAD): {len(flat):,} questions"
    return Flat(flat, origins, (note,))


def _is_story(row: Row) -> bool:
    told = [row.get(name) for name in ("questions", "answers")]
    return isinstance(row.get("story"), str) and all(
        isinstance(held, list) and held and all(isinstance(e, Mapping) and "input_text" in e for e in held)
        for held in told
    )


def _of_stories(path: Path, rows: Sequence[Row]) -> Flat:
    """arXiv 1808.07042 (CoQA): one conversation about each story, which stands before the first question."""
    flat = []
    for row in rows:
        turns: list[dict[str, Any]] = []
        for asked, told in zip(row["questions"], row["answers"], strict=False):
            before = "" if turns else f"{row['story']}\n\n"
            turns.append({"role": "user", "content": f"{before}{asked['input_text']}"})
            turns.append({"role": "assistant", "content": told["input_text"]})
        flat.append({"messages": turns})
    return Flat(flat, list(range(len(rows))), (f"{path}: read as stories with questions on them (CoQA)",))


FORMS: Forms = (
    (_is_article, _of_articles),
    (_is_story, _of_stories),
)
