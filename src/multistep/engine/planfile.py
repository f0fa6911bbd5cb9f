"""Plans from YAML, `--set` and keywords: one schema, the core's dataclasses, and errors that name the line."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.units import ALLOWED_AMOUNTS, Amount, Unit, amount_of_seconds, parse_amount
from multistep.engine.elsewhere import lay_short_keys
from multistep.engine.origins import SHORT_FORMS, Named, Origins, Place, as_keyword, builtin, lay_setting, lines_of
from multistep.engine.plain import plain
from multistep.engine.plancheck import check_meaning
from multistep.engine.planform import allowed, check_keys, explain
from multistep.errors import PlanError, nearest

OF_DATA = (
    ".csv",
    ".tsv",
    ".txt",
    ".jsonl",
    ".parquet",
    ".arrow",
    ".xlsx",
    ".md",
    ".zip",
    ".npz",
    ".wav",
    ".jpg",
    ".png",
)
GROUPS = ("data", "model", "recipe")  # whose own keys may be left open with nothing


@functools.cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def read_plan(
    path: Path, settings: Sequence[str] = (), over: Mapping[str, Any] | None = None, *, named: Named = as_keyword
) -> Plan:
    """The plan of a YAML file, with values by their keys and `key.path=value` settings laid over it.

    `named` says what a value of `over` is called in errors. Raises PlanError.
    """
    return read_with_origins(path, settings, over, named=named)[0]


def read_with_origins(
    path: Path, settings: Sequence[str] = (), over: Mapping[str, Any] | None = None, *, named: Named = as_keyword
) -> tuple[Plan, Origins]:
    """`read_plan`, and where each value came from."""
    content, lines = _load(path)
    origins = Origins(str(path), lines)
    return plan_from(content, settings=settings, over=over, named=named, origins=origins), origins


def _load(path: Path) -> tuple[dict[str, Any], dict[Place, int]]:
    """What a YAML file holds, and the line of each value."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    if (path / "journal.jsonl").exists():
        raise PlanError(f"{path}: is a run directory, not a plan file; go on with the run by `multistep resume {path}`")
    if path.is_dir() or (path.suffix.lower() in OF_DATA and path.exists()):
        raise PlanError(
            f"{path}: is not a plan file (YAML); if it holds data, name it with --data {path}, and the task with --task"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        there = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise PlanError(
            f"{path}: no such file; write a plan there, or use --task and --data.{nearest(path.name, there)}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    try:
        content = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise PlanError(f"{path}:{line}: not YAML: {error.problem or error}") from error
    except (YAMLError, ValueError) as error:  # ValueError: a tag that its value does not fit, as in `!!int x`
        raise PlanError(f"{path}: not YAML: {error}") from error
    if not isinstance(content, dict):
        raise PlanError(f"{path}: a plan is a mapping with at least 'task' and 'data'; see `multistep train --help`")
    return builtin(content), lines_of(content)


def plan_from(
    content: Mapping[str, Any],
    *,
    settings: Sequence[str] = (),
    over: Mapping[str, Any] | None = None,
    named: Named = as_keyword,
    origins: Origins | None = None,
) -> Plan:
    """The plan of keywords or of a parsed file. Raises PlanError that says where, what and what is allowed."""
    origins = origins or Origins("plan")
    values = _given(content)
    _lay_over(values, over or {}, named, origins)
    for setting in settings:
        lay_setting(values, setting, origins)
    values = _given(values)  # a setting may take a value back: recipe.learning_rate=
    check_keys(values, origins)
    values = _read_short_forms(values, origins)
    try:
        plan: Plan = _adapter(Plan).validate_python(values)
    except ValidationError as error:
        raise PlanError(explain(error, origins)) from error
    check_meaning(plan, origins)
    return plan


def _lay_over(values: dict[str, Any], over: Mapping[str, Any], named: Named, origins: Origins) -> None:
    """Lay keywords or options over the values, the short ones (`lr`, `epochs`) under the keys that they stand for."""
    laid, called = lay_short_keys(_given(over), named)
    for key, value in sorted(laid.items(), key=lambda pair: "." in pair[0]):  # single settings after whole groups
        origin = named(called[key], over[called[key]])
        group, _, inner = key.rpartition(".")
        if not group:
            values[key] = value
            origins.lay((key,), origin)
            continue
        if isinstance(whole := laid.get(group), Mapping) and whole.get(inner) is not None:
            raise PlanError(f"{origin} and {group} both set {key}; give one of them")
        _refuse_own(values.get("phases"), inner, value, origin)
        if isinstance(known := values.setdefault(group, {}), Mapping):  # what else it may be is refused below
            values[group] = {**known, inner: value}
            origins.lay((group, inner), origin)


def _refuse_own(phases: object, key: str, value: object, origin: str) -> None:
    """Raises PlanError where a phase has the setting itself, so that one for all phases would change nothing there."""
    for index, phase in enumerate(phases if isinstance(phases, list | tuple) else ()):
        recipe = phase.get("recipe") if isinstance(phase, Mapping) else None
        if isinstance(recipe, Mapping) and recipe.get(key) is not None:
            raise PlanError(
                f"{origin}: phase {index + 1} has a {key} of its own ({recipe[key]}), which this does not change; "
                f"change it there: --set phases.{index}.recipe.{key}={value}"
            )


def _given(content: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without the keys that say nothing (`learning_rate: null`), in groups and phases too."""
    values = {str(key): value for key, value in content.items() if value is not None}
    for key in GROUPS:
        if isinstance(values.get(key), Mapping):
            values[key] = {str(inner): value for inner, value in values[key].items() if value is not None}
    if isinstance(values.get("phases"), list | tuple):
        values["phases"] = [_given(phase) if isinstance(phase, Mapping) else phase for phase in values["phases"]]
    return values


def to_yaml(plan: Plan) -> str:
    """The plan as a file that `read_plan` reads back to an equal plan; what has its default is left out."""
    from ruamel.yaml import YAML

    content = _without_defaults(plan)
    out = StringIO()
    yaml = YAML(typ="rt")
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.width = 2**20  # a text that is folded loses its double spaces
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


def _read_short_forms(values: dict[str, Any], origins: Origins) -> dict[str, Any]:
    """`data: corpus.txt`, `model: gpt2`, `budget: 10m`, `until: 3 epochs` to what the dataclasses hold."""
    values = dict(values)
    _short(values, (), origins)
    if isinstance(values.get("phases"), list):
        for index, phase in enumerate(values["phases"]):
            if isinstance(phase, dict):
                _short(phase, ("phases", index), origins)
                phase.setdefault("name", f"phase {index + 1}")
    return values


def _short(values: dict[str, Any], place: Place, origins: Origins) -> None:
    _several_models(values, (*place, "model"), origins)
    if isinstance(task := values.get("task"), str):
        values["task"] = task.strip().lower().replace("_", "-").replace(" ", "-")
    if isinstance(guard := values.get("guard"), dict):
        values["guard"] = guard = _given(guard)
        _short(guard, (*place, "guard"), origins)
    for key, inner in SHORT_FORMS.items():
        if isinstance(values.get(key), str | Path):
            values[key] = {inner: str(values[key])}
    if isinstance(data := values.get("data"), dict):
        values["data"] = _shares(data, (*place, "data"), origins)
    for key in ("budget", "until"):
        value = values.get(key)
        if value is None or isinstance(value, Amount) or (key, value) == ("until", "stable"):
            continue
        try:
            seconds = value.total_seconds() if isinstance(value, timedelta) else None
            values[key] = parse_amount(str(value)) if seconds is None else amount_of_seconds(seconds)
        except PlanError as error:
            said = str(error)
            if key == "until":
                said = said.replace(ALLOWED_AMOUNTS, f"{ALLOWED_AMOUNTS}, 'stable'")
                said = said.partition(" Did you mean")[0] + hint if (hint := nearest(str(value), ["stable"])) else said
            raise PlanError(f"{origins.at((*place, key))}: {key}: {said}") from error
    moves = values.get("moves")
    if moves not in (None, "auto") and not isinstance(moves, list | tuple):
        raise PlanError(f"{origins.at((*place, 'moves'))}: moves is {moves!r}; allowed: a list of names, or auto")
    if isinstance(values.get("recipe"), dict):
        values["recipe"] = _recipe_settings(values["recipe"], (*place, "recipe"), origins)


def _shares(data: dict[str, Any], place: Place, origins: Origins) -> dict[str, Any]:
    """`validation: 0.2` and `test: 0.1` to the shares that are meant."""
    found = dict(data)
    for split in ("validation", "test"):
        if isinstance(found.get(split), int | float) and not isinstance(found[split], bool):
            if f"{split}_share" in found:
                raise PlanError(f"{origins.at((*place, split))}: data.{split} and data.{split}_share: give one of them")
            found[f"{split}_share"] = float(found.pop(split))
    return found


def _several_models(values: dict[str, Any], place: Place, origins: Origins) -> None:
    """`model: [a, b]` and `model: a,b` to candidates; a single one to a name."""
    model = values.get("model")
    if isinstance(model, str) and "," in model and not Path(model).exists():
        model = [name.strip() for name in model.split(",")]
    if isinstance(model, list | tuple) and all(isinstance(name, str | Path) for name in model):
        names = [str(name) for name in model if str(name)]
        if not names:
            raise PlanError(f"{origins.at(place)}: model: the list names no model; allowed: {allowed(place)}")
        values["model"] = {"candidates": names} if len(names) != 1 else {"name": names[0]}


def _recipe_settings(given: dict[str, Any], place: Place, origins: Origins) -> dict[str, Any]:
    """The given settings, each checked and converted by the Recipe's own types (`5e-5` may be a string)."""
    if isinstance(outer := given.get("outer"), dict):
        given = {**given, "outer": _with_steps(_given(outer), (*place, "outer"), origins)}
    try:
        recipe = _adapter(Recipe).validate_python(given)
    except ValidationError as error:
        raise PlanError(explain(error, origins, place)) from error
    return {key: getattr(recipe, key) for key in given}


def _with_steps(outer: dict[str, Any], place: Place, origins: Origins) -> dict[str, Any]:
    """`every: 100 steps` to a number, and so `overlap`."""
    return {
        key: _steps(key, value, place, origins) if key in ("every", "overlap") else value
        for key, value in outer.items()
    }


def _steps(key: str, value: object, place: Place, origins: Origins) -> object:
    if not isinstance(value, str) or value.strip().isdigit():
        return value
    where = f"{origins.at((*place, key))}: recipe.outer.{key} is {value!r}; allowed: steps, such as '100 steps'"
    try:
        amount = parse_amount(value)
    except PlanError as error:
        raise PlanError(where) from error
    if amount.unit is not Unit.STEPS or amount.value != int(amount.value):
        raise PlanError(where)
    return int(amount.value)
