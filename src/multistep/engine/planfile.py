"""Plans from YAML, `--set` and keywords: one schema, the core's dataclasses, and errors that name the line."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from multistep.core.metric import metric_named
from multistep.core.moves import check_moves
from multistep.core.plan import Plan
from multistep.core.recipe import RECIPE_KEYS, Recipe
from multistep.core.tasks import OWN_MODEL, family_of, task_named
from multistep.core.units import Amount, parse_amount
from multistep.engine.plain import plain
from multistep.errors import PlanError, nearest

Place = tuple[str | int, ...]


class _Source:
    """Where values came from, so that an error can name the file and the line, or the option."""

    def __init__(self, name: str, lines: Mapping[Place, int] | None = None) -> None:
        self.name = name
        self._lines = lines or {}

    def at(self, place: Place) -> str:
        while place and place not in self._lines:
            place = place[:-1]
        line = self._lines.get(place)
        return f"{self.name}:{line}" if line else self.name


@functools.cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def read_plan(path: Path, settings: Sequence[str] = ()) -> Plan:
    """The plan of a YAML file with `key.path=value` settings laid over it. Raises PlanError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise PlanError(f"{path}: no such file; write a plan there, or use --task and --data") from error
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    try:
        content = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise PlanError(f"{path}:{line}: not YAML: {error.problem or error}") from error
    except YAMLError as error:
        raise PlanError(f"{path}: not YAML: {error}") from error
    if not isinstance(content, dict):
        raise PlanError(f"{path}: a plan is a mapping with at least 'task' and 'data'; see `multistep train --help`")
    lines: dict[Place, int] = {}
    _collect_lines(content, (), lines)
    return plan_from(_builtin(content), settings=settings, source=_Source(str(path), lines))


def plan_from(content: Mapping[str, Any], *, settings: Sequence[str] = (), source: _Source | None = None) -> Plan:
    """The plan of keywords or of a parsed file. Raises PlanError that says where, what and what is allowed."""
    source = source or _Source("plan")
    values = {key: value for key, value in content.items() if value is not None}
    for setting in settings:
        _apply_setting(values, setting)
    _check_keys(values, source)
    values = _read_short_forms(values, source)
    try:
        plan: Plan = _adapter(Plan).validate_python(values)
    except ValidationError as error:
        raise PlanError(_explain(error, source)) from error
    _check_meaning(plan, source)
    return plan


def to_yaml(plan: Plan) -> str:
    """The plan as a file that `read_plan` reads back to an equal plan; what has its default is left out."""
    from ruamel.yaml import YAML

    content = _without_defaults(plan)
    out = StringIO()
    yaml = YAML(typ="rt")
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.dump(plain(content), out)
    return out.getvalue()


def _without_defaults(value: Any) -> Any:
    if isinstance(value, Amount):
        return f"{value.value!r}s" if value.unit == "seconds" else f"{value.value!r} {value.unit.value}"
    if is_dataclass(value) and not isinstance(value, type):
        kept = {}
        for field in fields(value):
            item = getattr(value, field.name)
            default = field.default_factory() if callable(field.default_factory) else field.default
            if item != default:
                kept[field.name] = _without_defaults(item)
        return kept
    if isinstance(value, tuple):
        return [_without_defaults(item) for item in value]
    return value


# Reading --------------------------------------------------------------------------------------------


def _collect_lines(node: Any, place: Place, lines: dict[Place, int]) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            lines[(*place, key)] = node.lc.key(key)[0] + 1  # type: ignore[attr-defined]
            _collect_lines(value, (*place, key), lines)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            lines[(*place, index)] = node.lc.item(index)[0] + 1  # type: ignore[attr-defined]
            _collect_lines(value, (*place, index), lines)


