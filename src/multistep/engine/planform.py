"""The form of a plan: unknown keys and wrong types, each with what is allowed instead."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import ValidationError

from multistep.core.values.plan import Guard, Phase, Plan
from multistep.core.values.recipe import RECIPE_KEYS, Outer, Recipe
from multistep.core.values.tasks import TASKS
from multistep.core.values.units import ALLOWED_AMOUNTS, Amount
from multistep.engine.elsewhere import hint
from multistep.engine.origins import Origins, Place
from multistep.errors import PlanError, nearest

# pydantic's names of the branches of a union.
TYPE_TAGS = ("DataSpec", "ModelSpec", "Amount", "constrained-str", "int", "bool")


def check_keys(values: Mapping[str, Any], origins: Origins) -> None:
    """Raises PlanError for an unknown key, with the nearest allowed name, before anything fails because of it."""
    _check_group(values, Plan, (), origins)


def _check_group(values: Mapping[str, Any], kind: type[Any], place: Place, origins: Origins) -> None:
    """Unknown keys, with the nearest allowed name, before anything else can fail because of them."""
    hints = typing.get_type_hints(kind)
    allowed = [field.name for field in fields(kind)]
    where = ".".join(str(part) for part in place) or "the plan"
    for key, value in values.items():
        if key not in allowed:
            raise PlanError(
                f"{origins.at((*place, key))}: unknown key '{key}' in {where}; allowed: {', '.join(allowed)}."
                f"{_hint(key, allowed, value, place, origins)}"
            )
        if key == "recipe" and isinstance(value, dict):
            for inner, setting in value.items():
                if inner not in RECIPE_KEYS:
                    raise PlanError(
                        f"{origins.at((*place, key, inner))}: unknown key '{inner}' in recipe; allowed: "
                        f"{', '.join(RECIPE_KEYS)}.{_hint(inner, RECIPE_KEYS, setting, (*place, key), origins)}"
                    )
                if inner == "outer" and isinstance(setting, dict):
                    _check_group(setting, Outer, (*place, key, inner), origins)
            continue
        nested = _dataclass_in(hints[key])
        if nested and isinstance(value, dict):
            _check_group(value, nested, (*place, key), origins)
        elif nested and isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    _check_group(item, nested, (*place, key, index), origins)


def _hint(key: str, allowed: Sequence[str], value: object, place: Place, origins: Origins) -> str:
    groups = [part for part in place if isinstance(part, str)]
    typed = origins.at((*place, key)).startswith("--")
    return hint(key, allowed, value, group=groups[-1] if groups else "", typed=typed)


def _dataclass_in(kind: Any) -> type[Any] | None:
    if isinstance(kind, type) and is_dataclass(kind):
        return kind if kind is not Amount else None
    if typing.get_origin(kind) in (tuple, typing.Union, types.UnionType):
        return next((found for arg in typing.get_args(kind) if (found := _dataclass_in(arg))), None)
    return None


# Wrong types ----------------------------------------------------------------------------------------


def explain(error: ValidationError, origins: Origins, place: Place = ()) -> str:
    """The first problem that pydantic found, in the form of every other message here."""
    problem = error.errors(include_url=False)[0]
    where: Place = (*place, *(part for part in problem["loc"] if not _is_type_tag(part)))
    context = problem.get("ctx", {})
    if isinstance(context.get("error"), PlanError):
        # A range check of the dataclass itself: its message begins with the setting's name.
        key = str(context["error"]).split()[0].rpartition(".")[2]
        return f"{origins.at((*where, key))}: {context['error']}"
    if problem["type"] == "missing" and isinstance(where[-1], str):
        needs = "a guard needs 'data'" if "guard" in where else "a plan needs at least 'task' and 'data'"
        return f"{origins.at(where)}: '{where[-1]}' is missing; {needs}"
    value = problem["input"]
    if problem["type"] == "missing":  # an entry of a list that has a length: the list is what is wrong
        where = where[:-1]
    name = ".".join(str(part) for part in where) or "the plan"
    close = ""
    if problem["type"] == "literal_error":
        choices = str(context.get("expected", "")).replace(" or ", ", ")
        close = nearest(str(value), [part.strip(" '") for part in choices.split(",")])
    return f"{origins.at(where)}: {name} is {value!r}; allowed: {allowed(where)}.{close}"


def _is_type_tag(part: str | int) -> bool:
    # pydantic names the branch of a union in the location; that is no key of the file.
    return isinstance(part, str) and (part in TYPE_TAGS or "[" in part)


def allowed(place: Place) -> str:
    """What may stand at a place of a plan, in words."""
    keys = [part for part in place if isinstance(part, str)]
    listed = bool(place) and isinstance(place[-1], int)  # an entry of a list, not the list
    match keys[-1] if keys else "":
        case "task":
            return ", ".join(TASKS)
        case "data":
            return "a file, a folder or a data set id; or a group of train, validation and test"
        case "model":
            return (
                "auto, scratch, a preset, a folder or a hub id; or a list of these, or a group of name, parameters, "
                "layers, width and others"
            )
        case "recipe":
            return f"a group of settings: {', '.join(RECIPE_KEYS)}"
        case "guard":
            return f"a group of {_names(Guard)}"
        case "outer":
            return f"a group of {_names(Outer)}"
        case "every" | "overlap":
            return "steps, such as '100 steps'"
        case "phases":
            return f"a group of {_names(Phase)}" if listed else f"a list of groups of {_names(Phase)}"
        case "budget":
            return ALLOWED_AMOUNTS
        case "until":
            return f"{ALLOWED_AMOUNTS}, 'stable'"
        case "frozen":
            return 'a list of patterns of parameter names, for instance ["embedding*"]'
        case key:
            owner = Outer if "outer" in keys[:-1] else Recipe if "recipe" in keys[:-1] else _owner(keys[:-1])
            return _in_words(typing.get_type_hints(owner).get(key, str), listed=listed)


def _names(kind: type[Any]) -> str:
    return ", ".join(field.name for field in fields(kind))


def _owner(keys: list[str]) -> type[Any]:
    """The dataclass that is reached by these keys from the plan."""
    kind: type[Any] = Plan
    for key in keys:
        kind = _dataclass_in(typing.get_type_hints(kind)[key]) or kind
    return kind


def _in_words(kind: Any, *, listed: bool = False) -> str:
    """A type as people say it: `a whole number`, `true or false`, `a list of texts`; its entry if `listed`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return ", ".join(map(repr, arguments))
    if origin in (typing.Union, types.UnionType):
        ways = (_in_words(part, listed=listed) for part in arguments if part is not type(None))
        return " or ".join(dict.fromkeys(ways))
    if origin is tuple and listed:
        return _in_words(arguments[0])
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)} numbers"
    if origin is tuple:
        return f"a list of {_in_words(arguments[0]).removeprefix('a ')}s"
    return {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, "a text")
