"""The JSON Schema of plan files, for editors: the core's dataclasses, their short forms, and words for each key."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from multistep.core.choice.moves import NAMES as MOVES
from multistep.core.evidence.metric import METRICS
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.tasks import OWN_MODEL, TASKS
from multistep.engine.schema_words import WORDS

DIALECT = "http://json-schema.org/draft-07/schema#"  # what editors' YAML servers know best
FILE_NAME = "plan.schema.json"
WORD_LINE = "# yaml-language-server: $schema={place}\n"
# Looser than `parse_amount`, so that nothing is marked that it takes; a number without a unit is no string.
_AMOUNT = {"type": "string", "pattern": "[A-Za-z]", "examples": ["10m", "1h30m", "2000 steps", "3 epochs"]}
_YES_NO = {"enum": ["on", "off", "yes", "no", "true", "false"]}  # words to YAML 1.2, which pydantic takes for booleans
_SHARE = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}


def plan_schema() -> dict[str, Any]:
    """The schema of a plan file: every key with its type, default, allowed values and description."""
    plan = TypeAdapter(Plan).json_schema(ref_template="#/definitions/{model}")
    recipe = TypeAdapter(Recipe).json_schema(ref_template="#/definitions/{model}")
    parts: dict[str, Any] = plan.pop("$defs")
    parts |= {"Recipe": recipe, "Plan": plan}
    for name in ("Amount", "Unit"):
        parts.pop(name)
    for name, part in parts.items():
        part.pop("title", None)
        for key, value in part["properties"].items():
            part["properties"][key] = _key(name, key, value)
    parts["Phase"]["required"] = []  # a phase without a name has its number
    whole = parts.pop("Plan")
    head = {"$schema": DIALECT, "title": "A plan of multistep"}
    return {**head, **_as_draft_7(whole), "definitions": {name: _as_draft_7(part) for name, part in parts.items()}}


def _key(group: str, key: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """A key's own schema: what the dataclass says, or the forms that a file may have, with its description."""
    found = _forms(group, key) or copy.deepcopy(dict(value))
    for name in ("title", "default"):
        found.pop(name, None)
    if "type" in found and found["type"] == "boolean":
        found = {"anyOf": [found, _YES_NO]}
    elif {"type": "boolean"} in found.get("anyOf", ()):
        found["anyOf"].append(_YES_NO)
    if "$ref" in found:
        found = {"anyOf": [found]}  # beside a reference nothing else is read
    default = value.get("default")
    simple = isinstance(default, str | int | float | bool)
    return {"description": WORDS.get(f"{group}.{key}", key), **found, **({"default": default} if simple else {})}


def _forms(group: str, key: str) -> dict[str, Any] | None:
    """The short forms that a file may have beside, or instead of, what the dataclass holds."""
    match key:
        case "data":
            return {"anyOf": [{"type": "string"}, {"$ref": "#/definitions/DataSpec"}]}
        case "validation" | "test" if group == "DataSpec":
            return {"anyOf": [{"type": "string"}, _SHARE]}
        case "model" if group != "Recipe":
            several = {"type": "array", "items": {"type": "string"}, "minItems": 1}
            return {"anyOf": [{"type": "string"}, several, {"$ref": "#/definitions/ModelSpec"}]}
        case "budget":
            return dict(_AMOUNT)
        case "until":
            return {"anyOf": [{"const": "stable"}, _AMOUNT]}
        case "every":
            return {
                "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^ *[0-9]+[kK]? *steps? *$"}]
            }
        case "recipe":
            return {"anyOf": [{"$ref": "#/definitions/Recipe"}]}
        case "task":
            return {"enum": [name for name in TASKS if name != OWN_MODEL]}
        case "metric":
            return {"anyOf": [{"enum": list(METRICS)}, {"type": "string"}]}  # there are other names for some
        case "moves":
            each = {"enum": list(MOVES)}
            return {"anyOf": [{"const": "auto"}, {"type": "array", "items": each}]}
        case "delimiter" | "encoding":
            return {"type": "string"}
    return None


def _as_draft_7(schema: Any) -> Any:
    """`prefixItems` of later drafts as `items`; a key that is left open with nothing (`null`) is allowed anywhere."""
    if isinstance(schema, list):
        return [_as_draft_7(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {("items" if key == "prefixItems" else key): _as_draft_7(value) for key, value in schema.items()}
    if isinstance(found.get("properties"), dict):
        for key, value in found["properties"].items():
            found["properties"][key] = _or_nothing(value)
    return found


def _or_nothing(value: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {key: value[key] for key in ("description", "default", "examples") if key in value}
    rest = {key: inner for key, inner in value.items() if key not in said}
    options = rest.pop("anyOf", None) or [rest]
    if {"type": "null"} not in options:
        options = [*options, {"type": "null"}]
    return {**said, "anyOf": options}
