"""What Elasticsearch's API specification says of the requests that are sent here, as JSON Schemas.

Stated by hand from https://github.com/elastic/elasticsearch-specification (Apache-2.0; the folders specification/ml,
ingest and _global, as of 9.x): path, method, parameters, and of each body the fields, which are required, and their
types. What it does not name is refused. It names no `text_similarity` among the inference configurations, though
Elasticsearch's documentation and eland do: as `TEXT_SIMILARITY` it stands here like the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]
STRING: Schema = {"type": "string", "minLength": 1}
INTEGER: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
BOOLEAN: Schema = {"type": "boolean"}
ANY_OBJECT: Schema = {"type": "object"}
ANY: Schema = {}
STRINGS: Schema = {"type": "array", "items": STRING}
DURATION: Schema = {"type": "string", "pattern": r"^(-1|\d+(d|h|m|s|ms|micros|nanos)?)$"}
FLAG: Schema = {"enum": ["true", "false"]}  # in a query string
NUMERAL: Schema = {"type": "string", "pattern": r"^-?\d+$"}


def closed(required: tuple[str, ...] = (), /, **properties: Any) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def one_of(**properties: Any) -> Schema:
    return {**closed(**properties), "minProperties": 1, "maxProperties": 1}


def several(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


# ml.put_trained_model -----------------------------------------------------------------------------

_TOKENIZATION = {
    "do_lower_case": BOOLEAN,
    "max_sequence_length": INTEGER,
    "span": INTEGER,
    "truncate": {"enum": ["first", "second", "none"]},
    "with_special_tokens": BOOLEAN,
}
TOKENIZATION = one_of(
    bert=closed(**_TOKENIZATION),
    bert_ja=closed(**_TOKENIZATION),
    mpnet=closed(**_TOKENIZATION),
    roberta=closed(**_TOKENIZATION, add_prefix_space=BOOLEAN),
    xlm_roberta=closed(**_TOKENIZATION),
)
_COMMON = {"tokenization": TOKENIZATION, "results_field": STRING, "vocabulary": closed(("index",), index=STRING)}
_CLASSIFICATION = {"num_top_classes": INTEGER, "classification_labels": STRINGS}
TEXT_SIMILARITY = closed(**_COMMON, span_score_combination_function={"enum": ["max", "mean"]})
_ENTAILMENT = {
    "type": "array",
    "items": {"enum": ["entailment", "neutral", "contradiction"]},
    "uniqueItems": True,
    "minItems": 3,
}
INFERENCE = one_of(
    text_classification=closed(**_COMMON, **_CLASSIFICATION),
    zero_shot_classification=closed(
        ("classification_labels",),
        tokenization=TOKENIZATION,
        hypothesis_template=STRING,
        classification_labels=_ENTAILMENT,
        results_field=STRING,
        multi_label=BOOLEAN,
        labels=STRINGS,
    ),
    fill_mask=closed(**_COMMON, mask_token=STRING, num_top_classes=INTEGER),
    text_embedding=closed(**_COMMON, embedding_size=INTEGER),
    ner=closed(**_COMMON, classification_labels=STRINGS),
    pass_through=closed(**_COMMON),
    text_expansion=closed(**_COMMON),
    question_answering=closed(**_COMMON, num_top_classes=INTEGER, max_answer_length=INTEGER),
    text_similarity=TEXT_SIMILARITY,
)
PUT_MODEL = closed(
    ("inference_config", "input", "model_type"),  # not required of models that come with Elasticsearch
    compressed_definition=STRING,
    definition=ANY_OBJECT,
    description=STRING,
    inference_config=INFERENCE,
    input=closed(("field_names",), field_names={"anyOf": [STRING, STRINGS]}),
    metadata=ANY_OBJECT,
    model_type={"enum": ["tree_ensemble", "lang_ident", "pytorch"]},
    model_size_bytes=INTEGER,
    platform_architecture={
        "enum": ["linux-x86_64", "linux-aarch64", "darwin-x86_64", "darwin-aarch64", "windows-x86_64"]
    },
    tags=STRINGS,
    prefix_strings=closed(ingest=STRING, search=STRING),
)

# ingest.put_pipeline ------------------------------------------------------------------------------

_PROCESSOR = {
    "description": STRING,
    "if": ANY,
    "ignore_failure": BOOLEAN,
    "on_failure": several(ANY_OBJECT),
    "tag": STRING,
}
_IN_OUT = closed(("input_field", "output_field"), input_field=STRING, output_field=STRING)
INFERENCE_PROCESSOR = {
    **closed(
        ("model_id",),
        **_PROCESSOR,
        model_id=STRING,
        target_field=STRING,
        field_map={"type": "object", "additionalProperties": STRING},
        inference_config=ANY_OBJECT,
        input_output={"anyOf": [_IN_OUT, several(_IN_OUT)]},
        ignore_missing=BOOLEAN,
    ),
    # "This option is incompatible with the target_field and field_map options."
    "not": {"required": ["input_output"], "anyOf": [{"required": ["target_field"]}, {"required": ["field_map"]}]},
}
_CHANGE = {**_PROCESSOR, "field": STRING, "ignore_missing": BOOLEAN, "target_field": STRING}
PROCESSORS = several(
    one_of(
        inference=INFERENCE_PROCESSOR,
        set=closed(("field",), **_PROCESSOR, field=STRING, value=ANY, copy_from=STRING, override=BOOLEAN),
        lowercase=closed(("field",), **_CHANGE),
        gsub=closed(("field", "pattern", "replacement"), **_CHANGE, pattern=STRING, replacement=STRING),
        remove=closed(("field",), **_PROCESSOR, field={"anyOf": [STRING, STRINGS]}, ignore_missing=BOOLEAN),
    )
)
PIPELINE = closed(
    description=STRING,
    processors=PROCESSORS,
    on_failure=PROCESSORS,
    version=INTEGER,
    deprecated=BOOLEAN,
    _meta=ANY_OBJECT,
)

# Reading ------------------------------------------------------------------------------------------

SEARCH = closed(
    query=one_of(match_all=ANY_OBJECT, term=ANY_OBJECT, query_string=ANY_OBJECT, match=ANY_OBJECT),
    size=INTEGER,
    _source={"anyOf": [BOOLEAN, STRING, STRINGS, ANY_OBJECT]},
    sort={"anyOf": [STRING, ANY_OBJECT, several({"anyOf": [STRING, ANY_OBJECT]})]},
    search_after={"type": "array", "items": ANY, "minItems": 1},
    track_total_hits={"anyOf": [BOOLEAN, INTEGER]},
    pit=closed(("id",), id=STRING, keep_alive=DURATION),
    timeout=DURATION,
)
_IGNORING = {"allow_no_indices": FLAG, "expand_wildcards": STRING, "ignore_unavailable": FLAG}


@dataclass(frozen=True)
class Endpoint:
    """`path` with its parts in braces; a body of None must not be there."""

    name: str
    method: str
    path: str
    body: Schema | None = None
    params: Mapping[str, Schema] = field(default_factory=dict)
    required: tuple[str, ...] = ()

    def parts(self, path: str) -> dict[str, str] | None:
        """The parts of a path of this endpoint."""
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(self.path))
        found = re.fullmatch(pattern, path)
        return found.groupdict() if found else None


MODEL = "/_ml/trained_models/{model_id}"
_START = {
    "cache_size": STRING,
    "deployment_id": STRING,
    "number_of_allocations": NUMERAL,
    "priority": {"enum": ["normal", "low"]},
    "queue_capacity": NUMERAL,
    "threads_per_allocation": NUMERAL,
    "timeout": DURATION,
    "wait_for": {"enum": ["started", "starting", "fully_allocated"]},
}
_GET = {"allow_no_match": FLAG, "decompress_definition": FLAG, "exclude_generated": FLAG, "from": NUMERAL}
_GET |= {"include": STRING, "size": NUMERAL, "tags": STRING}
_PART = closed(
    ("definition", "total_definition_length", "total_parts"),
    definition={"type": "string", "contentEncoding": "base64", "pattern": "^[A-Za-z0-9+/]+=*$"},
    total_definition_length=INTEGER,
    total_parts={"type": "integer", "minimum": 1},
)
_VOCABULARY = closed(
    ("vocabulary",),
    vocabulary={"type": "array", "items": {"type": "string"}, "minItems": 1},
    merges=STRINGS,
    scores=several(NUMBER),
)
_INFER = closed(("docs",), docs=several(ANY_OBJECT), inference_config=ANY_OBJECT)
_TIMES = {"master_timeout": DURATION, "timeout": DURATION}
ENDPOINTS = (
    Endpoint("info", "GET", "/"),
    Endpoint("get_trained_models", "GET", MODEL, params=_GET),
    Endpoint(
        "put_trained_model",
        "PUT",
        MODEL,
        PUT_MODEL,
        {"defer_definition_decompression": FLAG, "wait_for_completion": FLAG},
    ),
    Endpoint("delete_trained_model", "DELETE", MODEL, params={"force": FLAG, "timeout": DURATION}),
    Endpoint("put_trained_model_definition_part", "PUT", MODEL + "/definition/{part}", _PART),
    Endpoint("put_trained_model_vocabulary", "PUT", MODEL + "/vocabulary", _VOCABULARY),
    Endpoint("start_trained_model_deployment", "POST", MODEL + "/deployment/_start", params=_START),
    Endpoint(
        "stop_trained_model_deployment",
        "POST",
        MODEL + "/deployment/_stop",
        closed(allow_no_match=BOOLEAN, force=BOOLEAN, id=STRING),
        {"allow_no_match": FLAG, "force": FLAG},
    ),
    Endpoint("infer_trained_model", "POST", MODEL + "/_infer", _INFER, {"timeout": DURATION}),
    Endpoint("put_pipeline", "PUT", "/_ingest/pipeline/{id}", PIPELINE, {**_TIMES, "if_version": NUMERAL}),
    Endpoint(
        "simulate",
        "POST",
        "/_ingest/pipeline/{id}/_simulate",
        closed(("docs",), docs=several(closed(("_source",), _id=STRING, _index=STRING, _source=ANY_OBJECT))),
        {"verbose": FLAG},
    ),
    Endpoint("delete_pipeline", "DELETE", "/_ingest/pipeline/{id}", params=_TIMES),
    Endpoint("bulk", "PUT", "/_bulk", several(ANY_OBJECT), {"refresh": {"enum": ["true", "false", "wait_for"]}}),
    Endpoint("refresh", "POST", "/{index}/_refresh", params=_IGNORING),
    Endpoint("delete_index", "DELETE", "/{index}", params={**_TIMES, **_IGNORING}),
    Endpoint(
        "open_point_in_time",
        "POST",
        "/{index}/_pit",
        closed(index_filter=ANY_OBJECT),
        {"keep_alive": DURATION, "preference": STRING, "routing": STRING, **_IGNORING},
        ("keep_alive",),
    ),
    Endpoint("close_point_in_time", "DELETE", "/_pit", closed(("id",), id=STRING)),
    Endpoint("search", "POST", "/_search", SEARCH, {"allow_partial_search_results": FLAG, "typed_keys": FLAG}),
    Endpoint("search", "POST", "/{index}/_search", SEARCH, {"scroll": DURATION, **_IGNORING}),
    Endpoint("scroll", "POST", "/_search/scroll", closed(("scroll_id",), scroll_id=STRING, scroll=DURATION)),
    Endpoint("clear_scroll", "DELETE", "/_search/scroll", closed(scroll_id={"anyOf": [STRING, STRINGS]})),
    Endpoint(
        "field_caps",
        "POST",
        "/{index}/_field_caps",
        closed(fields={"anyOf": [STRING, STRINGS]}, index_filter=ANY_OBJECT),
        {"fields": STRING, "filters": STRING, "types": STRING, "include_unmapped": FLAG, **_IGNORING},
    ),
)


class NotInTheSpecification(Exception):
    """A request that no server would understand as it was meant."""


def checked(method: str, path: str, params: Mapping[str, str], body: Any) -> tuple[Endpoint, dict[str, str]]:
    """The endpoint that a request is for, with the parts of its path. Raises NotInTheSpecification, with the reason."""
    from jsonschema import Draft202012Validator, ValidationError

    for endpoint in ENDPOINTS:
        parts = endpoint.parts(path) if endpoint.method == method else None
        if parts is None or any(part.startswith("_") for part in parts.values()):
            continue
        try:
            query = closed(endpoint.required, **endpoint.params)
            Draft202012Validator(query).validate(dict(params))
            if endpoint.body is not None:
                Draft202012Validator(endpoint.body).validate({} if body is None else body)
            elif body not in (None, {}):
                raise NotInTheSpecification(f"{endpoint.name}: takes no body, and {body} came")
        except ValidationError as error:
            place = "/".join(map(str, error.absolute_path))
            raise NotInTheSpecification(f"{endpoint.name}: {place}: {error.message}") from None
        return endpoint, parts
    raise NotInTheSpecification(f"{method} {path}: no such endpoint")
