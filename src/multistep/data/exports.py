"""Rows as tools for labelling nest them -> flat ones: Label Studio, doccano, Prodigy."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from multistep.data.flat import Flat, Forms, Row, said_of, with_label, with_parts
from multistep.data.table import quoted
from multistep.data.walk import files_below

# Label Studio ---------------------------------------------------------------------------------------

_LISTS = ("annotations", "completions")  # the second until 2021
_CHOICES = {"choices": "choices", "rating": "rating", "number": "number", "taxonomy": "taxonomy", "textarea": "text"}
_ABOUT = frozenset({"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"})
_LOCAL, _UPLOADED = "/data/local-files/?d=", "/data/upload/"
_HASHED = re.compile(r"[0-9a-f]{8}-(.+)")  # what uploading puts before a name


def _is_task(row: Row) -> bool:
    return isinstance(row.get("data"), Mapping) and any(isinstance(row.get(name), list) for name in _LISTS)


def _of_tasks(path: Path, rows: Sequence[Row]) -> Flat:
    """labelstud.io: a task a row, its `data`, and what each annotator said, of whom the first counts."""
    chosen: list[dict[str, list[Any]]] = []
    parts: list[list[Any]] = []
    several = 0
    for row in rows:
        given = next(row[name] for name in _LISTS if isinstance(row.get(name), list))
        given = [each for each in given if each.get("result") and not each.get("was_cancelled")]
        several += len(given) > 1
        said: dict[str, list[Any]] = {}
        marked = []
        for each in given[0]["result"] if given else []:
            kind = _CHOICES.get(str(each.get("type")))
            if kind is None:
                marked.append(each.get("value"))
            else:
                value = each["value"].get(kind)
                found = value if isinstance(value, list) else [value]
                found = ["/".join(map(str, way)) if isinstance(way, list) else way for way in found]
                said.setdefault(str(each.get("from_name")), []).extend(found)
        chosen.append(said)
        parts.append(marked)
    names = list(dict.fromkeys(name for said in chosen for name in said))
    inputs = {name for row in rows for name in row["data"]}
    flat = [dict(row["data"]) for row in rows]
    notes = [f"{path}: read as an export of Label Studio"]
    if names:
        called = {name: "label" if len(names) == 1 and _is_class(rows, name) else name for name in names}
        called = {name: f"{new} (chosen)" if new in inputs else new for name, new in called.items()}
        for name, new in called.items():
            with_label(flat, new, [said.get(name) for said in chosen])
        notes[0] += f", the answers to {quoted(names)}"
    elif any(parts):
        with_parts(flat, parts)
    if several:
        notes.append(f"{path}: of tasks with several annotations, {several:,}, the first counts")
    return said_of(path, _with_files(path, flat), notes)


def _is_class(rows: Sequence[Row], name: str) -> bool:
    given = (each for row in rows for key in _LISTS for each in row.get(key) or ())
    kinds = {part.get("type") for each in given for part in each.get("result") or () if part.get("from_name") == name}
    return "textarea" not in kinds


def _is_minimal(row: Row) -> bool:
    return {"annotation_id", "lead_time"} <= row.keys()


def _of_minimal(path: Path, rows: Sequence[Row]) -> Flat:
    """Its JSON-MIN: inputs and answers side by side; of several at once as {"choices": [...]}, of one as that alone."""

    def chosen(value: object) -> list[Any] | None:
        found = value.get("choices") if isinstance(value, Mapping) else None
        return found if isinstance(found, list) else None

    several = {name for row in rows for name, value in row.items() if chosen(value) is not None}

    def answer(name: str, value: object) -> object:
        if (found := chosen(value)) is not None:
            return found
        return [value] if name in several and isinstance(value, str) and value.strip() else value

    flat = [{name: answer(name, value) for name, value in row.items() if name not in _ABOUT} for row in rows]
    return said_of(path, _with_files(path, flat), [f"{path}: read as an export of Label Studio (JSON-MIN)"])


def _with_files(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where it serves files from, as paths; without what uploading put before their names, unless they have it here."""
    here: set[str] | None = None
    for row in rows:
        for name, value in row.items():
            if not isinstance(value, str) or not value.startswith((_LOCAL, _UPLOADED)):
                continue
            if value.startswith(_LOCAL):
                row[name] = unquote(value.removeprefix(_LOCAL))
                continue
            file = unquote(value.rsplit("/", 1)[-1])
            here = {p.name for p, _ in files_below(path.absolute().parent, 4)} if here is None else here
            plain = _HASHED.fullmatch(file)
            row[name] = plain[1] if plain and file not in here and plain[1] in here else file
    return rows