def _builtin(node: Any) -> Any:
    """ruamel's node classes as plain Python values."""
    if isinstance(node, dict):
        return {str(key): _builtin(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_builtin(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _apply_setting(values: dict[str, Any], setting: str) -> None:
    """Lay `phases.0.recipe.learning_rate=1e-3` over the values."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path, equals, text = setting.partition("=")
    if not equals or not path.strip():
        raise PlanError(f"--set {setting}: allowed: key.path=value, for instance recipe.learning_rate=1e-3")
    try:
        value = _builtin(YAML(typ="rt").load(text))
    except YAMLError as error:
        raise PlanError(f"--set {setting}: the value is not YAML") from error
    node: Any = values
    *parents, last = path.strip().split(".")
    for key in parents:
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                raise PlanError(f"--set {setting}: '{key}' is no index of a list of {len(node)} (0 is the first)")
            node = node[int(key)]
            continue
        if isinstance(node.get(key), str):
            node[key] = {"data": {"source": node[key]}, "model": {"name": node[key]}}.get(key, {})
        node = node.setdefault(key, {})
        if not isinstance(node, dict | list):
            raise PlanError(f"--set {setting}: '{key}' holds a value, not a group of settings")
    if isinstance(node, list):
        raise PlanError(f"--set {setting}: name a setting of one list entry, for instance phases.0.until=3 epochs")
    node[last] = value


def _read_short_forms(values: dict[str, Any], source: _Source) -> dict[str, Any]:
    """`data: corpus.txt`, `model: gpt2`, `budget: 10m`, `until: 3 epochs` to what the dataclasses hold."""
    values = dict(values)
    _short(values, (), source)
    _check_list(values, ("moves",), source)
    if isinstance(values.get("phases"), list):
        values["phases"] = [dict(p) if isinstance(p, dict) else p for p in values["phases"]]
        for index, phase in enumerate(values["phases"]):
            if isinstance(phase, dict):
                _short(phase, ("phases", index), source)
                phase.setdefault("name", f"phase {index + 1}")
                _check_list(phase, ("phases", index, "moves"), source)
    return values


def _check_list(values: Mapping[str, Any], place: Place, source: _Source) -> None:
    moves = values.get("moves")
    if moves not in (None, "auto") and not isinstance(moves, list | tuple):
        raise PlanError(f"{source.at(place)}: moves is {moves!r}; allowed: a list of names, or auto")


def _short(values: dict[str, Any], place: Place, source: _Source) -> None:
    if isinstance(values.get("data"), str | Path):
        values["data"] = {"source": str(values["data"])}
    if isinstance(values.get("model"), str | Path):
        values["model"] = {"name": str(values["model"])}
    for key in ("budget", "until"):
        value = values.get(key)
        if key in values and not isinstance(value, Amount | None) and value != "stable":
            try:
                values[key] = parse_amount(str(value))
            except PlanError as error:
                stable = " or 'stable'" if key == "until" else ""
                raise PlanError(f"{source.at((*place, key))}: {key}: {error}{stable}") from error
    recipe = values.get("recipe")
    if isinstance(recipe, dict):
        values["recipe"] = _recipe_settings(recipe, (*place, "recipe"), source)


def _recipe_settings(given: dict[str, Any], place: Place, source: _Source) -> dict[str, Any]:
    """The given settings, each checked and converted by the Recipe's own types (`5e-5` may be a string)."""
    try:
        recipe = _adapter(Recipe).validate_python(given)
    except ValidationError as error:
        raise PlanError(_explain(error, source, place)) from error
    return {key: getattr(recipe, key) for key in given}


# Checking -------------------------------------------------------------------------------------------


def _check_keys(values: Mapping[str, Any], source: _Source) -> None:
    _check_group(values, Plan, (), source)


def _check_group(values: Mapping[str, Any], kind: type[Any], place: Place, source: _Source) -> None:
    """Unknown keys, with the nearest allowed name, before anything else can fail because of them."""
    hints = typing.get_type_hints(kind)
    allowed = [field.name for field in fields(kind)]
    where = ".".join(str(part) for part in place) or "the plan"
    for key, value in values.items():
        if key not in allowed:
            raise PlanError(
                f"{source.at((*place, key))}: unknown key '{key}' in {where}; allowed: {', '.join(allowed)}."
                f"{nearest(key, allowed)}"
            )
        if key == "recipe" and isinstance(value, dict):
            for inner in value:
                if inner not in RECIPE_KEYS:
                    raise PlanError(
                        f"{source.at((*place, key, inner))}: unknown key '{inner}' in recipe; allowed: "
                        f"{', '.join(RECIPE_KEYS)}.{nearest(inner, RECIPE_KEYS)}"
                    )
            continue
        nested = _dataclass_in(hints[key])
        if nested and isinstance(value, dict):
            _check_group(value, nested, (*place, key), source)
        elif nested and isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    _check_group(item, nested, (*place, key, index), source)


def _dataclass_in(hint: Any) -> type[Any] | None:
    if isinstance(hint, type) and is_dataclass(hint):
        return hint if hint is not Amount else None
    if typing.get_origin(hint) in (tuple, typing.Union, types.UnionType):
        return next((found for arg in typing.get_args(hint) if (found := _dataclass_in(arg))), None)
    return None


def _explain(error: ValidationError, source: _Source, place: Place = ()) -> str:
    """The first problem that pydantic found, in the form of every other message here."""
    problem = error.errors(include_url=False)[0]
    where: Place = (*place, *(part for part in problem["loc"] if not _is_type_tag(part)))
    name = ".".join(str(part) for part in where) or "the plan"
    context = problem.get("ctx", {})
    if problem["type"] == "missing":
        return f"{source.at(where)}: '{name}' is missing; a plan needs at least 'task' and 'data'"
    if problem["type"] == "literal_error":
        value = str(problem["input"])
        allowed = str(context.get("expected", "")).replace(" or ", ", ")
        hint = nearest(value, [part.strip(" '") for part in allowed.split(",")])
        return f"{source.at(where)}: {name} is '{value}'; allowed: {allowed}.{hint}"
    if isinstance(context.get("error"), PlanError):
        # A range check of the dataclass itself: its message begins with the setting's name.
        return f"{source.at((*where, str(context['error']).split()[0]))}: {context['error']}"
    message = problem["msg"][:1].lower() + problem["msg"][1:]
    return f"{source.at(where)}: {name} is {problem['input']!r}; {message}"


def _is_type_tag(part: str | int) -> bool:
    # pydantic names the branch of a union in the location; that is no key of the file.
    return isinstance(part, str) and (part in ("DataSpec", "ModelSpec", "Amount", "constrained-str") or "[" in part)


def _check_meaning(plan: Plan, source: _Source) -> None:
    """What the types cannot say: known task and metric, data that can be found in one way."""
    for index in range(plan.phase_count):
        phase = plan.phase(index)
        place: Place = ("phases", index) if plan.phases else ()
        try:
            task_named(str(phase.task))
        except PlanError as error:
            raise PlanError(f"{source.at((*place, 'task'))}: {error}") from error
        if phase.metric is not None and phase.task != OWN_MODEL:  # whose metric may be a function's name
            try:
                metric_named(phase.metric)
            except PlanError as error:
                raise PlanError(f"{source.at((*place, 'metric'))}: {error}") from error
        _check_moves(plan, index, place, source)
        data = phase.data
        assert data is not None, "a plan has data"
        if bool(data.source) == bool(data.train) or (data.source and (data.validation or data.test)):
            raise PlanError(
                f"{source.at((*place, 'data'))}: data names either one source, or train (and validation, test) files"
            )
    try:
        family_of(plan)
    except PlanError as error:
        raise PlanError(f"{source.at(('phases',))}: {error}") from error
    if plan.tolerance is not None and not plan.tolerance > 0:
        raise PlanError(f"{source.at(('tolerance',))}: tolerance is {plan.tolerance:g}; allowed: more than 0")
    if not 0 <= plan.seed < 2**31:
        raise PlanError(f"{source.at(('seed',))}: seed is {plan.seed}; allowed: 0 to {2**31 - 1}")
    for name in ("parameters", "layers", "width", "heads", "context", "vocabulary"):
        size = getattr(plan.model, name)
        least = {"parameters": 1000, "width": 8, "context": 2, "vocabulary": 257}.get(name, 1)
        if size is not None and size < least:
            raise PlanError(f"{source.at(('model', name))}: model.{name} is {size}; allowed: {least} or more")


def _check_moves(plan: Plan, index: int, place: Place, source: _Source) -> None:
    """Moves that contradict the recipe or the length, and schedules that need one."""
    phase = plan.phase(index)
    if isinstance(phase.moves, tuple):
        own = bool(plan.phases) and plan.phases[index].moves is not None
        where = source.at((*place, "moves") if own else ("moves",))
        try:
            check_moves(phase.moves, phase.recipe, plan.budget)
        except PlanError as error:
            raise PlanError(f"{where}: moves: {error}") from error
        if phase.moves and isinstance(phase.until, Amount):
            raise PlanError(
                f"{where}: moves are named, but until is {phase.until}, which leaves them no room; leave until out, "
                "or set it to stable"
            )
    schedule = phase.recipe.get("schedule")
    if schedule in ("one-cycle", "multi-step") and plan.budget is None and not isinstance(phase.until, Amount):
        raise PlanError(
            f"{source.at((*place, 'recipe', 'schedule'))}: recipe.schedule is {schedule}, which needs a length; give "
            "a budget, or the phase an until"
        )
