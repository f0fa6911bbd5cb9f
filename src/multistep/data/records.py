"""Rows as libraries and clouds nest them -> flat ones: spaCy, SageMaker Ground Truth, Vertex AI, Argilla."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from multistep.data.flat import Flat, Forms, Row, said_of, with_label

_METADATA = "-metadata"  # behind the name of a job of SageMaker
_VERTEX = {"textContent": "text", "imageGcsUri": "image"}
_VERTEX_LABELS = ("classificationAnnotation", "classificationAnnotations")


def _is_of_spacy(row: Row) -> bool:
    cats = row.get("cats")
    return isinstance(cats, Mapping) and bool(cats) and "text" in row and {*cats.values()} <= {0, 1}


def _of_spacy(path: Path, rows: Sequence[Row]) -> Flat:
    """spacy.io/api/data-formats: `cats` is 1 for each class of a text."""
    flat = [{name: value for name, value in row.items() if name != "cats"} for row in rows]
    with_label(flat, "label", [[name for name, value in row["cats"].items() if value] for row in rows])
    return said_of(path, flat, [f"{path}: read as categories of spaCy"])


def _is_of_sagemaker(row: Row) -> bool:
    return _job_of(row) is not None and ("source" in row or "source-ref" in row)


def _job_of(row: Row) -> str | None:
    jobs = (name for name, held in row.items() if name.endswith(_METADATA) and isinstance(held, Mapping))
    return next((name for name in jobs if "class-name" in row[name] or "class-map" in row[name]), None)


def _of_sagemaker(path: Path, rows: Sequence[Row]) -> Flat:
    """docs.aws.amazon.com, Ground Truth: the name of the class stands in the metadata of the job."""
    flat = [{"text": row["source"]} if "source" in row else {"image": row["source-ref"]} for row in rows]
    labels = []
    for row in rows:
        about = row[_job_of(row) or ""]
        labels.append([about["class-name"]] if "class-name" in about else list(about["class-map"].values()))
    with_label(flat, "label", labels)
    return said_of(path, flat, [f"{path}: read as an output manifest of SageMaker Ground Truth"])


def _is_of_vertex(row: Row) -> bool:
    return any(name in row for name in _VERTEX) and any(name in row for name in _VERTEX_LABELS)


def _of_vertex(path: Path, rows: Sequence[Row]) -> Flat:
    """cloud.google.com, Vertex AI: one annotation or several, by their displayName."""
    flat = [{_VERTEX[name]: value for name, value in row.items() if name in _VERTEX} for row in rows]
    labels = []
    for row in rows:
        held = next(row[name] for name in _VERTEX_LABELS if name in row)
        labels.append([each.get("displayName") for each in (held if isinstance(held, list) else [held])])
    with_label(flat, "label", labels)
    return said_of(path, flat, [f"{path}: read as an import file of Vertex AI"])


def _is_of_argilla(row: Row) -> bool:
    return isinstance(row.get("fields"), Mapping) and isinstance(row.get("responses"), Mapping)


def _of_argilla(path: Path, rows: Sequence[Row]) -> Flat:
    """docs.argilla.io, a record a row: its fields, and the first response to each question."""
    flat = [dict(row["fields"]) for row in rows]
    for name in dict.fromkeys(name for row in rows for name in row["responses"]):
        said = [next(iter(row["responses"].get(name) or ()), None) for row in rows]
        held = [each.get("value") if isinstance(each, Mapping) else each for each in said]
        with_label(flat, name, [each if isinstance(each, list) else [each] for each in held])
    return said_of(path, flat, [f"{path}: read as records of Argilla"])


def _is_tokenised(row: Row) -> bool:
    words = row.get("tokens", row.get("words"))
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words) or "text" in row:
        return False
    others = [held for held in row.values() if isinstance(held, list) and held is not words]
    return not any(len(held) == len(words) for held in others)  # tags of each word are no label of the text


def _of_tokens(path: Path, rows: Sequence[Row]) -> Flat:
    name = "tokens" if "tokens" in rows[0] else "words"
    flat = [{"text": " ".join(row[name]), **{key: v for key, v in row.items() if key != name}} for row in rows]
    return Flat(flat, list(range(len(rows))), (f"{path}: the text is '{name}' with spaces between",))


FORMS: Forms = (
    (_is_of_spacy, _of_spacy),
    (_is_of_sagemaker, _of_sagemaker),
    (_is_of_vertex, _of_vertex),
    (_is_of_argilla, _of_argilla),
    (_is_tokenised, _of_tokens),
)
