"""Values -> plain JSON, the same way for the journal, the resolved plan and `--json`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any


def plain(value: object) -> Any:
    """Dataclasses, mappings and sequences as JSON knows them; NaN and infinity, which it does not, as strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def to_json(value: object, *, indent: int | None = None) -> str:
    """One JSON text; keys keep their order, letters of any script stay readable."""
    return json.dumps(plain(value), ensure_ascii=False, indent=indent, allow_nan=False)