# doccano --------------------------------------------------------------------------------------------

_OF_DOCCANO = ("Comments", "comments", "annotation_approver")
_DOCCANO_LABELS = ("label", "labels", "entities")


def _is_of_doccano(row: Row) -> bool:
    labels = next((row[name] for name in _DOCCANO_LABELS if name in row), None)
    return isinstance(labels, list) and any(name in row for name in _OF_DOCCANO) and ("text" in row or "data" in row)


def _of_doccano(path: Path, rows: Sequence[Row]) -> Flat:
    flat = [
        {name: v for name, v in row.items() if name not in (*_OF_DOCCANO, *_DOCCANO_LABELS, "relations")}
        for row in rows
    ]
    labels = [next(row[name] for name in _DOCCANO_LABELS if name in row) for row in rows]
    with_label(flat, "label", labels)
    return said_of(path, flat, [f"{path}: read as an export of doccano"])


# Prodigy --------------------------------------------------------------------------------------------

_HASHES = ("_input_hash", "_task_hash")
_TOOLS = frozenset({"options", "accept", "answer", "meta", "config", "tokens", "spans", "score", "priority", "html"})


def _is_of_prodigy(row: Row) -> bool:
    return any(name in row for name in _HASHES) and row.get("answer") in ("accept", "reject", "ignore")


def _of_prodigy(path: Path, rows: Sequence[Row]) -> Flat:
    """prodi.gy/docs/api-interfaces: `accept` among options, or one `label` that is accepted or rejected."""
    used = [i for i, row in enumerate(rows) if row["answer"] != "ignore"]
    notes = [f"{path}: read as annotations of Prodigy"]
    if len(used) < len(rows):
        notes.append(f"{path}: rows left out, ignored by whoever labelled them: {len(rows) - len(used):,}")
    if any("accept" in rows[i] for i in used):
        used, rejected = [i for i in used if rows[i]["answer"] == "accept"], used
        labels = [rows[i].get("accept") for i in used]
    else:
        asked = {rows[i].get("label") for i in used} - {None}
        refused = f"not {next(iter(asked))}" if len(asked) == 1 else None
        rejected = used
        used = [i for i in used if refused or rows[i]["answer"] == "accept"]
        labels = [[rows[i].get("label") if rows[i]["answer"] == "accept" else refused] for i in used]
    if len(used) < len(rejected):
        notes.append(f"{path}: rows left out, rejected without another class: {len(rejected) - len(used):,}")
    flat = [
        {name: _embedded(v) for name, v in rows[i].items() if name not in _TOOLS and not name.startswith("_")}
        for i in used
    ]
    if any(held not in (None, [None]) for held in labels):
        with_label(flat, "label", [None if held == [None] else held for held in labels])
    elif any(rows[i].get("spans") for i in used):
        with_parts(flat, [rows[i].get("spans") or [] for i in used])
    return said_of(path, flat, notes, used)


def _embedded(value: Any) -> Any:
    """An image or a sound that is written out as base64, as what tables hold; all else as it is."""
    if not isinstance(value, str) or not value.startswith("data:") or ";base64," not in value[:100]:
        return value
    try:
        return {"bytes": base64.b64decode(value.partition(",")[2], validate=True), "path": None}
    except binascii.Error:
        return value


FORMS: Forms = (
    (_is_task, _of_tasks),
    (_is_minimal, _of_minimal),
    (_is_of_prodigy, _of_prodigy),
    (_is_of_doccano, _of_doccano),
)
