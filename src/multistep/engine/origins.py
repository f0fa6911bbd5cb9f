"""Where the values of a plan came from: a line of its file, or an option laid over it. Errors begin with that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from multistep.errors import PlanError

Place = tuple[str | int, ...]
Named = Callable[[str, Any], str]
SHORT_FORMS = {"data": "source", "model": "name"}  # what a text stands for where a group may stand


def as_option(key: str, value: Any) -> str:
    """How a value is called that a user of the command line gave."""
    return f"--{key.replace('_', '-')} {value}"


def as_keyword(key: str, value: Any) -> str:
    """How a value is called that was given in Python."""
    return f"{key}={value!r}"


class Origins:
    """The places of a plan's values: `name` is the file, or what the plan is called otherwise."""

    def __init__(self, name: str, lines: Mapping[Place, int] | None = None) -> None:
        self._name = name
        self._found = {place: f"{name}:{line}" for place, line in (lines or {}).items()}

    def at(self, place: Place) -> str:
        """Where the value at that place came from, or the nearest group around it."""
        while place and place not in self._found:
            place = place[:-1]
        return self._found.get(place, self._name)

    def lay(self, place: Place, option: str) -> None:
        """From now on, what is at that place and below came from this option."""
        kept = {other: found for other, found in self._found.items() if other[: len(place)] != place}
        self._found = {**kept, place: option}


def lines_of(node: Any, place: Place = ()) -> dict[Place, int]:
    """The line of each key and list entry of a document that ruamel read; keys of a merge (`<<`) have none."""
    found: dict[Place, int] = {}
    if isinstance(node, dict):
        known = node.lc.data or {}  # type: ignore[attr-defined]
        for key, value in node.items():
            if key in known:
                found[(*place, key)] = known[key][0] + 1
            found |= lines_of(value, (*place, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            found[(*place, index)] = node.lc.item(index)[0] + 1  # type: ignore[attr-defined]
            found |= lines_of(value, (*place, index))
    return found


def builtin(node: Any) -> Any:
    """ruamel's node classes as plain Python values."""
    if isinstance(node, dict):
        return {str(key): builtin(value) for key, value in node.items()}
    if isinstance(node, list):
        return [builtin(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def lay_setting(values: dict[str, Any], setting: str, origins: Origins) -> None:
    """Lay `phases.0.recipe.learning_rate=1e-3` over the values. Raises PlanError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path, equals, text = setting.partition("=")
    if not equals or not path.strip():
        raise PlanError(f"--set {setting}: allowed: key.path=value, for instance recipe.learning_rate=1e-3")
    try:
        # A delimiter is the character that was typed, though '|', a tab and others mean something in YAML.
        value = text if len(text) == 1 and path.endswith("delimiter") else builtin(YAML(typ="rt").load(text))
    except YAMLError as error:
        raise PlanError(f"--set {setting}: the value is not YAML") from error
    node: Any = values
    place: Place = ()
    *parents, last = path.strip().split(".")
    for key in parents:
        node, step = _below(node, key, setting)
        place = (*place, step)
        if not isinstance(node, dict | list):
            raise PlanError(f"--set {setting}: '{key}' holds a value, not a group of settings")
    if isinstance(node, list):
        raise PlanError(f"--set {setting}: name a setting of one list entry, for instance phases.0.until=3 epochs")
    node[last] = value
    origins.lay((*place, last), f"--set {setting}")


def _below(node: Any, key: str, setting: str) -> tuple[Any, str | int]:
    """What stands under a key of a group, which is made where it is missing, or at an index of a list."""
    if isinstance(node, list):
        if not key.isdigit() or int(key) >= len(node):
            raise PlanError(f"--set {setting}: '{key}' is no index of a list of {len(node)} (0 is the first)")
        return node[int(key)], int(key)
    if isinstance(node.get(key), str) and key in SHORT_FORMS:
        node[key] = {SHORT_FORMS[key]: node[key]}
    return node.setdefault(key, {}), key
